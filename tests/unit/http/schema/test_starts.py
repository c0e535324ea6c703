"""What a request may begin with, and what goes together with it."""

import pytest

from service.config.limits import limits_of
from service.config.table import Config
from service.core.inputs import Hires, InputImage, Pad
from service.core.spec import GenerationSpec
from service.errors import ValidationFailed
from service.http.schema.generation import read_request

IMAGE = InputImage(digest="0" * 64, width=640, height=400)


def loaded(**fields: object) -> GenerationSpec:
    return read_request({"prompt": "a boat", **fields}, limits_of(Config()))


def faults(**fields: object) -> dict[str, list[str]]:
    with pytest.raises(ValidationFailed) as caught:
        loaded(**fields)
    return caught.value.errors


def test_what_has_no_effect_is_as_if_it_were_left_out():
    """Requests that mean the same image are the same, in rows and for idempotency keys."""
    plain = loaded(seed=1)
    assert loaded(seed=1, strength=0.1, resize="fill", mask_blur=9, subseed=5) == plain
    assert plain.used.keys() & {"image", "strength", "mask_blur", "hires", "subseed"} == set()


def test_fields_with_an_effect_are_used():
    """They are in metadata and rows, also where they have their defaults."""
    used = loaded(image=IMAGE, mask=IMAGE).used
    assert used["image"] == {"digest": "0" * 64, "width": 640, "height": 400}
    assert (used["strength"], used["resize"], used["mask_padding"]) == (0.8, "crop", -1)
    assert "pad" not in used


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (640, 384)),
        ({"width": 256}, (256, 384)),
        ({"width": 256, "height": 512}, (256, 512)),
        ({"pad": {"top": 112}}, (640, 512)),
        ({"pad": {"left": 640, "right": 640}}, (768, 256)),
    ],
)
def test_a_size_that_is_left_out_is_that_of_the_image(fields, size):
    """With what is added to it, as near as the model can draw it."""
    found = loaded(image=IMAGE, **fields)
    assert (found.width, found.height) == size


@pytest.mark.parametrize("value", ["abc", 5, {"job": "0"}, [IMAGE]])
def test_an_image_that_nobody_took_is_refused(value):
    """The reader of the body leaves a reference in its place."""
    assert "must be an image file in base64" in faults(image=value)["image"][0]


@pytest.mark.parametrize("name", ["mask", "pad"])
def test_what_belongs_to_an_image_needs_one(name):
    """Drawn without it, the image would be another than was asked for."""
    value = IMAGE if name == "mask" else {"left": 64}
    assert faults(**{name: value}) == {name: ["needs image: send the image that it belongs to"]}


@pytest.mark.parametrize(
    ("steps", "strength", "wrong"), [(20, 0.05, False), (20, 0.049, True), (3, 0.34, False)]
)
def test_a_step_must_be_left(steps, strength, wrong):
    """Diffusers rounds down, and would draw nothing."""
    fields = {"image": IMAGE, "steps": steps, "strength": strength}
    if not wrong:
        assert loaded(**fields).first_steps == 1
        return
    cure = "must be at least 0.05 with 20 steps, so that one of them is left"
    assert faults(**fields) == {"strength": [cure]}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "must have a scale, or width and height"),
        ({"scale": 2, "width": 1024, "height": 1024}, "must have a scale, or width and height"),
        ({"width": 1024}, "must have width and height, or a scale"),
        ({"scale": 0.5}, "scale: must be from 1 to 4"),
        ({"scale": 4}, "must give sides from 256 to 1536 pixels"),
        ({"width": 1028, "height": 1024}, "width: must be a multiple of 8"),
        ({"scale": 2, "strength": 0.01}, "strength: must be at least 0.05 with 20 steps"),
        ({"scale": 2, "sharpness": 1}, "sharpness: is not known; use scale, width"),
        (2, "must be an object with scale, width"),
    ],
)
def test_a_second_pass_that_cannot_be_is_refused(value, words):
    """The error names the field in it and a cure."""
    (fault,) = faults(hires=value)["hires"]
    assert fault.startswith(words)


def test_a_second_pass_does_not_go_with_an_image():
    """It begins with the image of a first pass."""
    assert faults(image=IMAGE, hires={"scale": 2}) == {
        "hires": ["cannot go with image: leave one of them out"]
    }


def test_a_second_pass_keeps_the_limit_of_a_sampler():
    """As the first one does."""
    limits = limits_of(Config(max_steps=100))
    fields = {"prompt": "a boat", "sampler": "lcm", "steps": 4}
    with pytest.raises(ValidationFailed) as caught:
        read_request({**fields, "hires": {"scale": 2, "steps": 51}}, limits)
    assert caught.value.errors == {"hires": ["steps: must be at most 50 with the sampler lcm"]}


def test_adding_to_no_side_is_refused():
    """It would repaint nothing."""
    assert "must add to one side at least" in faults(image=IMAGE, pad={"left": 0})["pad"][0]


def test_objects_become_values():
    """With the defaults of what they leave out; null is left out, too."""
    assert loaded(hires={"scale": 1.5, "steps": None}).hires == Hires(scale=1.5)
    assert loaded(image=IMAGE, pad={"left": 8}).pad == Pad(left=8)
    assert loaded(image=IMAGE, mask=None, pad=None, seed=1) == loaded(image=IMAGE, seed=1)


def test_a_subseed_is_random_where_it_has_an_effect():
    """And the answer names it; without an effect it is none."""
    found = {loaded(subseed_strength=0.5).subseed for _ in range(4)}
    assert len(found) > 1
    assert {loaded(subseed=-1).subseed for _ in range(4)} == {0}


@pytest.mark.parametrize("value", [1, 0, "true", None])
def test_true_and_false_are_nothing_else(value):
    """A number that is sent for them is a mistake; null is left out."""
    fields = {"image": IMAGE, "mask": IMAGE, "mask_invert": value}
    if value is None:
        assert loaded(**fields).mask_invert is False
    else:
        assert faults(**fields) == {"mask_invert": ["must be true or false"]}
