import pytest
import torch

from service.diffusion import parking
from service.diffusion.load import Model
from service.diffusion.parking import TRIED_AGAIN_AFTER, Parking

HOME, AWAY = torch.device("cpu"), torch.device("cpu", 0)
"""For torch these are one device, so the model can still be used; moves are written down."""

Places = dict[str, torch.device]


@pytest.fixture
def places(sd: Model, monkeypatch: pytest.MonkeyPatch) -> Places:
    """Return where each part was moved to last."""
    names = {id(getattr(sd.pipeline, name)): name for name in ("text_encoder", "unet", "vae")}
    found: Places = {}

    def move(part: torch.nn.Module, where: torch.device) -> None:
        found[names[id(part)]] = where

    monkeypatch.setattr(parking, "_move", move)
    return found


@pytest.fixture
def lot(sd: Model) -> Parking:
    """Return the parking of a model."""
    return Parking(sd.pipeline, HOME, away=AWAY)


def shown(places: Places) -> dict[str, str]:
    """Return where the parts are, as text: torch takes both names for one device."""
    return {name: "home" if str(where) == str(HOME) else "away" for name, where in places.items()}


def test_moving() -> None:
    """All of a part's weights go, and can be used in inference mode and out of it."""
    part = torch.nn.Linear(2, 2)

    with torch.inference_mode():
        parking._move(part, torch.device("meta"))

    assert {p.device.type for p in part.parameters()} == {"meta"}
    assert not any(p.is_inference() for p in part.parameters())


def test_everything_stays_at_home(lot: Parking, places: Places) -> None:
    """As long as memory suffices nothing is moved."""
    lot.bring("denoise")
    lot.picture_made()

    assert not places
    assert lot.possible
    assert not lot.used


def test_only_the_stage_at_work_is_at_home(lot: Parking, places: Places) -> None:
    """Each stage brings its own part and sends the others away."""
    lot.begin()

    lot.bring("denoise")
    assert shown(places) == {"text_encoder": "away", "unet": "home", "vae": "away"}
    lot.bring("vae_decode")
    assert shown(places) == {"text_encoder": "away", "unet": "away", "vae": "home"}
    lot.bring("text_encode")
    assert shown(places) == {"text_encoder": "home", "unet": "away", "vae": "away"}
    assert not lot.possible


def test_it_ends_after_a_while(lot: Parking, places: Places) -> None:
    """After a number of pictures all is at home again."""
    lot.begin()
    lot.bring("denoise")

    for _ in range(TRIED_AGAIN_AFTER):
        assert lot.used
        lot.picture_made()

    assert not lot.used
    assert set(shown(places).values()) == {"home"}


@pytest.mark.parametrize(
    ("error", "raised"), [(torch.OutOfMemoryError(), False), (ValueError("broken"), True)]
)
def test_coming_home_that_does_not_fit(
    lot: Parking, monkeypatch: pytest.MonkeyPatch, error: Exception, raised: bool
) -> None:
    """If there is still no room for all it goes on; any other error is one."""
    lot.begin()

    def full(_part: object, _where: torch.device) -> None:
        raise error

    monkeypatch.setattr(parking, "_move", full)
    for _ in range(TRIED_AGAIN_AFTER - 1):
        lot.picture_made()
    if raised:
        with pytest.raises(ValueError, match="broken"):
            lot.picture_made()
    else:
        lot.picture_made()
        assert lot.used


@pytest.mark.usefixtures("places")
def test_what_it_frees(sd: Model, lot: Parking) -> None:
    """Those parts that a stage does not need; once they are gone, what the last stage had."""
    parts = {
        name: sum(t.numel() * t.element_size() for t in getattr(sd.pipeline, name).parameters())
        for name in ("text_encoder", "unet", "vae")
    }

    assert lot.freed("denoise") >= parts["text_encoder"] + parts["vae"]
    assert lot.freed("denoise") < sum(parts.values())
    lot.begin()
    lot.bring("denoise")
    assert lot.freed("denoise") == 0
    assert 0 <= lot.freed("vae_decode") <= max(parts["unet"] - parts["vae"], 0) + 4096


@pytest.mark.parametrize(
    "lot_of",
    [
        lambda sd: Parking(sd.pipeline, HOME),
        lambda sd: Parking(sd.pipeline, HOME, away=AWAY, fixed=True),
    ],
    ids=["on a CPU", "settings do it already"],
)
def test_nothing_to_gain(sd: Model, lot_of: object) -> None:
    """Where parts have nowhere else to be, or are there already, there is no such rung."""
    lot = lot_of(sd)  # type: ignore[operator]

    assert not lot.possible
    assert lot.freed("denoise") == 0
