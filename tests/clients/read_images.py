"""Read images with the packages sd-parsers and sd-prompt-reader.

It runs in .venvs/clients: each line of the input is a file in base64, each line of the output
what the packages say of it, as JSON.
"""

import base64
import io
import json
import sys

from PIL import Image
from sd_parsers import ParserManager
from sd_prompt_reader.image_data_reader import ImageDataReader

KEPT = []
"""sd-parsers knows the last image by its ``id``, which a new one can have."""


def by_sd_parsers(data):
    """Return what sd-parsers reads, or how it fails."""
    KEPT.append(Image.open(io.BytesIO(data)))
    try:
        found = ParserManager().parse(KEPT[-1])
    except Exception as error:  # noqa: BLE001 - whatever its user would see
        return {"failure": repr(error)}
    if found is None:
        return {"failure": "nothing found"}
    (sampler,) = found.samplers
    return {
        "prompt": found.full_prompt,
        "negative_prompt": found.full_negative_prompt,
        "sampler": sampler.name,
        "values": sampler.parameters,
        "model": sampler.model and [sampler.model.name, sampler.model.hash],
        "generator": found.generator.value,
    }


def by_sd_prompt_reader(data):
    """Return what sd-prompt-reader reads, or how it fails."""
    found = ImageDataReader(io.BytesIO(data))
    if found.status.name != "READ_SUCCESS":
        return {"failure": found.status.name}
    return {
        "prompt": found.positive,
        "negative_prompt": found.negative,
        "values": found.parameter,
        "size": [found.width, found.height],
        "generator": found.tool,
    }


for line in sys.stdin:
    file = base64.b64decode(line)
    readings = {"sd-parsers": by_sd_parsers(file), "sd-prompt-reader": by_sd_prompt_reader(file)}
    sys.stdout.write(json.dumps(readings) + "\n")
    sys.stdout.flush()
