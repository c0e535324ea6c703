"""A picture of a page, taken in headless Chromium."""

import base64
import fcntl
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

CHROMIUMS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LIMIT_SECONDS: Final = 120.0
"""For one page; all of them may take five times as long."""

OWN_DESCRIPTORS: Final = 10
"""From here on, so that none of ours is 3 or 4, on which Chromium listens and answers."""


class CannotRender(Exception):
    """What draws is missing or failed; the text says what, and the cure where there is one."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A page as it was drawn."""

    png: bytes
    notes: tuple[str, ...]
    """What a reader of the picture cannot see whole."""
    undrawn: tuple[tuple[str, str], ...]
    """Panels on which the page's program failed, and how."""


def require() -> None:
    """Make sure that the programs are there.

    Raises:
        CannotRender: one is missing; the text says how to get it.

    """
    cures = {
        "node": "install Node.js 20 or later (Debian: apt-get install nodejs)",
        "npm": "install npm (Debian: apt-get install npm)",
    }
    for program, cure in cures.items():
        if shutil.which(program) is None:
            raise CannotRender(f"{program} is missing: {cure}")
    chromium()


def chromium() -> str:
    """Return the path of Chromium.

    Raises:
        CannotRender: it is missing.

    """
    if found := next(filter(None, map(shutil.which, CHROMIUMS)), None):
        return found
    raise CannotRender("chromium is missing: install it (Debian: apt-get install chromium)")


@dataclass(kw_only=True)
class Browser:
    """Chromium, spoken to over two pipes in its DevTools protocol."""

    commands: IO[bytes]
    answers: IO[bytes]
    session: str = ""
    asked: int = 0
    said: list[str] = field(default_factory=list)
    """Errors of the page that is open."""

    def picture(self, html: str, width: int) -> Picture:
        """Draw the whole page, however long it is.

        Raises:
            CannotRender: the page's program failed.

        """
        self.said.clear()
        with tempfile.NamedTemporaryFile("w", suffix=".html", encoding="utf-8") as file:
            file.write(html)
            file.flush()
            target = self._ask("Target.createTarget", url="about:blank")["targetId"]
            self.session = self._ask("Target.attachToTarget", targetId=target, flatten=True)[
                "sessionId"
            ]
            self._ask("Runtime.enable")
            self._resize(width, 1000)
            self._ask("Page.navigate", url=Path(file.name).as_uri())
            result = self._drawn()
            # The first size is a guess: panels beyond the window must be laid out as well.
            self._resize(width, int(result["height"]))
            result = self._drawn()
            shot = self._ask("Page.captureScreenshot", format="png")
            self._ask("Target.closeTarget", targetId=target)
            self.session = ""
        return Picture(
            png=base64.b64decode(shot["data"]),
            notes=(*result["notes"], *self.said),
            undrawn=tuple((panel, text) for panel, text in result["undrawn"]),
        )

    def _resize(self, width: int, height: int) -> None:
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def _drawn(self) -> dict[str, Any]:
        """Wait until the page says that nothing moves any more."""
        until = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < until:
            answer = self._ask(
                "Runtime.evaluate",
                expression="window.drawn ? window.drawn() : null",
                awaitPromise=True,
                returnByValue=True,
            )
            if value := answer["result"].get("value"):
                return dict(value)
            if self.said:
                break
            time.sleep(0.1)
        raise CannotRender(f"the page was not drawn: {'; '.join(self.said) or 'it took too long'}")

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.asked += 1
        message: dict[str, Any] = {"id": self.asked, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.commands.write(json.dumps(message).encode() + b"\0")
        self.commands.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self.asked:
                break
            if answer.get("method") == "Runtime.exceptionThrown":
                details = answer["params"]["exceptionDetails"]
                self.said.append(details.get("exception", {}).get("description", details["text"]))
        if "error" in answer:
            raise CannotRender(f"Chromium refused {method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self) -> dict[str, Any]:
        parts = []
        while (byte := self.answers.read(1)) != b"\0":
            if not byte:
                raise BrokenPipeError  # What it said is in the log, and told in one place.
            parts.append(byte)
        message: dict[str, Any] = json.loads(b"".join(parts))
        return message


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium without a window, and end it.

    Raises:
        CannotRender: there is none, or it ended by itself.

    """
    program = chromium()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        arguments = [
            program,
            "--headless=new",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-first-run",
            "--force-color-profile=srgb",
        ]
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")  # Chromium as root has no other way.
        ours_in, theirs_out = _pipe()
        theirs_in, ours_out = _pipe()
        with Path(profile, "log").open("wb") as log:
            pid = os.posix_spawn(
                program,
                arguments,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs_in, 3),
                    (os.POSIX_SPAWN_DUP2, theirs_out, 4),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 1),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 2),
                ],
                setpgroup=0,
            )
        os.close(theirs_in)
        os.close(theirs_out)
        # A browser that hangs would leave us reading for ever; once it is killed we read the end.
        limit = threading.Timer(5 * LIMIT_SECONDS, os.killpg, (pid, signal.SIGKILL))
        limit.start()
        try:
            with os.fdopen(ours_out, "wb") as commands, os.fdopen(ours_in, "rb") as answers:
                yield Browser(commands=commands, answers=answers)
        except BrokenPipeError as error:
            said = Path(profile, "log").read_text(encoding="utf-8", errors="replace").strip()
            raise CannotRender(f"Chromium ended by itself: {said[-500:]}") from error
        finally:
            limit.cancel()
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _pipe() -> tuple[int, int]:
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, OWN_DESCRIPTORS) for end in ends]
    for end in ends:
        os.close(end)
    return moved[0], moved[1]
