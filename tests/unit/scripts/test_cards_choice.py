"""Which settings are chosen for a card, and what the table and the file say of them."""

import subprocess
from typing import Any

import pytest
from PIL import Image

from scripts import optimize_gtx1060
from scripts.benchmark.rows import row
from scripts.cards.choice import Trial, choose, env_text, figures
from scripts.cards.images import Difference, difference
from scripts.cards.measure import Measured
from scripts.cards.search import BASE, NAMES, Question
from service.cli.exits import Exit
from service.config import loading
from service.gpu.card import CONTEXT, GIB

VRAM = 6
SAME = Difference(mean=0.5, largest=3, psnr=45.0)


def trial(
    seconds: float, gigabytes: float, *, gap: Difference | None = SAME, **settings: str
) -> Trial:
    """Return what was measured with a setting; no seconds mean that it did not work."""
    measured = Measured(
        gpu=True,
        seconds=(seconds,) if seconds else (),
        process=int(gigabytes * GIB),
        failure="" if seconds else "out of memory: CUDA out of memory",
    )
    return Trial(settings={**BASE, **settings}, measured=measured, difference=gap)


def test_the_fastest_is_taken():
    """As long as it fits with the margin, and its images are the same."""
    best = trial(15, 3.5)
    slower = [trial(40, 1.5, CPU_OFFLOAD="sequential"), trial(16, 3.4)]
    chosen, reason = choose([slower[0], best, slower[1]], VRAM)
    assert chosen is best
    assert "15.00 s an image" in reason


def test_what_does_not_fit_with_the_margin_is_not_taken():
    """5.7 of 6 GB work today, and fail when a desktop opens a window."""
    assert choose([trial(10, 5.7), trial(15, 5.5)], VRAM)[0] == trial(15, 5.5)
    assert choose([trial(10, 5.7)], 8)[0] is not None


def test_other_images_are_not_taken():
    """However fast they are made; what could not be compared is not trusted either."""
    other = Difference(mean=3.1, largest=90, psnr=30.0)
    fast = [trial(5, 3, gap=other), trial(6, 3, gap=None), trial(15, 3)]
    assert choose(fast, VRAM)[0] is fast[2]


def test_of_equally_fast_ones_the_smaller_is_taken_then_the_earlier():
    """Three percent are no difference in time, and a twentieth of a GB is none in memory."""
    first, second, small = trial(15, 3.52), trial(14.8, 3.5), trial(15.1, 2.8)
    assert choose([first, second, small], VRAM)[0] is small
    assert choose([first, second], VRAM)[0] is first
    assert choose([second, first], VRAM)[0] is second


def test_nothing_that_fits():
    """Nothing is chosen, and the nearest is named with its figures."""
    best, reason = choose([trial(20, 5.9), trial(10, 5.8), trial(0, 0)], VRAM)
    assert best is None
    assert reason == (
        "nothing may be chosen; the smallest took 5.80 GB and 10.00 s, "
        "but takes more than 6 - 0.4 GB"
    )


def test_everything_fails():
    """Nothing is chosen, and the first failure is told."""
    assert choose([trial(0, 0), trial(0, 0)], VRAM) == (
        None,
        "nothing worked; the first said: out of memory: CUDA out of memory",
    )
    assert choose([], VRAM) == (None, "nothing was tried")


def test_without_the_drivers_figure_cudas_own_part_is_added():
    """What torch holds is not all that a process takes."""
    measured = Measured(gpu=True, seconds=(1.0,), reserved=5 * GIB)
    assert Trial(settings=BASE, measured=measured).peak == 5 + CONTEXT / GIB


