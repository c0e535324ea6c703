"""What the memory test refuses before it begins."""

from typing import Any

import pytest

from scripts import memory_stress_test


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--generations", "3"], "--generations 3: must be 4 or more."),
        (["--rounds", "0"], "--rounds 0: must be 4 or more."),
        (["--steps", "51"], "--steps 51: must be 1 or more, 50 at most."),
        (["--clients", "0"], "--clients 0: must be 1 or more, 256 at most."),
        (["--minutes", "nan"], "--minutes nan: must be 0.1 or more."),
        (["--report", "."], "--report .: is a folder"),
        (["--report", "/proc/all.json"], "--report /proc/all.json: cannot be written"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments: list[str], said: str, capsys: Any):
    """It names the argument and the limit, before anything is started."""
    assert memory_stress_test.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize("text", ["512", "500x512", "64x64", "2048x256", "axb"])
def test_a_size_that_the_service_does_not_take_is_refused(text: str, capsys: Any):
    """Else every request would be counted as a wrong answer, for half an hour."""
    with pytest.raises(SystemExit):
        memory_stress_test.main(["--sizes", text])
    assert "argument --sizes" in capsys.readouterr().err
