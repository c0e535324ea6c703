"""Images of prompts whose meaning is spelled out by hand: pieces, weights, chunks, steps, parts.

Nothing here comes from the code under test. diffusers' pipeline gets ``prompt_embeds`` that are
made here of token ids, and a callback that puts others in their place before a step. Where a
prompt has several parts, the UNet is asked once for each, and their answers are added here.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from service.core.spec import GenerationSpec
from tests.support.parity.pairs import DEMO, Pairs
from tests.support.parity.references import Reference, demand_numbers

Pieces = Sequence[tuple[str, float]]
"""Texts with their weights."""

Meaning = Sequence[Pieces]
"""The chunks of a text."""

Embedding = tuple[torch.Tensor, torch.Tensor]
"""Hidden states and, for SDXL, the pooled text; else an empty tensor."""

STEP_OF: Final[Mapping[str, Callable[[int], int]]] = {
    **dict.fromkeys(("heun", "dpm2", "dpm2_a", "dpmpp_sde"), lambda evaluation: evaluation // 2),
    "pndm": lambda evaluation: max(evaluation - 1, 0),
}
"""The step, from 0, of an evaluation, where one step takes several."""

NO_GUIDANCE: Final = 1 + 1e-9
"""The scale that makes diffusers ask for the negative prompt and add nothing for it."""


@dataclass(frozen=True, kw_only=True)
class Meant:
    """What the texts of a request mean in one step."""

    parts: Sequence[tuple[Meaning, float]]
    """Each part of the prompt, with its weight."""
    negative: Meaning


@dataclass(frozen=True)
class Case:
    """A request, and what its texts mean in each step; the last meaning stays."""

    request: GenerationSpec
    steps: Sequence[Meant]


def chunk(text: str) -> Meaning:
    """Return the meaning of a short text without weights."""
    return (((text, 1.0),),)


def meant(prompt: Meaning, negative: Meaning | None = None) -> Meant:
    """Return a prompt of one part."""
    return Meant(parts=((prompt, 1.0),), negative=negative or chunk(""))


class PromptPairs(Pairs):
    """Models whose text encoders have a mean to restore, as trained ones do.

    Without a bias the last layer's normalisation leaves a mean of nothing but rounding.
    """

    def _folder(self, kind: str) -> Path:
        folder = super()._folder(kind)
        if kind == DEMO:  # It is trained, and not ours to change.
            return folder
        for path in folder.glob("text_encoder*/*.safetensors"):
            tensors = load_file(path)
            (name,) = (each for each in tensors if each.endswith("final_layer_norm.bias"))
            tensors[name] = torch.linspace(-0.1, 0.5, len(tensors[name]))
            save_file(tensors, path, metadata={"format": "pt"})
        return folder


class PromptReference:
    """Makes images of meanings with the pipeline of a reference."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._pipeline: Any = reference.pipeline
        self._xl = hasattr(self._pipeline, "text_encoder_2")

    def images(self, request: GenerationSpec, steps: Sequence[Meant]) -> list[np.ndarray]:
        """Return the images of a request whose texts mean ``steps``; the last one stays."""
        known: dict[str, Embedding] = {}
        embedded = [
            known.get(str(each)) or known.setdefault(str(each), self._embedded(request, each))
            for each in steps
        ]
        weights = [weight for _, weight in steps[0].parts]
        return [self._image(request, seed, embedded, weights) for seed in request.seeds]

    def rounded_images(self, request: GenerationSpec, steps: Sequence[Meant]) -> list[np.ndarray]:
        """Return the images after other rounding, of a unit in the last place, in the UNet."""
        with self._reference.rounded_otherwise():
            return self.images(request, steps)

    def _image(
        self,
        request: GenerationSpec,
        seed: int,
        embedded: Sequence[Embedding],
        weights: Sequence[float],
    ) -> np.ndarray:
        def of(evaluation: int) -> Embedding:
            step = STEP_OF.get(request.sampler, int)(evaluation)
            return embedded[min(step, len(embedded) - 1)]

        guided = request.guidance_scale > 1 or len(weights) > 1

        def before_next(_pipe: Any, index: int, _time: Any, _tensors: Any) -> dict[str, Any]:
            states, pooled = of(index + 1)
            found = {"prompt_embeds": states, "add_text_embeds": pooled}
            return {name: each if guided else each[1:] for name, each in found.items()}

        states, pooled = of(0)
        given: dict[str, Any] = {"callback_on_step_end": before_next}
        if self._xl:
            given["pooled_prompt_embeds"] = pooled[1:2]
            given["negative_pooled_prompt_embeds"] = pooled[:1]
        inputs = self._reference.inputs(request)
        self._reference.set_scheduler(request, seed)
        pipeline = self._reference.pipeline_of(inputs)
        scale = request.guidance_scale
        if len(weights) > 1:
            del given["callback_on_step_end"]
            scale = max(scale, NO_GUIDANCE)
        with self._adding(weights, of):
            found = pipeline(
                prompt_embeds=states[1:2],
                negative_prompt_embeds=states[:1],
                num_inference_steps=request.steps,
                guidance_scale=scale,
                eta=request.eta,
                generator=torch.Generator("cpu").manual_seed(seed),
                output_type="np",
                **self._reference.taken(pipeline, request),
                **inputs,
                **given,
            ).images
        demand_numbers(found)
        (image,) = pipeline.image_processor.numpy_to_pil(found)
        return np.asarray(image)

    @contextmanager
    def _adding(self, weights: Sequence[float], of: Callable[[int], Embedding]) -> Iterator[None]:
        """Let the UNet answer for several parts at once: u and u + sum of w (c - u)."""
        unet = self._pipeline.unet
        ask, calls = unet.forward, iter(range(10_000))

        def asked(latents: Any, timestep: Any, **rest: Any) -> tuple[torch.Tensor]:
            states, pooled = of(next(calls))
            sizes = (rest.pop("added_cond_kwargs", None) or {}).get("time_ids")
            answers = []
            for row in range(len(states)):
                rest["encoder_hidden_states"] = states[row : row + 1]
                if sizes is not None:
                    own = {"time_ids": sizes[:1], "text_embeds": pooled[row : row + 1]}
                    rest["added_cond_kwargs"] = own
                answers.append(ask(latents[:1], timestep, **rest)[0])
            negative, *parts = answers
            changes = [w * (each - negative) for w, each in zip(weights, parts, strict=True)]
            return (torch.cat([negative, negative + torch.stack(changes).sum(0)]),)

        if len(weights) > 1:
            unet.forward = asked
        try:
            yield
        finally:
            unet.forward = ask

    @torch.no_grad()
    def _embedded(self, request: GenerationSpec, step: Meant) -> Embedding:
        """Return the embeddings of the negative prompt and of the parts, of one length."""
        # AUTOMATIC1111 leaves layers out for the negative prompt, too, and diffusers does not.
        skipped = request.clip_skip - 1
        both = skipped if request.prompt_syntax == "a1111" else 0
        found = [self._embedding(step.negative, both)]
        found += [self._embedding(part, skipped) for part, _ in step.parts]
        if self._xl and not request.negative_prompt:
            # SDXL was trained with zeros for no negative prompt.
            found[0] = torch.zeros_like(found[1][0]), torch.zeros_like(found[1][1])
        length = math.lcm(*(states.shape[1] for states, _ in found))
        # The same keys and values k times over: softmax gives each copy a k-th of the weight.
        states = torch.cat([each.repeat(1, length // each.shape[1], 1) for each, _ in found])
        return states, torch.cat([pooled for _, pooled in found])

    def _embedding(self, meaning: Meaning, skipped: int) -> Embedding:
        pipeline = self._pipeline

        def encoded(words: Any, network: Any) -> list[Embedding]:
            return [self._encoded(words, network, each, skipped) for each in meaning]

        left = encoded(pipeline.tokenizer, pipeline.text_encoder)
        if not self._xl:
            return torch.cat([found[0] for found in left], dim=1), torch.zeros(1, 0)
        right = encoded(pipeline.tokenizer_2, pipeline.text_encoder_2)
        wide = [torch.cat([found[0] for found in side], dim=1) for side in (left, right)]
        return torch.cat(wide, dim=2), right[0][1]

    def _encoded(self, words: Any, network: Any, pieces: Pieces, skipped: int) -> Embedding:
        """Return what an encoder makes of one chunk, its weights applied."""
        most = words.model_max_length
        ids, weights = [words.bos_token_id], [1.0]
        for text, weight in pieces:
            tokens = words(text, add_special_tokens=False).input_ids
            ids += tokens
            weights += [weight] * len(tokens)
        ids.append(words.eos_token_id)
        assert len(ids) <= most, "a chunk of the test is too long"
        mask = torch.tensor([[1] * len(ids) + [0] * (most - len(ids))])
        ids += [words.pad_token_id] * (most - len(ids))
        weights += [1.0] * (most - len(weights))
        masked = getattr(network.config, "use_attention_mask", False) and not self._xl
        found = network(
            torch.tensor([ids]), attention_mask=mask if masked else None, output_hidden_states=True
        )
        states = found.hidden_states[-1 - self._xl - skipped]
        if not self._xl:
            states = network.final_layer_norm(states)
        if set(weights) != {1.0}:
            weighted = states * torch.tensor(weights).view(1, -1, 1)
            states = weighted * (states.mean() / weighted.mean())
        return states, getattr(found, "text_embeds", torch.zeros(1, 0))
