"""What Ray writes to the standard streams of its driver."""

import json
import subprocess
import sys

CODE = """
import logging, os, sys
from service.config.table import Config
from service.engine.ray import output

ray = logging.getLogger("ray")
ray.addHandler(logging.StreamHandler(sys.stderr))
ray.propagate = False
lines = output.capture(Config(log_format="json"))
output.quiet()
print("(raylet)\\x1b[0m a worker", end=" ")
print("died")
print("\\n\\x1b[33m", file=sys.stderr)
os.write(2, b"[W 1 2] client.cc:1: \\xff\\n")
os.write(1, b"x" * 5000 + b"\\n")
ray.warning("SIGTERM handler is not set")
ray.error("lost")
os.close(1), os.close(2), sys.stderr.close()
for thread in output.threading.enumerate():
    if thread.name == "ray-output":
        thread.join()
lines.end()
"""


def test_all_of_it_is_lines_of_the_log():
    """Whole lines without colours, none too long, and of its logger what matters."""
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.stdout == ""
    assert sorted(line.get("line", line["event"]) for line in lines) == [
        "(raylet) a worker died",
        "[W 1 2] client.cc:1: \N{REPLACEMENT CHARACTER}",
        "lost",
        "x" * 1000,
    ]
