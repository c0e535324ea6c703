"""Noise levels: each schedule is one list of them, whatever sampler steps through it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_utils import AysSchedules

from service.core.sampler import Sampler, Schedule
from service.diffusion.loop.samplers import SCHEDULERS, Samplers, build, seed_noise
from service.diffusion.loop.schedules import ARGUMENTS
from service.errors import SamplerUnsuitable
from service.models import layout
from service.models.defaults.aligned_steps import ALIGNED, aligned
from tests.support.models import tiny_models
from tests.support.parity.schedules import levels

MODELS = Path(__file__).parents[4] / "docs" / "MODELS.md"
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ODD = {**BETAS, "timestep_spacing": "leading", "steps_offset": 1}
CHOSEN = [each for each in Schedule if each != Schedule.AUTOMATIC]
FREE = [each for each in Sampler if Schedule.KARRAS in each.schedules]
"""Samplers that step from level to level."""


def made(sampler: str, schedule: str, steps: int, numbers: dict[str, Any] = ODD) -> Any:
    """Return a scheduler that is set to so many steps."""
    scheduler = build(sampler, numbers, schedule, steps=steps, ten=ALIGNED["sd"])
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("steps", [1, 2, 10, 21])
@pytest.mark.parametrize("schedule", CHOSEN)
@pytest.mark.parametrize("sampler", FREE)
def test_levels_are_those_of_the_formula(sampler: str, schedule: str, steps: int) -> None:
    """All samplers have the same, from the model's highest to its lowest; then the end."""
    scheduler = made(sampler, schedule, steps)
    alphas = scheduler.alphas_cumprod.tolist()
    expected = levels(schedule, alphas, steps, ALIGNED["sd"])
    rounded = 0.0
    if (sampler, schedule, steps > 1) == ("deis", "normal", True):
        # It ends at the lowest level by itself, so that its linspace has one more, and rounds.
        expected, rounded = levels(schedule, alphas, steps + 1)[:-1], 0.02

    found = scheduler.sigmas[:: scheduler.order][:steps]

    assert np.allclose(found, expected, rtol=1e-4 + rounded)
    end = 0.0 if sampler != "deis" else ((1 - alphas[0]) / alphas[0]) ** 0.5
    assert float(scheduler.sigmas[-1]) == pytest.approx(end)


@pytest.mark.parametrize("schedule", CHOSEN)
@pytest.mark.parametrize("sampler", FREE)
def test_timesteps_are_where_the_model_has_these_levels(sampler: str, schedule: str) -> None:
    """The UNet is told the noise that it sees: to half a timestep, or one that is cut off."""
    scheduler = made(sampler, schedule, 12)
    every = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()
    found = scheduler.sigmas[:: scheduler.order][:12]
    expected = np.interp(found.log(), every.log(), range(len(every)))

    timesteps = scheduler.timesteps.double()
    if scheduler.order == 2:  # Between two steps it looks at another level.
        timesteps = torch.cat([timesteps[:1], timesteps[2::2]])

    assert np.abs(timesteps.numpy() - expected).max() <= 1.0


@pytest.mark.parametrize("schedule", ["normal", "sgm_uniform"])
@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "pndm"])
def test_whole_timesteps(sampler: str, schedule: str) -> None:
    """Samplers that count in timesteps of one width begin at the last one."""
    for steps in (1, 2, 20):
        assert int(made(sampler, schedule, steps).timesteps[0]) == 999


@pytest.mark.parametrize(
    ("family", "theirs"), [("sd", "StableDiffusion"), ("sdxl", "StableDiffusionXL")]
)
def test_ten_aligned_steps_are_the_published_ones(family: str, theirs: str) -> None:
    """Levels and timesteps are those that diffusers ships, too."""
    scheduler = build("euler", BETAS, "align_your_steps", ten=ALIGNED[family])
    scheduler.set_timesteps(10)

    assert scheduler.sigmas.tolist() == pytest.approx(AysSchedules[f"{theirs}Sigmas"])
    timesteps = scheduler.timesteps.round().int()
    assert np.abs(timesteps.numpy() - AysSchedules[f"{theirs}Timesteps"]).max() <= 1


