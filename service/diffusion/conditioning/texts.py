"""The texts of a request, by the step in which they guide its images."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from service.core.prompt import language, words
from service.core.prompt.language import Prompt
from service.core.prompt.syntax import LongPrompts, PromptSyntax
from service.core.spec import GenerationSpec
from service.diffusion.conditioning.encoding import Reading, Word


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The prompts of a request, and how they are read."""

    prompt: Prompt
    negative: Prompt
    reading: Reading
    negative_reading: Reading
    """How the negative prompt is read."""
    words: tuple[Word, ...] = ()
    """Names that may stand in the texts."""

    def reading_of(self, text: str, *, negative: bool = False) -> Reading:
        """Return how one of the texts is read, with the names that stand in it."""
        reading = self.negative_reading if negative else self.reading
        known = {each.name: each for each in self.words}
        found = words.named_in(text, known, bare=reading.weighted)
        return replace(reading, words=tuple(known[name] for name in found)) if found else reading

    @property
    def composed(self) -> bool:
        """Whether several texts guide an image, which a negative prompt is then part of."""
        return len(self.prompt.subprompts) > 1

    def by_step(self, steps: int, *, after: int = 0) -> list[tuple[str, ...]]:
        """Return the negative prompt and the sub-prompts of each step, ``after`` so many others."""
        both = (each.by_step(steps, after=after) for each in (self.negative, self.prompt))
        return [(*negative, *prompts) for negative, prompts in zip(*both, strict=True)]


def texts_of(request: GenerationSpec, named: Iterable[Word] = ()) -> Texts:
    """Return the texts of a request in its syntax.

    AUTOMATIC1111 leaves layers out for both prompts, and diffusers for the prompt alone.
    """
    chunked = request.long_prompts == LongPrompts.CHUNKS
    skipped = request.clip_skip - 1
    if request.prompt_syntax == PromptSyntax.PLAIN:
        return Texts(
            prompt=language.literal(request.prompt),
            negative=language.literal(request.negative_prompt),
            reading=Reading(chunked=chunked, skipped=skipped),
            negative_reading=Reading(chunked=chunked),
            words=tuple(named),
        )
    reading = Reading(weighted=True, chunked=chunked, skipped=skipped)
    return Texts(
        prompt=language.parse(request.prompt),
        negative=language.parse(request.negative_prompt, negative=True),
        reading=reading,
        negative_reading=reading,
        words=tuple(named),
    )
