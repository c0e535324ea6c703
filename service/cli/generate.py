"""The command ``generate``: images without a server."""

import argparse
import hashlib
import json
import math
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tqdm import tqdm

from service.cli import output, preflight
from service.cli.exits import Exit
from service.cli.terminal import print_error, show
from service.config.limits import limits_of
from service.config.table import Config
from service.core.events import JobFailed, JobFinished, Stepped
from service.core.fields import RequestField
from service.core.image import RawImage
from service.core.inputs import EngineInputs, Hires, InputImage
from service.core.spec import FIELDS, GenerationSpec, declared
from service.errors import GenerationFailed, ValidationFailed, error_class
from service.telemetry import logs

if TYPE_CHECKING:
    from service.diffusion.loop.step_loop import StepLoop

VALUES: Final = {int: "NUMBER", float: "NUMBER"}
"""How the help writes what stands after an option."""
IMAGES: Final = ("image", "mask")
MOST_PIXELS: Final = 2**28
"""Of an image of the user's own; more than a camera makes."""
HIRES_OPTIONS: Final = ("steps", "strength", "resize")
"""Fields of a second pass that have an option each; its size is that of ``--hires``."""


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the fields of a request to the ``generate`` command."""
    parser.add_argument(
        *("-o", "--output"),
        type=Path,
        metavar="FILE",
        help="PNG to write, or to replace; names of further images end in -2, -3, …. Without it "
        "each image gets a new file in this folder, named after prompt and seed.",
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "--preview",
        action="store_true",
        help="Draw each image into the terminal, where standard output is one.",
    )
    shown.add_argument(
        "--json",
        action="store_true",
        help="Print one JSON object with files, seeds and metadata, in place of file names.",
    )
    parser.add_argument(
        "--lora",
        dest="adapters",
        action="append",
        type=adapter,
        metavar="NAME[:WEIGHT[:TEXT]]",
        help="LoRA file to use, by name, with its weight and that of its text encoders, as ink:0.8 "
        "or ink:0.8:0.5; may be given several times.",
    )
    for each in FIELDS:
        if each.entries is None and not each.needs:
            _add(parser, each)
    _add_start(parser.add_argument_group("image as input, second pass and variation"))


def _add_start(group: argparse._ArgumentGroup) -> None:
    """Add the fields of what a request begins with."""
    group.add_argument(
        "--image", type=Path, metavar="FILE", help="Image to begin with: PNG, JPEG, WebP or AVIF."
    )
    group.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help="Mask of the image: it is repainted where the mask is white.",
    )
    group.add_argument(
        "--pad",
        type=pad,
        metavar="LEFT,TOP,RIGHT,BOTTOM",
        help="Pixels to add to each side of the image; they are repainted.",
    )
    group.add_argument(
        "--hires",
        type=hires,
        metavar="SCALE or WIDTHxHEIGHT",
        help="Second pass in a larger size, as 2 or 1024x768.",
    )
    for each in declared(Hires):
        if each.name in HIRES_OPTIONS:
            _add(group, each, f"hires-{each.name}")
    for each in FIELDS:
        if each.needs and not each.is_object:
            _add(group, each)


def _add(group: argparse._ActionsContainer, asked: RequestField, name: str = "") -> None:
    option = name or asked.name.replace("_", "-")
    if asked.kind is bool:
        group.add_argument(f"--{option}", action="store_true", default=None, help=asked.help)
        return
    shown = None if asked.required else VALUES.get(asked.kind, "TEXT")
    named = asked.name if asked.required else f"--{option}"
    group.add_argument(named, type=asked.kind, metavar=shown, help=asked.help)


def pad(text: str) -> dict[str, int]:
    """Read the pixels to add to each side.

    Raises:
        argparse.ArgumentTypeError: the text has another form.

    """
    if not re.fullmatch(r"\d+,\d+,\d+,\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be four numbers, as 64,0,64,0")
    return dict(zip(("left", "top", "right", "bottom"), map(int, text.split(",")), strict=True))


def hires(text: str) -> dict[str, float]:
    """Read the size of a second pass.

    Raises:
        argparse.ArgumentTypeError: the text has another form.

    """
    if size := re.fullmatch(r"(\d+)x(\d+)", text):
        return {"width": int(size[1]), "height": int(size[2])}
    try:
        return {"scale": float(text)}
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} must be 2 or 1024x768") from error


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
    from service.models.adapters.catalog import catalog_of  # noqa: PLC0415
    from service.models.defaults import adapters  # noqa: PLC0415
    from service.models.served.catalog import DEFAULT  # noqa: PLC0415
    from service.models.served.catalog import catalog_of as models_of  # noqa: PLC0415
    from service.models.served.hashes import ModelHashes  # noqa: PLC0415

    logs.configure(config)
    given, inputs = _asked(arguments)
    models = models_of(config)
    model = models.find(given.get("model", DEFAULT))
    models.demand(model)
    known = models[model].known
    request = read_request(
        given, limits_of(config, known.sizes, known.recipe, known.max_clip_skip, known.schedules)
    )
    if model != DEFAULT:
        config = replace(config, model_id=models[model].address)
    paths = _places(arguments.output, request.num_images)
    preflight.check(config, serving=False)
    loop, ready = worker.load(config)
    # A model that was fetched just now is better known than before.
    info = ready.model
    limits = limits_of(config, info.sizes, info.recipe, info.max_clip_skip, info.schedules)
    request = read_request({**given, "seed": request.seed}, limits)
    demand_sampler(request, info)
    demand_adapters(request, catalog_of(config), info.adapters or info.family)
    prepared = _prepared(inputs, request)
    hashes = ModelHashes(models, config.model_cache_dir)
    hashes.ask(model)  # It is read while the images are drawn.
    began = time.monotonic()
    outcome = _outcome(loop, request, prepared)
    if isinstance(outcome, JobFailed):
        title = str(error_class(outcome.code).__doc__).rstrip(".")
        print_error(f"{title}: {outcome.detail}")
        return Exit.MODEL_DAMAGED if _is_the_models_fault(loop, outcome) else Exit.FAILED
    facts = {
        **request.used,
        "seeds": list(request.seeds),
        "model_version": info.version,
        **adapters.facts(request, info.facts(request), config.max_steps),
        "model_hash": hashes.ask(model),
        "generation_time_seconds": round(time.monotonic() - began, 4),
        "prompt_tokens_cut": outcome.prompt_tokens_cut,
        "adapter_hashes": dict(outcome.adapter_hashes),
        "embeddings": dict(outcome.embeddings),
    }
    written = []
    paste = _paste(inputs, request)
    for index, path in enumerate(paths):
        image = paste(outcome.images[index])
        content = _encoded(image, request, facts, bare=config.bare_images, index=index)
        name = output.stem(request.prompt, image.seed)
        try:
            file = _written(path, name, content)
        except OSError as error:
            return print_error(f"{path or name} cannot be written ({error.strerror}).")
        written.append({"file": str(file), "seed": image.seed, "unsafe": image.unsafe})
        if not arguments.json and (failure := _shown(file, content, preview=arguments.preview)):
            return failure
    answer = {"images": written, "metadata": facts}
    return show(json.dumps(answer, ensure_ascii=False)) if arguments.json else 0


def _asked(
    arguments: argparse.Namespace,
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the fields that were given, with references to images, and the images by field.

    Raises:
        ValidationFailed: an image cannot be read.

    """
    given = {
        each.name: value
        for each in FIELDS
        if (value := getattr(arguments, each.name, None)) is not None
    }
    second = {
        name: value
        for name in HIRES_OPTIONS
        if (value := getattr(arguments, f"hires_{name}")) is not None
    }
    if second:
        given["hires"] = given.get("hires", {}) | second
    inputs: dict[str, bytes] = {}
    for name in IMAGES:
        if name in given:
            inputs[name], given[name] = _read(name, given[name])
    return given, inputs


