"""What Ray prints into its driver."""

import json
import subprocess
import sys

CODE = """
import logging, sys
from service.config.table import Config
from service.engine.ray import output
from service.telemetry import logs

ray = logging.getLogger("ray")
ray.addHandler(logging.StreamHandler(sys.stderr))
ray.propagate = False
logs.configure(Config(log_format="json"))
output.capture()
print("(raylet)\\x1b[0m a worker", end=" ")
print("died")
print("\\n\\x1b[33m", file=sys.stderr)
sys.stderr.write("x" * 5000 + "\\n")
ray.warning("SIGTERM handler is not set")
ray.error("lost")
"""


def test_all_of_it_is_lines_of_the_log():
    """Whole lines without colours, none too long, and of its logger what matters."""
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.stdout == ""
    assert [line.get("line", line["event"]) for line in lines] == [
        "(raylet) a worker died",
        "x" * 1000,
        "lost",
    ]
