import pickle

from service.core.events import JobFinished, Stepped
from service.core.image import RawImage
from service.core.spec import GenerationSpec

REQUEST = GenerationSpec(prompt="a cat", width=512, height=256, steps=20, num_images=3)


def test_seeds_follow_each_other() -> None:
    """Each image has the seed after the one before it."""
    assert REQUEST.seeds == (0, 1, 2)


def test_seeds_start_again_at_0() -> None:
    """After the largest seed comes 0, so every seed can be asked for on its own."""
    last = 2**32 - 1

    assert GenerationSpec(prompt="a cat", seed=last, num_images=2).seeds == (last, 0)


def test_values_cross_a_process_boundary() -> None:
    """What goes in and what comes out can be sent to another process."""
    image = RawImage(width=1, height=1, pixels=b"\x00\x01\x02", seed=3)
    for value in (
        REQUEST,
        Stepped(progress={"a": 1}, batch_size=1, pixels=1, seconds=0.5),
        JobFinished(job_id="a", epoch=1, images=(image,)),
    ):
        assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301 - written a moment ago
