"""The texts of a request, by the step in which they guide its images."""

from dataclasses import dataclass

from service.core.prompt import language
from service.core.prompt.language import Prompt
from service.core.prompt.syntax import LongPrompts, PromptSyntax
from service.core.spec import GenerationSpec
from service.diffusion.conditioning.encoding import Reading


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The prompts of a request, and how they are read."""

    prompt: Prompt
    negative: Prompt
    reading: Reading

    @property
    def composed(self) -> bool:
        """Whether several texts guide an image, which a negative prompt is then part of."""
        return len(self.prompt.subprompts) > 1

    def by_step(self, steps: int) -> list[tuple[str, ...]]:
        """Return the negative prompt and the sub-prompts of each step."""
        both = zip(self.negative.by_step(steps), self.prompt.by_step(steps), strict=True)
        return [(*negative, *prompts) for negative, prompts in both]


def texts_of(request: GenerationSpec) -> Texts:
    """Return the texts of a request in its syntax."""
    chunked = request.long_prompts == LongPrompts.CHUNKS
    if request.prompt_syntax == PromptSyntax.PLAIN:
        return Texts(
            prompt=language.literal(request.prompt),
            negative=language.literal(request.negative_prompt),
            reading=Reading(chunked=chunked),
        )
    return Texts(
        prompt=language.parse(request.prompt),
        negative=language.parse(request.negative_prompt, negative=True),
        reading=Reading(weighted=True, chunked=chunked),
    )
