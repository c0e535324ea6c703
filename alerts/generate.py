"""Write alerts/rules.yml; with ``--check`` only say whether it is current."""

import argparse
import sys
from pathlib import Path
from typing import Final

from alerts.rule import Links
from alerts.rules import render
from alerts.windows import NORMAL, SHORT

RULES: Final = Path(__file__).with_name("rules.yml")
WINDOWS: Final = {"normal": NORMAL, "short": SHORT}


def main(arguments: list[str] | None = None) -> int:
    """Return 1 when the file was to be current and is not."""
    links = Links()
    parser = argparse.ArgumentParser(prog="python -m alerts.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it differs")
    parser.add_argument("--out", type=Path, default=RULES, help="file to write")
    parser.add_argument("--windows", choices=WINDOWS, default="normal", help="short is for drills")
    parser.add_argument("--runbooks", default=links.runbooks, help="where the runbooks are read")
    parser.add_argument("--grafana", default=links.grafana, help="where the dashboards are")
    given = parser.parse_args(arguments)
    rules = render(WINDOWS[given.windows], Links(runbooks=given.runbooks, grafana=given.grafana))
    if not given.check:
        given.out.write_text(rules, encoding="utf-8")
    elif not given.out.exists() or given.out.read_text(encoding="utf-8") != rules:
        print(f"{given.out} is not what alerts/ generates: run python -m alerts.generate")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
