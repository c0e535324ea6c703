"""Calls of the package webuiapi against the service whose host, port and key are the arguments.

It runs in .venvs/clients, and prints what each call gave, as JSON.
"""

import contextlib
import io
import json
import sys

import webuiapi
from PIL import Image, PngImagePlugin

HOST, PORT, KEY = sys.argv[1:]
SMALL = {"width": 256, "height": 256, "steps": 2, "seed": 5}


def api(password=KEY):
    """Return a client with the key as its password."""
    return webuiapi.WebUIApi(host=HOST, port=int(PORT), username="user", password=password)


def failure(call):
    """Return the status of what the package raises, and the detail."""
    try:
        call()
    except RuntimeError as error:
        status, text = error.args
        return [status, json.loads(text)["detail"][:40]]
    return None


def sizes(result):
    """Return the sizes of the images of a result."""
    return [list(image.size) for image in result.images]


def png_info(client, image):
    """Return what the service reads in an image that the package sends again."""
    return client.png_info(image).info


def with_text(image):
    """Return an image of the package as a file would be opened: with its text."""
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", image.info["parameters"])
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=chunks)
    return Image.open(io.BytesIO(file.getvalue()))


def lists(client):
    """Return the names of the lists that the package asks for, and how many entries each has."""
    names = (
        *("samplers", "schedulers", "sd_vae", "upscalers", "latent_upscale_modes", "loras"),
        *("sd_models", "hypernetworks", "face_restorers", "realesrgan_models", "prompt_styles"),
    )
    return {name: len(getattr(client, f"get_{name}")()) for name in names}


def main():
    """Print what the calls gave."""
    client = api()
    two = client.txt2img(prompt="a boat", batch_size=2, **SMALL)
    found = {
        "lists": lists(client),
        "options": client.get_options()["samples_format"],
        "set options": client.set_options({"CLIP_stop_at_last_layers": 2}),
        "options are kept": client.get_options()["CLIP_stop_at_last_layers"],
        "flags": client.get_cmd_flags(),
        "scripts": client.get_scripts(),
        "embeddings": sorted(client.get_embeddings()),
        "memory": sorted(client.get_memory()),
        "progress": client.get_progress()["state"]["job_count"],
        "refresh": client.refresh_checkpoints(),
        "interrupt": client.interrupt(),
        "skip": client.skip(),
        "two images": sizes(two),
        "seeds": two.info["all_seeds"],
        "sampler": two.info["sampler_name"],
        "clip skip of the options": client.txt2img(prompt="a boat", **SMALL).info["clip_skip"],
        "a sampler and a scheduler": client.txt2img(
            prompt="a boat", sampler_name="DPM++ 2M", scheduler="karras", **SMALL
        ).info["extra_generation_params"],
        "ControlNet": client.txt2img(
            prompt="a boat",
            controlnet_units=[webuiapi.ControlNetUnit(image=Image.new("RGB", (8, 8)))],
            **SMALL,
        ).info["warnings"],
        "its own words": png_info(client, with_text(two.image)) == two.info["infotexts"][0],
        "hires fix": failure(lambda: client.txt2img(prompt="a boat", enable_hr=True, **SMALL)),
        "no sampler": failure(lambda: client.txt2img(prompt="a", sampler_name="DPM fast", **SMALL)),
        "too many": failure(lambda: client.txt2img(prompt="a boat", n_iter=9, **SMALL)),
        "a wrong key": failure(lambda: api("x" * 32).txt2img(prompt="a boat", **SMALL)),
        "img2img": failure(lambda: client.img2img(images=[two.image], prompt="a boat", **SMALL)),
    }
    with contextlib.redirect_stdout(io.StringIO()):
        client.util_set_model("demo")
        client.util_wait_for_ready()
    found["model"] = client.util_get_current_model().split(" [")[0]
    sys.stdout.write(json.dumps(found))


main()
