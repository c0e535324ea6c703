"""Parameters of an image as text: written, read, and found in files.

The form is AUTOMATIC1111's, which other tools read. Each of them takes some beginnings of lines
for its own, so those in a prompt get one more space: text encoders read runs of white space as
one, and the same words give the same image.
"""

import io
import json
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from PIL import ExifTags, Image

from service import __version__
from service.core.image import RawImage
from service.core.inputs import HiresResize, MaskFill, Resize
from service.core.prompt.language import TAG
from service.core.sampler import Sampler, Schedule
from service.core.spec import FIELDS, Adapter, GenerationSpec
from service.images.containers import JPEG, pixels_only, user_comment

HASHES: Final = {"adapter_hashes": "Lora hashes", "embeddings": "TI hashes"}
"""AUTOMATIC1111's names for what the metadata say of files."""

SOFTWARE: Final = "sd-api"
"""How the value of ``Version`` begins; AUTOMATIC1111 would take a number alone for its own."""

NEGATIVE: Final = "Negative prompt: "
MARKER: Final = re.compile("Negative( +)prompt:")
"""sd-parsers and Civitai take it for a mark wherever it stands, AUTOMATIC1111 at the beginning of
a line; sd-parsers raises at a second one."""

BEGINNING: Final = re.compile(r"^( *)(?=(?:Steps|Template|Negative Template):|{)", re.MULTILINE)
"""sd-prompt-reader takes the first line of steps for the parameters, and a text in Exif data that
begins with a brace for another program's; Civitai takes that line, too, and drops templates."""

SEPARATORS: Final = re.compile(r'[,:"\\\x00-\x1f\x7f\x85\u2028\u2029]')
"""Characters that AUTOMATIC1111 leaves out of names, and those that would end a line."""

PAIR: Final = re.compile(r'(\w[\w /-]{1,60}):\s*("(?:[^"\\]|\\.)+"|[^,]*)(?:,|$)')
SIZE: Final = re.compile(r"(\d+)x(\d+)")
FEWEST_PAIRS: Final = 3
"""In a line of parameters; with fewer it is text."""
LONGEST_LINE: Final = 65_536
"""Characters of a line of parameters that is read."""

LABELS: Final[Mapping[str, Mapping[object, object]]] = {
    "resize": {
        Resize.STRETCH: "Just resize",
        Resize.CROP: "Crop and resize",
        Resize.FILL: "Resize and fill",
    },
    "mask_fill": {
        MaskFill.ORIGINAL: "original",
        MaskFill.NOISE: "latent noise",
        MaskFill.BLUR: "fill",
    },
    "mask_invert": {True: "Inpaint not masked"},
}
"""AUTOMATIC1111's words for values, by field."""
UPSCALERS: Final = {HiresResize.LATENT: "Latent", HiresResize.LANCZOS: "Lanczos"}

FORMATS: Final = ("PNG", "WEBP", "JPEG")
BROKEN: Final = "must be a PNG, WebP or JPEG image that is not damaged"
MOST_PIXELS: Final = 2**27
"""Of an image whose text is read; a larger one is a trap. Pillow's own limit is off
(``images.decode``)."""
UNICODE: Final = b"UNICODE\0"
CODES: Final = (UNICODE, b"ASCII\0\0\0", b"JIS\0\0\0\0\0", bytes(8))
CODE_BYTES: Final = 8
"""Of the name of a character code, in front of a comment (Exif 2.32, 4.6.5)."""
TIFF_BYTES: Final = 8
"""Of the header of Exif data."""
DIRECTORY: Final = struct.Struct(">HHHIII")
"""Of one entry: their number; its tag, type, count, and value or offset; no further directory."""
LONG, UNDEFINED = 4, 7
"""Types of values (Exif 2.32, 4.6.2)."""
LONGEST_EXIF: Final = 65_533
"""Bytes of a segment of a JPEG."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What the text of an image says."""

    prompt: str
    negative_prompt: str
    values: Mapping[str, str]
    """By AUTOMATIC1111's names; ``Size`` as ``Size-1`` and ``Size-2``, as it has them."""


