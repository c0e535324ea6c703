import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from service.core.spec import GenerationSpec
from service.diffusion.conditioning.encoding import Conditioning
from service.diffusion.families.unet import _of_one_length
from service.diffusion.load import Model
from service.diffusion.loop.row import Row
from service.diffusion.loop.starts.base import TextStart

REQUEST = GenerationSpec(prompt="a cat", negative_prompt="a dog", width=32, height=16, steps=4)


def conditioned(model: Model, request: GenerationSpec = REQUEST) -> Conditioning:
    """Return what guides a request's images."""
    return model.family.condition(request, model.family.encode)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    """Compute as the step loop does."""
    with torch.inference_mode():
        yield


def test_sd_embeddings_are_the_pipelines(sd: Model) -> None:
    """The prompt's and the negative prompt's embeddings are those of encode_prompt."""
    positive, negative = sd.family.pipeline.encode_prompt(
        "a cat", sd.device, 1, do_classifier_free_guidance=True, negative_prompt="a dog"
    )

    found = conditioned(sd)

    assert [text.states.shape for text in found.texts] == [(1, 77, 32)] * 2
    assert torch.equal(negative, found.texts[0].states)
    assert torch.equal(positive, found.texts[1].states)
    assert not found.extras


def test_sdxl_embeddings_are_the_pipelines(model: Callable[[str], Model]) -> None:
    """SDXL adds the pooled text of its second encoder and the six size numbers."""
    sdxl = model("sdxl")
    positive, negative, pooled, negative_pooled = sdxl.family.pipeline.encode_prompt(
        "a cat", negative_prompt="a dog"
    )

    found = conditioned(sdxl)

    assert torch.equal(negative, found.texts[0].states)
    assert torch.equal(positive, found.texts[1].states)
    assert found.texts[0].pooled is not None
    assert found.texts[1].pooled is not None
    assert torch.equal(negative_pooled, found.texts[0].pooled)
    assert torch.equal(pooled, found.texts[1].pooled)
    assert list(found.extras) == ["time_ids"]
    assert found.extras["time_ids"].tolist() == [[16, 32, 0, 0, 16, 32]]


def test_sdxl_without_negative_prompt(model: Callable[[str], Model]) -> None:
    """An SDXL that was trained with zeros for no negative prompt gets zeros."""
    found = conditioned(model("sdxl"), replace(REQUEST, negative_prompt=""))

    assert not found.texts[0].states.any()
    assert found.texts[0].pooled is not None
    assert not found.texts[0].pooled.any()


@pytest.mark.parametrize(("scale", "rows"), [(0.0, 1), (1.0, 1), (1.01, 2), (7.5, 2)])
def test_guidance_rows(sd: Model, scale: float, rows: int) -> None:
    """Up to a guidance scale of 1 there is no row for the negative prompt."""
    found = conditioned(sd, replace(REQUEST, guidance_scale=scale))

    assert rows == len(found.texts)


def test_distilled_guidance(model: Callable[[str], Model]) -> None:
    """A distilled model gets the scale itself, and no second row."""
    lcm = model("lcm")
    expected = lcm.family.pipeline.get_guidance_scale_embedding(
        torch.tensor([6.5]), embedding_dim=16
    )

    found = conditioned(lcm)

    assert len(found.texts) == 1
    assert list(found.extras) == ["timestep_cond"]
    assert torch.equal(expected, found.extras["timestep_cond"])


@pytest.mark.parametrize(("letters", "cut"), [(0, 0), (75, 0), (76, 1), (200, 125)])
@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_tokens_cut(model: Callable[[str], Model], kind: str, letters: int, cut: int) -> None:
    """Of 77 tokens two are marks; each one beyond them is counted."""
    found = conditioned(model(kind), replace(REQUEST, prompt="x " * letters))

    assert (found.tokens, found.tokens_cut) == (letters, cut)


@pytest.mark.parametrize("kind", ["sd", "sdxl", "lcm", "tiny_vae"])
def test_rows_do_not_feel_each_other(model: Callable[[str], Model], kind: str) -> None:
    """Rows at other timesteps, guided or not, get from one call what each gets alone."""
    loaded = model(kind)
    requests = [
        replace(REQUEST, negative_prompt="", seed=5),
        replace(REQUEST, prompt="a dog", seed=5, guidance_scale=1.0, sampler="euler"),
        replace(REQUEST, negative_prompt="x", sampler="dpmpp_2m_karras", steps=9, seed=1),
    ]
    rows = [
        Row(
            loaded,
            loaded.samplers.new(request.sampler, request.steps),
            TextStart(request),
            request.seed,
            conditioned(loaded, request),
        )
        for request in requests
    ]
    rows[2].advance(torch.cat([rows[2].model_input()] * len(rows[2].conditioning.texts)))

    together = loaded.family.denoise(rows)

    for row, prediction in zip(rows, together, strict=True):
        (alone,) = loaded.family.denoise([row])
        assert len(row.conditioning.texts) == len(prediction)
        torch.testing.assert_close(prediction, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_texts_of_other_lengths_in_half_precision(model: Callable[[str], Model], kind: str) -> None:
    """The mask of the padding is exact in float16, too: its bias is no overflow, and no weight."""
    family = model(kind).family
    unet: Any = copy.deepcopy(family.pipeline.unet).half()
    width, rows = unet.config.cross_attention_dim, 2
    draw = torch.Generator().manual_seed(3)
    short, long = (torch.randn(1, n, width, generator=draw).half() for n in (77, 231))
    latents = torch.randn(rows, 4, 16, 16, generator=draw).half()
    added = None
    if kind == "sdxl":
        added = {"time_ids": torch.ones(rows, 6).half(), "text_embeds": torch.ones(rows, 32).half()}
    states, mask = _of_one_length([short, long])

    together = unet(
        latents, 500, states, encoder_attention_mask=mask, added_cond_kwargs=added
    ).sample
    alone = unet(
        latents[:1],
        500,
        short,
        added_cond_kwargs=added and {name: each[:1] for name, each in added.items()},
    ).sample

    assert mask is not None
    assert mask.dtype == torch.float16
    torch.testing.assert_close(together[:1], alone, rtol=1e-2, atol=2e-3)
