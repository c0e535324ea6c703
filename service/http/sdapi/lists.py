"""What AUTOMATIC1111's clients ask for before they draw: lists, most of them short."""

from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from service.http.schema.decorators import docs
from service.http.sdapi import extras, models, names
from service.http.sdapi.generation import hires
from service.http.state import ADAPTERS, DISPATCHER, GPU, MODELS
from service.models.adapters.catalog import Entry, Kind
from service.system import host_memory
from service.system.executors import FILES

UPSCALERS: Final = [
    {"name": each, "model_name": None, "model_path": None, "model_url": None, "scale": 4}
    for each in extras.UPSCALERS
]
LATENT_MODES: Final = [{"name": each} for each in hires.LATENT_MODES]


def fixed(summary: str, answer: Any) -> Handler:
    """Return a handler that always answers the same."""
    return _answering(summary, lambda _request: answer)


def _answering(summary: str, make: Callable[[web.Request], Any]) -> Handler:
    @docs(summary=summary)
    async def handler(request: web.Request) -> web.Response:
        return web.json_response(make(request))

    return handler


def _reading(summary: str, make: Callable[[list[Entry]], Any]) -> Handler:
    """Return a handler that reads the catalogue of adapters, on another thread."""

    @docs(summary=summary)
    async def handler(request: web.Request) -> web.Response:
        catalog = request.app[ADAPTERS]
        return web.json_response(await FILES.run(lambda: make(catalog.entries())))

    return handler


def _loras(entries: list[Entry]) -> list[dict[str, Any]]:
    usable = [each for each in entries if each.kind is Kind.LORA and not each.problem]
    return [
        {
            "name": each.name,
            "alias": each.name,
            "path": each.stamp.path.name,
            # What trainers write may have megabytes; what prompts need is the words.
            "metadata": {"trigger_words": list(each.header.trigger_words) if each.header else []},
        }
        for each in usable
    ]


def _embeddings(entries: list[Entry]) -> dict[str, Any]:
    found = [each for each in entries if each.kind is Kind.EMBEDDING]
    about: dict[str, dict[str, Any]] = {"loaded": {}, "skipped": {}}
    for each in found:
        sizes = [one.shape for one in each.header.vectors.values()] if each.header else []
        about["skipped" if each.problem else "loaded"][each.name] = {
            "step": None,
            "sd_checkpoint": None,
            "sd_checkpoint_name": None,
            "shape": sizes[0][-1] if sizes else 0,
            "vectors": sizes[0][0] if sizes and len(sizes[0]) > 1 else 1,
        }
    return about


def _vaes(request: web.Request) -> list[dict[str, Any]]:
    dispatcher, known = request.app[DISPATCHER], request.app[MODELS]
    keys = [known.key(each.id) for each in known.entries]
    infos = (dispatcher.slot_of(key).info(key) for key in keys)
    named = sorted({info.vae for info in infos if info is not None and info.vae})
    return [{"model_name": name, "filename": name} for name in named]


def _memory(request: web.Request) -> dict[str, Any]:
    total, free = host_memory.total(), host_memory.available()
    held = host_memory.resident()
    cuda: dict[str, Any] = {"error": "unavailable"}
    if gpus := [gpu for gpu in request.app[GPU].readings if gpu.memory_total is not None]:
        used = sum(gpu.memory_used or 0 for gpu in gpus)
        size = sum(gpu.memory_total or 0 for gpu in gpus)
        cuda = {"system": {"free": size - used, "used": used, "total": size}}
    return {"ram": {"free": free or 0, "used": held, "total": total}, "cuda": cuda}


def _queue(request: web.Request) -> dict[str, Any]:
    dispatcher = request.app[DISPATCHER]
    return {
        "msg": "estimation",
        "rank": None,
        "queue_size": dispatcher.depth,
        "avg_event_process_time": None,
        "avg_event_concurrent_process_time": None,
        "rank_eta": None,
        "queue_eta": 0,
    }


Rows = tuple[tuple[str, str, Handler], ...]
"""Path below ``/sdapi/v1``, operation, handler."""

READ: Final[Rows] = (
    ("sd-models", "Models", _answering("List the models.", models.listed)),
    (
        "samplers",
        "Samplers",
        _answering("List the samplers.", lambda _request: names.listed_samplers()),
    ),
    (
        "schedulers",
        "Schedulers",
        _answering("List the noise schedules.", lambda _request: names.listed_schedulers()),
    ),
    ("upscalers", "Upscalers", fixed("List the upscalers: `None` and `Lanczos`.", UPSCALERS)),
    (
        "latent-upscale-modes",
        "LatentModes",
        fixed("List what resizes latents for a second pass: `Latent`.", LATENT_MODES),
    ),
    ("sd-vae", "Vaes", _answering("List the VAEs in use in place of a model's own.", _vaes)),
    ("loras", "Loras", _reading("List the LoRA files that prompts can name.", _loras)),
    (
        "embeddings",
        "Embeddings",
        _reading("List the embeddings that prompts can name.", _embeddings),
    ),
    ("hypernetworks", "Hypernetworks", fixed("List the hypernetworks: none.", [])),
    ("face-restorers", "FaceRestorers", fixed("List the face restorers: none.", [])),
    ("realesrgan-models", "RealEsrgan", fixed("List the Real-ESRGAN models: none.", [])),
    ("prompt-styles", "Styles", fixed("List the prompt styles: none.", [])),
    (
        "scripts",
        "Scripts",
        fixed("List the scripts by kind of request: none.", {"txt2img": [], "img2img": []}),
    ),
    ("script-info", "ScriptInfo", fixed("Describe the scripts: none.", [])),
    ("cmd-flags", "Flags", fixed("Return the flags that the server was started with: none.", {})),
    ("memory", "Memory", _answering("Return the memory in use, in bytes.", _memory)),
)

NO_OPS: Final[Rows] = tuple(
    (path, operation, fixed(summary, None))
    for path, operation, summary in (
        ("refresh-checkpoints", "RefreshModels", "Do nothing: models are those of the settings."),
        ("refresh-loras", "RefreshLoras", "Do nothing: the folder is read at every request."),
        ("refresh-embeddings", "RefreshEmbeddings", "Do nothing: the folder is always read."),
        ("refresh-vae", "RefreshVae", "Do nothing: VAEs are those of the settings."),
        ("unload-checkpoint", "Unload", "Do nothing: MODEL_IDLE_SECONDS unloads models."),
        ("reload-checkpoint", "Reload", "Do nothing: models are loaded when they are needed."),
    )
)

QUEUE: Final = _answering("Return how many jobs wait, as Gradio does.", _queue)
PING: Final = fixed("Answer that the service is there.", {})
CONFIG: Final = fixed(
    "Return an empty page of Gradio: clients ask whether there is one.",
    {"version": "", "mode": "blocks", "components": [], "dependencies": []},
)
