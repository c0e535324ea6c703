from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from service.diffusion.batch import predict
from service.diffusion.encoding import Encoder
from service.diffusion.generation import GenerationRequest
from service.diffusion.load import Model
from service.diffusion.row import Row

REQUEST = GenerationRequest(prompt="a cat", width=32, height=16, steps=4, seed=5)


@pytest.mark.parametrize("kind", ["sd", "sdxl", "lcm", "tiny_vae"])
def test_rows_do_not_feel_each_other(model: Callable[[str], Model], kind: str) -> None:
    """Rows at other timesteps, guided or not, get from one call what each gets alone."""
    loaded = model(kind)
    requests = [
        REQUEST,
        replace(REQUEST, prompt="a dog", guidance_scale=1.0, sampler="euler"),
        replace(REQUEST, negative_prompt="x", sampler="dpmpp_2m_karras", steps=9, seed=1),
    ]
    with torch.inference_mode():
        encoder = Encoder(loaded)
        rows = [
            Row(
                loaded,
                loaded.samplers.new(request.sampler, request.steps),
                request,
                request.seed,
                encoder.conditioning(request),
            )
            for request in requests
        ]
        rows[2].advance(torch.cat([rows[2].model_input()] * len(rows[2].conditioning.texts)))

        together = predict(loaded, rows)

        for row, prediction in zip(rows, together, strict=True):
            (alone,) = predict(loaded, [row])
            assert len(row.conditioning.texts) == len(prediction)
            torch.testing.assert_close(prediction, alone, rtol=1e-4, atol=1e-5)
