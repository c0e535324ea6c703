"""A Ray cluster of one machine with one engine, and the service in front of it, to try them.

``python -m scripts.cluster.local --api-port 8001`` takes the settings of ``sd-api serve``. Ctrl-C
ends all of it. The cluster has a folder and a token of its own; others on the machine stay as they
are.
"""

import argparse
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

START_SECONDS: Final = 120.0
END_SECONDS: Final = 20.0
LOOK_SECONDS: Final = 0.25
OFF: Final = "0"


def main() -> int:
    """Run the service until it ends, and then end the cluster; return the service's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", type=int, default=1, help="engines of the cluster [1]")
    asked, settings = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="sd-ray-") as folder:
        token = Path(folder) / "token"
        token.touch(0o600)
        token.write_text(secrets.token_hex(32), encoding="ascii")
        with head(Path(folder), token, asked.engines) as address:
            return serve(settings, address, token)


@contextmanager
def head(folder: Path, token: Path, engines: int) -> Iterator[str]:
    """Start the head of a cluster that is also its only node; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": OFF,
        "RAY_USAGE_STATS_ENABLED": OFF,
    }
    log = folder / "head.log"
    with log.open("wb") as said:
        started = subprocess.Popen(  # noqa: S603 - Ray's own command
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                *(f"--port={port}", f"--temp-dir={folder / 'ray'}", "--include-dashboard=false"),
                *("--num-cpus=0", "--num-gpus=0", f'--resources={{"sd_engine": {engines}}}'),
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is the service's; the cluster ends after it.
        )
    try:
        yield f"{wait_for(started, port, log)}:{port}"
    finally:
        started.terminate()
        try:
            started.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def wait_for(started: "subprocess.Popen[bytes]", port: int, log: Path) -> str:
    """Return the address that the head says it has, once it is there; raise SystemExit if not."""
    print(f"Starting a Ray cluster (port {port}) ...", flush=True)
    deadline = time.monotonic() + START_SECONDS
    while started.poll() is None and time.monotonic() < deadline:
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if "--address='" in line:
                return line.partition("--address='")[2].partition(":")[0]
        time.sleep(LOOK_SECONDS)
    sys.exit(f"The cluster did not start:\n{log.read_text(encoding='utf-8', errors='replace')}")


def serve(settings: list[str], address: str, token: Path) -> int:
    """Run the service to its end."""
    environment: Mapping[str, str] = {
        **os.environ,
        "ENGINE": "ray",
        "RAY_ADDRESS": address,
        "RAY_TOKEN_FILE": str(token),
    }
    service = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "service", "serve", *settings], env=environment
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # It reaches the service, which is waited for.
    signal.signal(signal.SIGTERM, lambda *_: service.terminate())
    return service.wait()


if __name__ == "__main__":
    sys.exit(main())
