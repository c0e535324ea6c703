"""The documents of the project: their code blocks, their headings, their links."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")],
    key=lambda path: path.as_posix(),
)
"""What people read; the runbooks of the alerts have tests of their own."""

SHELL = ("sh", "bash")
SAYS_SO_ITSELF = re.compile(r"^\s*(?:\w+=\S+ )*(sudo|docker|kubectl|systemctl|apt-get)\b", re.M)
"""Commands by which a reader sees what a block needs."""

NEEDS = re.compile(r"^(?:#|//) Needs ([^.\n]+)\.", re.M)
"""How a block says what it needs, in its own first words."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A piece of code in a document."""

    document: Path
    line: int
    language: str
    text: str

    @property
    def needs(self) -> str:
        """What it needs and a test does not have, as the reader is told; empty for nothing."""
        if found := NEEDS.search(self.text):
            return found[1]
        shell = self.language in SHELL and SAYS_SO_ITSELF.search(self.text)
        return shell[1] if shell else ""

    def __str__(self) -> str:
        """Return where it is."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks(document: Path) -> list[Block]:
    """Return the code blocks of a document, those without a language, too."""
    text = document.read_text(encoding="utf-8")
    return [
        Block(
            document=document,
            line=text.count("\n", 0, found.start()) + 1,
            language=found[1],
            text=found[2],
        )
        for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    ]


def prose(document: Path) -> str:
    """Return a document without its code blocks."""
    return re.sub(r"^```\w*\n.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(document: Path) -> set[str]:
    """Return the anchors of the headings, made as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+)$", prose(document), re.M):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number, unique = 0, slug
        while unique in found:
            number += 1
            unique = f"{slug}-{number}"
        found.add(unique)
    return found


def links(document: Path) -> list[str]:
    """Return where a document's links and pictures lead, but for other sites."""
    text = re.sub(r"`[^`\n]*`", "", prose(document))
    found = re.findall(r"\]\(([^()\s]+)\)", text)
    return [link for link in found if not re.match(r"[a-z]+:", link)]
