"""One UNet call for many rows, each at a timestep of its own."""

from collections.abc import Sequence
from typing import Any

import torch

from service.diffusion.load import Model
from service.diffusion.row import Row


def predict(model: Model, rows: Sequence[Row]) -> list[torch.Tensor]:
    """Return each row's noise prediction, ``[1 or 2, channels, height, width]``.

    Guided rows take two places in the call, the negative prompt's first. Neither rows
    nor schedulers change, so a call that failed can be repeated with fewer rows.
    """
    places = [(row, text) for row in rows for text in row.conditioning.texts]
    inputs = {id(row): row.model_input() for row in rows}
    # The timestep embedding computes in float32, so whole and fractional timesteps mix.
    timesteps = torch.stack([row.timestep.float() for row, _ in places])
    conditions = [row.conditioning.timestep_cond for row, _ in places]
    predicted = model.pipeline.unet(
        torch.cat([inputs[id(row)] for row, _ in places]),
        timesteps.to(model.device, non_blocking=True),
        encoder_hidden_states=torch.cat([text.states for _, text in places]),
        timestep_cond=_joined(conditions),
        added_cond_kwargs=_added(places),
        return_dict=False,
    )[0]
    return list(predicted.split([len(row.conditioning.texts) for row in rows]))


def _added(places: Sequence[tuple[Row, Any]]) -> dict[str, torch.Tensor] | None:
    """Return SDXL's extra conditioning, None for a model without it."""
    pooled = _joined([text.pooled for _, text in places])
    time_ids = _joined([row.conditioning.time_ids for row, _ in places])
    if pooled is None or time_ids is None:
        return None
    return {"text_embeds": pooled, "time_ids": time_ids}


def _joined(tensors: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    """Concatenate; one model gives a kind of conditioning to all its rows or to none."""
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(present) if present else None
