"""Files of textual inversion with random vectors, in the forms that people have."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

FORMS: Mapping[int, Mapping[str, tuple[str, ...]]] = {
    1: {"one": ("<one>",), "trio": ("emb_params",)},
    2: {"one": ("clip_l", "clip_g"), "trio": ("text_encoders_0", "text_encoders_1")},
}
"""Names of the tensors, by the number of text encoders and the name of the file."""
COUNTS = {"one": 1, "trio": 3}


def encoders(pipeline: Any) -> list[tuple[Any, Any]]:
    """Return the text encoders of a pipeline, each with its tokenizer."""
    return [
        (network, getattr(pipeline, f"tokenizer{end}"))
        for end in ("", "_2")
        if (network := getattr(pipeline, f"text_encoder{end}", None)) is not None
    ]


def written(folder: Path, pipeline: Any) -> dict[str, list[torch.Tensor]]:
    """Write a file of one vector and one of three; return the vectors for each text encoder."""
    draw = torch.Generator().manual_seed(7)
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[torch.Tensor]] = {}
    networks = [network for network, _ in encoders(pipeline)]
    for name, keys in FORMS[len(networks)].items():
        widths = [each.get_input_embeddings().embedding_dim for each in networks]
        vectors = [torch.randn(COUNTS[name], width, generator=draw) for width in widths]
        tensors = dict(zip(keys, vectors, strict=True))
        if keys == ("<one>",):  # diffusers writes one vector without a count.
            tensors = {keys[0]: vectors[0][0].clone()}
        save_file(tensors, folder / f"{name}.safetensors")
        found[name] = vectors
    return found


def taught(pipeline: Any, vectors: Mapping[str, list[torch.Tensor]]) -> None:
    """Load the embeddings into a pipeline of diffusers, as its documentation does."""
    for name, each in vectors.items():
        for vector, (network, tokenizer) in zip(each, encoders(pipeline), strict=True):
            pipeline.load_textual_inversion(
                vector if len(vector) > 1 else vector[0],
                token=f"<{name}>",
                text_encoder=network,
                tokenizer=tokenizer,
            )
