"""The command ``generate``, with a stand-in for the model."""

import json
import os
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from service.__main__ import main
from service.cli import drawing
from service.core.spec import Adapter
from service.engine.process import worker
from service.images.infotext import read
from service.models.catalog import DEMO_FOLDER
from tests.support.engine_extra import needs_engine
from tests.support.models.adapter_headers import written
from tests.support.simulation.fake_engine import FAKE_MODEL

pytestmark = pytest.mark.usefixtures("here")


def is_png(path: Path) -> bool:
    with Image.open(path) as image:
        return image.format == "PNG"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@needs_engine
@pytest.mark.usefixtures("loaded")
def test_images_are_written_and_named(here, capsys):
    """One PNG per image, their names on standard output, and nothing else is left."""
    assert main(["generate", "a cat", "--num-images", "3", "-o", "cat.png"]) == 0
    assert capsys.readouterr().out.split() == ["cat.png", "cat-2.png", "cat-3.png"]
    assert names(here) == ["cat-2.png", "cat-3.png", "cat.png"]
    assert all(is_png(here / name) for name in names(here))


@needs_engine
@pytest.mark.usefixtures("loaded")
def test_without_a_name_images_are_named_after_prompt_and_seed(here, capsys):
    """Each by its own seed; the same command writes new files, and the old ones stay."""
    command = ["generate", "A red boat", "--num-images", "2", "--seed", "5"]
    assert main(command) == 0
    assert capsys.readouterr().out.split() == ["a-red-boat-0.png", "a-red-boat-1.png"]
    (here / "a-red-boat-0.png").write_bytes(b"old")
    assert main(command) == 0
    assert capsys.readouterr().out.split() == ["a-red-boat-0-2.png", "a-red-boat-1-2.png"]
    assert (here / "a-red-boat-0.png").read_bytes() == b"old"
    assert is_png(here / "a-red-boat-0-2.png")