def infotext(
    request: GenerationSpec,
    image: RawImage,
    model_version: str,
    metadata: Mapping[str, Any] | None = None,
    index: int = 0,
) -> str:
    """Return the parameters as AUTOMATIC1111 writes them.

    Of the metadata it takes the hash of the model, the VAE, and the hashes of adapters and
    embeddings. ``index`` is the number of the image in its job, from 0.
    """
    named = {words.partition(":")[0] for kind, words in TAG.findall(request.prompt)}
    tags = [_tag(each) for each in request.adapters if each.name not in named]
    lines = [_marked(" ".join(filter(None, (request.prompt, *tags))))]
    if request.negative_prompt:
        lines.append(NEGATIVE + _marked(request.negative_prompt))
    used = request.used
    shown = {
        each.name: used[each.name]
        for each in FIELDS
        if each.name in used and not (each.rare and used[each.name] == each.default)
    }
    shown |= {"sampler": Sampler(request.sampler).infotext, "seed": image.seed}
    shown["schedule"] = Schedule(request.schedule).infotext
    shown |= {name: LABELS[name][shown[name]] for name in LABELS if name in shown}
    if "subseed" in shown:
        shown["subseed"] = request.subseeds[index]
    about = metadata or {}
    parameters = {
        **{
            each.infotext: _plain(shown[each.name])
            for each in FIELDS
            if each.infotext and each.name in shown
        },
        **_second_pass(request),
        **({"Inpaint area": "Only masked"} if "mask_padding" in shown else {}),
        "Size": f"{request.width}x{request.height}",
        "Model hash": about.get("model_hash", ""),
        "Model": _name(model_version),
        "VAE": _name(about.get("vae", "")),
        **{label: _hashes(about.get(name, {})) for name, label in HASHES.items()},
        "Version": f"{SOFTWARE} {__version__}",
    }
    lines.append(", ".join(f"{name}: {value}" for name, value in parameters.items() if value != ""))
    return "\n".join(lines)


def _second_pass(request: GenerationSpec) -> dict[str, object]:
    """Return what is said of a second pass; its steps are those that are done."""
    if (hires := request.hires) is None:
        return {}
    scaled = {"Hires upscale": _plain(hires.scale)}
    return {
        "Denoising strength": _plain(hires.strength),
        **(scaled if hires.scale else {"Hires resize": f"{hires.width}x{hires.height}"}),
        "Hires steps": request.hires_steps,
        "Hires upscaler": UPSCALERS[HiresResize(hires.resize)],
    }


def parsed(text: str) -> Parameters:
    """Return what a text in AUTOMATIC1111's form says, as AUTOMATIC1111 itself reads it.

    A text of this service gives back both prompts to the character.
    """
    head, _, last = text.rstrip().rpartition("\n")
    values = _values(last)
    if values.get("Version", "").startswith(f"{SOFTWARE} "):
        prompt, _, negative = f"\n{head}".partition(f"\n{NEGATIVE}")
        return Parameters(
            prompt=_unmarked(prompt[1:]), negative_prompt=_unmarked(negative), values=values
        )
    lines = head.split("\n") + ([] if values else [last])
    found: tuple[list[str], list[str]] = ([], [])
    negative_now = False
    for line in map(str.strip, lines):
        if line.startswith(NEGATIVE.strip()):
            negative_now = True
            line = line.removeprefix(NEGATIVE.strip()).strip()  # noqa: PLW2901 - the mark is gone
        found[negative_now].append(line)
    prompt, negative = ("\n".join(each).strip("\n") for each in found)
    return Parameters(prompt=prompt, negative_prompt=negative, values=values)


