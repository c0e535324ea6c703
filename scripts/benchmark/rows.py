"""Requests of a benchmark: sizes and steps, alone or as a mixture of short and long ones."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

SAMPLER: Final = "dpmpp_2m"
GUIDANCE_SCALE: Final = 3.0
"""What the demo model draws best with; sent with every request, so that all servers use it."""

FORM: Final = re.compile(r"(\d+)x(\d+)/(\d+)")


class BenchmarkError(argparse.ArgumentTypeError):
    """The benchmark cannot be run as asked for; the text says why and what helps.

    argparse shows the text of one that is raised for an argument.
    """


@dataclass(frozen=True, kw_only=True)
class Row:
    """A size and a number of steps."""

    width: int
    height: int
    steps: int

    @property
    def name(self) -> str:
        """As it is written on the command line: ``512x512/20``."""
        return f"{self.width}x{self.height}/{self.steps}"

    @property
    def title(self) -> str:
        """As a sentence has it: ``512x512, 20 steps``."""
        return f"{self.width}x{self.height}, {self.steps} steps"

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
class Point:
    """Clients that ask for images at the same time."""

    rows: tuple[Row, ...]
    """One that all ask for; or a short one and a long one, each asked for by half of them."""
    clients: int

    @property
    def mixed(self) -> bool:
        """Whether short and long requests meet."""
        return len(self.rows) > 1

    @property
    def name(self) -> str:
        """As tables and the progress bar have it."""
        rows = " with ".join(row.name for row in self.rows)
        return f"{rows}, {self.clients} client{'' if self.clients == 1 else 's'}"


def row(text: str) -> Row:
    """Return the row that a text like ``512x512/20`` means.

    Raises:
        BenchmarkError: it is not of that form, or has a zero.

    """
    found = FORM.fullmatch(text.strip())
    if found is None or 0 in map(int, found.groups()):
        raise BenchmarkError(f"{text!r} is not WIDTHxHEIGHT/STEPS, like 512x512/20")
    width, height, steps = map(int, found.groups())
    return Row(width=width, height=height, steps=steps)


def rows(text: str) -> tuple[Row, ...]:
    """Return the rows of a comma-separated list.

    Raises:
        BenchmarkError: one is of another form.

    """
    return tuple(dict.fromkeys(row(part) for part in text.split(",")))


def pair(text: str) -> tuple[Row, ...]:
    """Return the short and the long row of a mixture like ``256x256/4+512x512/20``.

    Raises:
        BenchmarkError: it is of another form, or the first one is not the shorter one.

    """
    found = tuple(row(part) for part in text.split("+"))
    work = [each.width * each.height * each.steps for each in found]
    if len(found) == 1 or work != sorted(set(work)):
        raise BenchmarkError(f"{text!r} is not SHORT+LONG, like 256x256/4+512x512/20")
    return found


def bounds(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of POST /generate by name, as an OpenAPI description has them.

    Raises:
        BenchmarkError: the description is not this service's.

    """
    try:
        body = document["paths"]["/generate"]["post"]["requestBody"]
        schema = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        return dict(document["components"]["schemas"][schema]["properties"])
    except (KeyError, TypeError) as error:
        raise BenchmarkError(
            f"/openapi.json does not describe POST /generate ({error}): is it this service?"
        ) from error


def refusal(row: Row, fields: Mapping[str, Any]) -> str:
    """Return why a service with these fields does not allow a row; nothing if it does."""
    side, most = fields["width"], fields["steps"]["maximum"]
    for length in (row.width, row.height):
        if not side["minimum"] <= length <= side["maximum"] or length % side["multipleOf"]:
            return (
                f"{row.name}: the service allows sides of {side['minimum']} to {side['maximum']} "
                f"pixels, multiples of {side['multipleOf']} (its MIN_SIZE and MAX_SIZE)"
            )
    if row.steps > most:
        return f"{row.name}: the service allows {most} steps (its MAX_STEPS)"
    return ""
