import copy
import inspect
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DPMSolverSDEScheduler, StableDiffusionPipeline

from service.core.sampler import Sampler
from service.diffusion.load import Model
from service.diffusion.loop.samplers import SCHEDULERS, Samplers, _levels_apart, build
from service.errors import ModelUnsuitable, SamplerUnsuitable
from service.models import schedule
from tests.support.parity.references import SAMPLERS as DIFFUSERS

ALL = pytest.mark.parametrize("sampler", Sampler)
FEW_STEPS = (1, 2, 3, 4, 5, 10, 20, 21, 49, 50)
# A tree of torchsde, as diffusers asks it: a rounding error outside of its ends.
pytestmark = pytest.mark.filterwarnings("ignore:Should have t[ab].=t:UserWarning")
BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO_SNR: dict[str, Any] = {
    **BETAS,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}

NUMBERS: dict[str, dict[str, Any]] = {
    "usual": BETAS,
    "zero-snr": ZERO_SNR,
    "sample": {**BETAS, "prediction_type": "sample"},
    "10": {**BETAS, "num_train_timesteps": 10},
    "30": {
        **BETAS,
        "num_train_timesteps": 30,
        "timestep_spacing": "leading",
        "steps_offset": 1,
    },
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "few-betas": {"trained_betas": [0.001] * 50},
    "offset": {**BETAS, "steps_offset": 900, "timestep_spacing": "leading"},
    "karras": {**BETAS, "use_karras_sigmas": True},
}
"""Numbers of schedulers' files."""
LONG = pytest.mark.long
SHORT_NUMBERS = ("usual", "zero-snr", "karras")
"""Those of the short run."""


def test_names_agree_with_the_settings() -> None:
    """The names that a request may give are the names that can be built."""
    assert set(Sampler) == set(SCHEDULERS)


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
@pytest.mark.filterwarnings("ignore::FutureWarning")  # The pipeline's, of old files.
@pytest.mark.parametrize(
    "content",
    [
        {"_class_name": "EulerDiscreteScheduler", **BETAS},
        {"_class_name": "DDIMScheduler", **BETAS},
        {"_class_name": "DDIMScheduler", **BETAS, "steps_offset": 0, "clip_sample": True},
        {"_class_name": "PNDMScheduler", **BETAS, "skip_prk_steps": False},
        {"_class_name": "DPMSolverMultistepScheduler", **BETAS, "use_karras_sigmas": True},
        {"_class_name": "DPMSolverMultistepScheduler", **BETAS, "solver_order": 3},
        {"_class_name": "UniPCMultistepScheduler", **BETAS, "solver_type": "bh1"},
        {"_class_name": "LCMScheduler", **BETAS, "original_inference_steps": 40},
        {"_class_name": "DDPMScheduler", **BETAS, "variance_type": "fixed_small"},
        {"_class_name": "EulerDiscreteScheduler", **ZERO_SNR},
    ],
    ids=lambda content: "-".join(map(str, content.values()))[:60],
)
def test_a_file_of_any_class_gives_what_diffusers_makes_of_it(
    sd: Model, sampler: str, content: dict[str, Any], tmp_path: Path
) -> None:
    """Timesteps and sigmas are those of diffusers' own pipeline with that file.

    ``from_config`` drops what is merged into a configuration that lists it as a default.
    """
    (tmp_path / "scheduler_config.json").write_text(json.dumps(content))
    own = getattr(diffusers, content["_class_name"]).from_pretrained(tmp_path)
    parts = {**sd.family.pipeline.components, "scheduler": own}
    pipeline: Any = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    kind, changes = DIFFUSERS[sampler]
    theirs = kind.from_config(pipeline.scheduler.config, **changes)

    ours = build(sampler, schedule.read(content, "sd", "it").numbers)

    for steps in (1, 7, 20):
        ours.set_timesteps(steps)
        theirs.set_timesteps(steps)
        assert torch.equal(ours.timesteps, theirs.timesteps)
        if hasattr(theirs, "sigmas"):
            assert torch.equal(ours.sigmas, theirs.sigmas)
    private = {"_use_default_values", "_class_name", "_diffusers_version"}
    known = set(inspect.signature(kind.__init__).parameters) - private
    for key in known & set(theirs.config):
        assert ours.config[key] == theirs.config[key], key


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
        scaled = built.scale_model_input(latents, timestep)
        latents = built.step(scaled, timestep, latents).prev_sample

    assert len(built.timesteps) >= steps
    assert torch.isfinite(latents).all()


@ALL
def test_every_image_gets_its_own(sd: Model, sampler: str) -> None:
    """Two schedulers of one sampler share no history."""
    first, second = sd.samplers.new(sampler, 4), sd.samplers.new(sampler, 4)
    untouched = str(second.__dict__)

    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    first.step(first.scale_model_input(latents, first.timesteps[0]), first.timesteps[0], latents)

    assert str(second.__dict__) == untouched
    assert str(sd.samplers.new(sampler, 4).__dict__) == untouched


def test_karras_changes_the_sigmas_only() -> None:
    """The two DPM++ variants differ in their noise levels and in nothing else."""
    plain, karras = build("dpmpp_2m", {}), build("dpmpp_2m", {}, "karras")

    changed = {key for key in plain.config if plain.config[key] != karras.config[key]}

    assert changed - {"_use_default_values"} == {"use_karras_sigmas"}


@pytest.mark.parametrize("kind", ["use_exponential_sigmas", "use_lu_lambdas", "use_beta_sigmas"])
def test_karras_beats_other_sigmas_of_the_model(kind: str) -> None:
    """A model that comes with sigmas of another kind can still be drawn with Karras'."""
    found = Samplers({**BETAS, kind: True}, counts_positions=False)

    assert all(found.new("dpmpp_2m", steps, "karras") for steps in (1, 2, 20, 50))


