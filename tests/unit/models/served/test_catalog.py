"""The models that requests can name."""

import json
import os
import shutil
from pathlib import Path

import pytest

from service.config.loading import load
from service.config.table import Config
from service.core.limits import SDXL
from service.errors import ConfigError, ModelNotFound, ModelUnavailable
from service.models.catalog import DEMO_FOLDER
from service.models.served.about import licence
from service.models.served.catalog import DEFAULT, ModelCatalog, Served, catalog_of
from service.models.source import Source
from tests.unit.models.test_catalog import snapshot

TURBO = "stabilityai/sdxl-turbo"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a model, a pickle, another family's model and something else."""
    demo(tmp_path / "night")
    (tmp_path / "old.ckpt").write_bytes(b"\x80\x02}q\x00.")
    (tmp_path / "flux").mkdir()
    (tmp_path / "flux" / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("draw")
    return tmp_path


def demo(folder: Path) -> None:
    shutil.copytree(DEMO_FOLDER, folder, copy_function=os.symlink)


def one(found: ModelCatalog, name: str) -> Served:
    key = found.find(name)
    found.demand(key)
    return found[key]


def of(*models: object, **settings: object) -> Config:
    return load({"MODELS": ",".join(map(str, models))}, settings)


def test_without_the_setting_there_is_the_default_model() -> None:
    """It answers to no name, and to its own."""
    found = catalog_of(Config())
    assert [each.id for each in found.entries] == ["demo"]
    assert found.key("demo") == found.key("") == DEFAULT
    assert one(found, "demo").size


def test_a_folder_is_listed_with_what_cannot_be_used(folder: Path) -> None:
    """A pickle and another family's model say why; what is no model is left out."""
    found = catalog_of(of(folder))
    problems = {each.id: each.problem for each in found.entries}
    assert list(problems) == ["demo", "flux", "night", "old.ckpt"]
    assert problems["night"] == ""
    assert "FluxPipeline" in problems["flux"]
    assert "pickle" in problems["old.ckpt"]
    with pytest.raises(ModelUnavailable, match=r"old\.ckpt"):
        one(found, "old.ckpt")


def test_an_unknown_name_is_answered_with_the_list(folder: Path) -> None:
    """A path is no name, and nothing is looked for in the file system."""
    found = catalog_of(of(folder))
    for name in ("nigh", str(folder / "night"), "../night", TURBO, "x" * 10_000):
        with pytest.raises(ModelNotFound, match="There are: demo, night") as refused:
            one(found, name)
        assert len(refused.value.detail) < 500


def test_models_on_the_hub_are_allowed_by_name(tmp_path: Path) -> None:
    """What one draws is known by its name until it is here; no other one is allowed."""
    found = catalog_of(of(TURBO, model_cache_dir=tmp_path))
    turbo = one(found, TURBO)
    assert (turbo.here, turbo.size, turbo.known.sizes) == (False, None, SDXL)
    assert turbo.known.recipe.name == "turbo"
    assert not found.knows("stabilityai/sd-turbo")


def test_without_a_network_a_model_that_is_not_here_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service starts all the same."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = catalog_of(of(TURBO, model_cache_dir=tmp_path))
    with pytest.raises(ModelUnavailable, match="HF_HUB_OFFLINE"):
        one(found, TURBO)


def test_a_model_of_the_cache_is_known_by_its_name_on_the_hub(tmp_path: Path) -> None:
    """Also by the name that it had before, and where the folder of the setting is a cache."""
    name = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    demo(snapshot(tmp_path))
    for models in ((name,), (tmp_path,)):
        found = catalog_of(of(*models, model_cache_dir=tmp_path))
        assert one(found, name).here
        assert found.key("runwayml/stable-diffusion-v1-5") == name


def test_the_default_model_in_the_folder_is_one_model(folder: Path) -> None:
    """Its name in the folder means it, too."""
    found = catalog_of(of(folder, model_id=str(folder / "night")))
    assert [each.id for each in found.entries] == ["night", "flux", "old.ckpt"]
    assert found.knows("night")
    assert found.key("night") == DEFAULT


def test_the_folder_next_to_a_file_is_its_configuration(folder: Path) -> None:
    """It is no model of its own; the file is known without its ending, too."""
    demo(folder / "mine")
    (folder / "mine.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    found = catalog_of(of(folder))
    assert "mine" not in [each.id for each in found.entries]
    assert found.key("mine") == "mine.safetensors"


def test_the_same_name_in_two_folders_is_the_first_one(folder: Path, tmp_path: Path) -> None:
    """The order of the setting decides."""
    demo(tmp_path / "second" / "night")
    found = catalog_of(of(tmp_path / "second", folder))
    assert one(found, "night").address == str(tmp_path / "second" / "night")


def test_a_part_that_is_nothing_is_refused() -> None:
    """The start ends with the name of the setting."""
    with pytest.raises(ConfigError, match="MODELS=/no/where: must be a folder"):
        catalog_of(of("/no/where"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("README.md", "---\nlicense: mit\ntags: [x]\n---\n# Night\n", "mit"),
        ("README.md", "---\nlicense: other\nlicense_name: my-own\n---\n", "my-own"),
        ("README.md", "# license: none\n", ""),
        ("LICENSE", "\n\n# CreativeML Open RAIL-M\n\nThe text.\n", "CreativeML Open RAIL-M"),
    ],
)
def test_the_licence_is_what_the_files_say(folder: Path, name: str, text: str, said: str) -> None:
    """The hub's front matter goes first; nothing is guessed."""
    (folder / "night" / "README.md").unlink(missing_ok=True)
    (folder / "night" / name).write_text(text)
    assert one(catalog_of(of(folder)), "night").licence == said


def test_a_file_names_its_licence_in_its_header(tmp_path: Path) -> None:
    """ModelSpec has an entry for it."""
    header = json.dumps({"__metadata__": {"modelspec.license": "CC0"}}).encode()
    path = tmp_path / "one.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert licence(Source(id="one", path=path, version="1", single_file=True)) == "CC0"
