from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from service.diffusion import encoding
from service.diffusion.encoding import Encoder
from service.diffusion.generation import GenerationRequest
from service.diffusion.load import Model

REQUEST = GenerationRequest(prompt="a cat", negative_prompt="a dog", width=32, height=16)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    """Encode as the step loop does."""
    with torch.inference_mode():
        yield


def test_sd_embeddings_are_the_pipelines(sd: Model) -> None:
    """The prompt's and the negative prompt's embeddings are those of encode_prompt."""
    positive, negative = sd.pipeline.encode_prompt(
        "a cat", sd.device, 1, do_classifier_free_guidance=True, negative_prompt="a dog"
    )

    found = Encoder(sd).conditioning(REQUEST)

    assert [text.states.shape for text in found.texts] == [(1, 77, 32)] * 2
    assert torch.equal(negative, found.texts[0].states)
    assert torch.equal(positive, found.texts[1].states)
    assert (found.time_ids, found.timestep_cond) == (None, None)


def test_sdxl_embeddings_are_the_pipelines(model: Callable[[str], Model]) -> None:
    """SDXL adds the pooled text of its second encoder and the six size numbers."""
    sdxl = model("sdxl")
    positive, negative, pooled, negative_pooled = sdxl.pipeline.encode_prompt(
        "a cat", negative_prompt="a dog"
    )

    found = Encoder(sdxl).conditioning(REQUEST)

    assert torch.equal(negative, found.texts[0].states)
    assert torch.equal(positive, found.texts[1].states)
    assert found.texts[0].pooled is not None
    assert found.texts[1].pooled is not None
    assert torch.equal(negative_pooled, found.texts[0].pooled)
    assert torch.equal(pooled, found.texts[1].pooled)
    assert found.time_ids is not None
    assert found.time_ids.tolist() == [[16, 32, 0, 0, 16, 32]]


def test_sdxl_without_negative_prompt(model: Callable[[str], Model]) -> None:
    """An SDXL that was trained with zeros for no negative prompt gets zeros."""
    found = Encoder(model("sdxl")).conditioning(replace(REQUEST, negative_prompt=""))

    assert not found.texts[0].states.any()
    assert found.texts[0].pooled is not None
    assert not found.texts[0].pooled.any()


@pytest.mark.parametrize(("scale", "rows"), [(0.0, 1), (1.0, 1), (1.01, 2), (7.5, 2)])
def test_guidance_rows(sd: Model, scale: float, rows: int) -> None:
    """Up to a guidance scale of 1 there is no row for the negative prompt."""
    found = Encoder(sd).conditioning(replace(REQUEST, guidance_scale=scale))

    assert rows == len(found.texts)


def test_distilled_guidance(model: Callable[[str], Model]) -> None:
    """A distilled model gets the scale itself, and no second row."""
    lcm = model("lcm")
    expected = lcm.pipeline.get_guidance_scale_embedding(torch.tensor([6.5]), embedding_dim=16)

    found = Encoder(lcm).conditioning(REQUEST)

    assert len(found.texts) == 1
    assert found.timestep_cond is not None
    assert torch.equal(expected, found.timestep_cond)


@pytest.mark.parametrize(("letters", "cut"), [(0, 0), (75, 0), (76, 1), (200, 125)])
@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_tokens_cut(model: Callable[[str], Model], kind: str, letters: int, cut: int) -> None:
    """Of 77 tokens two are marks; each one beyond them is counted."""
    found = Encoder(model(kind)).conditioning(replace(REQUEST, prompt="x " * letters))

    assert cut == found.tokens_cut


def test_repeated_texts_are_encoded_once(sd: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings of recent texts are kept, the oldest unused one leaves first."""
    monkeypatch.setattr(encoding, "CACHED_TEXTS", 2)
    encoder = Encoder(sd)

    first = encoder.conditioning(REQUEST)
    again = encoder.conditioning(REQUEST)
    encoder.conditioning(replace(REQUEST, prompt="a bird"))
    later = encoder.conditioning(replace(REQUEST, prompt="a dog"))

    assert [text is same for text, same in zip(first.texts, again.texts, strict=True)] == [True] * 2
    assert later.texts[0] is first.texts[0]
    assert encoder.conditioning(REQUEST).texts[1] is not first.texts[1]
