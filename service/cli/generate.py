"""The command ``generate``: images without a server."""

import argparse
import math
import stat
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tqdm import tqdm

from service.cli import preflight
from service.cli.exits import Exit
from service.cli.terminal import print_error, show
from service.config.limits import limits_of
from service.config.table import Config
from service.core.events import JobFailed, JobFinished, Stepped
from service.core.spec import FIELDS, GenerationSpec
from service.errors import ConfigError, GenerationFailed, error_class
from service.telemetry import logs

if TYPE_CHECKING:
    from service.diffusion.loop.step_loop import StepLoop


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the fields of a request to the ``generate`` command."""
    parser.add_argument(
        *("-o", "--output"),
        type=Path,
        default=Path("out.png"),
        help="PNG to write [out.png]; names of further images end in -2, -3, ….",
    )
    parser.add_argument(
        "--lora",
        dest="adapters",
        action="append",
        type=adapter,
        metavar="NAME[:WEIGHT[:TEXT_WEIGHT]]",
        help="LoRA file to use, by name, for example ink:0.8; may be given several times.",
    )
    for each in FIELDS:
        if each.entries is not None:
            continue
        name = each.name if each.required else f"--{each.name.replace('_', '-')}"
        parser.add_argument(name, type=each.kind, help=each.help)


def adapter(text: str) -> dict[str, object]:
    """Read an adapter and its weights.

    Raises:
        argparse.ArgumentTypeError: the text has another form.

    """
    name, *weights = text.split(":")
    names = ("weight", "text_weight")
    try:
        numbers = [float(each) for each in weights]
    except ValueError:
        numbers = [math.nan]
    if not name or len(weights) > len(names) or any(map(math.isnan, numbers)):
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME, NAME:0.8 or NAME:0.8:0.5")
    return {"name": name, **dict(zip(names, numbers, strict=False))}


def generate(config: Config, arguments: argparse.Namespace) -> int:
    """Make images in this process, with a progress bar; return 1 when that fails."""
    from service.engine.process import worker  # noqa: PLC0415 - torch is imported only to make images
    from service.http.schema.adapters import demand_adapters  # noqa: PLC0415
    from service.http.schema.generation import read_request  # noqa: PLC0415
    from service.http.schema.sampling import demand_sampler  # noqa: PLC0415
    from service.images.encode import png  # noqa: PLC0415
    from service.models.adapters.catalog import catalog_of  # noqa: PLC0415
    from service.models.served.catalog import DEFAULT  # noqa: PLC0415
    from service.models.served.catalog import catalog_of as models_of  # noqa: PLC0415

    logs.configure(config)
    fields = {each.name: getattr(arguments, each.name) for each in FIELDS}
    models = models_of(config)
    given = {name: value for name, value in fields.items() if value is not None}
    model = models.find(given.get("model", DEFAULT))
    models.demand(model)
    known = models[model].known
    request = read_request(given, limits_of(config, known.sizes, known.recipe, known.max_clip_skip))
    if model != DEFAULT:
        config = replace(config, model_id=models[model].address)
    paths = output_paths(arguments.output, request.num_images)
    preflight.check(config, serving=False)
    loop, ready = worker.load(config)
    # A model that was fetched just now is better known than before.
    info = ready.model
    limits = limits_of(config, info.sizes, info.recipe, info.max_clip_skip)
    request = read_request({**given, "seed": request.seed}, limits)
    demand_sampler(request, info)
    demand_adapters(request, catalog_of(config), info.family)
    outcome = _outcome(loop, request)
    if isinstance(outcome, JobFailed):
        title = str(error_class(outcome.code).__doc__).rstrip(".")
        print_error(f"{title}: {outcome.detail}")
        return Exit.MODEL_DAMAGED if _is_the_models_fault(loop, outcome) else Exit.FAILED
    hashes = {"adapter_hashes": outcome.adapter_hashes, "embeddings": outcome.embeddings}
    for path, image in zip(paths, outcome.images, strict=True):
        content = png(image, request, info.version, hashes, whole=False)
        try:
            with replacing(path) as file:
                file.write(content)
        except OSError as error:
            return print_error(f"{path} cannot be written ({error.strerror}).")
        if failure := show(str(path)):
            return failure
    return 0


def _is_the_models_fault(loop: "StepLoop", failed: JobFailed) -> bool:
    """Tell whether no request can be drawn: some weights are no numbers."""
    from service.diffusion.loop.decode import broken_weights  # noqa: PLC0415 - it imports torch

    return failed.code == GenerationFailed.code and bool(broken_weights(loop.model))


def output_paths(output: Path, count: int) -> list[Path]:
    """Return the name of each image, after finding out that all of them can be written.

    Raises:
        ConfigError: one of them cannot, with the cure; found before minutes of work.

    """
    paths = [output, *(output.with_stem(f"{output.stem}-{n}") for n in range(2, count + 1))]
    for path in paths:
        try:
            _demand_replaceable(path)
            with replacing(path, keep=False):
                pass
        except OSError as error:
            raise ConfigError(f"--output {path}: cannot be written ({error.strerror}).") from error
    return paths


@contextmanager
def replacing(path: Path, *, keep: bool = True) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` when it is whole, and leaves nothing else.

    With ``keep=False`` it only tries whether the folder can be written to.
    """
    # Asking for permissions would not do: root has them on a read-only file system too.
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            yield file
        if keep:
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _demand_replaceable(path: Path) -> None:
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--output {path}: the folder does not exist; create it.")
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        kind = stat.S_IFREG
    if stat.S_ISDIR(kind):
        raise ConfigError(f"--output {path}: is a folder; name a file in it: {path / 'out.png'}.")
    if not stat.S_ISREG(kind):
        # An image takes the place of what had its name: of a device, of a link, not of its target.
        raise ConfigError(
            f"--output {path}: must be a regular file or a new name, not a device or a link."
        )
    if path.suffix.lower() != ".png":
        raise ConfigError(
            f"--output {path}: images are written as PNG; call it {path.stem or 'out'}.png."
        )


def _outcome(loop: "StepLoop", request: GenerationSpec) -> JobFinished | JobFailed:
    """Work on one request until it has ended."""
    loop.add("cli", request)
    with tqdm(total=request.steps, unit="step", file=sys.stderr) as bar:
        while loop.busy:
            for outcome in loop.step():
                match outcome:
                    case Stepped(progress=progress):
                        bar.update(progress.get("cli", bar.n) - bar.n)
                    case JobFailed():
                        return outcome
                    case JobFinished():
                        bar.update(request.steps - bar.n)
                        return outcome
    raise AssertionError("the step loop lost the request")
