import pytest

from service.diffusion.generation import Capacity, GenerationRequest
from service.jobs.fitting import GIB, MIB, RETRY_SECONDS, lack

CAPACITY = Capacity(
    available=4 * GIB,
    needs={"denoise": (100 * MIB, 1024), "vae_decode": (0, 4096)},
    relief={"denoise": GIB, "vae_decode": 3 * GIB},
)


def asked(width: int, height: int) -> GenerationRequest:
    """Return a request for pictures of a size."""
    return GenerationRequest(prompt="a cat", width=width, height=height, num_images=4)


def test_what_fits() -> None:
    """Pictures are made one at a time if need be, so it is one that must fit."""
    assert lack(asked(1024, 1024), CAPACITY) is None


def test_the_last_means_are_counted_on() -> None:
    """What would fit after the rest of the model made room is not refused."""
    assert lack(asked(1280, 1408), CAPACITY) is None
    assert lack(asked(1408, 1408), CAPACITY) is not None


def test_advice() -> None:
    """The error names the size, the need, what there is, and a size that fits."""
    error = lack(asked(2048, 2048), CAPACITY)

    assert error is not None
    assert error.code == "out_of_memory"
    assert error.detail == (
        "A picture of 2048x2048 needs about 16.0 GiB of memory beside the model (vae_decode), "
        "and there are 7.0 GiB. Ask for 1344x1344 or less."
    )
    assert lack(asked(1344, 1344), CAPACITY) is None


def test_no_room_at_all() -> None:
    """With less free than any picture takes there is no size to advise."""
    full = Capacity(available=50 * MIB, needs={"denoise": (100 * MIB, 1024)})

    error = lack(asked(256, 256), full)

    assert error is not None
    assert error.detail.endswith("there are 50 MiB. Try again when other programs ended.")
    assert error.retry_after == RETRY_SECONDS


def test_advice_can_be_followed() -> None:
    """No size is advised that the settings do not allow."""
    error = lack(asked(2048, 2048), CAPACITY, smallest=1408)

    assert error is not None
    assert error.detail.endswith("Try again when other programs ended.")


def test_a_size_that_was_made_is_known() -> None:
    """What it took counts, not what a line through other sizes says."""
    known = Capacity(
        available=GIB, needs={"denoise": (0, 10_000)}, known={"denoise": {512 * 512: MIB}}
    )

    assert lack(asked(512, 512), known) is None
    assert lack(asked(512, 448), known) is not None


@pytest.mark.parametrize("needs", [{}, {"denoise": (0.0, 0.0)}])
def test_nothing_known(needs: dict[str, tuple[float, float]]) -> None:
    """Without figures nothing is refused."""
    assert lack(asked(4096, 4096), Capacity(available=0, needs=needs)) is None
