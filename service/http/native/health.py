"""How the service is: for people, for a load balancer and for a supervisor."""

import time
from typing import Any, Final

from aiohttp import web

from service import __version__
from service.engine.base import EngineState
from service.errors import ClusterUnreachable, EngineUnavailable, ModelUnavailable, ShuttingDown
from service.http.middleware import auth
from service.http.native.models import asked
from service.http.schema.answers import Health, Model, Status
from service.http.schema.decorators import docs, response_schema
from service.http.state import CONFIG, DISPATCHER, GPU, MODELS, STARTED
from service.jobs.dispatch.circuit import CircuitState
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.dispatch.slot import EngineSlot
from service.models.served.catalog import ModelCatalog

STATUS: Final = {
    EngineState.STOPPED: "loading",
    EngineState.LOADING: "loading",
    EngineState.READY: "healthy",
    EngineState.RESTARTING: "restarting",
    EngineState.FAILED: "degraded",
}


@docs(
    summary="Return the status of the service.",
    description=(
        "Always 200 while the service runs; route traffic by `/health/ready`. When API keys are "
        "set, only callers with a key see the model and why it failed."
    ),
)
@response_schema(Health(), 200, description="The state of the service.")
async def health(request: web.Request) -> web.Response:
    """Answer with the state of the engine, the queue and the GPU."""
    found = report(request.app)
    if not auth.sees_details(request):
        found["model"] = None
        for engine in (found["engine"], *found["engines"]):
            for detail in ("failure", "node", "device", "gpu", "models"):
                engine.pop(detail, None)
    return web.json_response(found)


@docs(
    summary="Return 200 while the service runs.",
    description="For a supervisor that restarts what does not answer.",
)
@response_schema(Status(), 200, description="The service runs.")
async def live(request: web.Request) -> web.Response:
    """Answer while the event loop turns."""
    del request
    return web.json_response({"status": "alive"})


@docs(
    summary="Return 200 when images can be made now, else 503.",
    description=(
        "For a load balancer: 503 while the model loads or failed, the engine has been silent for "
        "too long or keeps ending, the cluster cannot be reached, or the service ends."
    ),
    errors=(ModelUnavailable, EngineUnavailable, ClusterUnreachable, ShuttingDown),
)
@response_schema(Status(), 200, description="The next request will be worked on.")
async def ready(request: web.Request) -> web.Response:
    """Answer 200 only when new work is accepted and can be worked on."""
    dispatcher = request.app[DISPATCHER]
    try:
        dispatcher.admission.check_ready()
    except ModelUnavailable as error:
        failure = dispatcher.lead.engine.failure if auth.sees_details(request) else ""
        raise ModelUnavailable(failure or error.detail) from None
    return web.json_response({"status": "ready"})


def status(dispatcher: Dispatcher) -> str:
    """Return the state of the service in one word."""
    if dispatcher.admission.draining:
        return "shutting_down"
    if dispatcher.admission.cluster_lost():
        return "degraded"
    if dispatcher.lead.circuit_state is not CircuitState.CLOSED:
        return "degraded"
    return STATUS[dispatcher.lead.engine.state]


def report(app: web.Application) -> dict[str, Any]:
    """Collect what ``/health`` answers; nothing here asks the driver or waits."""
    dispatcher, engine = app[DISPATCHER], app[DISPATCHER].lead.engine
    loaded = engine.state is EngineState.READY
    model, gpus = engine.model, app[GPU].readings
    return {
        "status": status(dispatcher),
        "gpu_available": bool(gpus) or (loaded and model is not None and model.gpu),
        "gpu_memory_used": gigabytes(sum(gpu.memory_used or 0 for gpu in gpus)),
        "gpu_memory_total": gigabytes(sum(gpu.memory_total or 0 for gpu in gpus)),
        "model_loaded": loaded,
        "uptime_seconds": round(time.monotonic() - app[STARTED], 3),
        "model": model and Model().dump(model),
        "engine": engine_status(dispatcher.lead)
        | {"restarts": sum(slot.engine.restarts for slot in dispatcher.slots)}
        | ({"failure": lost.detail} if (lost := dispatcher.admission.cluster_lost()) else {}),
        "engines": [slot_status(slot, app[MODELS]) for slot in dispatcher.slots],
        "queue": {"depth": dispatcher.depth, "limit": app[CONFIG].queue_size},
        "running": dispatcher.running,
        "version": __version__,
        **asked(dispatcher.limits()),
    }


def engine_status(slot: EngineSlot) -> dict[str, Any]:
    """Return how an engine is."""
    engine = slot.engine
    return {
        "state": engine.state.value,
        "restarts": engine.restarts,
        "circuit": slot.circuit_state.value,
        "silent_seconds": round(engine.silence, 3),
        **({"failure": engine.failure} if engine.failure else {}),
    }


def slot_status(slot: EngineSlot, models: ModelCatalog) -> dict[str, Any]:
    """Return how one of the engines is, and what it has."""
    model = slot.engine.model
    return {
        "name": slot.name,
        **engine_status(slot),
        "leaving": slot.retiring,
        "running": len(slot.jobs),
        "node": slot.engine.node,
        "device": "" if model is None else model.device,
        "gpu": "" if model is None else model.gpu_uuid,
        "models": sorted(models[key].id for key in slot.residency.loaded),
    }


def gigabytes(count: int) -> str:
    """Return bytes as people read them, for example ``2.1 GB``."""
    return f"{count / 2**30:.1f} GB"