def _read(name: str, path: Path) -> tuple[bytes, InputImage]:
    from service.images.decode import inspected  # noqa: PLC0415 - see _encoded

    try:
        data = path.read_bytes()
        about = inspected(data, MOST_PIXELS)
    except OSError as error:
        raise ValidationFailed({name: [f"{path} cannot be read ({error.strerror})"]}) from error
    except ValueError as error:
        raise ValidationFailed({name: [f"{path} {error}"]}) from error
    digest = hashlib.sha256(data).hexdigest()
    return data, InputImage(digest=digest, width=about.width, height=about.height)


def _prepared(inputs: Mapping[str, bytes], request: GenerationSpec) -> EngineInputs | None:
    """Return the images as the step loop takes them; None where there are none."""
    if request.image is None:
        return None
    from service.images.inputs import prepared  # noqa: PLC0415 - see _encoded

    return prepared(inputs["image"], inputs.get("mask", b""), request)


def _paste(inputs: Mapping[str, bytes], request: GenerationSpec) -> Callable[[RawImage], RawImage]:
    """Return what puts the repainted part of an image into the rest of it."""
    if not request.masked:
        return lambda image: image
    from service.images.paste import pasting  # noqa: PLC0415 - see _encoded

    return pasting(inputs["image"], inputs.get("mask", b""), request)


def _places(named: Path | None, count: int) -> list[Path | None]:
    """Return the file of each image; None for a new one, whose name its seed decides."""
    if named is not None:
        return [*output.paths(named, count)]
    output.demand_folder(Path())
    return [None] * count


def _encoded(
    image: RawImage, request: GenerationSpec, facts: Mapping[str, Any], *, bare: bool, index: int
) -> bytes:
    from service.images.encode import png  # noqa: PLC0415 - Pillow takes a while to import

    version = str(facts["model_version"])
    return png(image, request, version, facts, whole=False, bare=bare, index=index)


def _written(path: Path | None, name: str, content: bytes) -> Path:
    if path is None:
        return output.write_new(Path(), name, content)
    with output.replacing(path) as file:
        file.write(content)
    return path


def _shown(file: Path, content: bytes, *, preview: bool) -> int:
    """Print the name of a file and, where the terminal can, its image."""
    if failure := show(str(file)):
        return failure
    if not preview:
        return 0
    from service.cli.drawing import drawn  # noqa: PLC0415 - see _encoded

    picture = drawn(content)
    return show(picture) if picture else 0


def _is_the_models_fault(loop: "StepLoop", failed: JobFailed) -> bool:
    """Tell whether no request can be drawn: some weights are no numbers."""
    from service.diffusion.loop.decode import broken_weights  # noqa: PLC0415 - it imports torch

    return failed.code == GenerationFailed.code and bool(broken_weights(loop.model))


def _outcome(
    loop: "StepLoop", request: GenerationSpec, inputs: EngineInputs | None
) -> JobFinished | JobFailed:
    """Work on one request until it has ended."""
    loop.add("cli", request, inputs=inputs)
    with tqdm(total=request.total_steps, unit="step", file=sys.stderr) as bar:
        while loop.busy:
            for outcome in loop.step():
                match outcome:
                    case Stepped(progress=progress):
                        bar.update(progress.get("cli", bar.n) - bar.n)
                    case JobFailed():
                        return outcome
                    case JobFinished():
                        bar.update(request.total_steps - bar.n)
                        return outcome
    raise AssertionError("the step loop lost the request")
