"""Listing and checking models: what is whole, what is damaged, and what is no model."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from service.cli.exits import Exit
from service.models import catalog
from service.models.hub import pull as downloads
from tests.unit.cli.models.machine import DEMO, INDEX, UNET


def spoil(path: Path) -> None:
    """Change one byte near the end of a file."""
    with path.open("r+b") as file:
        file.seek(-9, os.SEEK_END)
        byte = file.read(1)
        file.seek(-9, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))


def test_verify_names_what_is_damaged_and_pull_repairs_it(machine, hub):
    """A flipped bit is found by the checksum, a cut by the header; only they are fetched again."""
    machine.models("pull", "org/name")
    spoil(machine.file(UNET).resolve())
    os.truncate(machine.file("vae/diffusion_pytorch_model.safetensors").resolve(), 1000)
    code, out, told = machine.models("verify")
    assert code == Exit.MODEL_DAMAGED
    assert "org/name" not in out
    assert f"{UNET} does not have the checksum" in told
    assert "vae/diffusion_pytorch_model.safetensors is cut short: " in told
    hub.requests.clear()
    assert machine.models("pull", "org/name")[0] == Exit.DONE
    assert {Path(path).parent.name for path, _ in hub.fetched(".safetensors")} == {"unet", "vae"}
    assert machine.models("verify")[0] == Exit.DONE


@pytest.mark.parametrize(
    "how",
    [
        *("flipped", "gone"),
        *(pytest.param(how, marks=pytest.mark.long) for how in ("cut", "link", "pointer", "index")),
    ],
)
def test_the_command_that_a_damage_ends_with_repairs_it(machine, hub, how):
    """From any folder, whatever the name of the cache."""
    machine.models("pull", "org/name")
    path = machine.file(INDEX if how == "index" else UNET)
    if how == "flipped":
        spoil(path.resolve())
    elif how == "cut":
        os.truncate(path.resolve(), 1000)
    elif how == "gone":
        path.resolve().unlink()
    elif how == "link":
        path.unlink()
    elif how == "pointer":
        path.resolve().write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    else:
        path.resolve().write_bytes(b"[" * 100_000)
    code, out, told = machine.models("verify", "org/name")
    assert (code, out) == (Exit.MODEL_DAMAGED, "")
    assert machine.typed(told.splitlines()[-1])[0] == Exit.DONE
    assert machine.file(UNET).read_bytes() == hub.files[UNET]
    assert machine.models("verify", "org/name")[0] == Exit.DONE


def test_verify_checks_a_folder_of_ones_own_by_its_headers(machine):
    """There is no checksum to hold it against, but its length must be what it promises."""
    shutil.copytree(DEMO, machine.cache / "mine")
    assert machine.models("verify", "mine") == (0, "mine\tmine\tcomplete (lengths only)\n", "")
    os.truncate(machine.cache / "mine" / UNET, 10**6)
    code, _, told = machine.models("verify", "mine")
    assert code == Exit.MODEL_DAMAGED
    assert UNET in told
    assert told.endswith("Copy it again from where the folder came from.\n")


def lora(path: Path) -> Path:
    save_file({"lora_unet_down_blocks_0.lora_up.weight": np.zeros((1,), np.float16)}, path)
    return path


def pickled(folder: Path) -> None:
    shutil.copytree(DEMO, folder)
    (folder / UNET).write_bytes(pickle.dumps({"w": 1}))


def binary(folder: Path) -> None:
    shutil.copytree(DEMO, folder)
    (folder / UNET).rename((folder / UNET).with_suffix(".bin"))


def unfinished(folder: Path) -> None:
    shutil.copytree(DEMO, folder)
    (folder / UNET).unlink()


def deep(folder: Path) -> None:
    shutil.copytree(DEMO, folder)
    (folder / INDEX).write_bytes(b"[" * 100_000)


NO_MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (Path.mkdir, "it has no model_index.json"),
    "pickled": (pickled, "is a pickle file"),
    "binary": (binary, "pickle"),
    "unfinished": (unfinished, "no weights"),
    "deep": (deep, "is damaged (it is nested too deep)"),
    "lora.safetensors": (lora, "is no complete Stable Diffusion checkpoint"),
    "page.safetensors": (lambda path: path.write_text("<!doctype html>"), "is an HTML page"),
    "cut.safetensors": (lambda path: os.truncate(lora(path), 90), "is cut short"),
    "broken.safetensors": (lambda path: path.symlink_to("gone"), "which is not there"),
    "loop": (lambda path: path.symlink_to("loop"), "which is not there"),
    "pipe.safetensors": (os.mkfifo, "is a named pipe"),
    "old.ckpt": (lambda path: path.write_bytes(pickle.dumps({})), "is a pickle file"),
}
ANOTHER_THING = {"lora.safetensors", "old.ckpt"}


@pytest.mark.parametrize("name", NO_MODELS)
def test_what_is_no_model_is_never_called_whole(machine, name):
    """One line, exit code 65."""
    make, words = NO_MODELS[name]
    machine.cache.mkdir()
    make(machine.cache / name)
    code, out, told = machine.models("verify", name)
    assert (code, out) == (Exit.MODEL_DAMAGED, "")
    assert words in told
    assert told.count("\n") == 1
    assert told.startswith("sd-api: ")


@pytest.mark.parametrize("damage", [False, True])
def test_what_is_no_model_is_left_out_of_the_list(machine, damage):
    """With its reason, a line each; verify fails only for what is damaged."""
    shutil.copytree(DEMO, machine.cache / "whole")
    names = sorted(set(NO_MODELS) if damage else ANOTHER_THING)
    for name in names:
        NO_MODELS[name][0](machine.cache / name)
    for action, exit_code in (("list", 0), ("verify", Exit.MODEL_DAMAGED if damage else 0)):
        code, out, told = machine.models(action)
        assert (code, [line.split("\t")[0] for line in out.splitlines()]) == (
            exit_code,
            ["demo", "whole"],
        )
        for name, line in zip(names, told.splitlines(), strict=True):
            assert line.startswith(f"sd-api: {name}")
            assert NO_MODELS[name][1] in line


def test_what_is_not_there_is_missing(machine):
    """Which is another exit code."""
    code, out, told = machine.models("verify", "org/name")
    assert (code, out) == (Exit.MODEL_MISSING, "")
    assert machine.typed(told)[0] == Exit.DONE
    code, _, told = machine.models("verify", "nothing")
    assert code == Exit.MODEL_MISSING
    assert machine.typed(told)[0] == Exit.DONE


def test_other_things_of_the_hub_are_no_models(machine):
    """Its cache is shared with other programs: a language model has no model_index.json."""
    folder = machine.cache / "models--meta--llama" / "snapshots" / "0123456"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    code, out, told = machine.models("list")
    assert (code, "llama" in out) == (Exit.DONE, False)
    assert "meta/llama is left out: meta/llama has no model_index.json" in told
    assert machine.models("verify")[0] == Exit.DONE
    assert machine.models("verify", "meta/llama")[0] == Exit.MODEL_DAMAGED


def test_a_damaged_file_that_nothing_reads_is_a_note(machine, tmp_path):
    """But what does not have the hub's checksum is damage of the cache."""
    stray = "unet/diffusion_pytorch_model.non_ema.safetensors"
    shutil.copytree(DEMO, tmp_path / "mine")
    (tmp_path / "mine" / stray).write_bytes(b"damaged")
    source = catalog.resolve(str(tmp_path / "mine"), machine.cache)
    (fault,) = downloads.damaged(source, half=False)
    assert (fault.path.name, fault.stray) == (Path(stray).name, True)
    machine.models("pull", "org/name")
    blob = machine.file(UNET).resolve().with_name("0" * 64)
    blob.write_bytes(b"damaged")
    machine.file(UNET).with_name(Path(stray).name).symlink_to(blob)
    code, _, told = machine.models("verify", "org/name")
    assert code == Exit.MODEL_DAMAGED
    assert "does not have the checksum" in told
    assert catalog.resolve("org/name", machine.cache).path is not None
