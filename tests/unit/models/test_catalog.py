import json
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from service.errors import ModelError, ModelMissing, ModelUnsuitable
from service.models import catalog
from service.models.catalog import installed, resolve
from service.models.source import Source

NAME = "stable-diffusion-v1-5/stable-diffusion-v1-5"
COMMIT = "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"


@pytest.fixture(autouse=True)
def demo_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for the bundled demo, so that these tests need no weights."""
    folder = model(tmp_path_factory.mktemp("service") / "demo")
    monkeypatch.setattr(catalog, "DEMO_FOLDER", folder)
    return folder


def model(folder: Path, *parts: str) -> Path:
    """Write the skeleton of a folder in diffusers layout; ``parts`` get weights."""
    folder.mkdir(parents=True)
    names = {part: ["diffusers", "Part"] for part in ("unet", "vae")}
    index = {"_class_name": "StableDiffusionPipeline", **names}
    (folder / "model_index.json").write_text(json.dumps(index))
    for part in parts or ("unet", "vae"):
        (folder / part).mkdir()
        (folder / part / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    return folder


def snapshot(cache: Path, name: str = NAME, commit: str = COMMIT) -> Path:
    """Write a model where the hub's client would put it."""
    repository = cache / ("models--" + name.replace("/", "--"))
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    return repository / "snapshots" / commit


def test_demo(tmp_path: Path, demo_folder: Path) -> None:
    """'demo' is the bundled model, under its own version."""
    expected = Source(id="demo", path=demo_folder, version="demo-1.0", demo=True)

    assert expected == resolve("demo", tmp_path)


def test_alias_of_the_model_that_left_the_hub(tmp_path: Path) -> None:
    """The name that most guides still give means the model's present name."""
    assert resolve("runwayml/stable-diffusion-v1-5", tmp_path) == resolve(NAME, tmp_path)


@pytest.mark.parametrize("old", sorted(catalog.ALIASES))
def test_a_copy_under_the_name_that_left_the_hub_is_used(tmp_path: Path, old: str) -> None:
    """By either name; once the present name is here, that one is."""
    new = catalog.ALIASES[old]
    folder = model(snapshot(tmp_path, name=old))
    for name in (old, new):
        assert resolve(name, tmp_path) == Source(id=old, path=folder, version=f"{old}@{COMMIT[:7]}")
    folder = model(snapshot(tmp_path, name=new))
    assert {resolve(name, tmp_path).path for name in (old, new)} == {folder}


@pytest.mark.parametrize("size", ["", "-base"])
@pytest.mark.parametrize("number", ["2", "2-1"])
def test_stable_diffusion_2_has_moved(tmp_path: Path, number: str, size: str) -> None:
    """All four of its models."""
    name = f"stable-diffusion-{number}{size}"
    assert resolve(f"stabilityai/{name}", tmp_path).id == f"sd2-community/{name}"


def test_hub_id_that_is_not_here(tmp_path: Path) -> None:
    """A hub id without a cached copy has no path: loading fetches it."""
    assert Source(id=NAME, path=None, version=NAME) == resolve(NAME, tmp_path)


def test_hub_id_in_the_cache(tmp_path: Path) -> None:
    """A cached model is used as it is and named by its commit."""
    folder = model(snapshot(tmp_path))

    expected = Source(id=NAME, path=folder, version=f"{NAME}@451f4fe")

    assert expected == resolve(NAME, tmp_path)


def test_main_branch_wins(tmp_path: Path) -> None:
    """Of several cached revisions the one that the main branch names is used."""
    model(snapshot(tmp_path, commit="a" * 40))
    folder = model(snapshot(tmp_path, commit="b" * 40))

    assert folder == resolve(NAME, tmp_path).path


HALVES = {
    "fp16 shards only": {
        "unet": [f"diffusion_pytorch_model.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)]
        + ["diffusion_pytorch_model.safetensors.index.fp16.json"],
        "vae": ["diffusion_pytorch_model.fp16.safetensors"],
    },
    "each part its own": {
        "unet": ["diffusion_pytorch_model.fp16.safetensors"],
        "vae": ["diffusion_pytorch_model.safetensors"],
    },
    "the other way round": {
        "unet": ["diffusion_pytorch_model.safetensors"],
        "vae": ["diffusion_pytorch_model.fp16.safetensors"],
    },
}


@pytest.mark.parametrize("lost", [None, 0, -1])
@pytest.mark.parametrize("kind", HALVES)
def test_whole_is_what_loading_can_read(tmp_path: Path, kind: str, lost: int | None) -> None:
    """Whatever the number format of each part; a shard or its index that is missing counts."""
    folder = model(tmp_path / "dawn")
    for part, names in HALVES[kind].items():
        shutil.rmtree(folder / part)
        (folder / part).mkdir()
        for name in names:
            (folder / part / name).touch()
    if lost is not None:
        (folder / "unet" / HALVES[kind]["unet"][lost]).unlink()
    assert [source.id for source in installed(tmp_path)] == ["demo", "dawn"][
        : 2 - (lost is not None)
    ]


def test_interrupted_download(tmp_path: Path) -> None:
    """A cached model that lacks weights counts as not here, so it is fetched again."""
    model(snapshot(tmp_path), "unet")

    assert resolve(NAME, tmp_path).path is None
    assert [source.id for source in installed(tmp_path)] == ["demo"]


def test_local_folder(tmp_path: Path) -> None:
    """A path is taken before a hub id, and the folder's name is the version."""
    folder = model(tmp_path / "mine" / "night-sky")

    expected = Source(id=str(folder), path=folder, version="night-sky")

    assert expected == resolve(str(folder), tmp_path)


def test_folder_in_the_cache(tmp_path: Path) -> None:
    """A plain folder in the cache goes by its name there."""
    folder = model(tmp_path / "org" / "night-sky")

    assert folder == resolve("org/night-sky", tmp_path).path


def test_single_file(tmp_path: Path) -> None:
    """A .safetensors file is a model; its stem is the version."""
    path = tmp_path / "night-sky.safetensors"
    path.write_bytes(save({"w": np.zeros(1)}))

    expected = Source(id=str(path), path=path, version="night-sky", single_file=True)

    assert expected == resolve(str(path), tmp_path)


def test_installed(tmp_path: Path) -> None:
    """The list holds the demo first, then what the cache has, by name."""
    model(snapshot(tmp_path))
    model(tmp_path / "org" / "night-sky")
    model(tmp_path / "dawn")
    (tmp_path / "file.safetensors").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no model")

    expected = ["demo", "dawn", "file.safetensors", "org/night-sky", NAME]

    assert expected == [source.id for source in installed(tmp_path)]


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"{}", b"\xff", b"null", b"[" * 100_000, b'{"_class_name": 1}']
)
def test_damaged_neighbours(tmp_path: Path, content: bytes) -> None:
    """A damaged model is left out, and hides none of those beside it."""
    for folder in (tmp_path / "broken", tmp_path / "org" / "broken", snapshot(tmp_path)):
        (model(folder) / "model_index.json").write_bytes(content)
    model(tmp_path / "dawn")
    model(tmp_path / "org" / "night-sky")

    assert [source.id for source in installed(tmp_path)] == ["demo", "dawn", "org/night-sky"]


