"""Images that arrive as PNG files from the engine that made them."""

import io
from dataclasses import replace

import pytest
from PIL import Image

from service.core.events import JobFinished
from service.core.spec import GenerationSpec
from service.engine.channel import EVENTS, GarbageError, written
from service.engine.inspection import Inspector
from service.engine.protocol import EngineReady, Generate
from service.images.encode import MEDIA_TYPES, file, png
from service.images.packing import is_packed, opened, packed
from tests.support.simulation.fake_engine import FAKE_MODEL, gradient

REQUEST = GenerationSpec(prompt="a boat", width=128, height=64, steps=4, seed=7)
IMAGE = gradient(REQUEST, 3)
METADATA = {"model_version": "m-1", "note": "naïve 船"}


def test_a_packed_image_has_the_same_rows():
    """And says which image it is, as before."""
    image = packed(IMAGE)
    assert opened(image).tobytes() == bytes(IMAGE.pixels)
    assert (image.seed, image.width, image.height) == (IMAGE.seed, 128, 64)
    assert packed(image) is image


def test_its_file_is_the_one_that_its_rows_make():
    """Byte for byte, with and without what is said about it."""
    for more in ({"bare": True}, {"whole": False}, {"whole": True}):
        of_rows, of_packed = (
            png(image, REQUEST, "m-1", METADATA, **more) for image in (IMAGE, packed(IMAGE))
        )
        assert of_rows == of_packed
    with Image.open(io.BytesIO(of_packed)) as found:
        assert found.info["metadata"]
        assert found.tobytes() == bytes(IMAGE.pixels)


@pytest.mark.parametrize("kind", ["webp", "jpeg"])
def test_other_files_are_made_of_it_as_well(kind):
    """With the same bytes as from the rows."""
    of_rows, of_packed = (
        file(image, REQUEST, METADATA, MEDIA_TYPES[kind]) for image in (IMAGE, packed(IMAGE))
    )
    assert of_rows == of_packed


def checked(image):
    """Let the inspector look at a finished job with this image."""
    work = {"job": Generate(job_id="job", epoch=1, request=REQUEST)}
    inspector = Inspector(work, (), ())
    inspector.check(EngineReady(model=FAKE_MODEL))
    finished = JobFinished(job_id="job", epoch=1, images=(image,))
    return inspector.check(EVENTS.read(written(finished)))


def test_what_is_no_file_of_that_size_is_refused():
    """Rows that are called a file, a file of another size, and an empty one."""
    image = replace(gradient(REQUEST, 4), seed=REQUEST.seed)
    assert checked(image)
    assert checked(packed(image))
    other = packed(replace(gradient(replace(REQUEST, width=64), 4), seed=REQUEST.seed))
    for bad in (
        replace(image, packed=True),
        replace(packed(image), packed=False),
        replace(image, pixels=other.pixels, packed=True),
        replace(image, pixels=b"", packed=True),
    ):
        assert not bad.packed or not is_packed(bad)
        with pytest.raises(GarbageError):
            checked(bad)
