"""Parameters of an image as text, as other programs and this one read them."""

import io
import json
import struct
import tracemalloc
import zlib
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from service import __version__
from service.core.inputs import Hires, InputImage
from service.core.sampler import Sampler, Schedule
from service.core.spec import Adapter, GenerationSpec
from service.images.encode import png
from service.images.infotext import exif, infotext, parsed, read
from service.models.catalog import DEMO_FOLDER
from tests.support.engine_extra import needs_engine
from tests.support.images.prompts import requests, texts, words
from tests.support.images.readers import a1111, civitai
from tests.support.simulation.fake_engine import gradient

REQUEST = GenerationSpec(
    prompt="a boat",
    negative_prompt="fog",
    width=64,
    height=128,
    steps=20,
    seed=7,
    sampler="dpmpp_2m_karras",
)
IMAGE = gradient(REQUEST, 8)
INPUT = InputImage(digest="0" * 64, width=640, height=480)
CONTROLS = {*"\x0b\x0c\x1c\x1d\x1e\x1f\x85"}
END = f", Version: sd-api {__version__}"
DETAILS: dict[str, Any] = {
    "model_version": "demo-1",
    "model_hash": "6ce0161689",
    "vae": "soft",
    "adapter_hashes": {"ink": "0cf9180a764a"},
    "embeddings": {"bad": "34"},
}


def line(request: GenerationSpec, version: str = "demo-1", **details: Any) -> str:
    """Return the line of parameters."""
    return infotext(request, IMAGE, version, details).splitlines()[-1]


def test_the_text_is_the_one_that_other_tools_read() -> None:
    """AUTOMATIC1111's form, with the seed of this image."""
    assert infotext(REQUEST, IMAGE, "demo-1") == (
        "a boat\n"
        "Negative prompt: fog\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 8, "
        f"Size: 64x128, Model: demo-1{END}"
    )


def test_what_is_known_of_files_is_said() -> None:
    """Hashes and the VAE in the words that AUTOMATIC1111 has for them."""
    assert line(REQUEST, **DETAILS).endswith(
        "Size: 64x128, Model hash: 6ce0161689, Model: demo-1, VAE: soft, "
        f'Lora hashes: "ink: 0cf9180a764a", TI hashes: "bad: 34"{END}'
    )


def test_what_is_seldom_said_shows_where_it_is_said() -> None:
    """The text of a request without it stays what it was."""
    request = replace(REQUEST, guidance_rescale=0.7, eta=0.5, clip_skip=2, prompt_syntax="a1111")
    assert (
        "Seed: 8, CFG rescale: 0.7, Eta: 0.5, Clip skip: 2, Prompt syntax: a1111, Size: 64x128"
        in line(request)
    )


def test_what_an_image_began_with_is_said() -> None:
    """In AUTOMATIC1111's words."""
    begun = replace(REQUEST, image=INPUT, strength=0.6, resize="fill")
    assert "Seed: 8, Denoising strength: 0.6, Resize mode: Resize and fill, Size" in line(begun)
    masked = replace(begun, mask=INPUT, mask_padding=32, mask_invert=True, mask_fill="noise")
    assert (
        "Mask blur: 4, Masked area padding: 32, Mask mode: Inpaint not masked, "
        "Masked content: latent noise, Inpaint area: Only masked, Size: 64x128"
    ) in line(masked)
    assert line(replace(begun, mask=INPUT)).count("Mask") == 1


def test_a_second_pass_is_said() -> None:
    """With the steps that it does, and the size of the first pass."""
    scaled = line(replace(REQUEST, hires=Hires(scale=1.5, strength=0.7)))
    assert (
        "Denoising strength: 0.7, Hires upscale: 1.5, Hires steps: 14, Hires upscaler: Latent, "
        "Size: 64x128"
    ) in scaled
    sized = Hires(width=512, height=768, steps=10, strength=0.5, resize="lanczos")
    assert ("Hires resize: 512x768, Hires steps: 5, Hires upscaler: Lanczos") in line(
        replace(REQUEST, hires=sized)
    )
    values = parsed(infotext(replace(REQUEST, hires=sized), IMAGE, "demo-1")).values
    assert (values["Hires resize-1"], values["Hires resize-2"]) == ("512", "768")