def exif(text: str) -> bytes:
    """Return a text as the Exif data of a WebP or a JPEG: a comment in UTF-16, big endian.

    Pillow would write it as numbers, which other tools do not read as text.
    """
    comment = UNICODE + text.encode("utf-16-be", "replace")
    header = struct.pack(">2sHI", b"MM", 42, TIFF_BYTES)
    first = TIFF_BYTES + DIRECTORY.size
    pointer = DIRECTORY.pack(1, ExifTags.IFD.Exif, LONG, 1, first, 0)
    entry = (ExifTags.Base.UserComment, UNDEFINED, len(comment), first + DIRECTORY.size)
    return b"Exif\0\0" + header + pointer + DIRECTORY.pack(1, *entry, 0) + comment


def read(data: bytes) -> str | None:
    """Return the text of the parameters in a PNG, WebP or JPEG; None where there is none.

    The pixels are not decoded.

    Raises:
        ValueError: it is no such image, or damaged.

    """
    try:
        # Pillow reads the Exif data of a JPEG as it opens it: each value as often as it is named.
        plain, exif_data = pixels_only(data) if data.startswith(JPEG) else (data, b"")
        with Image.open(io.BytesIO(plain), formats=FORMATS) as image:
            pixels = image.width * image.height
            found = _told(image, exif_data) if pixels <= MOST_PIXELS else None
    except Exception as error:  # Damaged files make Pillow raise errors of any class.
        raise ValueError(BROKEN) from error
    if pixels > MOST_PIXELS:
        raise ValueError(BROKEN)
    return found


def _told(image: Image.Image, exif_data: bytes) -> str | None:
    if image.format == "PNG":
        told = image.info.get("parameters")
        return told if isinstance(told, str) else None
    return _decoded(user_comment(exif_data or image.info.get("exif", b"")))


def _decoded(comment: bytes) -> str | None:
    body = comment[CODE_BYTES:] if comment[:CODE_BYTES] in CODES else comment
    if comment.startswith(UNICODE):
        # Some tools write the other order of bytes, which none of them says.
        texts = [body.decode(f"utf-16-{order}", "replace") for order in ("be", "le")]
        return next((text for text in texts if "Steps: " in text), texts[0]) or None
    return body.rstrip(b"\0").decode("utf-8", "replace") or None


def _marked(text: str) -> str:
    return BEGINNING.sub(r" \1", MARKER.sub(r"Negative \1prompt:", text))


def _unmarked(text: str) -> str:
    text = BEGINNING.sub(lambda spaces: spaces[1].removeprefix(" "), text)
    return MARKER.sub(lambda found: f"Negative{found[1][1:] or ' '}prompt:", text)


def _tag(adapter: Adapter) -> str:
    """Return an adapter as AUTOMATIC1111 writes it into a prompt, text encoders first."""
    weights = [f"{adapter.weight:g}"]
    if adapter.text_weight != adapter.weight:
        weights.insert(0, f"{adapter.text_weight:g}")
    return f"<lora:{adapter.name}:{':'.join(weights)}>"


def _plain(value: object) -> object:
    return f"{value:g}" if isinstance(value, float) else value


def _name(name: str) -> str:
    """Return a name without what divides parameters: of those who read it, few know quotes."""
    return SEPARATORS.sub("", name).strip()


def _hashes(by_name: Mapping[str, str]) -> str:
    known = [f"{_name(name)}: {value}" for name, value in by_name.items() if value]
    return json.dumps(", ".join(known), ensure_ascii=False) if known else ""


def _values(line: str) -> dict[str, str]:
    """Return the pairs of a line of parameters; none where it is too short or too long for one."""
    pairs = PAIR.findall(line) if len(line) <= LONGEST_LINE else []
    if len(pairs) < FEWEST_PAIRS:
        return {}
    return dict(_sized((name, _unquoted(value)) for name, value in pairs if value))


def _sized(pairs: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    for name, value in pairs:
        if size := SIZE.fullmatch(value):
            yield from ((f"{name}-{number}", size[number]) for number in (1, 2))
        else:
            yield name, value


def _unquoted(value: str) -> str:
    if not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value
