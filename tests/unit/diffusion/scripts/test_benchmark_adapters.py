"""The benchmark of a batch whose rows have different LoRA, on a model that takes no time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scripts import benchmark_adapters
from scripts.benchmark.ratios import interval
from scripts.benchmark.rows import BenchmarkError


# PEFT says so whenever diffusers loads a second adapter.
@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")
def test_all_ways_draw_the_same_and_are_reported(
    folder: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """A run compares the images of all ways before it times them, and prints a line for each."""
    pytest.importorskip("peft", reason="PEFT is not installed")

    words = ["--model", str(folder("sd")), "--row", "64x64/2", "--clients", "2", "--rounds", "2"]
    assert benchmark_adapters.main(words) == 0

    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line[:1] == "|"]
    assert [line[1] for line in lines[2:]] == ["rows", "groups", "switched", "PEFT"]
    assert all(float(line[3]) > 0 for line in lines[2:])
    assert all(float(line[5]) > 0 for line in lines[3:])


def test_other_images_end_the_run() -> None:
    """What draws something else is no alternative."""
    image = np.full((4, 4, 3), 100, np.uint8)

    benchmark_adapters.demand_same({"rows": [image], "groups": [image + 1]})
    with pytest.raises(BenchmarkError, match="rows and PEFT do not draw the same"):
        benchmark_adapters.demand_same({"rows": [image], "groups": [image], "PEFT": [image + 2]})


@pytest.mark.parametrize(
    ("count", "bounds"), [(7, (1, 7, 1 - 2 / 2**7)), (9, (2, 8, 1 - 20 / 2**9)), (2, (1, 2, 0.5))]
)
def test_interval_of_a_median(count: int, bounds: tuple[float, float, float]) -> None:
    """It is as narrow as its least probability allows, and says how sure it is."""
    assert interval(range(count, 0, -1)) == pytest.approx(bounds)


def test_ratios_are_of_the_same_round() -> None:
    """A round that was slow for all counts as any other."""
    text = benchmark_adapters.report({"rows": [4.0, 2.0, 8.0], "groups": [2.0, 1.0, 2.0]})

    assert text.splitlines()[-1].split()[1:7:2] == ["groups", "2.00", "2.00"]
