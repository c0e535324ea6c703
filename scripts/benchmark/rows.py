"""What is asked for: sizes and steps, alone or as a mixture of short and long requests."""

import re
from dataclasses import dataclass
from typing import Any, Final

SAMPLER: Final = "dpmpp_2m"
GUIDANCE_SCALE: Final = 3.0
"""What the demo model draws best with; sent with every request, so that all servers use it."""

FORM: Final = re.compile(r"(\d+)x(\d+)/(\d+)")
BOTH: Final = 2


class BenchmarkError(Exception):
    """The benchmark cannot be run as asked for; the text says why and what helps."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A size and a number of steps."""

    width: int
    height: int
    steps: int

    @property
    def name(self) -> str:
        """As it is written on the command line: ``512x512/20``."""
        return f"{self.size}/{self.steps}"

    @property
    def size(self) -> str:
        """Width and height: ``512x512``."""
        return f"{self.width}x{self.height}"

    @property
    def work(self) -> int:
        """Pixels times steps, to which the time of a request is about proportional."""
        return self.width * self.height * self.steps

    def body(self, number: int) -> dict[str, Any]:
        """Return the body of a request; prompt and seed differ from number to number."""
        return {
            "prompt": f"a cabin in the woods, no. {number}",
            "width": self.width,
            "height": self.height,
            "steps": self.steps,
            "seed": number,
            "guidance_scale": GUIDANCE_SCALE,
            "sampler": SAMPLER,
        }


@dataclass(frozen=True, kw_only=True)
class Steady:
    """Clients that all ask for the same, one picture after the other."""

    row: Row
    clients: int

    @property
    def name(self) -> str:
        """For a progress bar."""
        return f"{self.row.name}, {self.clients} {'client' if self.clients == 1 else 'clients'}"


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """Half of the clients ask for long pictures without a pause, the others for short ones."""

    short: Row
    long: Row
    clients: int

    @property
    def name(self) -> str:
        """For a progress bar."""
        return f"{self.short.name} beside {self.long.name}, {self.clients} clients"


Point = Steady | Mixed


def row(text: str) -> Row:
    """Return the row that a text like ``512x512/20`` means.

    Raises:
        ValueError: it is not of that form, or has a zero.

    """
    found = FORM.fullmatch(text.strip())
    if found is None or 0 in map(int, found.groups()):
        raise ValueError(f"{text!r} is not WIDTHxHEIGHT/STEPS, like 512x512/20")
    width, height, steps = map(int, found.groups())
    return Row(width=width, height=height, steps=steps)


def rows(text: str) -> tuple[Row, ...]:
    """Return the rows of a list between commas.

    Raises:
        ValueError: one is of another form.

    """
    return tuple(dict.fromkeys(row(part) for part in text.split(",")))


def pair(text: str) -> tuple[Row, Row]:
    """Return the short and the long row of a mixture like ``256x256/4+512x512/20``.

    Raises:
        ValueError: it is of another form, or the first one is not the shorter one.

    """
    found = [row(part) for part in text.split("+")]
    if len(found) != BOTH or found[0].work >= found[1].work:
        raise ValueError(f"{text!r} is not SHORT+LONG, like 256x256/4+512x512/20")
    return found[0], found[1]
