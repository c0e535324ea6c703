"""Removing models: nothing outside of the cache, and nothing that is in use."""

import shutil
import subprocess
import sys

import pytest

from service.cli.exits import Exit
from service.models import catalog
from tests.unit.cli.models.machine import DEMO, UNET


def test_remove_asks_before_it_deletes(machine):
    """Without a terminal to ask on it wants --yes; then nothing of the model is left."""
    machine.models("pull", "org/name")
    code, _, told = machine.models("remove", "org/name")
    assert code == Exit.SETTING
    assert "confirm it with --yes" in told
    assert machine.file(UNET).is_file()
    code, out, _ = machine.models("remove", "org/name", "--yes")
    assert (code, out.split("\t")[0]) == (Exit.DONE, "org/name")
    assert not (machine.cache / "models--org--name").exists()


NOT_INSIDE = (
    "demo",
    "../outside",
    ".",
    "",
    "org/name",
    "../its models",
    "x/..",
    "x/../../its models",
    "/",
)


@pytest.mark.parametrize("name", NOT_INSIDE)
def test_remove_deletes_nothing_outside_the_cache(machine, name):
    """Neither the bundled model, nor what a path leads to, nor the cache itself."""
    (machine.cache / "mine").mkdir(parents=True)
    outside = machine.cache.parent / "outside"
    outside.mkdir()
    code, _, told = machine.models("remove", name, "--yes")
    assert code == Exit.MODEL_MISSING
    assert "only what is there is removed" in told
    assert outside.is_dir()
    assert (machine.cache / "mine").is_dir()
    assert (DEMO / UNET).is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked there")
@pytest.mark.parametrize("kind", ["hub", "folder", "file"])
def test_remove_leaves_a_model_that_somebody_works_with(machine, kind):
    """Its engine could not be started again; when nobody does any more, it goes."""
    machine.cache.mkdir()
    name = {"hub": "org/name", "folder": "mine", "file": "mine.safetensors"}[kind]
    if kind == "hub":
        machine.models("pull", name)
    elif kind == "folder":
        shutil.copytree(DEMO, machine.cache / name)
    else:
        shutil.copy(DEMO / UNET, machine.cache / name)
    path = catalog.resolve(name, machine.cache).path
    worker = "import sys; from pathlib import Path; from service.models import model_lock; "
    worker += "model_lock.hold(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", worker, str(path)],
        env=machine.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        code, _, told = machine.models("remove", name, "--yes")
        assert (code, f"{name} is in use" in told) == (Exit.BUSY, True)
        assert path is not None
        assert path.exists()
        process.communicate()
    assert machine.models("remove", name, "--yes")[0] == Exit.DONE
    assert not path.exists()


def test_remove_takes_a_link_and_leaves_what_it_leads_to(machine, tmp_path):
    """A model that is linked into the cache belongs to somebody else."""
    shutil.copytree(DEMO, tmp_path / "theirs")
    machine.cache.mkdir()
    (machine.cache / "linked").symlink_to(tmp_path / "theirs")
    assert machine.models("remove", "linked", "--yes")[0] == Exit.DONE
    assert not (machine.cache / "linked").is_symlink()
    assert (tmp_path / "theirs" / UNET).is_file()
