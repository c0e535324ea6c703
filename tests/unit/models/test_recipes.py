"""Recipes of models: where they come from, and which source counts."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.core.recipe import NO_RECIPE, Recipe
from service.core.sampler import Sampler
from service.errors import ModelError, ModelUnsuitable
from service.models import layout
from service.models.defaults import recipes, table
from service.models.layout import Layout
from service.models.schedule import Schedule
from service.models.source import Source

PLAIN = Layout(
    family="sd",
    configs={"unet": {}},
    schedule=Schedule(numbers={}, prediction_from="a test"),
    configuration="a test",
)
CONSISTENT = replace(PLAIN, configs={"unet": {"time_cond_proj_dim": 256}})


def scheduled(kind: str) -> Layout:
    return replace(PLAIN, schedule=replace(PLAIN.schedule, kind=kind))


def found(model: str, found: Layout = PLAIN, path: Path | None = None) -> Recipe:
    path = path or Path("/nowhere") / model
    single_file = path.suffix == ".safetensors"
    return recipes.recipe_of(
        Source(id=model, path=path, version="1", single_file=single_file), found
    )


@pytest.mark.parametrize(
    ("model", "name", "values"),
    [
        (
            "stabilityai/sdxl-turbo",
            "turbo",
            {
                "steps": 4,
                "guidance_scale": 0.0,
                "sampler": "euler_a",
                "schedule": "sgm_uniform",
                "size": 512,
            },
        ),
        ("stabilityai/sd-turbo", "turbo", {"sampler": "euler", "schedule": "sgm_uniform"}),
        ("SimianLuo/LCM_Dreamshaper_v7", "lcm", {"steps": 4, "guidance_scale": 8.0}),
    ],
)
def test_a_well_known_model_is_known_by_its_name_on_the_hub(
    model: str, name: str, values: Mapping[str, Any]
) -> None:
    """Its publisher says what it wants; nothing is guessed."""
    recipe = found(model)
    assert (recipe.name, recipe.guessed, recipe.warnings) == (name, False, [])
    assert recipe.source.startswith("https://")
    assert recipe.values.items() >= values.items()


@pytest.mark.parametrize(
    ("model", "name", "values"),
    [
        ("dreamshaperXL_v21TurboDPMSDE.safetensors", "turbo", {"steps": 4}),
        ("dreamshaperXL-turbo-v2.safetensors", "turbo", {"steps": 4, "guidance_scale": 0.0}),
        ("sdxl_lightning_8step.safetensors", "lightning", {"steps": 8, "sampler": "euler"}),
        ("juggernautXL_v9Rdphoto2_Lightning.safetensors", "lightning", {"steps": 4}),
        ("Hyper-SDXL-8steps-lora", "hyper-sd", {"sampler": "ddim", "schedule": "sgm_uniform"}),
        ("Hyper-SDXL-1step-lora", "hyper-sd", {"steps": 1, "sampler": "tcd", "eta": 1.0}),
        ("Hyper-SD15-12steps-CFG-lora", "hyper-sd-cfg", {"steps": 12, "guidance_scale": 5.0}),
        ("lcm-lora-sdv1-5", "lcm-lora", {"steps": 4, "guidance_scale": 1.0, "sampler": "lcm"}),
        ("dmd2_sdxl_4step_unet", "dmd2", {"steps": 4, "guidance_scale": 0.0, "sampler": "lcm"}),
        ("TCD-SDXL-LoRA", "tcd", {"steps": 4, "sampler": "tcd", "eta": 0.3}),
        ("pcm_sdxl_smallcfg_2step", "pcm", {"steps": 2, "schedule": "sgm_uniform"}),
        ("pcm_sdxl_lcmlike_lora", "pcm", {"steps": 4, "sampler": "lcm"}),
        ("pcm_sd15_normalcfg_8step", "pcm-cfg", {"steps": 8, "guidance_scale": 7.5}),
        ("hyperrealism.safetensors", "", {}),
        ("lightningstrike.safetensors", "", {}),
        ("turbocharged", "", {}),
        ("turbo/model.safetensors", "", {}),
    ],
)
def test_a_part_of_a_name_is_a_guess(model: str, name: str, values: Mapping[str, Any]) -> None:
    """Users hear of it: a word in a name need not mean what it seems to."""
    recipe = found(model)
    assert recipe.name == name
    assert recipe.guessed is bool(name)
    assert recipe.values.items() >= values.items()
    assert all("guessed from the name" in text for text in recipe.warnings)
    assert len(recipe.warnings) == bool(name)


@pytest.mark.parametrize("row", [*table.MODELS, *table.PARTS])
def test_every_row_names_its_source(row: table.Known | table.Part) -> None:
    """Whoever doubts a row can look it up, in the document, too."""
    document = (Path(__file__).parents[3] / "docs" / "MODELS.md").read_text(encoding="utf-8")
    assert f"| `{row.recipe.name}` |" in document
    assert f"({row.said_by})" in document
    assert row.said_by.startswith("https://")
    assert row.recipe.name
    assert row.recipe.steps in range(1, 9)


def test_a_consistency_model_is_told_by_its_weights() -> None:
    """Its UNet takes the guidance scale as a number, as no other does."""
    recipe = found("some/model", CONSISTENT)
    assert (recipe.name, recipe.guessed) == ("lcm", False)
    assert "weights" in recipe.source


@pytest.mark.parametrize(("kind", "name"), [("LCMScheduler", "lcm-lora"), ("TCDScheduler", "tcd")])
def test_a_scheduler_file_tells(kind: str, name: str) -> None:
    """Nobody writes such a class next to a model that wants 20 steps."""
    recipe = found("some/model", scheduled(kind))
    assert (recipe.name, recipe.source, recipe.guessed) == (name, "scheduler_config.json", False)


@pytest.mark.parametrize("kind", ["EulerDiscreteScheduler", "DDIMScheduler", "PNDMScheduler", ""])
def test_most_models_have_no_recipe(kind: str) -> None:
    """Then the usual defaults hold."""
    assert found("some/model", scheduled(kind)) == NO_RECIPE


def test_files_count_more_than_a_name() -> None:
    """What is in them is no guess."""
    recipe = found("some/lightning-model", scheduled("LCMScheduler"))
    assert (recipe.name, recipe.guessed) == ("lcm-lora", False)


def written(path: Path, **content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("model", ["mine.safetensors", "mine"])
def test_a_file_next_to_the_model_counts_most(tmp_path: Path, model: str) -> None:
    """Whoever wrote it knows; what it leaves out comes from what else is known."""
    written(tmp_path / "mine.recipe.json", steps=6, sampler="euler")
    recipe = found("some/model", CONSISTENT, tmp_path / model)
    assert recipe.values == {"steps": 6, "guidance_scale": 8.0, "sampler": "euler"}
    assert (recipe.name, recipe.source, recipe.guessed) == ("mine", "mine.recipe.json", False)


def test_a_file_that_names_a_sampler_says_what_it_follows(tmp_path: Path) -> None:
    """The schedule and the eta that are known belong to another sampler."""
    written(tmp_path / "my-turbo.recipe.json", sampler="heun")
    assert found("my-turbo", path=tmp_path / "my-turbo").values.keys() == {
        *("steps", "guidance_scale", "sampler"),
    }


@pytest.mark.parametrize(
    ("more", "schedule"),
    [({}, "karras"), ({"schedule": "karras"}, "karras"), ({"schedule": "beta"}, "beta")],
)
def test_an_old_name_of_a_sampler_is_the_sampler_with_its_schedule(
    tmp_path: Path, more: dict[str, Any], schedule: str
) -> None:
    """The engine tells samplers by their own names; a schedule that is named counts."""
    written(tmp_path / "mine.recipe.json", sampler="dpmpp_2m_karras", **more)
    recipe = found("mine", path=tmp_path / "mine")
    assert (recipe.sampler, recipe.schedule) == (Sampler.DPMPP_2M, schedule)


def test_a_recipe_may_have_a_name(tmp_path: Path) -> None:
    """It is what the metadata show."""
    written(tmp_path / "mine.recipe.json", name="house style", guidance_scale=5)
    recipe = found("some/model", path=tmp_path / "mine")
    assert (recipe.name, recipe.values) == ("house style", {"guidance_scale": 5})


@pytest.mark.parametrize(
    ("content", "guessed"),
    [
        ({"steps": 6}, True),
        ({"steps": 6, "guidance_scale": 2, "sampler": "euler"}, False),
    ],
)
def test_a_guess_stays_one_as_long_as_a_value_of_it_counts(
    tmp_path: Path, content: dict[str, Any], guessed: bool
) -> None:
    """A file that says everything ends the warning."""
    written(tmp_path / "my-lightning.recipe.json", **content)
    assert found("my-lightning", path=tmp_path / "my-lightning").guessed is guessed


def test_a_model_of_the_hub_has_it_next_to_its_folder_in_the_cache(tmp_path: Path) -> None:
    """Inside of it the next download would remove it."""
    snapshot = tmp_path / "models--some--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    written(tmp_path / "models--some--model.recipe.json", steps=3)
    assert found("some/model", path=snapshot).steps == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"step": 4}, "says step, which no recipe has"),
        ({"steps": 0}, "steps must be a whole number from 1 to 1000, and is 0"),
        ({"steps": True}, "steps must be a whole number"),
        ({"guidance_scale": -1}, "guidance_scale must be a number from 0 to 30"),
        ({"guidance_scale": "7"}, "guidance_scale must be a number from 0 to 30"),
        ({"sampler": "magic"}, f"sampler must be one of {Sampler.DDIM}, "),
        ({"sampler": ["euler"]}, "sampler must be one of"),
        ({"size": 500}, "size must be a multiple of 64 up to 1536"),
        ({"schedule": "magic"}, "schedule must be one of automatic, normal"),
        ({"sampler": "lcm", "schedule": "karras"}, "lcm cannot follow the schedule karras"),
        ({"name": ""}, "name must be text of 1 to 40 printable characters"),
        ({"name": "house\nSteps: 4"}, "name must be text of 1 to 40 printable characters"),
        ({"name": "\ud800"}, "name must be text of 1 to 40 printable characters"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path: Path, content: dict[str, Any], words: str) -> None:
    """By name: a recipe that is read and ignored would be worse."""
    written(tmp_path / "mine.recipe.json", **content)
    with pytest.raises(ModelUnsuitable, match=words):
        found("some/model", path=tmp_path / "mine")


def test_a_schedule_is_refused_that_a_sampler_known_otherwise_cannot_follow(tmp_path: Path) -> None:
    """The sampler of a name counts as much as one that the file names."""
    written(tmp_path / "my-lcm.recipe.json", schedule="karras")
    with pytest.raises(ModelUnsuitable, match="lcm cannot follow the schedule karras"):
        found("my-lcm", path=tmp_path / "my-lcm")


def test_a_key_that_a_recipe_has_twice_is_refused(tmp_path: Path) -> None:
    """JSON leaves open which one counts."""
    (tmp_path / "mine.recipe.json").write_text('{"steps": 4, "size": 512, "steps": 8}')
    with pytest.raises(ModelUnsuitable, match=r"recipe\.json has steps more than once; keep one"):
        found("some/model", path=tmp_path / "mine")


def test_a_damaged_recipe_is_told(tmp_path: Path) -> None:
    """As any other file of a model."""
    (tmp_path / "mine.recipe.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match=r"mine\.recipe\.json is damaged"):
        found("some/model", path=tmp_path / "mine")


def test_a_folder_of_the_library_tells_its_scheduler(folder: Callable[[str], Path]) -> None:
    """It is the class that the file itself names."""
    assert layout.read_folder(folder("sd")).schedule.kind == "PNDMScheduler"


def test_a_schedule_that_ends_in_pure_noise_wants_its_guidance_rescaled() -> None:
    """Where the model predicts the velocity: no other can draw from pure noise."""
    numbers = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    schedule = Schedule(numbers=numbers, prediction_from="marker in the file (v_pred, ztsnr)")
    recipe = found("some/model", replace(PLAIN, schedule=schedule))
    assert (recipe.name, recipe.values) == ("zero-snr", {"guidance_rescale": 0.7})
    assert (recipe.source, recipe.guessed) == ("marker in the file (v_pred, ztsnr)", False)
    other = replace(schedule, numbers={**numbers, "prediction_type": "epsilon"})
    assert found("some/model", replace(PLAIN, schedule=other)) == NO_RECIPE
