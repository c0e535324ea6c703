"""What is known of a model before it is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.config.table import Config
from service.core.limits import SD, SD_2_V, SDXL, Sizes
from service.models import catalog
from service.models.defaults import known, recipes
from service.models.layout import Layout, read
from service.models.schedule import Schedule


def look(model: object, cache: Path) -> known.Known:
    return known.look(Config(model_id=str(model), model_cache_dir=cache))


def test_the_demo_is_known_without_a_look() -> None:
    """It is SD 1.x in small."""
    assert known.look(Config()) == known.Known(
        model_id="demo", family="sd", sizes=SD, recipe=recipes.DEMO, max_clip_skip=3
    )
    layout = read(catalog.resolve(catalog.DEMO_ID, Path()), Path())
    assert known.max_clip_skip_of(layout) == known.DEMO_LAYERS


@pytest.mark.parametrize(("kind", "family", "sizes"), [("sd", "sd", SD), ("sdxl", "sdxl", SDXL)])
def test_a_folder_tells_by_its_small_files(
    folder: Callable[[str], Path], tmp_path: Path, kind: str, family: str, sizes: Sizes
) -> None:
    """Nothing is loaded for it."""
    found = look(folder(kind), tmp_path)
    assert (found.family, found.sizes) == (family, sizes)


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
    ],
)
def test_a_model_that_is_not_here_is_guessed_by_its_name(
    tmp_path: Path, name: str, family: str, sizes: Sizes, layers: int
) -> None:
    """The log says so; once it is loaded its files count."""
    with capture_logs() as lines:
        found = look(name, tmp_path)
    assert (found.family, found.sizes, found.max_clip_skip) == (family, sizes, layers)
    assert [line["event"] for line in lines] == ["model_family_guessed"]


@pytest.mark.parametrize("name", ["somebody/something", "no such model", "nowhere"])
def test_what_nothing_tells_of_counts_as_stable_diffusion_1(tmp_path: Path, name: str) -> None:
    """Loading it says what is wrong with it."""
    found = look(name, tmp_path)
    assert (found.model_id, found.family, found.sizes) == (name, "sd", SD)


@pytest.mark.parametrize("path", ["/folders/here/night", "~/night", "./night", "../night"])
def test_clients_know_a_model_by_its_name_alone(tmp_path: Path, path: str) -> None:
    """The folders of this machine are not told to anyone."""
    assert look(path, tmp_path).model_id == "night"


def test_a_damaged_model_is_no_reason_to_fail(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """The service stays to say what is wrong with it."""
    copy = shutil.copytree(folder("sdxl"), tmp_path / "copy")
    (copy / "unet" / "config.json").write_text(json.dumps([]))
    assert look(copy, tmp_path).sizes == SD
