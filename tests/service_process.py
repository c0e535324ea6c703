"""A real service in a process of its own, watched by its log."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

WAIT_SECONDS = 120.0
"""Bound of every wait: reached only when something is broken."""


class ServiceProcess:
    """A started service; its log lines are dictionaries, in ``log``."""

    module = "service"
    prefix: tuple[str, ...] = ()
    """What its command is started by."""

    def __init__(self, **settings: object) -> None:
        # A folder belongs to one service: each has its own unless a test says otherwise.
        self._folder = TemporaryDirectory()
        environment = {
            **os.environ,
            "DATA_DIR": self._folder.name,
            "API_PORT": "0",
            "LOG_FORMAT": "json",
            "HF_HUB_OFFLINE": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            **{name: str(value) for name, value in settings.items()},
        }
        self.process = subprocess.Popen(
            self.command(),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.log: list[dict[str, Any]] = []
        self.strays: list[str] = []
        """Lines that are no JSON: a log that a collector cannot read."""
        self.output: list[str] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def command(self) -> list[str]:
        """Return what it is started by."""
        return [*self.prefix, sys.executable, "-m", self.module, "serve"]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._more:
                self.output.append(line)
                try:
                    self.log.append(json.loads(line))
                except ValueError:
                    self.strays.append(line)
                self._more.notify_all()
        with self._more:
            self._more.notify_all()

    def logged(self, event: str, *, count: int = 1) -> dict[str, Any]:
        """Wait for the ``count``-th log line of that event and return it."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.log if line["event"] == event]

        with self._more:
            self._more.wait_for(
                lambda: len(found()) >= count or not self._reader.is_alive(), WAIT_SECONDS
            )
            if len(found()) < count:
                raise AssertionError(f"no {event!r} in the log:\n{''.join(self.output)}")
            return found()[count - 1]

    @property
    def url(self) -> str:
        """Where it listens."""
        return str(self.logged("service_listening")["url"])

    @property
    def engine_pid(self) -> int:
        """Process id of the latest engine."""
        return int([line for line in self.log if line["event"] == "engine_started"][-1]["pid"])

    def end(self) -> int:
        """Ask it to stop, as a container would, and return its exit code."""
        self.process.terminate()
        code = self.process.wait(WAIT_SECONDS)
        self._reader.join(WAIT_SECONDS)
        return code


Started = TypeVar("Started", bound=ServiceProcess)


@contextmanager
def running_service(**settings: object) -> Iterator[ServiceProcess]:
    """Start a service, hand it out when its model is loaded, and end it by its own id."""
    with ending(ServiceProcess(**settings)) as service:
        service.logged("model_loaded")
        yield service


@contextmanager
def ending(service: Started) -> Iterator[Started]:
    """End a service that was started, whatever became of it, by its own id."""
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.process.kill()
            service.process.wait(WAIT_SECONDS)
        service._reader.join(WAIT_SECONDS)
        assert service.process.stdout is not None
        service.process.stdout.close()
        service._folder.cleanup()