def test_strange_neighbours(tmp_path: Path) -> None:
    """Links that lead nowhere or to themselves, pipes, and folders in place of files."""
    model(tmp_path / "dawn")
    for name in ("loop", "loop.safetensors", "models--org--loop"):
        (tmp_path / name).symlink_to(name)
    (tmp_path / "broken.safetensors").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "models--org--file").touch()
    (snapshot(tmp_path, name="org/pipe")).mkdir(parents=True)
    os.mkfifo(snapshot(tmp_path, name="org/pipe") / "model_index.json")
    (tmp_path / "index" / "model_index.json").mkdir(parents=True)
    assert [source.id for source in installed(tmp_path)] == ["demo", "dawn"]


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-that-name/model", "org/" + "x" * 300])
def test_impossible_paths(tmp_path: Path, name: str) -> None:
    """A name that no file can have is that of no file."""
    with pytest.raises(ModelMissing, match="There is no model"):
        resolve(name, tmp_path)


def test_damaged_branch(tmp_path: Path) -> None:
    """A cached model whose branch cannot be read is found by its commit."""
    folder = model(snapshot(tmp_path))
    (folder.parents[1] / "refs" / "main").write_bytes(b"\xff\x00")

    assert [source.id for source in installed(tmp_path)] == ["demo", NAME]


def test_damaged_model_that_was_asked_for(tmp_path: Path) -> None:
    """Whoever asks for a damaged model is told which file is at fault."""
    folder = model(snapshot(tmp_path))
    (folder / "model_index.json").write_text("{")

    with pytest.raises(ModelError, match=rf"{COMMIT}/model_index\.json is damaged"):
        resolve(NAME, tmp_path)


def test_part_without_a_class(tmp_path: Path) -> None:
    """A part that an index names by an empty list has to have weights, like any other."""
    index = model(tmp_path / "dawn", "unet") / "model_index.json"
    index.write_text(json.dumps({"_class_name": "StableDiffusionPipeline", "vae": []}))

    assert [source.id for source in installed(tmp_path)] == ["demo"]


def test_empty_cache(tmp_path: Path) -> None:
    """Without a cache folder the demo is all there is."""
    assert [source.id for source in installed(tmp_path / "nothing")] == ["demo"]


@pytest.mark.parametrize("name", ["nothing-here", "a/b/c", "../etc/passwd", "org/na me", "/no/x"])
def test_no_model(tmp_path: Path, name: str) -> None:
    """What is neither here nor a possible hub id is refused with the command that helps."""
    with pytest.raises(ModelError, match=f"There is no model '{re.escape(name)}'.*sd-api models"):
        resolve(name, tmp_path)


def test_pickle(tmp_path: Path) -> None:
    """A pickle file is refused, because reading it can run code."""
    path = tmp_path / "model.ckpt"
    path.write_bytes(pickle.dumps({}))

    with pytest.raises(ModelUnsuitable, match="is a pickle file, which can run code"):
        resolve(str(path), tmp_path)


def test_other_file(tmp_path: Path) -> None:
    """A file of another kind is refused, and says what it is."""
    path = tmp_path / "model.txt"
    path.write_text("Notes.")

    with pytest.raises(
        ModelUnsuitable, match=r"neither a folder nor a \.safetensors file: it is p"
    ):
        resolve(str(path), tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_damaged_index(tmp_path: Path, content: str) -> None:
    """A model_index.json that cannot be read is named."""
    (tmp_path / "model_index.json").write_text(content)

    with pytest.raises(ModelError, match=r"model_index\.json"):
        catalog.index(tmp_path)


def test_folder_without_index(tmp_path: Path) -> None:
    """A folder that is no model says what it lacks."""
    with pytest.raises(ModelError, match=r"has no model_index\.json"):
        catalog.index(tmp_path)
