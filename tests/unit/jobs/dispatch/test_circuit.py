"""Whether an engine that ends again and again is still trusted with new work."""

import pytest
from structlog.testing import capture_logs

from service.engine.process.parent import RESTART_DELAYS
from service.jobs.dispatch.circuit import CRASHES_TO_OPEN, Circuit, CircuitState


class Clock:
    """Stands still unless it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock that the test moves."""
    return Clock()


@pytest.fixture
def circuit(clock) -> Circuit:
    """Return a circuit of a service that starts a job three times."""
    return Circuit(max_attempts=3, clock=clock)


def crash(circuit: Circuit, times: int, restart_seconds: float = 0.0) -> None:
    for _ in range(times):
        circuit.crashed(restart_seconds)


def test_it_opens_after_so_many_crashes_in_a_row(circuit):
    """Not before; and says so in the log."""
    crash(circuit, CRASHES_TO_OPEN - 1)
    assert not circuit.open
    with capture_logs() as logs:
        circuit.crashed(4.0)
    assert circuit.open
    assert logs == [
        {
            "event": "circuit_opened",
            "log_level": "error",
            "engine": "0",
            "crashes": CRASHES_TO_OPEN,
            "restart_seconds": 4.0,
        }
    ]


def test_a_finished_job_begins_the_count_anew(circuit):
    """Crashes that are far between are no row, and an open circuit closes."""
    crash(circuit, CRASHES_TO_OPEN - 1)
    circuit.succeeded()
    crash(circuit, CRASHES_TO_OPEN - 1)
    assert not circuit.open
    circuit.crashed(0.0)
    with capture_logs() as logs:
        circuit.succeeded()
    assert not circuit.open
    assert [line["event"] for line in logs] == ["circuit_closed"]


def test_the_wait_is_the_back_off_that_is_left(circuit, clock):
    """And nothing, once the engine was started."""
    crash(circuit, CRASHES_TO_OPEN, restart_seconds=8.0)
    clock.now += 3.0
    assert circuit.wait_seconds == 5.0
    clock.now += 10.0
    assert circuit.wait_seconds == 0.0


def test_its_state_says_whether_work_flows(circuit):
    """An engine that is back is tried, and one that is away is not."""
    assert circuit.state(ready=False) is CircuitState.CLOSED
    crash(circuit, CRASHES_TO_OPEN)
    assert circuit.state(ready=False) is CircuitState.OPEN
    assert circuit.state(ready=True) is CircuitState.HALF_OPEN


@pytest.mark.parametrize("attempts", range(1, 11))
def test_one_job_alone_never_opens_it(attempts):
    """Whatever MAX_ATTEMPTS is, a job that kills engines is given up before."""
    circuit = Circuit(max_attempts=attempts)
    crash(circuit, attempts + 1)
    assert not circuit.open


def test_it_opens_while_the_restarts_still_come_quickly():
    """A client that is refused first is not sent away for half a minute."""
    assert RESTART_DELAYS[CRASHES_TO_OPEN - 1] <= 5
