"""The one shape of all drills: what is done, what must hold afterwards, and what is written."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from scripts.written import demand_writable, table
from service.errors import ConfigError
from tests.drills.common import report
from tests.support.programs import carried_out

MOST_NAMED: Final = 5
"""Problems of one check that are named: a service that is down would name hundreds."""

Given = argparse.Namespace
Seen = TypeVar("Seen")
Checks = Mapping[str, Callable[[Seen], Iterable[str]]]
"""Each finds what is wrong, in words; nothing where all is well."""


@dataclass(frozen=True)
class Limit(Generic[Seen]):
    """A check: a figure that may not exceed a limit; one that is no number does."""

    name: str
    most: float
    figure: Callable[[Seen], float]

    def __call__(self, seen: Seen) -> Iterator[str]:
        value = self.figure(seen)
        if not value <= self.most:
            yield f"{self.name}: {value:.4g}, {self.most:g} at most"


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number on the command line, of the type of its default, and its bounds."""

    name: str
    default: float
    about: str
    least: float = 0
    most: float = math.inf

    def check(self, value: float) -> None:
        """Raise ConfigError for a value outside the bounds."""
        if not self.least <= value <= self.most or value == math.inf:
            upper = "" if self.most == math.inf else f", {self.most:g} at most"
            raise ConfigError(f"--{self.name} {value:g}: must be {self.least:g} or more{upper}.")


@dataclass(frozen=True, kw_only=True)
class Drill(Generic[Seen]):
    """A drill; ``Seen`` is what it brings back to be judged and described."""

    command: str
    """What ``python -m`` starts."""
    about: str | None
    page: str
    """Its document in docs/."""
    numbers: Sequence[Number] = ()
    run: Callable[[Given, Path], Coroutine[Any, Any, Seen]]
    checks: Checks[Seen]
    """What must hold on any machine."""
    goals: Checks[Seen] = field(default_factory=dict)
    """What may be missed because of the machine, without --goals."""
    described: Callable[[Seen], str]
    """All figures as Markdown, for the terminal and for the document."""
    heading: Callable[[Given, Seen], str] = lambda _given, _seen: ""
    """What the document says after the command: how the figures came about."""
    data: Callable[[Seen], Any] | None = None
    """The outcome as JSON has it, for --report."""
    options: Callable[[argparse.ArgumentParser], None] = lambda _root: None
    refuse: Callable[[Given], None] = lambda _given: None
    """Raises ConfigError for what cannot be done, before anything starts."""
    finish: Callable[[Given, Seen], None] = lambda _given, _seen: None
    """Writes what is neither the document nor the report."""

    @property
    def name(self) -> str:
        return self.command.rpartition(".")[2]

    def parser(self) -> argparse.ArgumentParser:
        """Describe the command line."""
        root = argparse.ArgumentParser(
            prog=f"python -m {self.command}",
            description=self.about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for each in self.numbers:
            about = f"{each.about} (%(default)s)"
            kind = type(each.default)
            root.add_argument(f"--{each.name}", type=kind, default=each.default, help=about)
        root.add_argument("--write", action="store_true", help="the outcome into docs/, too")
        root.add_argument("--folder", type=Path, help="where logs go; else a temporary folder")
        if self.data:
            root.add_argument("--report", type=Path, metavar="FILE", help="the outcome as JSON")
        if self.goals:
            root.add_argument("--goals", action="store_true", help="a missed goal is a failure")
        self.options(root)
        return root

    def check(self, given: Given) -> None:
        """Refuse what cannot be done.

        Raises:
            ConfigError: names the argument and the cure.

        """
        for each in self.numbers:
            each.check(vars(given)[each.name.replace("-", "_")])
        if self.data:
            demand_writable("--report", given.report)
        demand_writable("--write", report.page(self.page) if given.write else None)
        self.refuse(given)

    def found(self, seen: Seen) -> dict[str, list[str]]:
        """Return what is wrong by check; an empty list where it holds."""
        return {name: list(check(seen)) for name, check in self.checks.items()}

    def document(self, given: Given, seen: Seen) -> str:
        """Return the command, all figures and what became of each check, as its page has them."""
        values = {each.name: vars(given)[each.name.replace("-", "_")] for each in self.numbers}
        words = "".join(f" --{name} {value:g}" for name, value in values.items())
        rows = [
            (name, f"FAILED ({len(problems)})" if problems else "ok")
            for name, problems in self.found(seen).items()
        ]
        return "\n\n".join(
            (
                f"`python -m {self.command}{words} --write`{self.heading(given, seen)}",
                self.described(seen),
                table(("Check", "Outcome"), rows),
            )
        )

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run the drill; return its exit code."""
        given = self.parser().parse_args(arguments)
        try:
            self.check(given)
        except ConfigError as error:
            print(f"{self.name}: {error}", file=sys.stderr)
            return 2
        seen = carried_out(self.name, given.folder, lambda folder: self.run(given, folder))
        wrong = self.found(seen)
        missed = {name: list(check(seen)) for name, check in self.goals.items()}
        print(f"\n{self.document(given, seen)}\n")
        _name("FAILED", wrong)
        _name("MISSED", missed)
        if self.data and given.report:
            written = json.dumps(report.finite(self.data(seen)), indent=1)
            given.report.write_text(f"{written}\n", encoding="utf-8")
        if given.write:
            report.write(self.page, self.document(given, seen))
        self.finish(given, seen)
        return int(any(wrong.values()) or bool(self.goals and given.goals and any(missed.values())))


def _name(word: str, problems: Mapping[str, Sequence[str]]) -> None:
    for check, found in problems.items():
        for problem in found[:MOST_NAMED]:
            print(f"{word}: {check}: {problem}")
        if (more := len(found) - MOST_NAMED) > 0:
            print(f"{word}: {check}: {more} more")
