"""Draw the dashboards from a live Prometheus, and name the panels that show nothing.

    python scripts/render_dashboards.py --prometheus http://127.0.0.1:9090 --from 15m

The images are drawn with Grafana's component libraries: no Grafana is asked or needed.
The status is 1 when a panel has no data or a query failed, 2 when nothing could be drawn.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # Started as a file, Python looks beside the file only.

from dashboards.substitution import SCRAPE_SECONDS, panels_of, seconds  # noqa: E402
from scripts.render import browser  # noqa: E402
from scripts.render.browser import CannotRender  # noqa: E402
from scripts.render.bundle import bundle, page  # noqa: E402
from scripts.render.prometheus import Prometheus, QueryFailed  # noqa: E402
from scripts.render.questions import Fault, Json, Span, ask  # noqa: E402

NARROWEST, WIDEST, TALLEST = 800, 4000, 12000


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw what was asked for; return the exit status."""
    options = parser().parse_args(arguments)
    try:
        faults = drawn(options)
    except (CannotRender, QueryFailed, OSError, ValueError) as error:
        print(f"render_dashboards: {error}", file=sys.stderr)
        return 2
    for name, fault in faults:
        print(f"{name}: {fault}")
    fatal = {"error", "undrawn"} | (set() if options.allow_empty else {"empty"})
    return int(any(fault.kind in fatal for _, fault in faults))


def drawn(options: argparse.Namespace) -> list[tuple[str, Fault]]:
    """Ask for all numbers, write one PNG for each dashboard, and return the faults.

    Raises:
        CannotRender: what draws is missing or failed.
        QueryFailed: Prometheus is not there, or scrapes nothing.
        ValueError: there are no dashboards, or none of a name.

    """
    files = chosen(options.dashboards, options.only)
    prometheus = Prometheus(url=options.prometheus)
    now = time.time()
    span = Span(
        start=now - options.length,
        end=now,
        scrape=options.scrape_interval or max(SCRAPE_SECONDS, prometheus.scrape_seconds()),
        width=options.width,
    )
    chromium = "" if options.check else browser.require()  # Before anything is asked or installed.
    contents: dict[str, Json] = {}
    faults: list[tuple[str, Fault]] = []
    for file in files:
        dashboard: Json = json.loads(file.read_text(encoding="utf-8"))
        content, found = ask(dashboard, prometheus, span, dict(options.variable))
        contents[file.stem] = content | {"width": options.width}
        faults += [(file.stem, fault) for fault in found]
        print(f"{file.stem}: {len(list(panels_of(dashboard)))} panels")
    if options.check:
        return faults
    program = bundle()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        image = browser.draw(chromium, page(content, program), options.width, TALLEST)
        (options.out / f"{name}.png").write_bytes(image.png)
        print(f"wrote {options.out / name}.png, {len(image.png) // 1024} KiB")
        for note in image.notes:
            print(f"{name}: {note}")
        for panel, text in image.undrawn:
            faults.append((name, Fault(panel=panel, kind="undrawn", text=text)))
    return faults


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    described = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="Status 1: a panel has no data or a query failed; 2: nothing could be drawn.",
    )
    add = described.add_argument
    add("--prometheus", default="http://127.0.0.1:9090", metavar="URL", help="whom to ask")
    add("--out", type=Path, default=ROOT / "docs" / "dashboards", help="folder of the images")
    add(
        "--from",
        dest="length",
        type=_length,
        default=_length("15m"),
        metavar="15m",
        help="how far back from now",
    )
    add("--only", action="append", default=[], metavar="NAME", help="this dashboard (repeatable)")
    add("--width", type=_width, default=1600, help="of the image, in pixels")
    add("--dashboards", type=Path, default=ROOT / "dashboards", help="folder of the JSON files")
    add(
        "--variable",
        action="append",
        default=[],
        type=_variable,
        metavar="NAME=VALUE",
        help="a variable's value in place of the one in the dashboard (repeatable)",
    )
    add(
        "--scrape-interval",
        type=_length,
        default=None,
        metavar="15s",
        help="of the data source; by default 15s, or longer where Prometheus scrapes less often",
    )
    add("--allow-empty", action="store_true", help="panels without data are no failure")
    add("--check", action="store_true", help="draw nothing, only name the panels")
    return described


def chosen(folder: Path, only: Sequence[str]) -> list[Path]:
    """List the dashboards' files in ``folder``, or those of them that are named.

    Raises:
        ValueError: there is none, or none of that name.

    """
    files = {file.stem: file for file in sorted(folder.glob("*.json"))}
    if not files:
        raise ValueError(f"no dashboards in {folder}")
    if unknown := sorted(set(only) - set(files)):
        raise ValueError(f"no dashboard {', '.join(unknown)}; there are: {', '.join(files)}")
    return [files[name] for name in only or files]


def _length(text: str) -> float:
    try:
        length = seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if length <= 0:
        raise argparse.ArgumentTypeError("must be longer than nothing")
    return length


def _width(text: str) -> int:
    if not text.isdecimal() or not NARROWEST <= int(text) <= WIDEST:
        raise argparse.ArgumentTypeError(f"must be {NARROWEST} to {WIDEST} pixels")
    return int(text)


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError("must be NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
