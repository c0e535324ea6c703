"""Write the table of settings into the README; ``--check`` only says whether it is current."""

import re
import sys
from pathlib import Path

from service.config import table

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"(<!-- settings: .*? -->\n).*?(<!-- /settings -->)", re.DOTALL)


def main() -> int:
    """Return 1 when the table was not current."""
    old = README.read_text(encoding="utf-8")
    new = BLOCK.sub(lambda m: f"{m[1]}{table()}\n{m[2]}", old)
    if "--check" not in sys.argv:
        README.write_text(new, encoding="utf-8")
    return int(new != old)


if __name__ == "__main__":
    sys.exit(main())
