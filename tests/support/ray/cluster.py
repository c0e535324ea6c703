"""A Ray cluster for tests, in processes of its own: this one never imports ray."""

import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

import psutil

ROOT: Final = Path(__file__).parents[3]
START_SECONDS: Final = 180.0
END_SECONDS: Final = 30.0
ACTOR: Final = "ray::EngineActor"
"""How Ray names the process of an engine's actor."""

NODE_SETTINGS: Final = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "300",
    "RAY_gcs_storage": "rocksdb",
}
"""What ``docs/SCALING.md`` recommends for every node."""


class Cluster:
    """A head, and nodes that run engines without a model.

    Everything is in a folder of its own, and every process is ended by its id: there may be other
    clusters on this machine.
    """

    def __init__(self, engines: tuple[int, ...], settings: Mapping[str, str]) -> None:
        """Start a node for each number, which is how many engines it runs."""
        self.folder = Path(tempfile.mkdtemp(prefix="sd-ray-"))  # Paths of sockets must be short.
        self.token = self.folder / "token"
        self.token.touch(0o600)
        self.token.write_text(base64.b64encode(secrets.token_bytes(24)).decode())
        self._log = (self.folder / "log").open("wb")
        self._program = subprocess.Popen(
            [sys.executable, "-m", "tests.support.ray.nodes", *map(str, engines)],
            cwd=ROOT,
            env={
                **os.environ,
                **NODE_SETTINGS,
                "PYTHONPATH": str(ROOT),
                "RAY_TMPDIR": str(self.folder),
                "RAY_AUTH_TOKEN_PATH": str(self.token),
                "RAY_gcs_storage_path": str(self.folder / "gcs"),
                **settings,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C reaches the tests alone.
        )
        self.address = ""
        self.nodes: list[dict[str, int]] = []
        """Process ids of the head and the others, by what they are: gcs_server, raylet."""
        try:
            self._hear()
        except RuntimeError:
            self.end()
            raise

    def _hear(self) -> None:
        """Wait until the program says which processes there are."""
        assert self._program.stdout is not None
        bound = threading.Timer(START_SECONDS, self._program.kill)
        bound.start()
        line = self._program.stdout.readline()
        bound.cancel()
        if not line:
            raise RuntimeError(f"the cluster ended: {Path(self._log.name).read_text()[-2000:]}")
        told = json.loads(line)
        self.address, self.nodes = told["address"], told["nodes"]

    def _tell(self, command: str) -> None:
        assert self._program.stdin is not None
        self._program.stdin.write(f"{command}\n".encode())
        self._program.stdin.flush()
        self._hear()

    def restart_gcs(self) -> None:
        """Start the head's store again, which was killed."""
        self._tell("gcs")

    def add_node(self, engines: int) -> None:
        """Start another node, which runs so many engines; it joins soon."""
        self._tell(f"node {engines}")

    def drain(self, number: int) -> None:
        """Let a node leave as it does at SIGTERM: returns when nothing runs there any more.

        Ray bounds it by RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S.
        """
        self._tell(f"drain {number}")

    def settings(self, namespace: str) -> dict[str, str]:
        """Return the settings of a service whose engines are here."""
        return {
            "ENGINE": "ray",
            "RAY_ADDRESS": self.address,
            "RAY_NAMESPACE": namespace,
            "RAY_TOKEN_FILE": str(self.token),
        }

    def actors(self) -> list[psutil.Process]:
        """Return the processes of the actors that host engines, all namespaces together."""
        return [each for each in self.processes() if named(each, ACTOR)]

    def processes(self) -> list[psutil.Process]:
        """Return all processes that were started here, orphans among them."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("RAY_TMPDIR") == str(self.folder):
                    found.append(process)
            except psutil.Error:  # It has ended, or is somebody else's.
                continue
        return found

    def end(self) -> None:
        """End every process, each by its id."""
        assert self._program.stdin is not None
        self._program.stdin.close()
        try:
            self._program.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._program.kill()
            self._program.wait()
        left = self.processes()
        for process in left:
            process.kill()
        psutil.wait_procs(left, END_SECONDS)
        assert self._program.stdout is not None
        self._program.stdout.close()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_reason: object) -> None:
        self.end()


def named(process: psutil.Process, name: str) -> bool:
    """Return whether a process has a name of Ray's, which begins so."""
    try:
        return "".join(process.cmdline()[:1]).startswith(name)
    except psutil.Error:
        return False


def child_of(actor: psutil.Process) -> psutil.Process:
    """Return the engine's process that an actor hosts."""
    (child,) = (each for each in actor.children() if "spawn_main" in " ".join(each.cmdline()))
    return child
