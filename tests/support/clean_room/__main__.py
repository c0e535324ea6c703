"""Carry out the Dockerfile without a container engine, and draw an image with what it makes.

The steps are read from the Dockerfile. Each writes a layer of its own over a minimal Debian, from
the files that .dockerignore lets through; then the service starts as the image says: its user,
no right, a tree that nobody can write to, no network but loopback. It takes root, debootstrap, a
package index for pip and some minutes.
"""

import argparse
import base64
import json
import sys
import tempfile
from pathlib import Path

from tests.support.clean_room.room import carried_out, missing, report


def main() -> int:
    """Build, try, tell; exit with 1 where this machine cannot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where the image goes")
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args()
    if reason := missing():
        print(f"clean_room: {reason}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="clean-room-") as folder:
        Path(folder).chmod(0o755)  # The container's user passes through.
        image, found = carried_out(Path(folder))
        if arguments.out:
            arguments.out.write_bytes(base64.b64decode(found["image"]["png"]))
        figures = json.dumps(report(image, found), indent=2)
    if arguments.json:
        arguments.json.write_text(figures + "\n", encoding="utf-8")
    print(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
