"""The catalogue of adapters."""

import hashlib
from pathlib import Path

import pytest

from service.config.addresses import Listed
from service.config.table import Config
from service.errors import AdapterUnsuitable
from service.models.adapters.catalog import AdapterCatalog, catalog_of
from service.models.catalog import DEMO_ID
from tests.support.models.adapter_headers import TO_K, low_rank, written


def test_files_are_adapters_by_name(tmp_path: Path) -> None:
    """The names are those of the files; other files and hidden ones are none."""
    for name in ("ink.safetensors", "Snow v2.safetensors", ".hidden.safetensors"):
        written(tmp_path / name)
    (tmp_path / "readme.txt").write_text("x")
    (tmp_path / "old.ckpt").write_bytes(b"PK\3\4data.pkl")
    entries = AdapterCatalog(tmp_path).entries()
    assert [each.name for each in entries] == ["Snow v2", "ink", "old"]
    assert [bool(each.problem) for each in entries] == [False, False, True]


def test_no_folder_is_an_empty_catalogue(tmp_path: Path) -> None:
    """Nobody has to make the folder; a request names what is wrong."""
    catalog = AdapterCatalog(tmp_path / "none")
    assert catalog.entries() == []
    with pytest.raises(AdapterUnsuitable, match=r"no adapter 'ink'\. There is none in the folder"):
        catalog.find("ink")


def test_an_unknown_name_is_told_with_the_names_there_are(tmp_path: Path) -> None:
    """The list is cut."""
    for number in range(25):
        written(tmp_path / f"a{number:02}.safetensors")
    with pytest.raises(AdapterUnsuitable, match=r"a00, a01, .*a19 and 5 more"):
        AdapterCatalog(tmp_path).find("ink")


def test_names_that_are_told_are_those_that_can_be_used(tmp_path: Path) -> None:
    """Embeddings, pickles, damaged files and those of another family would fail, too."""
    written(tmp_path / "xl.safetensors", low_rank(TO_K, into=2048))
    written(tmp_path / "two.safetensors", low_rank(TO_K, into=1024))
    written(tmp_path / "word.safetensors", {"emb_params": (2, 768)})
    (tmp_path / "old.ckpt").write_bytes(b"PK\3\4data.pkl")
    (tmp_path / "cut.safetensors").write_bytes(b"\0")
    catalog = AdapterCatalog(tmp_path)
    for family, words in (
        ("", r"There are: two, xl\."),
        ("sd", r"There are: two\."),
        ("sd2", r"There are: two\."),
        ("sd1", "There is none that fits this model in the folder of adapters"),
        ("sdxl", r"There are: xl\."),
    ):
        with pytest.raises(AdapterUnsuitable, match=rf"There is no adapter 'ink'\. {words}"):
            catalog.find("ink", family)


@pytest.mark.parametrize("name", ["../ink", "/etc/passwd", "sub/ink", "ink.safetensors", "."])
def test_names_are_no_paths(tmp_path: Path, name: str) -> None:
    """Whatever a request names is looked up, and never opened."""
    written(tmp_path / "loras" / "sub" / "ink.safetensors")
    written(tmp_path / "ink.safetensors")
    with pytest.raises(AdapterUnsuitable, match="There is no adapter"):
        AdapterCatalog(tmp_path / "loras").find(name)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """An operator replaces a file while the service runs."""
    path = written(tmp_path / "ink.safetensors")
    catalog = AdapterCatalog(tmp_path)
    first = catalog.find("ink")
    assert catalog.find("ink") is first
    written(path, low_rank(TO_K, into=2048))
    second = catalog.find("ink")
    assert second.header is not None
    assert second.header.family == "sdxl"
    path.unlink()
    with pytest.raises(AdapterUnsuitable, match="There is no adapter"):
        catalog.find("ink")


def test_the_first_of_two_files_of_one_name_counts(tmp_path: Path) -> None:
    """An operator's file takes the place of a bundled one."""
    for folder in "ab":
        written(tmp_path / folder / "ink.safetensors")
    written(tmp_path / "b" / "snow.safetensors")
    found = AdapterCatalog(tmp_path / "a", tmp_path / "b").entries()
    places = {each.name: each.stamp.path.parent.name for each in found}
    assert places == {"ink": "a", "snow": "b"}


def test_the_demo_model_has_adapters_of_its_own(tmp_path: Path) -> None:
    """Another model does not list what was made for the demo model."""
    other = str(tmp_path)
    by_default = Config(model_cache_dir=tmp_path)
    by_name = Config(model_cache_dir=tmp_path, model_id=other, models=Listed(DEMO_ID))
    for config in (by_default, by_name):
        entries = catalog_of(config).entries()
        assert [(each.name, each.problem) for each in entries] == [("ink", "")]
    assert catalog_of(Config(model_cache_dir=tmp_path, model_id="other")).entries() == []


def test_hashes(tmp_path: Path) -> None:
    """The whole file's, and AUTOMATIC1111's, which leaves the header out."""
    path = written(tmp_path / "ink.safetensors", metadata={"note": "changes no short hash"})
    catalog = AdapterCatalog(tmp_path)
    found = catalog.hashes(catalog.find("ink"))
    assert found is not None
    content = path.read_bytes()
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    begin = 8 + int.from_bytes(content[:8], "little")
    assert found.short == hashlib.sha256(content[begin:]).hexdigest()[:12]


def test_a_hash_that_the_trainer_wrote_counts(tmp_path: Path) -> None:
    """AUTOMATIC1111 takes it, too; what is no hash counts for nothing."""
    for name, told in (("ink", "0123456789abcdef"), ("odd", "no hash")):
        written(tmp_path / f"{name}.safetensors", metadata={"sshs_model_hash": told})
    catalog = AdapterCatalog(tmp_path)
    ink, odd = (catalog.hashes(catalog.find(name)) for name in ("ink", "odd"))
    assert ink is not None
    assert odd is not None
    assert ink.short == "0123456789ab"
    assert len(odd.short) == 12


def test_hashes_take_no_longer_than_they_may(tmp_path: Path) -> None:
    """A long file is left for a later call."""
    written(tmp_path / "ink.safetensors")
    catalog = AdapterCatalog(tmp_path)
    assert catalog.hashes(catalog.find("ink"), until=0.0) is None
    assert catalog.hashes(catalog.find("ink")) is not None
