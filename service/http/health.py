"""How the service is: for people, for a load balancer and for a supervisor."""

import time
from typing import Any, Final

from aiohttp import web

from service import __version__
from service.engine.base import EngineState
from service.errors import EngineUnavailable, ModelUnavailable, ShuttingDown
from service.http import auth
from service.http.answers import Health, Status
from service.http.decorators import docs, response_schema
from service.http.keys import CONFIG, CONSUMER, GPU, STARTED
from service.jobs.circuit import CircuitState
from service.jobs.consumer import Consumer

STATUS: Final = {
    EngineState.STOPPED: "loading",
    EngineState.LOADING: "loading",
    EngineState.READY: "healthy",
    EngineState.RESTARTING: "restarting",
    EngineState.FAILED: "degraded",
}


@docs(
    operationId="health",
    tags=["health"],
    summary="Say how the service is.",
    description=(
        "Always 200 while the service runs; `/health/ready` is the one to route by. Where keys "
        "are needed, the model and why it failed are told to callers with a key only."
    ),
)
@response_schema(Health(), 200, description="The state of the service.")
async def health(request: web.Request) -> web.Response:
    """Answer with the state of the engine, the queue and the GPU."""
    found = report(request.app)
    if not auth.insider(request):
        found["model"] = None
        found["engine"].pop("failure", None)
    return web.json_response(found)


@docs(
    operationId="live",
    tags=["health"],
    summary="Say that the service runs.",
    description="For a supervisor that restarts what does not answer.",
)
@response_schema(Status(), 200, description="The service runs.")
async def live(request: web.Request) -> web.Response:
    """Answer while the event loop turns."""
    del request
    return web.json_response({"status": "alive"})


@docs(
    operationId="ready",
    tags=["health"],
    summary="Say whether pictures can be made now.",
    description=(
        "For a load balancer: 503 while the model loads or failed, the engine has been silent for "
        "too long or keeps ending, or the service ends."
    ),
    errors=(ModelUnavailable, EngineUnavailable, ShuttingDown),
)
@response_schema(Status(), 200, description="The next request will be worked on.")
async def ready(request: web.Request) -> web.Response:
    """Answer 200 only when new work is accepted and can be worked on."""
    consumer = request.app[CONSUMER]
    try:
        consumer.admission.check_ready()
    except ModelUnavailable as error:
        failure = consumer.engine.failure if auth.insider(request) else ""
        raise ModelUnavailable(failure or error.detail) from None
    return web.json_response({"status": "ready"})


def status(consumer: Consumer) -> str:
    """Return the state of the service in one word."""
    if consumer.draining:
        return "shutting_down"
    if consumer.admission.circuit is not CircuitState.CLOSED:
        return "degraded"
    return STATUS[consumer.engine.state]


def report(app: web.Application) -> dict[str, Any]:
    """Collect what ``/health`` answers; nothing here asks the driver or waits."""
    consumer, engine = app[CONSUMER], app[CONSUMER].engine
    loaded = engine.state is EngineState.READY
    model, gpu = engine.model, app[GPU].reading
    return {
        "status": status(consumer),
        "gpu_available": gpu is not None or (loaded and model is not None and model.gpu),
        "gpu_memory_used": gigabytes(gpu.memory_used if gpu else None),
        "gpu_memory_total": gigabytes(gpu.memory_total if gpu else None),
        "model_loaded": loaded,
        "uptime_seconds": round(time.monotonic() - app[STARTED], 3),
        "model": model
        and {
            "id": model.model_id,
            "version": model.version,
            "demo": model.demo,
            "device": model.device,
            "dtype": model.dtype,
            "family": model.family,
            "prediction_type": model.prediction_type,
            "prediction_type_from": model.prediction_from,
            "configuration": model.configuration,
            "ignored_tensors": list(model.ignored),
        },
        "engine": {
            "state": engine.state.value,
            "restarts": engine.restarts,
            "circuit": consumer.admission.circuit.value,
            "silent_seconds": round(engine.silence, 3),
            **({"failure": engine.failure} if engine.failure else {}),
        },
        "queue": {"depth": consumer.depth, "limit": app[CONFIG].queue_size},
        "running": consumer.running,
        "version": __version__,
    }


def gigabytes(count: int | None) -> str:
    """Return bytes as people read them, for example ``2.1 GB``; nothing measured is 0.0 GB."""
    return f"{(count or 0) / 2**30:.1f} GB"
