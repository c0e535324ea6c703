"""The search for the best settings, carried out on this machine's CPU."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from scripts.cards.settings import NAMES
from service import config
from service.exits import Exit

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
    chosen = config.load(given)
    assert (chosen.device, chosen.dtype, chosen.cpu_offload) == ("cpu", "float32", "none")


def test_a_model_that_is_not_there_is_one_line(tmp_path):
    """Before anything is tried, with the exit code of a missing model."""
    done = optimize(tmp_path, "--model", "/nowhere/model")
    assert done.returncode == Exit.MODEL_MISSING
    assert "There is no model '/nowhere/model'" in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_the_benchmark_of_a_card_wants_a_card():
    """Without a GPU it says what it lacks and what can be done, and has the exit code of that."""
    done = subprocess.run(
        [sys.executable, "-m", "scripts.benchmark_card"],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert done.returncode == Exit.GPU_MISSING
    (line,) = done.stderr.splitlines()
    assert "no GPU here" in line
    assert "--on-cpu" in line


def test_the_benchmark_runs_both_contenders_on_a_cpu():
    """With the demo model in place of the large one: two seconds, their ratio, the same picture."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "scripts.benchmark_card", "--on-cpu"),
            *("--model", str(ROOT / "service" / "demo"), "--rows", "256x256/2"),
            *("--rounds", "1", "--pictures", "1"),
        ],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert done.returncode == Exit.DONE, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("| 256x256")]
    name, ours, theirs, ratio, *memory, difference = [c.strip() for c in row.split("|")[1:-1]]
    assert name == "256x256, 2 steps"
    assert float(ours) > 0
    # All three are rounded to hundredths, which small seconds feel.
    least = (float(ours) - 0.005) / (float(theirs) + 0.005) - 0.005
    most = (float(ours) + 0.005) / (float(theirs) - 0.005) + 0.005
    assert least <= float(ratio) <= most
    assert all(0.1 < float(each) < 8 for each in memory)
    assert float(difference) < 0.1
    assert json.loads(done.stderr.splitlines()[-1])["dtype"] == "float32"