def test_each_image_has_its_variation() -> None:
    """The subseeds follow each other."""
    varied = replace(REQUEST, subseed=7, subseed_strength=0.25, num_images=2)
    text = infotext(varied, IMAGE, "demo-1", index=1)
    assert "Variation seed: 8, Variation seed strength: 0.25" in text


def test_adapters_are_tags_in_the_text() -> None:
    """As AUTOMATIC1111 writes them, unless the prompt has them itself."""
    adapters = (
        Adapter(name="ink", weight=0.8, text_weight=0.8),
        Adapter(name="snow", weight=1.0, text_weight=0.5),
    )
    tagged = replace(REQUEST, adapters=adapters)
    first = infotext(tagged, IMAGE, "demo-1").splitlines()[0]
    assert first == "a boat <lora:ink:0.8> <lora:snow:0.5:1>"
    assert infotext(replace(tagged, prompt=""), IMAGE, "demo-1").startswith("<lora:ink:0.8> <lora")


@pytest.mark.parametrize(
    "own", ["<lora:ink:0.8>", "<lora:ink>", "<lyco:ink:0.8>", "<lora:ink:te=0.8:unet=0.8>"]
)
def test_an_adapter_that_the_prompt_names_is_not_named_again(own: str) -> None:
    """However the prompt writes it: two tags would count twice."""
    adapters = (Adapter(name="ink", weight=0.8, text_weight=0.8),)
    mine = replace(REQUEST, prompt=f"a boat {own}", adapters=adapters)
    assert infotext(mine, IMAGE, "demo-1").splitlines()[0] == f"a boat {own}"


def test_hashes_that_are_not_known_are_left_out() -> None:
    """A file that could not be read has none."""
    assert 'Lora hashes: "ink: 0cf9, b: 12"' in line(
        REQUEST, adapter_hashes={"ink": "0cf9", "b": "12", "c": ""}
    )
    assert line(REQUEST, adapter_hashes={"c": ""}, embeddings={}) == line(REQUEST)


def test_an_empty_negative_prompt_has_no_line() -> None:
    """It is left out, as those tools do."""
    request = GenerationSpec(prompt="a boat", width=64, height=64)
    assert infotext(request, IMAGE, "demo").splitlines()[1].startswith("Steps: 20")


@pytest.mark.parametrize(
    ("version", "written"),
    [
        ("org/model:fp16", "org/modelfp16"),
        ("a, Seed: 3", "a Seed 3"),
        ('say "hi"\n', "say hi"),
        ("Schnee-Ü", "Schnee-Ü"),
    ],
)
def test_a_name_cannot_break_the_text(version: str, written: str) -> None:
    """It loses what divides parameters, as in AUTOMATIC1111: few readers know quotes."""
    text = infotext(REQUEST, IMAGE, version, {**DETAILS, "adapter_hashes": {version: "12"}})
    assert (a1111(text)["Model"], a1111(text)["Lora hashes"]) == (written, f"{written}: 12")
    assert (civitai(text)["Model"], civitai(text)["seed"]) == (written, "8")
    assert parsed(text).values["Model"] == written


def test_every_sampler_has_a_name_in_the_text() -> None:
    """No two samplers share one, and none is without."""
    assert len({sampler.infotext for sampler in Sampler} - {""}) == len(Sampler)


def test_the_models_own_schedule_has_no_name_in_the_text() -> None:
    """Other tools take it for theirs, and read an image of an earlier version as they did."""
    assert "Schedule" not in infotext(GenerationSpec(prompt="a boat"), IMAGE, "demo")
    assert len({schedule.infotext for schedule in Schedule} - {""}) == len(Schedule) - 1


@given(requests)
def test_automatic1111_reads_what_was_asked(request: GenerationSpec) -> None:
    """Whatever the prompts say, none of it is taken for a parameter, nor the other way round."""
    found = a1111(infotext(request, IMAGE, "demo-1", DETAILS))
    assert words(found["Prompt"]) == words(request.prompt)
    assert words(found["Negative prompt"]) == words(request.negative_prompt)
    assert (found["Steps"], found["Seed"]) == (str(request.steps), "8")
    assert (found["Size-1"], found["Size-2"], found["Model"]) == ("64", "128", "demo-1")
    assert found["Lora hashes"] == "ink: 0cf9180a764a"


