"""What is known of a model before it is loaded."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.config.table import Config
from service.core.limits import SD, SD_2_V, SDXL, Sizes
from service.errors import ModelUnsuitable
from service.models import catalog
from service.models.defaults import known, recipes
from service.models.layout import Layout, read
from service.models.schedule import Schedule


def look(model: object, cache: Path, **settings: Any) -> known.Known:
    return known.look(Config(model_id=str(model), model_cache_dir=cache, **settings))


def test_the_demo_is_known_without_a_look() -> None:
    """It is SD 1.x in small."""
    assert known.look(Config()) == known.Known(
        model_id="demo",
        family="sd",
        sizes=SD,
        recipe=recipes.DEMO,
        max_clip_skip=3,
        schedules=known.DEMO_SCHEDULES,
    )
    layout = read(catalog.resolve(catalog.DEMO_ID, Path()), Path())
    assert known.max_clip_skip_of(layout) == known.DEMO_LAYERS
    assert known.schedules_of(layout) == known.DEMO_SCHEDULES
    assert known.adapters_of(layout) == ""


@pytest.mark.parametrize(
    ("family", "width", "adapters"),
    [
        ("sd", 768, "sd1"),
        ("sd", 1024, "sd2"),
        ("sdxl", 2048, "sdxl"),
        ("sd", 2048, ""),
        ("sd", 32, ""),
        ("sd", None, ""),
        ("sd", [768, 768], ""),
    ],
)
def test_the_width_of_a_model_tells_its_adapters(
    family: str, width: int | list[int] | None, adapters: str
) -> None:
    """As it tells what an adapter is made for."""
    layout = Layout(
        family=family,
        configs={"unet": {"cross_attention_dim": width}},
        schedule=Schedule(numbers={}, prediction_from="a test"),
        configuration="a test",
    )
    assert known.adapters_of(layout) == adapters


@pytest.mark.parametrize(("kind", "family", "sizes"), [("sd", "sd", SD), ("sdxl", "sdxl", SDXL)])
def test_a_folder_tells_by_its_small_files(
    folder: Callable[[str], Path], tmp_path: Path, kind: str, family: str, sizes: Sizes
) -> None:
    """Nothing is loaded for it."""
    found = look(folder(kind), tmp_path)
    assert (found.family, found.sizes) == (family, sizes)


@pytest.mark.parametrize(
    ("kind", "inpainting"),
    [("sd", False), ("tiny_vae", False), ("inpaint", True), ("inpaint_xl", True)],
)
def test_the_channels_tell_a_model_for_inpainting(
    folder: Callable[[str], Path], tmp_path: Path, kind: str, inpainting: bool
) -> None:
    """Whatever its latents have, it takes them twice and a mask."""
    assert look(folder(kind), tmp_path).inpainting == inpainting


@pytest.mark.parametrize(("kind", "layers"), [("sd", 2), ("sdxl", 1)])
def test_a_text_encoder_tells_how_many_layers_can_be_skipped(
    folder: Callable[[str], Path], tmp_path: Path, kind: str, layers: int
) -> None:
    """Both encoders have two layers here, and XL never reads the last one."""
    assert look(folder(kind), tmp_path).max_clip_skip == layers


@pytest.mark.parametrize(
    ("width", "prediction", "sizes"),
    [
        (768, "epsilon", SD),
        (768, "v_prediction", SD),
        (1024, "epsilon", SD),
        (1024, "v_prediction", SD_2_V),
    ],
)
def test_stable_diffusion_2_that_predicts_the_velocity_is_larger(
    width: int, prediction: str, sizes: Sizes
) -> None:
    """Its base model was trained with 512, as 1.x was, also where that predicts the velocity."""
    layout = Layout(
        family="sd",
        configs={"unet": {"cross_attention_dim": width}},
        schedule=Schedule(numbers={"prediction_type": prediction}, prediction_from="a test"),
        configuration="a test",
    )
    assert known.sizes_of(layout) == sizes


@pytest.mark.parametrize(
    ("name", "family", "sizes", "layers"),
    [
        ("stabilityai/stable-diffusion-xl-base-1.0", "sdxl", SDXL, 11),
        ("somebody/AnimeXL-v3", "sdxl", SDXL, 11),
        ("stabilityai/stable-diffusion-2-1", "sd", SD_2_V, 23),
        ("stabilityai/stable-diffusion-2-1-base", "sd", SD, 23),
        ("stabilityai/stable-diffusion-2-inpainting", "sd", SD, 23),
    ],
)
def test_a_model_that_is_not_here_is_guessed_by_its_name(
    tmp_path: Path, name: str, family: str, sizes: Sizes, layers: int
) -> None:
    """The log says so; once it is loaded its files count."""
    with capture_logs() as lines:
        found = look(name, tmp_path)
    assert (found.family, found.sizes, found.max_clip_skip) == (family, sizes, layers)
    assert found.inpainting == ("inpaint" in name)
    assert [line["event"] for line in lines] == ["model_family_guessed"]


@pytest.mark.parametrize(
    ("name", "family"), [("somebody/something", "sd"), ("no such model", ""), ("nowhere", "")]
)
def test_what_nothing_tells_of_counts_as_stable_diffusion_1(
    tmp_path: Path, name: str, family: str
) -> None:
    """What is nowhere is of no family; loading it says what is wrong with it."""
    found = look(name, tmp_path)
    assert (found.model_id, found.family, found.sizes) == (name, family, SD)


@pytest.mark.parametrize("path", ["/folders/here/night", "~/night", "./night", "../night"])
def test_clients_know_a_model_by_its_name_alone(tmp_path: Path, path: str) -> None:
    """The folders of this machine are not told to anyone."""
    assert look(path, tmp_path).model_id == "night"


@pytest.mark.parametrize(
    ("content", "settings", "words"),
    [
        ({"steps": 200}, {}, "steps is 200; the limit of requests to this model is 50"),
        (
            {"steps": 90, "sampler": "lcm"},
            {"max_steps": 99},
            "steps .* change MAX_STEPS or the sampler",
        ),
        ({"size": 1536}, {}, "size is 1536; .* is 768. Write that, or change MIN_SIZE or MAX_SIZE"),
        ({"size": 64}, {}, "size is 64; .* is 256"),
    ],
)
def test_a_recipe_of_the_users_own_asks_for_no_more_than_requests_may_have(
    folder: Callable[[str], Path],
    tmp_path: Path,
    content: dict[str, Any],
    settings: dict[str, Any],
    words: str,
) -> None:
    """What it says and does not get would be worse than an end of the start."""
    (tmp_path / "mine").symlink_to(folder("sd"))
    (tmp_path / "mine.recipe.json").write_text(json.dumps(content))
    source = catalog.resolve(str(tmp_path / "mine"), tmp_path)
    config = Config(model_cache_dir=tmp_path, **settings)
    with pytest.raises(ModelUnsuitable, match=rf"mine\.recipe\.json: {words}"):
        known.look_at(source, config)
    wide = replace(config, min_size=64, max_size=1536, max_steps=500, default_steps=7)
    if content.get("sampler") is None:
        assert known.look_at(source, wide).recipe.cut == ()


def test_a_recipe_names_no_schedule_that_its_model_lacks(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """Every request that leaves the schedule out would be refused."""
    shutil.copytree(folder("sd"), tmp_path / "mine")
    numbers = tmp_path / "mine" / "scheduler" / "scheduler_config.json"
    said = {**json.loads(numbers.read_text()), "prediction_type": "v_prediction"}
    numbers.write_text(json.dumps(said))
    (tmp_path / "mine.recipe.json").write_text('{"schedule": "align_your_steps"}')
    source = catalog.resolve(str(tmp_path / "mine"), tmp_path)
    with pytest.raises(ModelUnsuitable, match=r"mine\.recipe\.json: .* use automatic, normal, "):
        known.look_at(source, Config(model_cache_dir=tmp_path))


def test_what_the_limits_cut_from_a_recipe_of_others_is_told(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """The image that has such a value says so, and no other one."""
    path = tmp_path / "my-lightning-8step"
    path.symlink_to(folder("sd"))
    source = catalog.resolve(str(path), tmp_path)
    recipe = known.look_at(source, Config(model_cache_dir=tmp_path, max_steps=6)).recipe
    assert (recipe.steps, recipe.cut) == (8, (("steps", 6),))
    cut = "The recipe lightning asks for steps 8, and the limits of requests allow 6."
    assert recipe.warnings[1:] == [cut]
    assert recipe.warnings_for({"steps": (6,)})[1:] == [cut]
    assert recipe.warnings_for({"steps": (5,)})[1:] == []


def test_a_recipe_of_the_hub_is_cut_before_the_model_is_here(tmp_path: Path) -> None:
    """Its name tells as much as its files will."""
    found = look("stabilityai/sdxl-turbo", tmp_path, max_steps=2)
    assert found.recipe.cut == (("steps", 2),)


def test_a_damaged_model_is_no_reason_to_fail(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """The service stays to say what is wrong with it."""
    copy = shutil.copytree(folder("sdxl"), tmp_path / "copy")
    (copy / "unet" / "config.json").write_text(json.dumps([]))
    found = look(copy, tmp_path)
    assert (found.family, found.sizes) == ("", SD)