def test_images_are_compared_value_by_value(tmp_path):
    """Mean, largest and signal-to-noise over all images that both folders have."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder, level in ((ours, 100), (theirs, 103)):
        folder.mkdir()
        Image.new("RGB", (8, 8), (level, 50, 50)).save(folder / "1.png")
        Image.new("RGB", (8, 8), (50, 50, 50)).save(folder / "2.png")
    Image.new("RGB", (8, 8)).save(ours / "3.png")
    gap = difference(ours, theirs)
    assert gap is not None
    assert (gap.mean, gap.largest) == (0.5, 3)
    assert gap.psnr == pytest.approx(46.37, abs=0.01)
    assert difference(ours, ours) == Difference(mean=0, largest=0, psnr=float("inf"))
    assert difference(ours, tmp_path) is None


def test_the_table_has_a_line_for_each():
    """Figures of what worked, the reason of what did not, and what the engine did about memory."""
    good = trial(15, 3.5)
    shaky = Measured(gpu=True, seconds=(20.0,), step_seconds=0.5, rungs=("denoise: free_cache",))
    lines = figures(
        [good, Trial(settings=BASE, measured=shaky, difference=SAME), trial(0, 0, DTYPE="float32")],
        BASE,
        VRAM,
    ).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        *("DTYPE=float16", "15.00", "0.000", "3.50", "0.50", "45.0", "")
    ]
    assert "denoise: free_cache" in lines[3]
    assert "DTYPE=float32" in lines[4]
    assert "out of memory" in lines[4]
    assert len({len(line) for line in lines}) == 1


def test_a_shell_and_the_service_read_the_file_alike(tmp_path):
    """`set -a; . ./gtx1060.env` gives the service the settings that were chosen, and no other."""
    best = trial(15, 3.5, VAE_TILING_ABOVE="512", MAX_CONCURRENT_REQUESTS="2")
    path = tmp_path / "gtx1060.env"
    about = f"GTX 1060; $HOME `id` 'x'\n\n{figures([best], BASE, VRAM)}"
    path.write_text(env_text(best.settings, about), encoding="utf-8")
    said = subprocess.run(
        ["/bin/sh", "-ec", f"set -a; . {path}; env -0"],
        env={},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    given = dict(line.split("=", 1) for line in said.split("\0") if line)
    assert {name: given[name] for name in NAMES} == best.settings
    assert given.keys() - set(NAMES) <= {"PWD", "OLDPWD", "SHLVL", "_"}
    chosen = loading.load(given)
    assert (chosen.dtype, chosen.vae_tiling_above) == ("float16", 512)
    assert chosen.max_concurrent_requests == 2


@pytest.mark.parametrize("env", [None, "mine.env"])
def test_what_a_cpu_has_told_is_no_cards_file(env: str | None, tmp_path, monkeypatch, capsys):
    """It is written where the user says so, as a CPU's, and nowhere without that."""
    monkeypatch.chdir(tmp_path)
    given = optimize_gtx1060.parser().parse_args(["--env", env] if env else [])
    done = optimize_gtx1060.search(given, "demo", tmp_path, gpu=False)
    on_cpu = Measured(device="cpu", torch="2.13.0", seconds=(1.0,), host=GIB)
    done.trials.append(Trial(settings=done.question.base, measured=on_cpu, difference=SAME))
    assert optimize_gtx1060.tell(given, done) == Exit.DONE
    assert [path.name for path in tmp_path.iterdir()] == ([env] if env else [])
    if env:
        text = (tmp_path / env).read_text(encoding="utf-8")
        assert "# NOT MEASURED ON A CARD" in text
        assert text.endswith("DEVICE=cpu\n")
    else:
        assert "Nothing is written: this is no card." in capsys.readouterr().out


def test_without_a_choice_no_file_is_written(tmp_path, capsys):
    """The last line says why, and the exit code is 1."""
    given = optimize_gtx1060.parser().parse_args(["--env", str(tmp_path / "mine.env")])
    done = optimize_gtx1060.search(given, "demo", tmp_path, gpu=True)
    assert optimize_gtx1060.tell(given, done) == Exit.FAILED
    assert "nothing was tried. No file is written." in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_every_setting_that_is_tried_is_one_of_the_service():
    """Each value is one that the service takes."""
    question = Question(vram=6, row=row("768x768/2"), batch=3)
    tried = [{**question.base, **change} for stage in question.stages() for change in stage]
    for settings in [*question.references(), *tried]:
        loading.load(settings)
    assert {name for each in tried for name, value in each.items() if value != BASE[name]} == {
        *NAMES
    }


def test_what_a_cpu_cannot_tell_is_not_tried():
    """Neither float16 nor offloading, nor tiles of images that are decoded in one; it says so."""
    question = Question(vram=None, row=row("512x512/2"), batch=2)
    tried = [{**question.base, **change} for stage in question.stages() for change in stage]
    assert {each["DTYPE"] for each in tried} == {"float32", "bfloat16"}
    assert {each["CPU_OFFLOAD"] for each in tried} == {"none"}
    assert {each["VAE_TILING"] for each in tried} == {"false"}
    assert [line.partition(":")[0] for line in question.unasked()] == [
        *("DTYPE=float16", "CPU_OFFLOAD=model, sequential", "VRAM", "VAE_TILING, VAE_TILING_ABOVE")
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--vram", "0"], "--vram 0: must be 1 or more."),
        (["--vram", "nan"], "--vram nan: must be 1 or more."),
        (["--batch", "0"], "--batch 0: must be 1 or more."),
        (["--env", "/nowhere/a.env"], "--env /nowhere/a.env: there is no folder /nowhere; create"),
        (["--env", "/"], "--env /: is a folder"),
        (["--env", "/proc/a.env"], "--env /proc/a.env: cannot be written"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments: list[str], said: str, capsys: Any):
    """It names the argument and the limit, before anything is loaded."""
    assert optimize_gtx1060.main(arguments) == Exit.SETTING
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