@needs_engine
@given(requests)
def test_what_is_read_makes_the_same_image(request: GenerationSpec) -> None:
    """The text encoder gets the same tokens from the file as from the request."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - of the extra

    # AUTOMATIC1111 takes control characters at the end of a line for white space.
    assume(not CONTROLS & {*request.prompt, *request.negative_prompt})
    read_as = Tokenizer.from_file(str(DEMO_FOLDER / "tokenizer" / "tokenizer.json")).encode
    found = a1111(infotext(request, IMAGE, "demo-1"))
    assert read_as(found["Prompt"].strip()).ids == read_as(request.prompt.strip()).ids
    theirs = found["Negative prompt"].strip()
    assert read_as(theirs).ids == read_as(request.negative_prompt.strip()).ids


@given(requests)
def test_civitai_reads_what_was_asked(request: GenerationSpec) -> None:
    """Whatever the prompts say; and it finds the model and the LoRA files by their hashes."""
    found = civitai(infotext(request, IMAGE, "demo-1", DETAILS))
    assert words(found["prompt"]) == words(request.prompt)
    assert words(found["negativePrompt"]) == words(request.negative_prompt)
    assert (found["steps"], found["seed"]) == (str(request.steps), "8")
    assert found["hashes"] == {"lora:ink": "0cf9180a764a", "model": "6ce0161689"}
    assert {"type": "model", "name": "demo-1", "hash": "6ce0161689"} in found["resources"]


@pytest.mark.parametrize(("name", "weight"), [("big ink", 0.8), ("ink", -0.5), ("ink", 0.8)])
def test_civitai_finds_adapters_whose_tags_it_does_not_read(name: str, weight: float) -> None:
    """It reads no tag with a space or a negative weight, but the list of hashes it does."""
    adapters = (Adapter(name=name, weight=weight, text_weight=weight),)
    text = infotext(
        replace(REQUEST, adapters=adapters), IMAGE, "m", {"adapter_hashes": {name: "0cf9"}}
    )
    (found,) = civitai(text)["resources"]
    assert (found["name"], found["hash"]) == (name, "0cf9")


@given(requests)
def test_the_text_gives_the_prompts_back_to_the_character(request: GenerationSpec) -> None:
    """White space included, which other readers lose."""
    found = parsed(infotext(request, IMAGE, "demo-1", DETAILS))
    assert found.prompt == request.prompt
    assert found.negative_prompt == request.negative_prompt
    assert found.values["Sampler"] == Sampler(request.sampler).infotext


@given(st.one_of(texts, requests.map(lambda each: infotext(each, IMAGE, "m").partition(END)[0])))
def test_texts_of_other_programs_are_read_as_automatic1111_does(text: str) -> None:
    """A text of anybody: both say the same of it."""
    ours, theirs = parsed(text), a1111(text)
    assert words(ours.prompt) == words(theirs.pop("Prompt"))
    assert words(ours.negative_prompt) == words(theirs.pop("Negative prompt"))
    assert dict(ours.values) == theirs


def test_a_text_that_is_no_parameters_is_a_prompt() -> None:
    """It has no values."""
    found = parsed("a boat\non a lake, at: dusk")
    assert (found.prompt, dict(found.values)) == ("a boat\non a lake, at: dusk", {})


def test_a_hostile_text_costs_no_time_worth_mentioning() -> None:
    """A megabyte of what could be a name, or blanks, or quotes is read at once."""
    for sign in ("a", " ", '"', "a:", 'a:"', "\\", "Negative", "\n "):
        assert parsed(sign * (2**20 // len(sign))).values == {}


def saved(kind: str, text: str) -> bytes:
    """Return a small image with a text about it."""
    if kind == "PNG":
        return png(IMAGE, REQUEST, "demo-1", DETAILS)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind, exif=exif(text))
    return file.getvalue()


@pytest.mark.parametrize("kind", ["WEBP", "JPEG"])
@given(request=requests)
def test_a_comment_is_read_again(kind: str, request: GenerationSpec) -> None:
    """In the comment of the Exif data, whatever the prompts say."""
    text = infotext(request, IMAGE, "demo-1", DETAILS)
    assert read(saved(kind, text)) == text


def test_a_comment_has_the_type_of_one() -> None:
    """Undefined, as Exif says: as a list of numbers piexif and all that use it fail at it."""
    data = exif("a")
    assert data == (
        b"Exif\0\0MM\0*\0\0\0\x08"
        b"\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x1a\0\0\0\0"
        b"\0\x01\x92\x86\0\x07\0\0\0\x0a\0\0\0\x2c\0\0\0\0"
        b"UNICODE\0\0a"
    )


@pytest.mark.parametrize(
    "comment",
    [
        *(b"UNICODE\0" + "é, Steps: 3".encode(f"utf-16-{order}") for order in ("be", "le")),
        b"ASCII\0\0\0" + "é, Steps: 3".encode(),
        b"\0" * 8 + "é, Steps: 3".encode() + b"\0",
    ],
)
def test_comments_of_other_programs_are_read(comment: bytes) -> None:
    """Whichever code they name, and in either order of bytes."""
    data, file = Image.Exif(), io.BytesIO()
    data[0x8769] = {0x9286: comment}
    Image.new("RGB", (8, 8)).save(file, "WEBP", exif=data.tobytes())
    assert read(file.getvalue()) == "é, Steps: 3"


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_an_image_without_a_text_has_none(kind: str) -> None:
    """As a photograph, or one that was saved without it."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind)
    assert read(file.getvalue()) is None


