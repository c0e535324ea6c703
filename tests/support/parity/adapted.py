"""Images of diffusers with adapters: with their changes in the weights, or by PEFT."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from service.core.spec import Adapter, GenerationSpec
from tests.support.models.adapter_files import AdapterFile
from tests.support.parity.references import Reference


def adapter(name: str, weight: float = 1.0, text_weight: float | None = None) -> Adapter:
    """Return an adapter of a request."""
    text_weight = weight if text_weight is None else text_weight
    return Adapter(name=name, weight=weight, text_weight=text_weight)


def images(
    reference: Reference, request: GenerationSpec, files: Mapping[str, AdapterFile]
) -> list[np.ndarray]:
    """Return the images of a request, made with the changes added to the weights."""
    with changed(reference.pipeline, request, files):
        return reference.images(request)


@contextmanager
def changed(
    pipeline: Any, request: GenerationSpec, files: Mapping[str, AdapterFile]
) -> Iterator[None]:
    """Add the changes of a request's adapters to the weights."""
    kept: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
    for adapter in request.adapters:
        for part, changes in files[adapter.name].changes.items():
            weight = adapter.weight if part == "unet" else adapter.text_weight
            modules = dict(getattr(pipeline, part).named_modules())
            for name, change in changes.items():
                parameter = modules[name].weight
                kept.append((parameter, parameter.data.clone()))
                parameter.data += weight * change
    try:
        yield
    finally:
        for parameter, before in reversed(kept):
            parameter.data = before


def peft_images(
    reference: Reference, request: GenerationSpec, files: Mapping[str, AdapterFile]
) -> list[np.ndarray]:
    """Return the images of a request, made with ``load_lora_weights`` and ``set_adapters``."""
    pipeline = reference.pipeline
    with warnings.catch_warnings():
        # PEFT says so whenever diffusers loads a second adapter.
        warnings.filterwarnings("ignore", "Already found a `peft_config` attribute", UserWarning)
        for adapter in request.adapters:
            path = files[adapter.name].path
            pipeline.load_lora_weights(
                str(path.parent), weight_name=path.name, adapter_name=adapter.name
            )
    encoders = [name for name in ("text_encoder", "text_encoder_2") if hasattr(pipeline, name)]
    try:
        if request.adapters:
            pipeline.set_adapters(
                [each.name for each in request.adapters],
                [
                    {"unet": each.weight, **dict.fromkeys(encoders, each.text_weight)}
                    for each in request.adapters
                ],
            )
        return reference.images(request)
    finally:
        if request.adapters:
            pipeline.unload_lora_weights()
