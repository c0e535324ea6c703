"""Draw the dashboards from a live Prometheus, and name the panels that show nothing.

    python scripts/render_dashboards.py --prometheus http://127.0.0.1:9090 --from 15m

The pictures are drawn with Grafana's component libraries: no Grafana is asked or needed.
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

from dashboards.substitution import SCRAPE_SECONDS  # noqa: E402
from scripts.render.browser import CannotRender, browser, require  # noqa: E402
from scripts.render.bundle import bundle, page  # noqa: E402
from scripts.render.prometheus import Prometheus, QueryFailed, seconds  # noqa: E402
from scripts.render.questions import Fault, Json, Span, ask, count_panels  # noqa: E402

NARROWEST, WIDEST = 800, 4000


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw what was asked for; return the exit status."""
    options = parser().parse_args(arguments)
    try:
        files = chosen(options.dashboards, options.only)
        prometheus = Prometheus(url=options.prometheus)
        now = time.time()
        span = Span(
            start=now - options.length,
            end=now,
            scrape=options.scrape_interval or max(SCRAPE_SECONDS, prometheus.scrape_seconds()),
            width=options.width,
        )
        if not options.check:
            require()  # Before anything is asked or installed.
        filled = {}
        faults: dict[str, list[Fault]] = {}
        for file in files:
            dashboard: Json = json.loads(file.read_text(encoding="utf-8"))
            filled[file.stem], faults[file.stem] = ask(
                dashboard, prometheus, span, dict(options.variable)
            )
            print(f"{file.stem}: {count_panels(dashboard)} panels")
        if not options.check:
            for name, undrawn in draw(filled, options.out, options.width).items():
                faults[name] += undrawn
    except (CannotRender, QueryFailed, OSError, ValueError) as error:
        print(f"render_dashboards: {error}", file=sys.stderr)
        return 2
    return judge(faults, allow_empty=options.allow_empty)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    described = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="Status 1: a panel has no data or a query failed; 2: nothing could be drawn.",
    )
    add = described.add_argument
    add("--prometheus", default="http://127.0.0.1:9090", metavar="URL", help="whom to ask")
    add("--out", type=Path, default=ROOT / "docs" / "dashboards", help="folder of the pictures")
    add(
        "--from",
        dest="length",
        type=_length,
        default=_length("15m"),
        metavar="15m",
        help="how far back from now",
    )
    add("--only", action="append", default=[], metavar="NAME", help="this dashboard (repeatable)")
    add("--width", type=_width, default=1600, help="of the picture, in pixels")
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


def draw(filled: dict[str, Json], out: Path, width: int) -> dict[str, list[Fault]]:
    """Write one PNG for each dashboard; return the panels that could not be drawn.

    Raises:
        CannotRender: what draws it is missing or failed.

    """
    program = bundle()
    faults = {}
    out.mkdir(parents=True, exist_ok=True)
    with browser() as chromium:
        for name, content in filled.items():
            picture = chromium.picture(page(content | {"width": width}, program), width)
            (out / f"{name}.png").write_bytes(picture.png)
            print(f"wrote {out / name}.png, {len(picture.png) // 1024} KiB")
            for note in picture.notes:
                print(f"{name}: {note}")
            faults[name] = [
                Fault(panel=panel, kind="undrawn", text=text) for panel, text in picture.undrawn
            ]
    return faults


def judge(faults: dict[str, list[Fault]], *, allow_empty: bool) -> int:
    """Name the faults and return the exit status."""
    for name, found in faults.items():
        for fault in found:
            print(f"{name}: {fault}")
    fatal = {"error", "undrawn"} | (set() if allow_empty else {"empty"})
    return int(any(fault.kind in fatal for found in faults.values() for fault in found))


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
