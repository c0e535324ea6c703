"""The monitoring drill looks for each metric of the service by its name."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from service.telemetry.metrics import Metrics
from tests.drills.monitoring.checks import STILL, metrics

KNOWN = {each.name: each for each in Metrics().definitions}


class Prometheus:
    """Answers as if every metric was there and moved, but for what is left out."""

    def __init__(self, *, gone: str = "", unlabelled: str = "", still: str = "") -> None:
        self._gone, self._unlabelled, self._still = gone, unlabelled, still

    async def ask(self, path: str, **parameters: str) -> Any:
        assert path == "labels"
        name = parameters["match[]"].removesuffix("_count")
        labels = [] if name == self._unlabelled else list(KNOWN[name].labels)
        return [] if name == self._gone else ["__name__", "job", *labels]

    async def value(self, expression: str) -> float | None:
        return 0.0 if self._still and f"count({self._still})" in expression else 1.0


async def problems(**left_out: str) -> list[tuple[str, str]]:
    scene: Any = SimpleNamespace(begun=time.time() - 60, stack=Prometheus(**left_out))
    return [(name, problem) async for name, problem, excuse in metrics(scene) if problem]


async def test_a_service_whose_metrics_all_move_has_no_problem():
    """Each is looked for once."""
    assert await problems() == []


@pytest.mark.parametrize(
    ("left_out", "problem"),
    [
        ({"gone": "sd_queue_depth"}, ("sd_queue_depth", "never there")),
        ({"gone": "sd_job_steps"}, ("sd_job_steps", "never there")),
        ({"unlabelled": "sd_oom_total"}, ("sd_oom_total", "without engine, rung, stage")),
        ({"still": "sd_images_total"}, ("sd_images_total", "did not move")),
    ],
)
async def test_a_metric_that_is_absent_or_still_is_named(left_out, problem):
    """Histograms are looked for by their count."""
    assert await problems(**left_out) == [problem]


def test_every_metric_with_an_excuse_is_one_of_the_service():
    """An excuse goes with its metric."""
    assert set(STILL) <= set(KNOWN)
