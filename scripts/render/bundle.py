"""The page's program and its packages, and one HTML file with a dashboard in it."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from scripts.render.browser import CannotRender

SOURCES: Final = Path(__file__).parent
WORK: Final = SOURCES.parents[1] / ".render"
"""Where packages and the bundle lie; git passes it over."""

STAMP: Final = WORK / "installed"


def installed() -> bool:
    """Tell whether the packages that the lock file names are there."""
    return STAMP.exists() and STAMP.read_text(encoding="utf-8") == _digest()


def bundle() -> Path:
    """Install the packages where the lock file changed, and bundle the page's program.

    Raises:
        CannotRender: npm or esbuild failed.

    """
    WORK.mkdir(exist_ok=True)
    (WORK / ".gitignore").write_text("*\n", encoding="utf-8")
    if not installed():
        print(f"Installing Grafana's component libraries into {WORK.name}/ (once, 650 MB) ...")
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCES / name, WORK / name)
        _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        STAMP.write_text(_digest(), encoding="utf-8")
    _run(
        "node_modules/.bin/esbuild",
        str(SOURCES / "page" / "main.jsx"),
        "--bundle",
        "--minify",
        "--jsx=automatic",
        "--loader:.woff2=dataurl",
        "--external:monaco-editor*",  # An editor, loaded only by who types queries.
        '--define:process.env.NODE_ENV="production"',
        "--define:global=globalThis",
        "--log-level=error",
        "--outfile=page.js",
    )
    return WORK / "page.js"


def page(content: dict[str, Any], program: Path) -> str:
    """Return one HTML file with everything in it: program, styles and data."""
    # Nothing in a label or a query may end the element it stands in.
    data = json.dumps(content).replace("<", "\\u003c")
    script = program.read_text(encoding="utf-8").replace("</script", "<\\/script")
    style = program.with_suffix(".css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<style>{style}</style></head><body><div id=root></div><pre id=result hidden></pre>"
        f'<script type="application/json" id="content">{data}</script>'
        f"<script>{script}</script></body></html>"
    )


def _run(*command: str) -> None:
    done = subprocess.run(  # noqa: S603 - npm and esbuild, on files of our own
        command,
        cwd=WORK,
        env=os.environ | {"NODE_PATH": str(WORK / "node_modules")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CannotRender(f"{Path(command[0]).name} failed:\n{done.stderr.strip()[-2000:]}")


def _digest() -> str:
    return hashlib.sha256((SOURCES / "package-lock.json").read_bytes()).hexdigest()


if __name__ == "__main__":
    bundle()
