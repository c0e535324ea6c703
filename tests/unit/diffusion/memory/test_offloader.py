import pytest
import torch

from service.core.stage import Stage
from service.diffusion.load import Model
from service.diffusion.memory import offloader
from service.diffusion.memory.offloader import TRIED_AGAIN_AFTER, Offloader

DEVICE, HOST = torch.device("cpu"), torch.device("cpu", 0)
"""For torch these are one device, so the model can still be used; moves are written down."""

Devices = dict[str, torch.device]


@pytest.fixture
def devices(sd: Model, monkeypatch: pytest.MonkeyPatch) -> Devices:
    """Return where each part was moved to last."""
    names = {
        id(getattr(sd.family.pipeline, name)): name for name in ("text_encoder", "unet", "vae")
    }
    found: Devices = {}

    def move(part: torch.nn.Module, where: torch.device) -> None:
        found[names[id(part)]] = where

    monkeypatch.setattr(offloader, "move", move)
    return found


@pytest.fixture
def parts_offloader(sd: Model) -> Offloader:
    """Return an offloader of a model."""
    return Offloader(sd.family.parts, DEVICE, host=HOST)


def shown(devices: Devices) -> dict[str, str]:
    """Return where the parts are, as text: torch takes both names for one device."""
    return {
        name: "device" if str(where) == str(DEVICE) else "host" for name, where in devices.items()
    }


def test_moving() -> None:
    """All of a part's weights go, and can be used in inference mode and out of it."""
    part = torch.nn.Linear(2, 2)

    with torch.inference_mode():
        offloader.move(part, torch.device("meta"))

    assert {p.device.type for p in part.parameters()} == {"meta"}
    assert not any(p.is_inference() for p in part.parameters())


def test_everything_stays_on_the_device(parts_offloader: Offloader, devices: Devices) -> None:
    """As long as memory suffices nothing is moved."""
    parts_offloader.bring(Stage.DENOISE)
    parts_offloader.image_done()

    assert not devices
    assert parts_offloader.possible
    assert not parts_offloader.used


def test_only_the_parts_of_the_running_stage_are_on_the_device(
    parts_offloader: Offloader, devices: Devices
) -> None:
    """Each stage moves its own part there and the others to the host."""
    parts_offloader.begin()

    parts_offloader.bring(Stage.DENOISE)
    assert shown(devices) == {"text_encoder": "host", "unet": "device", "vae": "host"}
    parts_offloader.bring(Stage.VAE_DECODE)
    assert shown(devices) == {"text_encoder": "host", "unet": "host", "vae": "device"}
    parts_offloader.bring(Stage.TEXT_ENCODE)
    assert shown(devices) == {"text_encoder": "device", "unet": "host", "vae": "host"}
    assert not parts_offloader.possible


def test_it_ends_after_a_while(parts_offloader: Offloader, devices: Devices) -> None:
    """After a number of images all parts are on the device again."""
    parts_offloader.begin()
    parts_offloader.bring(Stage.DENOISE)

    for _ in range(TRIED_AGAIN_AFTER):
        assert parts_offloader.used
        parts_offloader.image_done()

    assert not parts_offloader.used
    assert set(shown(devices).values()) == {"device"}


@pytest.mark.parametrize(
    ("error", "raised"), [(torch.OutOfMemoryError(), False), (ValueError("broken"), True)]
)
def test_a_return_that_does_not_fit(
    parts_offloader: Offloader, monkeypatch: pytest.MonkeyPatch, error: Exception, raised: bool
) -> None:
    """If there is still not enough memory for all it goes on; any other error is one."""
    parts_offloader.begin()

    def full(_part: object, _where: torch.device) -> None:
        raise error

    monkeypatch.setattr(offloader, "move", full)
    for _ in range(TRIED_AGAIN_AFTER - 1):
        parts_offloader.image_done()
    if raised:
        with pytest.raises(ValueError, match="broken"):
            parts_offloader.image_done()
    else:
        parts_offloader.image_done()
        assert parts_offloader.used


@pytest.mark.usefixtures("devices")
def test_what_it_frees(sd: Model, parts_offloader: Offloader) -> None:
    """Those parts that a stage does not need; once they are gone, what the last stage had."""
    parts = {
        name: sum(
            t.numel() * t.element_size() for t in getattr(sd.family.pipeline, name).parameters()
        )
        for name in ("text_encoder", "unet", "vae")
    }

    assert parts_offloader.freed(Stage.DENOISE) >= parts["text_encoder"] + parts["vae"]
    assert parts_offloader.freed(Stage.DENOISE) < sum(parts.values())
    parts_offloader.begin()
    parts_offloader.bring(Stage.DENOISE)
    assert parts_offloader.freed(Stage.DENOISE) == 0
    assert (
        0 <= parts_offloader.freed(Stage.VAE_DECODE) <= max(parts["unet"] - parts["vae"], 0) + 4096
    )


@pytest.mark.parametrize(
    "offloader_of",
    [
        lambda sd: Offloader(sd.family.parts, DEVICE),
        lambda sd: Offloader(sd.family.parts, DEVICE, host=HOST, fixed=True),
    ],
    ids=["on a CPU", "settings do it already"],
)
def test_nothing_to_gain(sd: Model, offloader_of: object) -> None:
    """Where parts have nowhere else to be, or are there already, there is no such action."""
    parts_offloader = offloader_of(sd)  # type: ignore[operator]

    assert not parts_offloader.possible
    assert parts_offloader.freed(Stage.DENOISE) == 0