def test_unknown_sampler() -> None:
    """A name that is not in the table is no sampler."""
    with pytest.raises(ValueError, match="ddpmm"):
        build("ddpmm", {})


def template(sampler: str, numbers: dict[str, Any]) -> Any:
    """Return a scheduler of diffusers; None if its class cannot follow these numbers."""
    kind, changes = DIFFUSERS[sampler]
    try:
        return kind.from_config(numbers, **changes)
    except (NotImplementedError, ValueError, RuntimeError):
        return None


def reached(template: Any, steps: int, *, counts_positions: bool) -> bool:
    """Take all steps as diffusers' pipelines do; return whether numbers come out."""
    if template is None:
        return False
    generator = torch.Generator().manual_seed(0)
    try:
        scheduler = copy.deepcopy(template)
        scheduler.set_timesteps(steps)
        if isinstance(scheduler, DPMSolverSDEScheduler):
            scheduler.noise_sampler = lambda *_: 1.0  # A tree takes long, and ends in numbers.
        if counts_positions and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        latents = torch.randn(1, 4, 2, 2, generator=generator) * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(latents, timestep)
            latents = scheduler.step(scaled * 0.5, timestep, latents, return_dict=False)[0]
    except (IndexError, NotImplementedError, AssertionError, ValueError, RuntimeError):
        return False
    return bool(torch.isfinite(latents).all())


@pytest.mark.parametrize(
    ("numbers", "steps", "counts_positions"),
    [
        *(
            pytest.param(NUMBERS[name], FEW_STEPS, counts, id=f"{name}-few-{counts}")
            for name in SHORT_NUMBERS
            for counts in (False, True)
        ),
        # Each of the others is stepped through in one of the two ways, in turn; of the numbers of
        # steps each takes another third.
        *(
            pytest.param(
                numbers, range(1 + at % 3, 51, 3), counts, id=f"{name}-third-{counts}", marks=LONG
            )
            for at, (name, numbers) in enumerate(NUMBERS.items())
            for counts in (False, True)
            if name in SHORT_NUMBERS or counts == bool(at % 2)
        ),
    ],
)
def test_what_cannot_be_drawn_is_known_beforehand(
    numbers: dict[str, Any], steps: Iterable[int], *, counts_positions: bool
) -> None:
    """The ranges of every sampler are the numbers of steps that get to their end."""
    found = Samplers(numbers, counts_positions=counts_positions, most_steps=50).ranges

    theirs = {sampler: template(sampler, numbers) for sampler in Sampler}
    wrong = [
        (sampler, number)
        for sampler in Sampler
        for number in steps
        if any(first <= number <= last for first, last in found[sampler])
        != reached(theirs[sampler], number, counts_positions=counts_positions)
    ]

    assert wrong == []


def test_a_pair_that_cannot_be_drawn_is_refused_before_work() -> None:
    """What a request asks for while nothing is known of the model is refused by the engine."""
    found = Samplers({**BETAS, "num_train_timesteps": 10}, counts_positions=False)

    with pytest.raises(SamplerUnsuitable, match="ddim cannot take 50 steps"):
        found.new("ddim", 50)

    assert len(found.new("ddim", 10).timesteps) == 10


def test_levels_within_one_timestep() -> None:
    """With zero SNR Karras's first levels lie within the last timestep; none is skipped."""
    found = Samplers(ZERO_SNR, counts_positions=False).new("dpmpp_2m", 50, "karras")

    assert (found.timesteps == 999).sum() > 1
    assert found.begin_index == 0


def test_steps_beyond_those_that_were_asked_about() -> None:
    """What a setting allows later is tried when it comes."""
    found = Samplers(BETAS, counts_positions=False, most_steps=3)

    assert found.ranges[Sampler.EULER] == ((1, 3),)
    assert len(found.new("euler", 60).timesteps) == 60


@pytest.mark.parametrize(
    ("numbers", "even"),
    [
        (BETAS, True),
        ({**BETAS, "timestep_spacing": "leading", "steps_offset": 1}, True),
        ({"beta_schedule": "squaredcos_cap_v2"}, True),
        (ZERO_SNR, False),
        ({**BETAS, "use_karras_sigmas": True}, False),
        ({**BETAS, "timestep_spacing": "leading", "steps_offset": 10}, False),
        ({**BETAS, "num_train_timesteps": 999}, False),
        ({"trained_betas": [0.0] * 1000}, False),
        ({**BETAS, "steps_offset": "one"}, False),
    ],
)
def test_where_the_levels_of_fewer_steps_need_no_look(
    numbers: dict[str, Any], *, even: bool
) -> None:
    """Timesteps ten apart and more; a hundred steps make it so of a thousand."""
    assert _levels_apart(numbers, 100) is even


def test_samplers_with_a_limit_of_their_own_are_looked_at_with_each_number() -> None:
    """They pick their steps out of fifty."""
    found = Samplers(BETAS, counts_positions=False, most_steps=100)

    assert (found.ranges[Sampler.LCM], found.ranges[Sampler.EULER]) == (((1, 50),), ((1, 100),))


@pytest.mark.parametrize(
    "numbers",
    [
        {"beta_schedule": "sigmoid"},
        {**BETAS, "num_train_timesteps": "many"},
        {**BETAS, "beta_start": None},
    ],
)
def test_a_schedule_that_no_sampler_follows(numbers: dict[str, Any]) -> None:
    """A model whose numbers no sampler can work with is refused when it is loaded."""
    with pytest.raises(ModelUnsuitable, match="no sampler can follow its noise schedule"):
        Samplers(numbers, counts_positions=False)
