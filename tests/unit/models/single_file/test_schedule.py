"""Schedules of single files: what a model predicts, and which of its sources says so."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.models.layout import read_file
from tests.unit.models.single_file.checkpoints import REAL, checkpoint


@pytest.mark.parametrize(
    ("markers", "named", "setting", "metadata", "expected"),
    [
        ((), None, "auto", "", ("epsilon", "default")),
        ((), None, "auto", "v", ("v_prediction", "metadata of the file")),
        ((), None, "v_prediction", "", ("v_prediction", "PREDICTION_TYPE")),
        ((), None, "epsilon", "v", ("epsilon", "PREDICTION_TYPE")),
        ((), "epsilon", "v_prediction", "v", ("epsilon", "scheduler_config.json")),
        ((), "v_prediction", "epsilon", "", ("v_prediction", "scheduler_config.json")),
        (("v_pred",), "epsilon", "epsilon", "", ("v_prediction", "marker in the file (v_pred)")),
    ],
)
def test_what_a_file_predicts(  # noqa: PLR0917
    folder: Callable[[str], Path],
    tmp_path: Path,
    markers: tuple[str, ...],
    named: str | None,
    setting: str,
    metadata: str,
    expected: tuple[str, str],
) -> None:
    """A marker decides, then the folder next to the file, the setting, and the metadata."""
    file = checkpoint(
        tmp_path / "night-sky.safetensors",
        metadata={"modelspec.prediction_type": metadata} if metadata else None,
        extra={marker: np.ones(0, np.float32) for marker in markers},
    )
    next_to_it = shutil.copytree(folder("sd"), tmp_path / "night-sky")
    path = next_to_it / "scheduler" / "scheduler_config.json"
    content = {**json.loads(path.read_text()), "prediction_type": named}
    path.write_text(json.dumps(content))

    found = read_file(file, tmp_path / "cache", prediction_type=setting).schedule

    assert expected == (found.prediction_type, found.prediction_from)


def test_zero_terminal_snr_comes_with_trailing_steps(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """A model that was trained down to pure noise has to be drawn from there."""
    extra = {name: np.ones(0, np.float32) for name in ("v_pred", "ztsnr")}
    file = checkpoint(tmp_path / "night-sky.safetensors", extra=extra)
    shutil.copytree(folder("sd"), tmp_path / "night-sky")

    numbers = read_file(file, tmp_path).schedule.numbers

    assert (numbers["rescale_betas_zero_snr"], numbers["timestep_spacing"]) == (True, "trailing")


@pytest.mark.parametrize(
    ("setting", "expected"), [("auto", "v_prediction"), ("epsilon", "epsilon")]
)
def test_a_file_of_stable_diffusion_2(tmp_path: Path, setting: str, expected: str) -> None:
    """Nothing in such a file tells 2.1 from 2.1-base, which predicts noise: the setting does."""
    path = checkpoint(tmp_path / "x.safetensors", **REAL["sd", 1024])

    assert expected == read_file(path, tmp_path, prediction_type=setting).schedule.prediction_type


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [("stable-diffusion-v2-512", "epsilon"), ("stable-diffusion-v2-768-v", "v_prediction")],
)
def test_the_architecture_in_the_header(tmp_path: Path, architecture: str, expected: str) -> None:
    """Files of tools that write the ModelSpec tell 2.1-base from 2.1."""
    path = checkpoint(
        tmp_path / "x.safetensors",
        metadata={"modelspec.architecture": architecture},
        **REAL["sd", 1024],
    )

    assert expected == read_file(path, tmp_path).schedule.prediction_type
