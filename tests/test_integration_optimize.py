"""The search for the best settings, carried out on this machine's CPU."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.cards.search import NAMES
from service.cli.exits import Exit
from service.config import loading

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
WAIT_SECONDS = 300.0


def optimize(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, but in another folder: there may be a file of theirs."""
    return subprocess.run(
        [sys.executable, "-m", "scripts.optimize_gtx1060", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_WAIT_POLICY": "PASSIVE",
        },
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )


def test_on_a_cpu_it_measures_what_a_cpu_can_tell(tmp_path):
    """Real engines draw with the demo model; table, choice and a file that says it is no card's."""
    path = tmp_path / "cpu.env"
    done = optimize(
        tmp_path,
        *("--size", "256x256", "--steps", "2", "--rounds", "1", "--batch", "2"),
        *("--vary", "ATTENTION_SLICING,MAX_CONCURRENT_REQUESTS", "--env", str(path)),
    )
    assert done.returncode == Exit.DONE, done.stderr
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in done.stdout.splitlines()
        if line.startswith("| DTYPE")
    ]
    assert [row[0] for row in rows][:2] == [
        "DTYPE=float32",
        "DTYPE=float32 ATTENTION_SLICING=true",
    ]
    assert "MAX_CONCURRENT_REQUESTS=2" in rows[2][0]
    assert len(rows) == 3
    for name, seconds, step, peak, difference, psnr, remark in rows:
        assert float(seconds) > 0, name
        assert float(step) > 0, name
        assert 0.1 < float(peak) < 8, name
        assert float(difference) < 1, name
        assert float(psnr) > 40, name
        assert remark == ""
    assert "Not tried: CPU_OFFLOAD" in done.stdout
    text = path.read_text(encoding="utf-8")
    assert "NOT MEASURED ON A CARD" in text
    given = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    assert given.keys() == {*NAMES, "DEVICE"}
    chosen = loading.load(given)
    assert (chosen.device, chosen.dtype, chosen.cpu_offload) == ("cpu", "float32", "none")


def test_a_model_that_is_not_there_is_one_line(tmp_path):
    """Before anything is tried, with the exit code of a missing model."""
    done = optimize(tmp_path, "--model", "/nowhere/model")
    assert done.returncode == Exit.MODEL_MISSING
    assert "There is no model '/nowhere/model'" in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == 1
    assert not any(tmp_path.iterdir())


def benchmark_card(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as its page shows it, on a machine without a GPU."""
    return subprocess.run(
        [sys.executable, "scripts/benchmark_card.py", *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_WAIT_POLICY": "PASSIVE",
            "OUT": str(out),
        },
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )


def test_the_benchmark_of_a_card_wants_a_card(tmp_path):
    """Without a GPU it says what it lacks and what can be done, and has the exit code of that."""
    done = benchmark_card(tmp_path)
    assert done.returncode == Exit.GPU_MISSING
    (line,) = done.stderr.splitlines()
    assert "no GPU here" in line
    assert "--on-cpu" in line


def test_a_model_that_both_contenders_cannot_read_is_told(tmp_path):
    """One that is not here, and one in a single file, which the plain pipeline does not take."""
    done = benchmark_card(tmp_path / "out", "--on-cpu", "--model", "some/where")
    assert done.returncode == Exit.MODEL_MISSING
    assert "--model some/where: is not in" in done.stderr
    file = tmp_path / "model.safetensors"
    file.touch()
    done = benchmark_card(tmp_path / "out", "--on-cpu", "--model", str(file))
    assert done.returncode == Exit.SETTING
    assert "is a single file; name a folder" in done.stderr


def test_the_benchmark_of_a_card_runs_whole_on_a_cpu(tmp_path):
    """Every part has its table, nothing failed, and the images are those of the pipeline."""
    done = benchmark_card(tmp_path, "--on-cpu")
    assert done.returncode == Exit.DONE, done.stderr + (tmp_path / "card.log").read_text()
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"card.json", "card.md", "card.log", "images.png"}
    parts = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))["parts"]
    tables = {name: each["table"][1:] for name, each in parts.items()}
    ((size, turns, ours, theirs, ratio, *memory, same, difference),) = tables["rows"]
    assert (size, turns, same) == ("256x256, 2 steps", "1", "100 %")
    assert float(ours) > 0
    # All three are rounded to hundredths, which small seconds feel.
    least = (float(ours) - 0.005) / (float(theirs) + 0.005) - 0.005
    most = (float(ours) + 0.005) / (float(theirs) - 0.005) + 0.005
    assert least <= float(ratio) <= most
    assert all(0.1 < float(each) < 8 for each in memory)
    assert float(difference) < 0.1
    assert any("free_cache" in row[2] for row in tables["shortage"])
    assert {row[-1] for row in tables["shortage"]} == {"the same image"}
    assert [row[0] for row in tables["batches"]] == ["1", "2"]
    assert ["health: model_loaded", "True", "True", "True"] in tables["service"]
    assert [row[2] for row in tables["parity"]] == ["100 %"]
