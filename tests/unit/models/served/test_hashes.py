"""Hashes of models: which file they are of, and how seldom it is read."""

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.config.loading import load
from service.errors import Overloaded
from service.models.catalog import DEMO_FOLDER
from service.models.defaults.known import Known
from service.models.served.catalog import DEFAULT, ModelCatalog, Served, catalog_of
from service.models.served.hashes import FILE, ModelHashes, read, recorded
from service.models.source import Source
from service.system.executors import HASHES

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def at_once(_owner: str, _group: str, call: Callable[[], None]) -> None:
    """Run a call here and now."""
    call()


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Return a model that is one file."""
    path = tmp_path / "night.safetensors"
    path.write_bytes(CONTENT)
    return Source(id="night", path=path, version="night", single_file=True)


def of(source: Source | None, cache: Path) -> ModelHashes:
    """Return the hashes of a catalogue with this model and no other, read at once."""
    model = Served(known=Known(model_id="night"), source=source)
    return ModelHashes(ModelCatalog(model), cache, at_once)


def test_a_file_is_known_by_the_hash_of_all_of_it(source: Source, tmp_path: Path) -> None:
    """Which is what AUTOMATIC1111 and Civitai have; the short form is its first ten digits."""
    hashes = of(source, tmp_path)
    assert hashes.known(DEFAULT) == ""
    assert hashes.ask(DEFAULT) == SHA256[:10]
    assert hashes.known(DEFAULT) == SHA256


def test_a_folder_is_known_by_its_denoiser(tmp_path: Path) -> None:
    """All models of a family share the rest, and the hub shows the same hash."""
    weights = DEMO_FOLDER / "unet" / "diffusion_pytorch_model.safetensors"
    hashes = ModelHashes(catalog_of(load({})), tmp_path, at_once)
    hashes.ask(DEFAULT)
    assert hashes.known(DEFAULT) == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_shards_count_as_one_file(tmp_path: Path) -> None:
    """In their order."""
    names = [f"diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    unet = tmp_path / "model" / "unet"
    unet.mkdir(parents=True)
    for name, part in zip(names, (CONTENT[:10], CONTENT[10:]), strict=True):
        (unet / name).write_bytes(part)
    index = {"metadata": {}, "weight_map": dict(zip("ab", names, strict=True))}
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    model = Source(id="model", path=tmp_path / "model", version="model")
    assert of(model, tmp_path).ask(DEFAULT) == SHA256[:10]


def test_a_file_is_read_once(source: Source, tmp_path: Path) -> None:
    """The next start takes the hash from MODEL_CACHE_DIR, until the file is another one."""
    path = source.path
    assert path is not None
    assert read(source, tmp_path) == SHA256
    status = path.stat()
    path.write_bytes(b"x" * len(CONTENT))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert recorded(source, tmp_path) == read(source, tmp_path) == SHA256
    hashes = of(source, tmp_path)
    hashes.recall()
    assert hashes.known(DEFAULT) == SHA256
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert recorded(source, tmp_path) == ""
    assert read(source, tmp_path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_recalled_is_not_read(source: Source, tmp_path: Path) -> None:
    """A start reads no model but for its images."""
    hashes = of(source, tmp_path)
    hashes.recall()
    assert hashes.known(DEFAULT) == ""
    assert not (tmp_path / FILE).exists()


def test_a_model_of_the_hub_need_not_be_read(tmp_path: Path) -> None:
    """Its cache names each file by its SHA-256, and fetching checks it."""
    blob = tmp_path / "blobs" / ("ab" * 32)
    blob.parent.mkdir()
    blob.write_bytes(CONTENT)
    link = tmp_path / "night.safetensors"
    link.symlink_to(blob)
    model = Source(id="night", path=link, version="night", single_file=True)
    assert recorded(model, tmp_path) == "ab" * 32


def test_files_that_are_gone_leave_the_record(source: Source, tmp_path: Path) -> None:
    """It does not grow for ever."""
    (tmp_path / FILE).write_text(json.dumps({"/gone": {"files": [], "sha256": "1"}}))
    read(source, tmp_path)
    assert list(json.loads((tmp_path / FILE).read_text())) == [str(source.path)]
    assert {path.name for path in tmp_path.iterdir()} == {FILE, "night.safetensors"}


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, '{"PATH": 3}', '{"PATH": {}}'])
def test_a_damaged_record_is_written_anew(source: Source, tmp_path: Path, content: str) -> None:
    """It is nothing that could not be found out again."""
    (tmp_path / FILE).write_text(content.replace("PATH", str(source.path)))
    assert of(source, tmp_path).ask(DEFAULT) == SHA256[:10]
    assert recorded(source, tmp_path) == SHA256


def test_a_folder_that_cannot_be_written_costs_a_reading_a_start(
    source: Source, tmp_path: Path
) -> None:
    """The hash is known all the same."""
    assert of(source, tmp_path / "none").ask(DEFAULT) == SHA256[:10]
    assert not (tmp_path / "none").exists()


def test_a_model_that_was_fetched_since_the_start_is_found(tmp_path: Path) -> None:
    """The catalogue is read before the model is fetched."""
    (tmp_path / "night").symlink_to(DEMO_FOLDER)
    away = Source(id="night", path=None, version="night")
    assert of(away, tmp_path).ask(DEFAULT)
    assert of(None, tmp_path).ask(DEFAULT) == ""
    assert read(Source(id="org/none", path=None, version="none"), tmp_path) == ""


def test_a_model_that_cannot_be_read_has_none(source: Source, tmp_path: Path) -> None:
    """The log says why; images are made without it."""
    assert source.path is not None
    source.path.unlink()
    with capture_logs() as logs:
        assert of(source, tmp_path).ask(DEFAULT) == ""
    (said,) = logs
    assert (said["event"], said["model"]) == ("model_hash_failed", "night")


@pytest.mark.parametrize("error", [RuntimeError("no thread"), Overloaded("full", retry_after=1)])
def test_without_a_thread_there_is_no_hash(
    source: Source, tmp_path: Path, error: Exception
) -> None:
    """A job does not fail for it."""

    def submit(*_call: object) -> None:
        raise error

    model = ModelCatalog(Served(known=Known(model_id="night"), source=source))
    assert ModelHashes(model, tmp_path, submit).ask(DEFAULT) == ""


def test_it_is_read_on_a_thread_of_its_own(source: Source, tmp_path: Path) -> None:
    """Who asks does not wait, and one model is read at a time."""
    free = threading.Event()
    first = HASHES.submit("", "", lambda: free.wait(10))
    model = ModelCatalog(Served(known=Known(model_id="night"), source=source))
    hashes = ModelHashes(model, tmp_path)
    assert hashes.ask(DEFAULT) == ""
    last = HASHES.submit("", "", lambda: None)
    free.set()
    assert first.result(10)
    last.result(10)
    assert hashes.ask(DEFAULT) == SHA256[:10]
