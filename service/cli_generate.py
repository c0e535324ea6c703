"""The command ``generate``: pictures without a server."""

import argparse
import stat
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tqdm import tqdm

from service import start
from service.config import Config
from service.diffusion.generation import GenerationRequest, JobFailed, JobFinished, Stepped
from service.errors import ConfigError, GenerationFailed, error_class
from service.exits import Exit
from service.telemetry import logs
from service.terminal import complain, show

if TYPE_CHECKING:
    from service.diffusion.step_loop import StepLoop

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
    """Make pictures in this process, with a progress bar; return 1 when that fails."""
    from service.engine import worker  # noqa: PLC0415 - torch is imported only to make pictures
    from service.http.pictures import png  # noqa: PLC0415
    from service.http.sampling import demand_sampler  # noqa: PLC0415
    from service.http.schemas import read_request  # noqa: PLC0415

    logs.configure(config)
    fields = {name: getattr(arguments, name) for name in REQUEST_ARGUMENTS}
    request = read_request(
        {name: value for name, value in fields.items() if value is not None}, config
    )
    paths = output_paths(arguments.output, request.num_images)
    start.check(config, serving=False)
    loop, ready = worker.load(config)
    demand_sampler(request, ready.model)
    outcome = _outcome(loop, request)
    if isinstance(outcome, JobFailed):
        title = str(error_class(outcome.code).__doc__).rstrip(".")
        complain(f"{title}: {outcome.detail}")
        return Exit.MODEL_DAMAGED if _is_the_models_fault(loop, outcome) else Exit.FAILED
    for path, picture in zip(paths, outcome.pictures, strict=True):
        content = png(picture, request, ready.model.version)
        try:
            with replacing(path) as file:
                file.write(content)
        except OSError as error:
            return complain(f"{path} cannot be written ({error.strerror}).")
        if failure := show(str(path)):
            return failure
    return 0


def _is_the_models_fault(loop: "StepLoop", failed: JobFailed) -> bool:
    """Tell whether no request can be drawn: some weights are no numbers."""
    from service.diffusion.decode import broken_weights  # noqa: PLC0415 - it imports torch

    return failed.code == GenerationFailed.code and bool(broken_weights(loop.model))


def output_paths(output: Path, count: int) -> list[Path]:
    """Return the name of each picture, after finding out that all of them can be written.

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
        # A picture takes the place of what had its name: of a device, of a link, not of its target.
        raise ConfigError(
            f"--output {path}: is a device, a link or the like, which is not replaced; "
            "choose another name."
        )
    if path.suffix.lower() != ".png":
        raise ConfigError(
            f"--output {path}: pictures are written as PNG; call it {path.stem or 'out'}.png."
        )


def _outcome(loop: "StepLoop", request: GenerationRequest) -> JobFinished | JobFailed:
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
