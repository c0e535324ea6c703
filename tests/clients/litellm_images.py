"""Calls of the package litellm against the service whose address and key are the arguments.

It runs in .venvs/clients, and prints what each call gave, as JSON.
"""

import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # It fetches prices otherwise.

import litellm

URL, KEY = sys.argv[1:]
litellm.telemetry = False


def images(**more):
    """Return the data of an answer."""
    body = {"prompt": "a boat", "api_base": f"{URL}/v1", "api_key": KEY, "size": "256x256"}
    return litellm.image_generation(**body | more).data


def failure(**more):
    """Return what the package raises."""
    try:
        images(**more)
    except Exception as error:  # noqa: BLE001 - whatever its user would see
        return [type(error).__name__, getattr(error, "status_code", None)]
    return None


CALLS = {
    "an image": lambda: [len(each.b64_json) > 1000 for each in images(model="openai/dall-e-3")],
    "two": lambda: len(images(model="openai/gpt-image-1", n=2)),
    "by its name": lambda: len(images(model="openai/demo")),
    "an unknown model": lambda: failure(model="openai/unknown"),
    "a wrong key": lambda: failure(model="openai/demo", api_key="wrong"),
}
print(json.dumps({name: call() for name, call in CALLS.items()}))  # noqa: T201 - a program
