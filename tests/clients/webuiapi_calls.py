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


def second_passes(client):
    """Return the sizes of images with a second pass, and what is said of it."""
    latent = client.txt2img(
        prompt="a boat", enable_hr=True, hr_upscaler=webuiapi.HiResUpscaler.Latent, **SMALL
    )
    lanczos = client.txt2img(
        prompt="a boat",
        enable_hr=True,
        hr_upscaler=webuiapi.HiResUpscaler.Lanczos,
        hr_resize_x=384,
        hr_resize_y=320,
        hr_second_pass_steps=4,
        denoising_strength=0.5,
        **SMALL,
    )
    other = client.txt2img(
        prompt="a boat",
        enable_hr=True,
        hr_scale=1.5,
        hr_upscaler=webuiapi.HiResUpscaler.ESRGAN_4x,
        **SMALL,
    )
    return {
        "hires fix": [*sizes(latent), latent.info["extra_generation_params"]],
        "hires fix in pixels": [*sizes(lanczos), lanczos.info["denoising_strength"]],
        "hires fix by a model": [*sizes(other), other.info["warnings"]],
    }


def from_images(client, image):
    """Return what calls with an image give."""
    mask = Image.new("L", image.size)
    mask.paste(255, (64, 64, 192, 192))
    redrawn = client.img2img(images=[image], prompt="a boat", denoising_strength=0.5, **SMALL)
    inpainted = client.img2img(
        images=[image], mask_image=mask, inpainting_fill=1, prompt="a boat", **SMALL
    )
    varied = client.txt2img(prompt="a boat", subseed=9, subseed_strength=0.3, n_iter=2, **SMALL)
    enlarged = client.extra_single_image(
        image, upscaler_1=webuiapi.Upscaler.Lanczos, upscaling_resize=1.5
    )
    several = client.extra_batch_images([image, mask], upscaler_1="Lanczos", upscaling_resize=0.5)
    return {
        "img2img": [*sizes(redrawn), redrawn.info["denoising_strength"], redrawn.info["warnings"]],
        "inpaint": [*sizes(inpainted), kept(image, inpainted.image)],
        "variations": [varied.info["all_seeds"], varied.info["all_subseeds"]],
        "extra-single-image": [list(enlarged.image.size), enlarged.info],
        "extra-batch-images": [*sizes(several), several.info],
        "an upscaler that is not here": failure(
            lambda: client.extra_single_image(image, upscaler_1=webuiapi.Upscaler.ESRGAN_4x)
        ),
    }


def kept(image, other):
    """Return whether the corner of an image, far from the mask, is in another."""
    box = (0, 0, 32, 32)
    return image.convert("RGB").crop(box).tobytes() == other.convert("RGB").crop(box).tobytes()


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
        **second_passes(client),
        **from_images(client, two.image),
        "no sampler": failure(lambda: client.txt2img(prompt="a", sampler_name="DPM fast", **SMALL)),
        "too many": failure(lambda: client.txt2img(prompt="a boat", n_iter=9, **SMALL)),
        "a wrong key": failure(lambda: api("x" * 32).txt2img(prompt="a boat", **SMALL)),
        "no image": failure(lambda: client.img2img(images=[], prompt="a boat", **SMALL)),
    }
    with contextlib.redirect_stdout(io.StringIO()):
        client.util_set_model("demo")
        client.util_wait_for_ready()
    found["model"] = client.util_get_current_model().split(" [")[0]
    sys.stdout.write(json.dumps(found))


main()
