import pytest
import torch

from service import config
from service.diffusion.load import Model
from service.diffusion.samplers import SAMPLERS, Samplers, build

ALL = pytest.mark.parametrize("sampler", config.SAMPLERS)


def test_names_agree_with_the_settings() -> None:
    """The names that a request may give are the names that can be built."""
    assert set(config.SAMPLERS) == set(SAMPLERS)


@ALL
def test_the_models_noise_schedule_is_kept(sampler: str) -> None:
    """A sampler takes betas, prediction type and timestep spacing from the model."""
    given = {
        "beta_start": 0.001,
        "beta_end": 0.02,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "steps_offset": 1,
    }

    built = build(sampler, given)

    assert given == {key: built.config[key] for key in given}


@ALL
def test_no_sampler_clips_latents(sampler: str) -> None:
    """Clipping to [-1, 1] is for pixels; a model that does not mention it gets none."""
    assert not build(sampler, {}).config.get("clip_sample", False)


@ALL
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
def test_few_steps_are_enough(sampler: str, steps: int) -> None:
    """Every number of steps that a request may give gets to its end, whatever the model says."""
    built = build(sampler, {})
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    built.set_timesteps(steps)

    for timestep in built.timesteps:
        latents = built.step(latents, timestep, latents).prev_sample

    assert len(built.timesteps) >= steps
    assert torch.isfinite(latents).all()


@ALL
def test_every_picture_gets_its_own(sd: Model, sampler: str) -> None:
    """Two schedulers of one sampler share no history."""
    samplers = Samplers(sd.pipeline.scheduler.config)
    first, second = samplers.new(sampler), samplers.new(sampler)
    untouched = str(second.timesteps)
    first.set_timesteps(4)

    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    first.step(latents, first.timesteps[0], latents)

    assert str(second.timesteps) == untouched
    assert str(samplers.new(sampler).timesteps) == untouched


def test_karras_changes_the_sigmas_only() -> None:
    """The two DPM++ variants differ in their noise levels and in nothing else."""
    plain, karras = build("dpmpp_2m", {}), build("dpmpp_2m_karras", {})

    changed = {key for key in plain.config if plain.config[key] != karras.config[key]}

    assert changed - {"_use_default_values"} == {"use_karras_sigmas"}


def test_unknown_sampler() -> None:
    """A name that is not in the table is no sampler."""
    with pytest.raises(KeyError, match="ddpm"):
        build("ddpm", {})
