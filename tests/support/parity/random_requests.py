"""Requests drawn at random over everything that decides an image, and what each of them means."""

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from service.core.sampler import ETA, Sampler, Schedule
from service.core.spec import GenerationSpec
from service.http.schema.generation import generation_of
from service.models.adapters.catalog import AdapterCatalog
from tests.support.models import adapter_files, embedding_files
from tests.support.models.adapter_files import AdapterFile
from tests.support.parity import adapted, comparison, gallery
from tests.support.parity.cases import Verdict, doubted, verdict
from tests.support.parity.pairs import DEMO
from tests.support.parity.prompts import Meant, PromptPairs, PromptReference, chunk, meant
from tests.support.parity.random_prompts import EMBEDDINGS, LETTERS, chunks, random_prompt
from tests.support.parity.references import NoImageError, Reference

FAMILIES: Final[Mapping[str, str]] = {
    "SD 1.5": "sd",
    "SD 2.1-v": "sd21_v",
    "SDXL": "sdxl",
    "demo": DEMO,
}
"""Models as requests and ``Pairs`` call them, by what they stand for."""

SCALE: Final = {DEMO: 4}
"""Its autoencoder shrinks by eight, and those of the others by two."""

ADAPTERS: Final = ("attention", "everything", "peft", *adapter_files.KINDS)
PLAIN: Final = (
    "a cat",
    "a (cat:1.4) [x|y] AND b",
    r"two \\(Words\\), <lora:none:1> 3rd! BREAK",
    "a <one> cat, <trio>",
    "x" * 90,
)
TOGETHER: Final = 96
"""Requests that arrive at once: to all models, each of which draws eight images at a time."""
GROUPS: Final = (
    *("start", "sampler", "schedule", "steps", "guidance", "eta", "clip_skip", "images", "size"),
    *("syntax", "prompt", "embeddings", "adapters", "adapter", "batch"),
)
"""Of the constructs, in the order of the table."""


@dataclass(frozen=True, kw_only=True)
class RandomRequest:
    """A request of a model; the same seed and number give the same one."""

    number: int
    request: GenerationSpec
    meaning: tuple[Meant, ...] = field(repr=False)
    """What its texts mean in each step; empty where diffusers reads them itself."""
    constructs: tuple[str, ...]

    def __str__(self) -> str:
        return f"request {self.number}: {self.request}"


def random_request(seed: int, number: int) -> RandomRequest:
    """Return a request: how it is drawn, what its texts are, what changes the model."""
    chance = random.Random(f"{seed}, {number}")  # noqa: S311 - to be repeated, not to be secret
    sampler = chance.choice(list(Sampler))
    # A few pairs that do not exist; of LCM and TCD diffusers takes them, and draws its own.
    odd = chance.random() < 0.04 and sampler.most_steps is None
    steps = chance.choice((1, 2, 3, 4, 6))
    model = list(FAMILIES.values())[number % len(FAMILIES)]
    body: dict[str, Any] = {
        "model": model,
        "sampler": sampler,
        "schedule": chance.choice(list(Schedule) if odd else sampler.schedules),
        "steps": steps,
        # The larger it is, and the more parts a prompt has, the more rounding shows.
        "guidance_scale": chance.choice((0.0, 1.0, 2.0, 4.0, 7.5)),
        "guidance_rescale": chance.choice((0.0, 0.0, 0.7, 1.0)),
        "eta": chance.choice((0.0, 0.4, 1.0)) if sampler in ETA else 0.0,
        "clip_skip": chance.choice((1, 1, 1, 2)),
        "seed": chance.randrange(2**32),
        "subseed_strength": 0.0,
        "num_images": chance.choice((1, 1, 1, 2)),
        "width": chance.choice((32, 32, 16)) * SCALE.get(model, 1),
        "height": chance.choice((32, 32, 16)) * SCALE.get(model, 1),
    }
    meaning = _texts(chance, body)
    _adapters(chance, body)
    _start(random.Random(f"start, {seed}, {number}"), body)  # noqa: S311 - as above
    request = generation_of(body)
    return RandomRequest(
        number=number, request=request, meaning=meaning, constructs=tuple(_constructs(request))
    )


