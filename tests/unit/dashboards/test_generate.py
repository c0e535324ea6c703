"""The JSON files are what the generator writes."""

import pytest

from dashboards.generate import FOLDER, files, main, problems


def test_files_are_as_the_generator_writes_them() -> None:
    """A change by hand, or one of the code without its JSON, fails here."""
    assert main(["--check"]) == 0


def test_generation_is_deterministic() -> None:
    """Two runs give the same bytes."""
    assert files() == files()


def test_files_are_written_to_the_folder(tmp_path) -> None:
    """Written and then checked, nothing differs."""
    assert main([], folder=tmp_path) == 0
    assert problems(tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == {
        "service.json",
        "gpu.json",
        "generation.json",
    }


@pytest.mark.parametrize(
    ("spoil", "finding"),
    [
        (lambda folder: (folder / "gpu.json").unlink(), "gpu.json is missing"),
        (lambda folder: (folder / "old.json").write_text("{}"), "old.json is not one of ours"),
        (
            lambda folder: (folder / "service.json").write_text("{}"),
            "service.json differs from the generator",
        ),
    ],
)
def test_check_names_what_differs(spoil, finding, tmp_path, capsys) -> None:
    """--check fails and says which file, and repairs nothing."""
    main([], folder=tmp_path)
    spoil(tmp_path)
    assert main(["--check"], folder=tmp_path) == 1
    assert finding in capsys.readouterr().out
    assert problems(tmp_path) == [finding]


def test_changed_line_ends_are_found(tmp_path) -> None:
    """Bytes are compared, not what a reader makes of them."""
    main([], folder=tmp_path)
    content = (FOLDER / "gpu.json").read_bytes()
    (tmp_path / "gpu.json").write_bytes(content.replace(b"\n", b"\r\n"))
    assert problems(tmp_path) == ["gpu.json differs from the generator"]
