"""The documents of the project: their code blocks, their headings, their links."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")],
    key=lambda path: path.as_posix(),
)
"""What people read; the runbooks of the alerts have tests of their own."""

LINKED = [
    *DOCUMENTS,
    ROOT / "CHANGELOG.md",
    ROOT / "service" / "demo" / "README.md",
    *sorted((ROOT / "alerts" / "runbooks").glob("*.md")),
]
"""What may hold a link."""

SHELL = ("sh", "bash")
HARMLESS = frozenset(
    {
        *("curl", "jq", "base64", "openssl", ".venv/bin/sd-api", ".venv/bin/python"),
        *(
            "cd",
            "chmod",
            "cp",
            "cut",
            "df",
            "echo",
            "eval",
            "grep",
            "head",
            "ls",
            "mkdir",
            "ss",
            "tail",
        ),
        *("test", "tr", "sleep", "true"),
    }
)
"""Programs that a test may run: they change nothing outside of the folder that they are run in.

Whatever else stands in a block installs something, or needs something, as ``make``, ``pip`` and
``sudo`` do: such blocks are read, and never run.
"""

NEEDS = re.compile(r"^(?:#|//) Needs ([^.\n]+)\.", re.MULTILINE)
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
        strangers = commands(self.text) - HARMLESS if self.language in SHELL else set()
        return ", ".join(sorted(strangers))

    def __str__(self) -> str:
        """Return where it is."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def commands(text: str) -> set[str]:
    """Return the names of the programs that a piece of shell calls, its own functions left out."""
    text = re.sub(r"\\\n", " ", text)
    text = re.sub(r"'[^']*'", "''", text)
    inner = " ; ".join(re.findall(r"\$\(([^()]*)\)", text))
    text = re.sub(r'"(?:\\.|[^"\\])*"', '""', re.sub(r"\$\([^()]*\)", "", text))
    text = re.sub(r"(?m)(^|\s)#.*$", "", f"{text}\n{inner}")
    text = re.sub(r"\d?>&?\s*\S+", "", text)
    own = set(re.findall(r"^(\w+)\(\)", text, re.MULTILINE))
    found = set()
    for part in re.split(r"[|;&\n{}()]+", text):
        words = [word for word in part.split() if not re.match(r"\w+=", word)]
        if words:
            found.add("pip" if "pip" in words else words[0])
    return found - own


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
        for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def prose(document: Path) -> str:
    """Return a document without its code blocks."""
    return re.sub(
        r"^```\w*\n.*?^```$",
        "",
        document.read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )


def code(document: Path) -> list[str]:
    """Return the lines of the code blocks of a document, and what stands in backticks."""
    lines = [
        line
        for block in blocks(document)
        for line in re.sub(r"\\\n\s*", " ", block.text).splitlines()
    ]
    return lines + re.findall(r"`([^`\n]+)`", prose(document))


def anchors(document: Path) -> set[str]:
    """Return the anchors of the headings, made as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+)$", prose(document), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number, unique = 0, slug
        while unique in found:
            number += 1
            unique = f"{slug}-{number}"
        found.add(unique)
    return found


def links(document: Path) -> list[str]:
    """Return where a document's links and images lead, but for other sites."""
    text = re.sub(r"`[^`\n]*`", "", prose(document))
    found = re.findall(r"\]\(([^()\s]+)\)", text)
    return [link for link in found if not re.match(r"[a-z]+:", link)]