def _texts(chance: random.Random, body: dict[str, Any]) -> tuple[Meant, ...]:
    """Add both prompts to a request; return what they mean."""
    kind = chance.choice(("plain", "plain", "chunks", *["a1111"] * 5))
    if kind == "plain":
        body["prompt"] = chance.choice(PLAIN)
        body["negative_prompt"] = chance.choice(("", "a dog", "(b)", "y" * 80, "<one>"))
        return ()
    body["long_prompts"] = "chunks"
    if kind == "chunks":
        words = chance.choices((*LETTERS, "<trio>"), k=chance.choice((40, 90, 160)))
        body["prompt"], body["negative_prompt"] = " ".join(words), "a dog"
        return (meant(chunks([(body["prompt"], 1.0)]), chunk("a dog")),)
    found = random_prompt(chance, body["steps"])
    body |= {
        "prompt": found.written,
        "negative_prompt": found.negative,
        "prompt_syntax": "a1111",
    }
    return found.steps


def _adapters(chance: random.Random, body: dict[str, Any]) -> None:
    """Add adapters to a request, as a list or in the text."""
    names = chance.sample(ADAPTERS, chance.choice((0, 0, 1, 1, 2, 3)))
    tags = body.get("prompt_syntax") == "a1111" and chance.random() < 0.4
    listed = []
    for name in names:
        weight, text = chance.choice((1.0, 0.7, -0.4)), chance.choice((0.0, 0.5, 1.0))
        if tags:
            form = f":{text}:{weight}" if chance.random() < 0.5 else f":unet={weight}:te={text}"
            body["prompt"] = f"<lora:{name}{form}>{body['prompt']}"
        else:
            listed.append(adapted.adapter(name, weight, text))
    body["adapters"] = tuple(listed)


def _start(chance: random.Random, body: dict[str, Any]) -> None:
    """Let a request begin with an image, or repaint a part of one."""
    kind = chance.choice(("text", "text", "image", "image", "mask"))
    if kind == "text":
        return
    body["image"] = gallery.reference(chance.randrange(100), body["width"], body["height"])
    strengths = (0.35, 0.5, 0.8, 0.95, 1.0)
    body["strength"] = chance.choice([each for each in strengths if each * body["steps"] >= 1])
    if body["model"] != "sdxl":
        body["guidance_rescale"] = 0.0  # diffusers has it in no other pipeline with images.
    if kind == "mask":
        body["mask"] = gallery.reference(100 + chance.randrange(100))


def _constructs(request: GenerationSpec) -> Iterator[str]:
    """Say what a request is made of, by its words."""
    text, steps = f"{request.prompt} {request.negative_prompt}", request.steps
    yield f"start {'mask' if request.mask else 'image' if request.image else 'text'}"
    yield f"sampler {request.sampler}"
    yield f"schedule {request.schedule}"
    yield f"steps {steps}" if steps == 1 else f"steps {'2-4' if steps < 5 else '6'}"
    guided = request.guidance_scale > 1
    yield f"guidance {'with' if guided else 'without'}"
    if guided and request.guidance_rescale:
        yield "guidance rescaled"
    if request.eta:
        yield "eta above 0"
    yield f"clip_skip {request.clip_skip}"
    yield f"images {request.num_images}"
    scale = SCALE.get(request.model, 1)
    yield f"size {request.width // scale}x{request.height // scale}"
    long = ", chunks" if request.long_prompts == "chunks" else ""
    yield f"syntax {request.prompt_syntax}{long}"
    yield f"prompt negative {'given' if request.negative_prompt else 'empty'}"
    if request.prompt_syntax == "a1111":
        plain = text.replace("\\|", "").replace("\\:", "").replace("\\[", "").replace("\\(", "")
        marks = {"weights": "(", "changes": "[", "turns": "|", "escapes": "\\", "BREAK": "BREAK"}
        marks |= {"AND": " AND ", "tags": "<lora:"}
        yield from (
            f"prompt {name}"
            for name, mark in marks.items()
            if mark in (text if name == "escapes" else plain)
        )
    yield f"embeddings {'named' if NAMED.search(text) else 'none'}"
    yield f"adapters {len(request.adapters)}"
    yield from (f"adapter {each.name}" for each in request.adapters)


