"""Threads for calls that block."""

import ast
import asyncio
import contextvars
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from service.errors import Overloaded
from service.system import executors
from service.system.executors import EXECUTORS, Executor
from service.system.fair_line import Limits

SERVICE = Path(__file__).parents[3] / "service"
WAIT_SECONDS = 30.0
DEFAULT_EXECUTOR = frozenset(
    {
        *("to_thread", "getnameinfo", "ThreadedResolver", "DefaultResolver", "AsyncResolver"),
        *("FileResponse", "add_static", "static", "set_default_executor"),
    }
)
"""Names whose calls wait in asyncio's default executor."""


class Blocked:
    """Calls that return when a test lets them."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.began: list[str] = []
        self.changed = threading.Condition()

    def call(self, name: str = "") -> str:
        with self.changed:
            self.began.append(name)
            self.changed.notify_all()
        assert self.open.wait(WAIT_SECONDS)
        return name

    def wait_for(self, count: int) -> None:
        """Wait until so many calls have begun."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.began) >= count, WAIT_SECONDS)


@pytest.fixture
def blocked():
    """Let all calls return at the end."""
    made = Blocked()
    yield made
    made.open.set()


def executor(most=2, each=2, alike=2, spare=0, waiting=100) -> Executor:
    limits = Limits(most=most, each=each, alike=alike, spare=spare)
    return Executor("test", limits, waiting=waiting)


def start(made: Executor, blocked: Blocked, owner: str) -> "asyncio.Task[str]":
    """Begin a call in the background."""
    return asyncio.create_task(made.run_for(owner, lambda: blocked.call(owner)))


async def test_a_call_runs_on_a_thread_with_the_context_of_its_caller():
    """Log lines and spans belong to the request that made them."""
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("ours")
    name, value = await executor().run(lambda: (threading.current_thread().name, variable.get()))
    assert (name, value) == ("sd-test", "ours")


async def test_an_error_is_the_callers():
    """The thread goes on with the next call."""
    made = executor(most=1)
    with pytest.raises(ZeroDivisionError):
        await made.run(divmod, 1, 0)
    assert await made.run(divmod, 7, 2) == (3, 1)
    assert made._threads == 1


async def test_one_owner_holds_a_part_of_the_threads(blocked):
    """Another's calls go on at once, however many of the first one's never return."""
    made = executor(most=4, each=2)
    stuck = [start(made, blocked, "greedy") for _ in range(20)]
    await made.run_for("anna", lambda: blocked.wait_for(2))
    assert blocked.began == ["greedy"] * 2
    assert (made.busy, made.waiting) == (2, 18)
    assert await made.run_for("anna", lambda: "done") == "done"
    blocked.open.set()
    await asyncio.gather(*stuck)
    assert (made.busy, made.waiting) == (0, 0)


async def test_an_owner_without_a_call_gets_a_thread_beyond_the_most(blocked):
    """So that no number of greedy ones keeps it waiting."""
    made = executor(most=2, spare=1)
    stuck = [start(made, blocked, f"greedy{number % 2}") for number in range(6)]
    assert await made.run_for("anna", lambda: "done") == "done"
    blocked.open.set()
    await asyncio.gather(*stuck)


async def test_a_call_has_its_own_time(blocked):
    """The wait for a thread is a part of it."""
    made = executor(most=1)
    first = start(made, blocked, "anna")
    await executor().run(blocked.wait_for, 1)
    with pytest.raises(TimeoutError):
        await made.run_for("bert", blocked.call, seconds=0.01)
    assert made.waiting == 0
    blocked.open.set()
    assert await first == "anna"
    assert await made.run(int) == 0
    assert blocked.began == ["anna"]


async def test_a_call_that_nobody_waits_for_keeps_its_thread(blocked):
    """It cannot be ended; what counts threads counts this one."""
    made = executor(most=1)
    first = start(made, blocked, "anna")
    await executor().run(blocked.wait_for, 1)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert made.busy == 1
    blocked.open.set()
    assert await made.run(int) == 0
    assert made.busy == 0


async def test_a_caller_that_leaves_takes_its_call_along(blocked):
    """It would be work for nobody."""
    made = executor(most=1)
    first, second = start(made, blocked, "anna"), start(made, blocked, "bert")
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert made.waiting == 0
    blocked.open.set()
    assert await first == "anna"
    assert await made.run(int) == 0
    assert blocked.began == ["anna"]


async def test_the_line_of_an_owner_is_bounded(blocked):
    """What is over is refused in words; others may still wait."""
    made = executor(most=1, each=1, waiting=2)
    stuck = [start(made, blocked, "greedy") for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 calls of this key wait for a thread") as refused:
        await made.run_for("greedy", int)
    assert refused.value.retry_after
    waiting = start(made, blocked, "anna")
    blocked.open.set()
    assert await asyncio.gather(*stuck, waiting) == ["greedy"] * 3 + ["anna"]


async def test_threads_end_when_nothing_comes(monkeypatch):
    """What an attack has started does not stay for ever."""
    monkeypatch.setattr(executors, "LINGER_SECONDS", 0.0)
    made = executor()
    ended = await made.run(threading.current_thread)
    await executor().run(ended.join, WAIT_SECONDS)
    assert made._threads == 0
    assert await made.run(int) == 0


async def test_a_thread_that_cannot_be_started_is_an_error_or_a_wait(blocked, monkeypatch):
    """Where there is another thread that takes the call, it waits for that one."""
    made = executor(most=2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _no_thread)
        with pytest.raises(RuntimeError, match="can't start"):
            await made.run(int)
    assert (made.busy, made.waiting) == (0, 0)
    first = start(made, blocked, "anna")
    await executor().run(blocked.wait_for, 1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _no_thread)
        second = start(made, blocked, "anna")
        await asyncio.sleep(0)
    blocked.open.set()
    assert (await first, await second) == ("anna", "anna")


def _no_thread(_thread):
    raise RuntimeError("can't start new thread")


def test_a_call_that_never_returns_does_not_hold_up_the_end():
    """Both asyncio and concurrent.futures would join its thread without a limit."""
    code = """
import asyncio, threading
from service.system.executors import EXECUTORS

async def main():
    loop, calls = asyncio.get_running_loop(), []
    for each in EXECUTORS:
        began = asyncio.Event()

        def never_returns():
            loop.call_soon_threadsafe(began.set)
            threading.Event().wait()

        calls.append(asyncio.create_task(each.run(never_returns)))
        await began.wait()
        print(each.name, each.busy)

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=SERVICE.parent,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split("\n")[:-1] == [f"{each.name} 1" for each in EXECUTORS]


def test_no_name_of_an_executor_stands_twice():
    """They are labels of metrics."""
    assert len({each.name for each in EXECUTORS}) == len(EXECUTORS)


def _called(node: ast.AST) -> str:
    function = node.func if isinstance(node, ast.Call) else node
    return getattr(function, "attr", getattr(function, "id", ""))


@pytest.mark.parametrize(
    "path", sorted(SERVICE.rglob("*.py")), ids=lambda path: str(path.relative_to(SERVICE))
)
def test_nothing_waits_in_the_default_executor(path):
    """It has few threads for everything, and one unanswering name server takes them all."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute | ast.Name):
            assert _called(node) not in DEFAULT_EXECUTOR, f"line {node.lineno}"
        if isinstance(node, ast.Call) and _called(node) == "run_in_executor":
            first = node.args[0]
            assert not (isinstance(first, ast.Constant) and first.value is None), node.lineno
        if isinstance(node, ast.Call) and _called(node) == "getaddrinfo":
            raise AssertionError(f"line {node.lineno}: give it to executors.NAMES")
