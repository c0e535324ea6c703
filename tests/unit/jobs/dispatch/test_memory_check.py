from dataclasses import replace

import pytest

from service.core.capacity import Capacity
from service.core.spec import GenerationSpec
from service.core.stage import Stage
from service.jobs.dispatch.memory_check import GIB, MIB, RETRY_SECONDS, lack

CAPACITY = Capacity(
    available=4 * GIB,
    needs={Stage.DENOISE: (100 * MIB, 1024), Stage.VAE_DECODE: (0, 4096)},
    relief={Stage.DENOISE: GIB, Stage.VAE_DECODE: 3 * GIB},
)


def asked(width: int, height: int) -> GenerationSpec:
    """Return a request for images of a size."""
    return GenerationSpec(prompt="a cat", width=width, height=height, num_images=4)


def test_what_fits() -> None:
    """Images are made one at a time if need be, so it is one that must fit."""
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
        "An image of 2048x2048 needs about 16.0 GiB of memory in addition to the model "
        "(vae_decode), "
        "and 7.0 GiB are available. Ask for 1344x1344 or less."
    )
    assert lack(asked(1344, 1344), CAPACITY) is None


def test_no_room_at_all() -> None:
    """With less free than any image takes there is no size to advise."""
    full = Capacity(available=50 * MIB, needs={Stage.DENOISE: (100 * MIB, 1024)})

    error = lack(asked(256, 256), full)

    assert error is not None
    assert error.detail.endswith("50 MiB are available. Try again when other programs ended.")
    assert error.retry_after == RETRY_SECONDS


def test_advice_can_be_followed() -> None:
    """No size is advised that the settings do not allow."""
    error = lack(asked(2048, 2048), CAPACITY, smallest=1408)

    assert error is not None
    assert error.detail.endswith("Try again when other programs ended.")


def test_a_size_that_was_made_is_known() -> None:
    """What it took counts, not what a line through other sizes says."""
    known = Capacity(
        available=GIB, needs={Stage.DENOISE: (0, 10_000)}, known={Stage.DENOISE: {512 * 512: MIB}}
    )

    assert lack(asked(512, 512), known) is None
    assert lack(asked(512, 448), known) is not None


@pytest.mark.parametrize("needs", [{}, {Stage.DENOISE: (0.0, 0.0)}])
def test_nothing_known(needs: dict[Stage, tuple[float, float]]) -> None:
    """Without figures nothing is refused."""
    assert lack(asked(4096, 4096), Capacity(available=0, needs=needs)) is None


def test_the_stage_that_is_named_is_the_one_that_lacks_most() -> None:
    """What making room would give is counted for each stage, nothing where it gives none."""
    tight = Capacity(
        available=2**30,
        needs={Stage.DENOISE: (3 * 2**30, 0), Stage.VAE_DECODE: (4 * 2**30, 0)},
        relief={Stage.VAE_DECODE: 5 * 2**29},
    )

    error = lack(asked(512, 512), tight)

    assert error is not None
    assert "needs about 3.0 GiB of memory in addition to the model (denoise)" in error.detail
    assert "1.0 GiB are available" in error.detail


def test_sizes_are_said_in_binary_units() -> None:
    """Less than a GiB in MiB; a client without a cure of its own is told to wait ten seconds."""
    error = lack(
        asked(512, 512), Capacity(available=2**20, needs={Stage.DENOISE: (2**30 - 2**20, 0)})
    )

    assert error is not None
    assert "needs about 1023 MiB" in error.detail
    assert "1 MiB are available" in error.detail
    assert error.retry_after == 10


def test_the_smallest_size_is_advised_where_it_fits() -> None:
    """A cure at the very limit of the settings is one."""
    error = lack(asked(2048, 2048), CAPACITY, smallest=1344)

    assert error is not None
    assert error.detail.endswith("Ask for 1344x1344 or less.")
    assert error.retry_after is None


def test_sub_prompts_take_memory() -> None:
    """Denoised, an image of two parts takes what an image and a half take; decoded, what one."""
    need = {Stage.DENOISE: (0, 1024), Stage.VAE_DECODE: (0, 1024)}
    capacity = Capacity(available=512 * 512 * 1024, needs=need)
    request = GenerationSpec(prompt="a cat AND a dog", width=512, height=512)
    composed = replace(request, prompt_syntax="a1111")

    assert lack(request, capacity) is None
    error = lack(composed, capacity)
    assert error is not None
    assert "needs about 384 MiB" in error.detail
    assert "Ask for 384x384 or less" in error.detail
    assert lack(replace(composed, width=384, height=384), capacity) is None