@needs_engine
@pytest.mark.usefixtures("loaded")
def test_a_script_reads_files_and_metadata_as_json(here, capsys):
    """One object and nothing else on standard output."""
    assert main(["generate", "a cat", "--num-images", "2", "--steps", "3", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [image["seed"] for image in answer["images"]] == [0, 1]
    assert [image["unsafe"] for image in answer["images"]] == [False, False]
    assert all(is_png(here / image["file"]) for image in answer["images"])
    facts = answer["metadata"]
    assert (facts["prompt"], facts["steps"]) == ("a cat", 3)
    assert facts["model_version"] == FAKE_MODEL.version
    assert len(facts["seeds"]) == 2
    assert (facts["model"], facts["vae"]) == (FAKE_MODEL.model_id, FAKE_MODEL.vae)
    assert set(facts["model_hash"]) <= set("0123456789abcdef")


@needs_engine
@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("setting", ["full", "none"])
def test_files_say_how_they_were_made_unless_told_otherwise(here, monkeypatch, setting):
    """IMAGE_METADATA counts here as it does for the service."""
    monkeypatch.setenv("IMAGE_METADATA", setting)
    assert main(["generate", "a cat", "-o", "cat.png"]) == 0
    text = read((here / "cat.png").read_bytes())
    assert (text is None) == (setting == "none")
    assert text is None or text.startswith("a cat\nSteps: ")


@needs_engine
@pytest.mark.usefixtures("loaded")
def test_a_preview_is_drawn_below_the_name_of_its_file(capsys, monkeypatch):
    """In a terminal; in a pipe there is nothing but names."""
    assert main(["generate", "a cat", "--preview", "-o", "cat.png"]) == 0
    assert capsys.readouterr().out == "cat.png\n"
    monkeypatch.setattr(drawing, "drawn", lambda png: f"an image of {png[1:4].decode()}")
    assert main(["generate", "a cat", "--preview", "-o", "cat.png"]) == 0
    assert capsys.readouterr().out == "cat.png\nan image of PNG\n"


@pytest.mark.usefixtures("unloadable")
def test_json_has_no_image_in_it(capsys):
    """Whoever asks for both is told that they exclude each other."""
    with pytest.raises(SystemExit) as caught:
        main(["generate", "a cat", "--json", "--preview"])
    assert caught.value.code == 2
    assert "not allowed with argument --json" in capsys.readouterr().err


@needs_engine
@pytest.mark.parametrize("arguments", [[], ["--seed", "-1"], ["--seed=-1"]])
def test_a_seed_of_minus_one_is_drawn(loaded, arguments):
    """As it is where none is given; the file names it."""
    assert main(["generate", "a cat", *arguments, "-o", "cat.png"]) == 0
    assert 0 <= loaded.request.seed < 2**32


@needs_engine
def test_adapters_by_name_and_weight(loaded, here, monkeypatch):
    """The flag may be given several times; the weights are those of a request."""
    for name in ("ink", "snow"):
        written(here / "loras" / f"{name}.safetensors")
    monkeypatch.setenv("LORA_DIR", "loras")
    flags = ["--lora", "ink", "--lora", "snow:0.8:0.5"]
    assert main(["generate", "a cat", *flags, "-o", "cat.png"]) == 0
    assert loaded.request.adapters == (
        Adapter(name="ink", weight=1.0, text_weight=1.0),
        Adapter(name="snow", weight=0.8, text_weight=0.5),
    )


@needs_engine
@pytest.mark.usefixtures("loaded")
def test_an_unknown_adapter_is_one_line(capsys):
    """The names that there are come with it."""
    assert main(["generate", "a cat", "--lora", "none"]) == 2
    assert "There is no adapter 'none'." in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", ":1", "ink:strong", "ink:1:1:1", "ink:nan"])
@pytest.mark.usefixtures("unloadable")
def test_an_adapter_is_a_name_and_numbers(text, capsys):
    """Anything else ends the command with the form that it must have."""
    with pytest.raises(SystemExit) as caught:
        main(["generate", "a cat", "--lora", text])
    assert caught.value.code == 2
    assert "must be NAME, NAME:0.8 or NAME:0.8:0.5" in capsys.readouterr().err


@needs_engine
@pytest.mark.usefixtures("loaded")
def test_an_existing_image_is_replaced(here):
    """The same command may be given twice; the file gets the rights of any new file."""
    (here / "cat.png").write_bytes(b"old")
    assert main(["generate", "a cat", "-o", "cat.png"]) == 0
    (here / "new").touch()
    assert is_png(here / "cat.png")
    assert (here / "cat.png").stat().st_mode == (here / "new").stat().st_mode


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("folder.png", "is a folder; name a file in it: folder.png/out.png"),
        ("folder", "is a folder; name a file in it: folder/out.png"),
        ("pipe.png", "must be a regular file or a new name, not a device or a link"),
        ("link.png", "must be a regular file or a new name, not a device or a link"),
        ("dangling.png", "must be a regular file or a new name, not a device or a link"),
        ("cat.jpg", "written as PNG; call it cat.png"),
        ("cat", "written as PNG; call it cat.png"),
        ("nowhere/cat.png", "the folder does not exist; create it"),
        ("image.png/cat.png", "the folder does not exist; create it"),
        ("/proc/cat.png", "--output /proc/cat.png: "),  # Not even root can write there.
        (f"{'x' * 300}.png", "cannot be written (File name too long)"),
    ],
)
@pytest.mark.usefixtures("unloadable")
def test_a_bad_output_is_refused_before_the_model_is_loaded(here, capsys, output, words):
    """Nobody waits for an image that cannot be kept; what is there stays as it was."""
    (here / "folder").mkdir()
    (here / "folder.png").mkdir()
    (here / "image.png").write_bytes(b"old")
    (here / "link.png").symlink_to("image.png")
    (here / "dangling.png").symlink_to("nothing")
    os.mkfifo(here / "pipe.png")  # Is refused as a device is, and harms nobody if it were not.
    before = names(here)

    assert main(["generate", "a cat", "-o", output]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert names(here) == before
    assert stat.S_ISFIFO((here / "pipe.png").stat().st_mode)
    assert (here / "link.png").is_symlink()


@pytest.mark.usefixtures("unloadable")
def test_every_further_image_has_its_place_checked(here, capsys):
    """The name of the second image can be taken when that of the first is free."""
    (here / "cat-2.png").mkdir()
    assert main(["generate", "a cat", "--num-images", "2", "-o", "cat.png"]) == 2
    assert "--output cat-2.png: is a folder" in capsys.readouterr().err


@needs_engine
def test_an_image_that_cannot_be_written_is_one_line_and_exit_code_1(
    loaded, here, capsys, monkeypatch
):
    """A folder that went away, or a full disk, after the work: no traceback, no remains."""
    step = loaded.step

    def step_and_break():
        (here / "cat.png").mkdir()
        return step()

    monkeypatch.setattr(loaded, "step", step_and_break)
    assert main(["generate", "a cat", "-o", "cat.png"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "sd-api: cat.png cannot be written (Is a directory)."
    assert names(here) == ["cat.png"]


@needs_engine
@pytest.mark.parametrize(
    ("code", "title"),
    [
        ("out_of_memory", "Service Unavailable: GPU memory exhausted"),
        ("validation_error", "Validation Error"),
    ],
)
def test_a_failed_job_is_one_line_and_exit_code_1(loaded, here, capsys, code, title):
    """A script can tell a failure from a wrong argument."""
    loaded.failure = code
    assert main(["generate", "a cat"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"sd-api: {title}: The reason."
    assert names(here) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a cat", "--steps", "0"], "steps"),
        (["a cat", "--width", "300"], "width"),
        (["a cat", "--seed", "-2"], "seed"),
        ([""], "prompt"),
    ],
)
@pytest.mark.usefixtures("unloadable")
def test_arguments_are_checked_like_a_request(arguments, words, capsys):
    """What the service would refuse, the command refuses."""
    assert main(["generate", *arguments]) == 2
    assert words in capsys.readouterr().err


@needs_engine
def test_a_model_is_named_as_the_service_knows_it(loaded, monkeypatch, here, capsys):
    """Only the demo and the models of MODELS are; the one that is named is loaded."""
    shutil.copytree(DEMO_FOLDER, here / "models" / "night", copy_function=os.symlink)
    monkeypatch.setenv("MODELS", "models")
    asked = []

    def load(config):
        asked.append(config.model_id)
        return loaded, SimpleNamespace(model=FAKE_MODEL)

    monkeypatch.setattr(worker, "load", load)
    assert main(["generate", "a boat", "--model", "night"]) == 0
    assert asked == ["models/night"]
    assert main(["generate", "a boat", "--model", "day"]) != 0
    assert "There are: demo, night" in capsys.readouterr().err