WHOLE = [saved(each, "Steps: 3") for each in ("PNG", "WEBP", "JPEG")]


@given(st.sampled_from(WHOLE), st.data())
def test_damaged_files_have_one_kind_of_error(whole: bytes, data: st.DataObject) -> None:
    """Whatever is wrong: a text is read, or there is none, or the file is refused."""
    damaged = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, min(len(whole), 700) - 1), max_size=6)):
        damaged[place] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(0, len(damaged))) :]
    with suppress(ValueError):
        found = read(bytes(damaged))
        assert found is None or isinstance(found, str)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    """Neither a text of a gigabyte in a megabyte, nor an image of more pixels than memory."""
    info = PngInfo()
    info.add_text("parameters", "a" * 2**28, zip=True)
    file = io.BytesIO()
    Image.new("1", (8, 8)).save(file, "PNG", pnginfo=info)
    header = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 1, 0, 0, 0, 0)
    wide = b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + header + struct.pack(">I", zlib.crc32(header))
    wide += b"\0\0\0\x00IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    for bomb in (file.getvalue(), wide):
        assert len(bomb) < 2**20
        tracemalloc.start()
        with pytest.raises(ValueError, match="must be a PNG"):
            read(bomb)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 2**23


def test_the_text_is_json_where_it_is_quoted() -> None:
    """Names with letters of any language stay as they are."""
    quoted = line(REQUEST, adapter_hashes={"Ü": "1"}).partition("Lora hashes: ")[2]
    assert json.loads(quoted.removesuffix(END)) == "Ü: 1"


@pytest.mark.parametrize("kind", ["WEBP", "JPEG"])
def test_values_that_are_named_many_times_are_not_copied(kind: str) -> None:
    """Of Exif data that name the same 20,000 bytes 3,000 times, only the comment is read."""
    values, size = 3_000, 20_000
    directory = struct.pack(">H", values + 1) + b"".join(
        struct.pack(">HHII", 0xC000 + number, 7, size, 0) for number in range(values)
    )
    inner = 8 + len(directory) + 12 + 4
    pointer = struct.pack(">HHII", 0x8769, 4, 1, inner)
    comment = b"ASCII\0\0\0Steps: 3"
    entry = struct.pack(">HHHIII", 1, 0x9286, 7, len(comment), inner + 18, 0)
    tiff = struct.pack(">2sHI", b"MM", 42, 8) + directory + pointer + bytes(4) + entry + comment
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind, exif=b"Exif\0\0" + tiff)
    tracemalloc.start()
    assert read(file.getvalue()) == "Steps: 3"
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20
