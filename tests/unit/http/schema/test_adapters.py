"""The adapters of a request."""

from pathlib import Path
from typing import Any

import pytest

from service.config.limits import limits_of
from service.config.table import Config
from service.core.spec import Adapter
from service.errors import ValidationFailed
from service.http.schema.adapters import demand_adapters
from service.http.schema.generation import read_request
from service.models.adapters.catalog import AdapterCatalog
from tests.support.models.adapter_headers import TO_K, low_rank, written

LIMITS = limits_of(Config())


def read(adapters: Any) -> tuple[Adapter, ...]:
    """Return the adapters of a request with this field."""
    return read_request({"prompt": "x", "seed": 1, "adapters": adapters}, LIMITS).adapters


def test_adapters_and_their_weights() -> None:
    """A weight left out is 1; one left out for texts is the other one."""
    assert read([{"name": "a"}, {"name": "b", "weight": -0.5}]) == (
        Adapter(name="a", weight=1.0, text_weight=1.0),
        Adapter(name="b", weight=-0.5, text_weight=-0.5),
    )
    assert read([{"name": "a", "weight": 1, "text_weight": 0}]) == (
        Adapter(name="a", weight=1.0, text_weight=0.0),
    )


@pytest.mark.parametrize("none", [None, []])
def test_no_adapters(none: Any) -> None:
    """An empty list and null are as if the field were left out."""
    assert read(none) == ()


@pytest.mark.parametrize(
    ("adapters", "words"),
    [
        ("ink", "must be a list of up to 8 adapters"),
        ([{"name": "a"}] * 9, "must be a list of up to 8 adapters"),
        ([{"name": "a"}, {"name": "a"}], "a is given more than once; add up its weights"),
        (["ink"], "entry 1 must be an object"),
        ([{"name": "a"}, {}], "entry 2: name: is required"),
        ([{"name": "a", "weight": "1"}], "entry 1: weight: must be a number between -10 and 10"),
        ([{"name": "a", "weight": 11}], "entry 1: weight: must be a number between -10 and 10"),
        ([{"name": "a", "path": "/x"}], "entry 1: path: is not known; use name, weight and"),
        ([{"name": " "}], "entry 1: name: must be text"),
    ],
)
def test_wrong_adapters(adapters: Any, words: str) -> None:
    """Every fault names the entry."""
    with pytest.raises(ValidationFailed) as caught:
        read(adapters)
    assert words in " ".join(caught.value.errors["adapters"])


def test_an_entry_of_thousands_of_unknown_keys_gets_a_short_answer() -> None:
    """Each would be a line of the answer."""
    with pytest.raises(ValidationFailed) as caught:
        read([{f"key{number}": 1 for number in range(3000)}])
    assert len(caught.value.errors["adapters"]) == 16


def test_adapters_that_are_not_there_or_do_not_fit(tmp_path: Path) -> None:
    """What names and headers tell is told before anything is queued."""
    written(tmp_path / "xl.safetensors", low_rank(TO_K, into=2048))
    written(tmp_path / "open.safetensors", low_rank(TO_K, into=32))
    catalog = AdapterCatalog(tmp_path)
    request = read_request({"prompt": "x", "adapters": [{"name": "xl"}]}, LIMITS)
    demand_adapters(request, catalog, "")
    demand_adapters(request, catalog, "sdxl")
    with pytest.raises(ValidationFailed, match="xl is made for sdxl, and the model is of the"):
        demand_adapters(request, catalog, "sd")
    unknown = read_request({"prompt": "x", "adapters": [{"name": "../open"}]}, LIMITS)
    with pytest.raises(ValidationFailed, match=r"no adapter '../open'. There are: open\."):
        demand_adapters(unknown, catalog, "sd")
    with pytest.raises(ValidationFailed, match=r"no adapter '../open'. There are: open, xl\."):
        demand_adapters(unknown, catalog, "sdxl")
    tells_nothing = read_request({"prompt": "x", "adapters": [{"name": "open"}]}, LIMITS)
    demand_adapters(tells_nothing, catalog, "sdxl")


@pytest.mark.parametrize(
    ("width", "family", "suits"),
    [
        (1024, "sd1", False),
        (768, "sd2", False),
        (768, "sd1", True),
        (1024, "sd2", True),
        (1024, "sd", True),
        (1024, "", True),
    ],
)
def test_an_adapter_for_2_x_is_none_for_1_x(
    tmp_path: Path, width: int, family: str, suits: bool
) -> None:
    """Their text encoders have other widths; a model of neither width takes what its layers do."""
    written(tmp_path / "mine.safetensors", low_rank(TO_K, into=width))
    request = read_request({"prompt": "x", "adapters": [{"name": "mine"}]}, LIMITS)
    if suits:
        demand_adapters(request, AdapterCatalog(tmp_path), family)
        return
    with pytest.raises(ValidationFailed, match=f"and the model is of the family {family}; use one"):
        demand_adapters(request, AdapterCatalog(tmp_path), family)
