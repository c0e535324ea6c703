"""Calls of the package openai against the service whose address and key are the arguments.

It runs in .venvs/clients, and prints what each call gave, as JSON.
"""

import base64
import io
import json
import sys
import tempfile
import urllib.request
from pathlib import Path

import openai
from PIL import Image

URL, KEY = sys.argv[1:]
client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY)
SMALL = {"size": "256x256", "extra_body": {"steps": 2}}


def seen(image):
    """Return the format and size of an image in base64."""
    opened = Image.open(io.BytesIO(base64.b64decode(image)))
    opened.load()
    return f"{opened.format} {opened.width}x{opened.height}"


def shown(answer):
    """Return what an answer holds."""
    return [seen(each.b64_json) for each in answer.data]


def failure(call):
    """Return what the package raises."""
    try:
        call()
    except openai.APIError as error:
        status = getattr(error, "status_code", None)
        has_id = bool(getattr(error, "request_id", None)) or status is None
        return [type(error).__name__, status, error.code, error.param, has_id]
    return None


def linked():
    """Return the image of a link."""
    answer = client.images.generate(prompt="a boat", response_format="url", **SMALL)
    (image,) = answer.data
    with urllib.request.urlopen(image.url) as got:  # noqa: S310 - the link of the service
        return [image.b64_json is None, seen(base64.b64encode(got.read()))]


def png(opaque=True):
    """Return an image of 256 by 256; its left half is transparent where it is not opaque."""
    image = Image.new("RGBA", (256, 256), (90, 120, 200, 255))
    if not opaque:
        image.paste((0, 0, 0, 0), (0, 0, 128, 256))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def edited(steps=2, **body):
    """Return what an edit gives."""
    fields = {"steps": steps, "strength": 0.5}
    return client.images.edit(prompt="a boat", extra_body=fields, **body)


def events_of(stream):
    """Return the types of the events, and the images."""
    events = list(stream)
    return [
        [each.type, getattr(each, "partial_image_index", None), seen(each.b64_json), each.size]
        for each in events
    ]


def streamed(**body):
    """Return the events of a stream from a prompt."""
    return events_of(client.images.generate(prompt="a boat", size="256x256", stream=True, **body))


def from_files():
    """Return the edit of a file by its name, with a mask of another."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("image.png", "mask.png")]
        for path, opaque in zip(paths, (True, False), strict=True):
            path.write_bytes(png(opaque))
        return shown(edited(image=paths[0], mask=paths[1]))


def of_several():
    """Return the edit of a list of images, and what the service says of the others."""
    answer = edited(image=[png(), png(), png()], n=2)
    return [*shown(answer), answer.warnings]


def interrupted_stream():
    """Return what a stream raises that misses its deadline."""
    return failure(lambda: streamed(extra_headers={"X-Request-Timeout": "0.2"}))


def usage():
    """Return the tokens, and the seed, which the package does not know."""
    answer = client.images.generate(
        prompt="a big boat",
        size="256x256",
        extra_body={
            "negative_prompt": "fog",
            "seed": 7,
            "num_inference_steps": 2,
            "guidance_scale": 3,
        },
    )
    used = answer.usage
    return [used.input_tokens, used.output_tokens, used.total_tokens, answer.data[0].seed]


CALLS = {
    "only a prompt": lambda: shown(client.images.generate(prompt="a boat")),
    "as for dall-e-3": lambda: shown(
        client.images.generate(
            prompt="a boat",
            model="dall-e-3",
            n=2,
            size="1792x1024",
            quality="hd",
            style="vivid",
            user="u",
            response_format="b64_json",
        )
    ),
    "as for gpt-image-1": lambda: shown(
        client.images.generate(
            prompt="a boat",
            model="gpt-image-1",
            size="auto",
            quality="auto",
            background="auto",
            moderation="low",
            output_format="webp",
            output_compression=50,
        )
    ),
    "more fields": usage,
    "a link": linked,
    "a stream": lambda: streamed(partial_images=2),
    "a stream of two": lambda: streamed(n=2, extra_body={"steps": 2}),
    "a deadline in a stream": interrupted_stream,
    "a deadline": lambda: failure(
        lambda: client.images.generate(prompt="a", extra_headers={"X-Request-Timeout": "0.2"})
    ),
    "a wrong key": lambda: failure(
        lambda: client.with_options(api_key="wrong").images.generate(prompt="a")
    ),
    "an unknown model": lambda: failure(lambda: client.images.generate(prompt="a", model="x")),
    "too many": lambda: failure(lambda: client.images.generate(prompt="a", n=9)),
    "an edit": lambda: shown(edited(image=png())),
    "an edit in another size": lambda: shown(edited(image=png(), size="512x256")),
    "an edit of files": from_files,
    "an edit of several": of_several,
    "an edit of a transparent image": lambda: shown(edited(image=png(opaque=False))),
    "an edit in a stream": lambda: events_of(
        edited(8, image=png(), stream=True, partial_images=1, output_format="webp")
    ),
    "an opaque mask": lambda: failure(lambda: edited(image=png(), mask=png())),
    "no image": lambda: failure(lambda: edited(image=b"\x89PNG" * 30_000)),
    "a variation": lambda: shown(
        client.images.create_variation(image=png(), n=2, size="256x256", extra_body={"steps": 2})
    ),
    "models": lambda: [[each.id, each.object, each.owned_by] for each in client.models.list()],
    "a model": lambda: client.models.retrieve("gpt-image-1").id,
    "no model": lambda: failure(lambda: client.models.retrieve("organisation/name")),
}
print(json.dumps({name: call() for name, call in CALLS.items()}))  # noqa: T201 - a program