def test_twenty_aligned_steps_lie_between_the_ten() -> None:
    """Every other one is published, and the rest is halfway in the logarithm."""
    ten = ALIGNED["sdxl"]
    scheduler = build("euler", BETAS, "align_your_steps", ten=ten)
    scheduler.set_timesteps(20)
    found = scheduler.sigmas.tolist()

    assert found[0:20:2] == pytest.approx(ten[:-1])
    assert found[1] == pytest.approx((ten[0] * ten[1]) ** 0.5)
    assert found[19] == pytest.approx((ten[9] * ten[10]) ** 0.5)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("sd", ALIGNED["sd"]), ("sdxl", ALIGNED["sdxl"]), *((f"sd21_{n}", ()) for n in ("v", "base"))],
)
def test_models_with_aligned_steps(kind: str, expected: tuple[float, ...], tmp_path: Path) -> None:
    """They were published for 1.x and XL; 2.x and velocity have none."""
    folder = getattr(tiny_models, f"build_{kind}")(tmp_path / kind)
    found = layout.read_folder(folder)

    assert aligned(found) == expected
    velocity = replace(found, schedule=found.schedule.predicting("v_prediction", "test"))
    assert aligned(velocity) == ()
    other = replace(found.schedule, numbers={**found.schedule.numbers, "beta_end": 0.02})
    assert aligned(replace(found, schedule=other)) == ()


def test_without_aligned_steps_they_are_refused() -> None:
    """The answer names what works."""
    found = Samplers(BETAS, counts_positions=False, most_steps=2)
    assert Schedule.ALIGN_YOUR_STEPS not in found.schedules

    with pytest.raises(SamplerUnsuitable) as raised:
        found.new("euler", 2, "align_your_steps")

    assert "none is published for it" in str(raised.value)
    assert "euler with automatic, normal, karras" in str(raised.value)


def test_a_pair_that_the_model_cannot_be_drawn_with() -> None:
    """It is tried when it is first asked for, and refused before work."""
    found = Samplers({**BETAS, "prediction_type": "sample"}, counts_positions=False, most_steps=2)

    with pytest.raises(SamplerUnsuitable, match="euler_a cannot take 2 steps in the schedule beta"):
        found.new("euler_a", 2, "beta")
    with pytest.raises(SamplerUnsuitable, match="it cannot follow this schedule"):
        found.new("ddim", 2, "beta")


@pytest.mark.parametrize("schedule", CHOSEN)
@pytest.mark.parametrize("sampler", FREE)
@pytest.mark.long
def test_every_number_of_steps_gets_to_its_end(sampler: Sampler, schedule: Any) -> None:
    """With the usual noise schedule no pair is refused; each tries another third of the numbers."""
    found = Samplers(BETAS, counts_positions=False, most_steps=1, ten=ALIGNED["sd"])
    first = 1 + (FREE.index(sampler) + CHOSEN.index(schedule)) % 3

    assert all(found.new(sampler, steps, schedule) for steps in range(first, 51, 3))


def test_the_noise_of_a_brownian_tree_is_the_seeds_own() -> None:
    """It depends on the seed alone, and comes from the CPU in 32 bits."""

    def noise(seed: int) -> torch.Tensor:
        scheduler = made("dpmpp_sde", "karras", 5)
        seed_noise(scheduler, torch.zeros(1, 4, 8, 8), seed)
        drawn: torch.Tensor = scheduler.noise_sampler(scheduler.sigmas[0], scheduler.sigmas[1])
        return drawn

    assert torch.equal(noise(3), noise(3))
    assert not torch.equal(noise(3), noise(4))
    assert noise(3).shape == (1, 4, 8, 8)
    assert 0.5 < float(noise(3).std()) < 1.5


def rows(name: str) -> dict[str, list[str]]:
    """Return the cells of a table in docs/MODELS.md, by the name in the first one."""
    _, table, _ = re.split(f"<!-- /?{name} -->", MODELS.read_text(encoding="utf-8"))
    cells = [line.strip("| ").split(" | ") for line in table.strip().splitlines()[2:]]
    return {first.strip("`"): [cell.strip("| ") for cell in rest] for first, *rest in cells}


def test_the_documents_table_of_samplers() -> None:
    """Class, arguments, cost and schedules are those of the code."""
    expected = {}
    for sampler, (kind, changes) in SCHEDULERS.items():
        arguments = ", ".join(f"`{k}={v!r}`".replace("'", '"') for k, v in changes.items())
        if sampler in {Sampler.DDIM, Sampler.DDPM}:
            arguments = "`clip_sample=False` where the file names none"
        followed = ", ".join(f"`{each}`" for each in sampler.schedules)
        followed = "any" if len(sampler.schedules) == len(Schedule) else followed
        cells = [f"`{kind.__name__}`", arguments or "none", str(sampler.evaluations), followed]
        expected[str(sampler)] = cells

    assert rows("samplers") == expected


def test_the_documents_table_of_schedules() -> None:
    """Every schedule has its formula, and the argument that makes diffusers follow it."""
    found = {name: by_argument for name, (_, by_argument, _) in rows("schedules").items()}
    expected = {}
    for schedule in CHOSEN:
        arguments = ARGUMENTS.get(schedule, {"own": ""})
        name, value = list(arguments.items())[-1]
        expected[str(schedule)] = f"`{name}={value!r}`".replace("'", '"') if value else "own"

    assert found == expected
