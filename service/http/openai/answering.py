"""Answers of the OpenAI API from finished images; all of it is work for a thread."""

import base64
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from service.http.openai.asking import Asked

TOKEN_PIXELS: Final = 16 * 16
"""Pixels that count as a token of the output; OpenAI's own count is near it at high quality."""

Body = dict[str, Any]


def images_answer(files: list[bytes], metadata: Mapping[str, Any], asked: Asked) -> bytes:
    """Return the JSON with images in base64."""
    data = [{"b64_json": base64.b64encode(each).decode("ascii")} for each in files]
    return answer(data, metadata, asked)


def answer(data: Sequence[Body], metadata: Mapping[str, Any], asked: Asked) -> bytes:
    """Return the JSON with what there is of each image."""
    seeds, asked = metadata["seeds"], as_made(asked, metadata)
    return json.dumps(
        {
            "created": round(metadata.get("created", time.time())),
            "data": [{**each, "seed": seed} for each, seed in zip(data, seeds, strict=True)],
            **about(asked),
            "usage": usage(metadata, asked, len(data)),
            "warnings": warnings(metadata, asked),
        }
    ).encode()


def as_made(asked: Asked, metadata: Mapping[str, Any]) -> Asked:
    """Return what was asked for with the size of the images; interrupted ones may be smaller."""
    wide, high = asked.size
    size = metadata.get("image_width", wide), metadata.get("image_height", high)
    return replace(asked, size=size)


def about(asked: Asked) -> Body:
    """Return what is true of all images of an answer."""
    wide, high = asked.size
    return {
        "background": "opaque",
        "output_format": asked.output_format,
        "quality": "auto",
        "size": f"{wide}x{high}",
    }


def usage(metadata: Mapping[str, Any], asked: Asked, images: int) -> Body:
    """Return the tokens of the prompt, and one for each 16 by 16 pixels of the images."""
    text = metadata.get("prompt_tokens", 0)
    drawn = metadata["width"] * metadata["height"] // TOKEN_PIXELS
    seen = drawn if metadata.get("image") else 0
    made = math.prod(asked.size) // TOKEN_PIXELS * images
    return {
        "input_tokens": text + seen,
        "input_tokens_details": {"text_tokens": text, "image_tokens": seen},
        "output_tokens": made,
        "total_tokens": text + seen + made,
    }


def warnings(metadata: Mapping[str, Any], asked: Asked) -> list[str]:
    """Return what was asked for and is not so, and what may be wrong with the images."""
    found = [*asked.warnings, *metadata.get("warnings", ())]
    if cut := metadata["prompt_tokens_cut"]:
        found.append(f"prompt: the model did not read its last {cut} tokens.")
    if metadata.get("interrupted"):
        found.append(f"steps: the job was interrupted after {metadata['steps_done']}.")
    flagged = [str(place) for place, unsafe in enumerate(metadata["unsafe"], 1) if unsafe]
    if flagged:
        found.append(f"data: the safety checker blacked out image {', '.join(flagged)}.")
    return found


def event(kind: str, data: Mapping[str, Any]) -> bytes:
    """Return a server-sent event; the packages go by ``type`` in its data."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()
