"""Everything that can go wrong, one class per case."""

import pytest

from service import errors
from service.errors import QueueFull, ServiceError, ValidationFailed, error_class

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ServiceError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_of_every_error_finds_its_class(kind):
    """Codes cross the wall between the processes; classes do not."""
    assert error_class(kind.code) is kind


def test_an_unknown_code_is_an_internal_error():
    """A newer engine cannot break an older service."""
    assert error_class("from_the_future") is ServiceError


@pytest.mark.parametrize("kind", KINDS)
def test_the_title_is_the_sentence_of_the_class(kind):
    """What a client reads first is written once."""
    error = ValidationFailed({}) if kind is ValidationFailed else kind()
    assert kind.__doc__ == f"{error.title}."
    assert "\n" not in error.title


def test_without_a_detail_the_title_stands_in():
    """An answer always says something."""
    assert QueueFull().detail == "Service Unavailable: the queue is full"
    assert QueueFull("64 wait.", retry_after=3).detail == "64 wait."


def test_the_detail_of_a_validation_error_names_every_field():
    """It is what a client without a list of fields shows."""
    error = ValidationFailed({"steps": ["must be 1 or more"], "seed": ["must be a number"]})
    assert str(error) == "steps: must be 1 or more; seed: must be a number"


def test_a_long_detail_is_cut():
    """It is for people; programs read the fields."""
    error = ValidationFailed({f"field{i}": ["must be a number"] for i in range(1000)})
    assert (len(error.detail), error.detail[-1], len(error.errors)) == (2001, "…", 1000)


@pytest.mark.parametrize(
    ("status", "titles"),
    [
        (400, {"Validation Error", "Bad Request"}),
        (408, {"Timeout"}),
        (503, {"Service Unavailable", "The model cannot be loaded"}),
        (
            500,
            {
                "Internal Error",
                "A setting is wrong",
                "The model cannot be removed",
                "The job store cannot be opened",
                "The service cannot start",
            },
        ),
    ],
)
def test_the_documented_statuses_have_the_documented_names(status, titles):
    """Validation Error, Timeout, Service Unavailable, Internal Error."""
    found = {
        (kind.__doc__ or "").rstrip(".").split(":")[0] for kind in KINDS if kind.status == status
    }
    assert titles == found
