"""From a request of AUTOMATIC1111's clients to a job, and to the answer with its images."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from aiohttp import web

from service.core.prompt.syntax import PromptSyntax
from service.core.sampler import ETA
from service.errors import Cancelled, SamplerNotFound
from service.http.compat import errors
from service.http.compat.reading import number
from service.http.compat.translation import in_words_of, translate
from service.http.finished import Form, images
from service.http.sdapi import options
from service.http.sdapi.generation import hires, redrawing, requests
from service.http.sdapi.generation.info import Told, answer, without_images
from service.http.sdapi.models import is_xl
from service.http.sdapi.names import meant
from service.http.sdapi.tasks import TASKS, Task, caller_of
from service.http.state import MODELS
from service.http.submission import JOB_ID, REPLAYED, key_of, submit
from service.jobs.durable.live_job import Durability
from service.jobs.service import JobHandle

IMAGES: Final = "batch_size x n_iter"
NAMES: Final = {
    "num_images": IMAGES,
    "guidance_scale": "cfg_scale",
    "sampler": "sampler_name",
    "schedule": "scheduler",
    "clip_skip": options.CLIP,
    "model": options.MODEL,
    "adapters": "prompt",
    **hires.NAMES,
    **redrawing.NAMES,
}
"""What AUTOMATIC1111 calls the fields of the native API, where that differs."""

ERRORS: Final = (SamplerNotFound, *errors.ERRORS)
EMPTY: Final = "images: none, the job was interrupted while it waited."


async def drawn(
    request: web.Request, sent: Mapping[str, Any], more: Mapping[str, Any], told: list[str]
) -> web.Response:
    """Draw what a request asks for, and answer.

    ``more`` are further values by native field names; ``told`` is what of them is not done as
    asked.
    """
    held = request.app[options.OPTIONS].of(caller_of(request))
    known, refused = options.understood(request, sent["override_settings"], held)
    overrides = dict(known)
    if sent["clip_skip"] is not None and not _below(sent["clip_skip"], 1):
        # Of stable-diffusion.cpp, where -1 and 0 say nothing; options of the request go before it.
        overrides.setdefault(options.CLIP, sent["clip_skip"])
    values, warnings = _meant(request, sent, held | overrides)
    translated = translate(request, {**values, **more}, names=NAMES)
    if not sent["override_settings_restore_afterwards"]:
        request.app[options.OPTIONS].set(caller_of(request), known)
    warnings += [
        f"override_settings: {name} {why}." for name, why in options.listed(refused).items()
    ]
    said = Told(
        parameters=requests.echoed(sent, known),
        batch_size=sent["batch_size"],
        send_images=sent["send_images"],
        warnings=(*translated.warnings, *told, *warnings),
        styles=tuple(sent["styles"]),
    )
    form = _form(held | overrides)
    durability = Durability.NONE if key_of(request) is None else Durability.KEYED
    with in_words_of(NAMES):
        handle = await submit(request, durability)
    return await _answer(request, handle, form, sent["force_task_id"], said)


async def _answer(
    request: web.Request, handle: JobHandle, form: Form, name: str, said: Told
) -> web.Response:
    """Wait as the caller's current task, and answer; also where the caller interrupted it."""
    generation, headers = handle.stored.request, {JOB_ID: handle.stored.id}
    if handle.replayed:
        headers[REPLAYED] = "true"
    tasks, task = request.app[TASKS], Task(caller=caller_of(request), name=name, live=handle.live)
    try:
        async with tasks.one(task):
            with handle:
                await handle.wait()
    except Cancelled:
        if not task.interrupted:
            raise
        body = without_images(generation, said, EMPTY)
    else:
        build = partial(answer, request=generation, told=said)
        body = (await images(request, handle, form, build)).built
    return web.Response(body=body, content_type="application/json", headers=headers)


def _meant(
    request: web.Request, sent: Mapping[str, Any], chosen: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return a request by native field names, and what is not done as asked."""
    model = chosen.get(options.MODEL, "")
    if sent["model"] and options.MODEL not in sent["override_settings"]:
        model = options.READ[options.MODEL](request, sent["model"])
    key = request.app[MODELS].key(model)
    found = meant(sent["sampler_name"] or sent["sampler_index"], sent["scheduler"])
    told = [*requests.not_done(sent), *found.warnings]
    values = {
        "prompt": sent["prompt"],
        "negative_prompt": sent["negative_prompt"],
        "seed": _seed(sent["seed"]),
        "steps": sent["steps"],
        "guidance_scale": sent["cfg_scale"],
        "width": sent["width"],
        "height": sent["height"],
        "num_images": sent["batch_size"] * sent["n_iter"],
        "sampler": found.sampler,
        "schedule": found.schedule,
        "model": model,
        "prompt_syntax": PromptSyntax.A1111.value,
    }
    if sent["subseed_strength"]:
        values["subseed"] = _seed(sent["subseed"])
        values["subseed_strength"] = sent["subseed_strength"]
    if (layers := chosen.get(options.CLIP)) is not None:
        if not is_xl(request, key):
            values["clip_skip"] = layers
        elif number(layers) not in (0, 1):
            told.append(f"{options.CLIP}: models of the family XL do not use it.")
    if (eta := sent["eta"]) is not None:
        if found.sampler in ETA:
            values["eta"] = eta
        elif eta not in (0, 1):
            told.append("eta: only DDIM and TCD use it here.")
    return values, told


def _seed(seed: Any) -> Any:
    """Return a seed as the native API takes it: every negative one is random."""
    return -1 if _below(seed, 0) else seed


def _below(value: Any, limit: int) -> bool:
    """Return whether a value is a finite number below a limit, also as a text."""
    found = number(value)
    counts = isinstance(found, int | float) and not isinstance(found, bool)
    return counts and -math.inf < found < limit


def _form(chosen: Mapping[str, Any]) -> Form:
    media_type = options.FORMATS[chosen.get(options.FORMAT, "png")]
    return Form(media_type=media_type, quality=chosen.get(options.QUALITY))
