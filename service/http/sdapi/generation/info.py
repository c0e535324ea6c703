"""What an answer says of its images, in AUTOMATIC1111's fields (modules/processing.py)."""

import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service import __version__
from service.core.image import RawImage
from service.core.sampler import Sampler, Schedule
from service.core.spec import GenerationSpec
from service.http.sdapi.generation.hires import upscaler
from service.images.infotext import infotext


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the answer repeats of its request, and what was not done as asked."""

    parameters: Mapping[str, Any]
    batch_size: int
    send_images: bool
    warnings: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()


def answer(
    files: Sequence[bytes], metadata: Mapping[str, Any], *, request: GenerationSpec, told: Told
) -> bytes:
    """Return the body of the answer with these image files."""
    images = [base64.b64encode(file).decode("ascii") for file in files] if told.send_images else []
    body = {
        "images": images,
        "parameters": told.parameters,
        "info": json.dumps(info(request, metadata, told)),
    }
    return json.dumps(body).encode()


def without_images(request: GenerationSpec, told: Told, reason: str) -> bytes:
    """Return the body of the answer for a job that was interrupted before it had begun."""
    found = {**_base(request, {}, told), "infotexts": [], "warnings": [*told.warnings, reason]}
    body = {"images": [], "parameters": told.parameters, "info": json.dumps(found)}
    return json.dumps(body).encode()


def info(request: GenerationSpec, metadata: Mapping[str, Any], told: Told) -> dict[str, Any]:
    """Return what the field ``info`` holds, as an object."""
    version = str(metadata.get("model_version", ""))
    wide, high = request.output_size
    texts = [
        infotext(
            request,
            RawImage(width=wide, height=high, pixels=b"", seed=seed),
            version,
            metadata,
            index,
        )
        for index, seed in enumerate(request.seeds)
    ]
    return {
        **_base(request, metadata, told),
        "infotexts": texts,
        "warnings": [*told.warnings, *_happened(metadata)],
    }


def _happened(metadata: Mapping[str, Any]) -> list[str]:
    """Return what became known only when the images were made."""
    found = [str(each) for each in metadata.get("warnings", ())]
    if cut := metadata.get("prompt_tokens_cut"):
        found.append(f"prompt: its last {cut} tokens were not read.")
    if any(metadata.get("unsafe", ())):
        found.append("images: the safety checker blacked out what it found unsafe.")
    if metadata.get("interrupted"):
        done = metadata["steps_done"]
        found.append(f"images: unfinished, interrupted after {done} of {metadata['steps']} steps.")
    return found


def _base(request: GenerationSpec, metadata: Mapping[str, Any], told: Told) -> dict[str, Any]:
    count, seeds = request.num_images, list(request.seeds)
    varied = bool(request.subseed_strength)
    return {
        "prompt": request.prompt,
        "all_prompts": [request.prompt] * count,
        "negative_prompt": request.negative_prompt,
        "all_negative_prompts": [request.negative_prompt] * count,
        "seed": request.seed,
        "all_seeds": seeds,
        "subseed": request.subseed if varied else request.seed,
        "all_subseeds": list(request.subseeds) if varied else seeds,
        "subseed_strength": request.subseed_strength,
        "width": request.width,
        "height": request.height,
        "sampler_name": Sampler(request.sampler).infotext,
        "cfg_scale": request.guidance_scale,
        "steps": request.steps,
        "batch_size": told.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": metadata.get("model") or request.model,
        "sd_model_hash": metadata.get("model_hash") or None,
        "sd_vae_name": metadata.get("vae") or None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": _strength(request),
        "extra_generation_params": _extra(request),
        "index_of_first_image": 0,
        "styles": list(told.styles),
        "job_timestamp": time.strftime("%Y%m%d%H%M%S"),
        "clip_skip": request.clip_skip,
        "is_using_inpainting_conditioning": False,
        "version": f"sd-api {__version__}",
    }


def _strength(request: GenerationSpec) -> float | None:
    if request.hires is not None:
        return request.hires.strength
    return None if request.image is None else request.strength


def _extra(request: GenerationSpec) -> dict[str, Any]:
    """Return what AUTOMATIC1111 tells of a request outside its fields."""
    found: dict[str, Any] = {"Schedule type": Schedule(request.schedule).infotext}
    if (hires := request.hires) is not None:
        found["Hires upscale"] = hires.scale
        found["Hires resize"] = "" if hires.scale else f"{hires.width}x{hires.height}"
        # As many as the first pass has are not named there; the text of an image names them always.
        done = request.hires_steps
        found["Hires steps"] = 0 if done == request.steps else done
        found["Hires upscaler"] = upscaler(hires)
    if request.mask is not None:
        found["Mask blur"] = request.mask_blur
    return {name: value for name, value in found.items() if value}
