"""What each command of the command line does."""

import argparse
import json
import os
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path

import structlog
from aiohttp import web
from tqdm import tqdm

from service.config import Config
from service.diffusion import catalog
from service.diffusion.generation import GenerationRequest, JobFailed, JobFinished, Stepped
from service.errors import ConfigError, error_class
from service.telemetry import logs

log = structlog.get_logger(__name__)

HEALTH_SECONDS = 5.0
SHUTDOWN_MARGIN_SECONDS = 5.0
"""After the shutdown time unfinished requests are answered with 503; this sends the answers."""

REQUEST_ARGUMENTS = (
    "prompt",
    "negative_prompt",
    "width",
    "height",
    "steps",
    "guidance_scale",
    "sampler",
    "seed",
    "num_images",
)


def serve(config: Config, _arguments: argparse.Namespace) -> int:
    """Answer requests until SIGTERM or Ctrl-C, then finish what was accepted."""
    from service.app import create_app  # noqa: PLC0415 - the other commands need no server
    from service.engine.process import ProcessEngine  # noqa: PLC0415

    logs.configure(config)
    catalog.resolve(config.model_id, config.model_cache_dir)  # A typing error ends the start here.
    door = _listen(config)
    host, port = door.getsockname()[:2]
    log.info("service_listening", url=f"http://{host}:{port}", pid=os.getpid())
    web.run_app(
        create_app(config, ProcessEngine(config)),
        sock=door,
        access_log=None,
        handler_cancellation=True,
        print=None,
        shutdown_timeout=config.shutdown_timeout_seconds + SHUTDOWN_MARGIN_SECONDS,
    )
    log.info("service_stopped")
    return 0


def _listen(config: Config) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.api_host else socket.AF_INET
    try:
        return socket.create_server((config.api_host, config.api_port), family=family, backlog=128)
    except OSError as error:
        raise ConfigError(
            f"API_HOST={config.api_host}, API_PORT={config.api_port}: cannot listen there "
            f"({error.strerror}); set API_PORT to a free port, or 0 for any."
        ) from error


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the fields of a request to the ``generate`` command."""
    parser.add_argument("prompt", help="What the picture shows.")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("out.png"), help="PNG to write [out.png]."
    )
    parser.add_argument("--negative-prompt", help="What it shall not show.")
    parser.add_argument("--width", type=int, help="Pixels, a multiple of 64.")
    parser.add_argument("--height", type=int, help="Pixels, a multiple of 64.")
    parser.add_argument("--steps", type=int, help="Denoising steps.")
    parser.add_argument("--guidance-scale", type=float, help="How closely to follow the prompt.")
    parser.add_argument("--sampler", help="Name of the sampler.")
    parser.add_argument("--seed", type=int, help="Same seed, same picture.")
    parser.add_argument("--num-images", type=int, help="Pictures; the further ones get -2, -3, ….")


def generate(config: Config, arguments: argparse.Namespace) -> int:
    """Make pictures in this process, with a progress bar."""
    from service.engine import worker  # noqa: PLC0415 - torch is imported only to make pictures
    from service.http.schemas import read_request  # noqa: PLC0415

    logs.configure(config)
    fields = {name: getattr(arguments, name) for name in REQUEST_ARGUMENTS}
    request = read_request(
        {name: value for name, value in fields.items() if value is not None}, config
    )
    if not arguments.output.absolute().parent.is_dir():
        raise ConfigError(f"--output {arguments.output}: the folder does not exist; create it.")
    loop, ready = worker.load(config)
    loop.add("cli", request)
    with tqdm(total=request.steps, unit="step", file=sys.stderr) as bar:
        while loop.busy:
            for outcome in loop.step():
                match outcome:
                    case Stepped(progress=progress):
                        bar.update(progress.get("cli", bar.n) - bar.n)
                    case JobFailed(code=code, detail=detail):
                        raise error_class(code)(detail)
                    case JobFinished():
                        bar.update(request.steps - bar.n)
                        _write(outcome, request, arguments.output, ready.model.version)
    return 0


def _write(finished: JobFinished, request: GenerationRequest, output: Path, version: str) -> None:
    """Write each picture whole or not at all."""
    from service.http.pictures import png  # noqa: PLC0415

    for number, picture in enumerate(finished.pictures, 1):
        path = output if number == 1 else output.with_stem(f"{output.stem}-{number}")
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(png(picture, request, version))
        part.replace(path)
        print(path)  # noqa: T201


def health(config: Config, _arguments: argparse.Namespace) -> int:
    """Print a running service's health; return 0 when it is ready and 1 when it is not."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.api_host, config.api_host)  # noqa: S104
    base = (
        f"http://[{host}]:{config.api_port}" if ":" in host else f"http://{host}:{config.api_port}"
    )
    try:
        with urllib.request.urlopen(f"{base}/health", timeout=HEALTH_SECONDS) as answer:  # noqa: S310
            report = json.load(answer)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        print(f"sd-api: no answer from {base}/health: {reason}", file=sys.stderr)  # noqa: T201
        return 1
    print(json.dumps(report, indent=2))  # noqa: T201
    return 0 if report["model_loaded"] and report["status"] == "healthy" else 1


def models(config: Config, _arguments: argparse.Namespace) -> int:
    """Print each installed model: its id for MODEL_ID, its version and its place."""
    for model in catalog.installed(config.model_cache_dir):
        print(f"{model.id}\t{model.version}\t{model.path}")  # noqa: T201
    return 0