NAMED: Final = re.compile(rf"\b({'|'.join(EMBEDDINGS)})\b", re.IGNORECASE)
"""An embedding's name; other words are letters, or none of them."""


class RequestReference:
    """Draws random requests with diffusers: texts as they mean, adapters within the weights."""

    def __init__(
        self,
        reference: Reference,
        files: Mapping[str, AdapterFile],
        requests: Sequence[RandomRequest],
    ) -> None:
        self._reference = reference
        self._prompts = PromptReference(reference)
        self._files = files
        self._meanings = {each.request: each.meaning for each in requests}

    def images(self, request: GenerationSpec) -> list[np.ndarray]:
        """Return the images of a request.

        Raises:
            NoImageError: diffusers makes none.

        """
        with adapted.changed(self._reference.pipeline, request, self._files):
            if not self._meanings[request]:
                return self._reference.images(request)
            try:
                return self._prompts.images(request, self._meanings[request])
            except Exception as error:
                raise NoImageError(f"{type(error).__name__}: {error}") from error

    def rounded_images(self, request: GenerationSpec) -> list[np.ndarray]:
        """Return the images after other rounding, of a unit in the last place, in the UNet."""
        with self._reference.rounded_otherwise():
            return self.images(request)


class Comparison:
    """Models with adapters and embeddings, each in a folder of its own below ``root``."""

    def __init__(self, root: Path) -> None:
        self.pairs = PromptPairs(root / "models")
        self._files: dict[str, Mapping[str, AdapterFile]] = {}
        self._adapters: dict[str, AdapterCatalog] = {}
        for kind in FAMILIES.values():
            pipeline, folder = self.pairs(kind).reference.pipeline, root / "loras" / kind
            self._files[kind] = adapter_files.several(folder, pipeline)
            embedding_files.taught(pipeline, embedding_files.written(folder, pipeline))
            self._adapters[kind] = AdapterCatalog(folder)

    def __call__(self, requests: Sequence[RandomRequest]) -> Iterator[Verdict]:
        """Draw requests in company, and each by itself in diffusers; say what each shows."""
        for first in range(0, len(requests), TOGETHER):
            yield from self._together(requests[first : first + TOGETHER])

    def _together(self, requests: Sequence[RandomRequest]) -> Iterator[Verdict]:
        models = {kind: self.pairs(kind).model for kind in FAMILIES.values()}
        references = {
            kind: RequestReference(self.pairs(kind).reference, self._files[kind], requests)
            for kind in models
        }
        ours = comparison.pooled(
            models, {str(each.number): each.request for each in requests}, adapters=self._adapters
        )
        for each in requests:
            kind = each.request.model
            found = verdict(each, ours[str(each.number)], references[kind])
            if found.kind == "different":
                adapters = self._adapters[kind]
                found = doubted(found, models[kind], references[kind], adapters=adapters)
            yield found


def table(verdicts: Iterable[Verdict]) -> str:
    """Return how many requests with each construct were same, refused and sensitive, by model.

    A fourth number is of faults.
    """
    counts: dict[str, dict[str, Counter[str]]] = {}
    for each in verdicts:
        kind = each.kind if each.good else "fault"
        made = each.case.constructs if isinstance(each.case, RandomRequest) else ()
        for construct in ("all", *made, *(["batch shared"] if each.shared else [])):
            row = counts.setdefault(construct, {})
            row.setdefault(each.case.request.model, Counter())[kind] += 1

    def order(construct: str) -> tuple[int, str]:
        group = construct.split(maxsplit=1)[0]
        return (GROUPS.index(group) if group in GROUPS else -1), construct

    lines = [" | ".join((f"{'same/refused/sensitive':24}", *(f"{each:>12}" for each in FAMILIES)))]
    for construct in sorted(counts, key=order):
        cells = [_cell(counts[construct].get(model, Counter())) for model in FAMILIES.values()]
        lines.append(" | ".join((f"{construct:24}", *(f"{each:>12}" for each in cells))))
    return "\n".join(lines)


def _cell(count: Counter[str]) -> str:
    kinds = ("same", "refused", "sensitive", *(["fault"] if count["fault"] else []))
    return "/".join(str(count[kind]) for kind in kinds)
