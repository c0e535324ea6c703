"""The declaration of a request's fields."""

from dataclasses import MISSING, fields
from types import NoneType
from typing import get_args

import pytest

from service.config.limits import limits_of
from service.config.table import Config
from service.core.fields import RequestField, Setting
from service.core.spec import FIELDS, TEXTS, GenerationSpec

ALL = pytest.mark.parametrize("asked", FIELDS, ids=lambda asked: asked.name)


def test_every_field_of_a_spec_is_declared():
    """Names, types and defaults are those of the dataclass."""
    assert [each.name for each in FIELDS] == [each.name for each in fields(GenerationSpec)]
    for asked, field in zip(FIELDS, fields(GenerationSpec), strict=True):
        assert asked.kind in {field.type, *get_args(field.type)} - {NoneType}
        assert asked.required is (field.default is MISSING)
        assert asked.required or asked.default == field.default


@ALL
def test_a_field_says_what_it_is_in_whole_sentences(asked: RequestField):
    """The words are those of the API description, the command and the documents."""
    assert asked.help.endswith(".")
    assert asked.help[0].isupper()


@ALL
def test_settings_that_a_field_names_are_settings(asked: RequestField):
    """With them every limit is a number, and the default lies between them."""
    found = asked.within(limits_of(Config()))
    assert not any(isinstance(limit, Setting) for limit in (found.low, found.high))
    if asked.entries is not None:
        assert len(found.default) <= found.high
    elif asked.is_object:
        assert found.default is None
    elif asked.kind not in {str, bool}:
        assert found.low <= found.default <= found.high
        assert found.low <= found.example <= found.high
    elif asked.choices:
        assert found.default in asked.choices


def test_settings_replace_defaults_and_limits():
    """What a request may say is decided where the service runs."""
    steps = next(each for each in FIELDS if each.name == "steps")
    found = steps.within(limits_of(Config(default_steps=7, max_steps=9)))
    assert (found.default, found.example, found.low, found.high) == (7, 7, 1, 9)


def test_free_texts_are_known():
    """They stay out of logs, traces and headers."""
    assert TEXTS == ("prompt", "negative_prompt")
