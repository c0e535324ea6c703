"""How an engine's messages are read, and what bytes of another making cannot do to the service."""

import pickle
import random
import tracemalloc

import pytest

from service.diffusion.generation import JobFinished, Picture, Stepped
from service.engine import wire
from service.engine.inspection import parsed
from service.engine.messages import Began
from service.engine.wire import MOST_OPCODES, GarbageError
from tests.unit.engine.test_inspection import FINISHED, GOOD, MEMORY

PROTO = b"\x80\x04"
MEBIBYTE = 2**20


def word(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def kind(named: type) -> bytes:
    return word(named.__module__) + word(named.__qualname__) + b"\x93"


def state(**fields: bytes) -> bytes:
    return b"}(" + b"".join(word(name) + value for name, value in fields.items()) + b"u"


BEGAN = state(stage=word("load"), pictures=b"K\x00")
NEW = kind(Began) + b")\x81"
AN_OBJECT = PROTO + NEW + BEGAN + b"b."


@pytest.mark.parametrize("protocol", wire.PROTOCOLS)
@pytest.mark.parametrize("said", GOOD, ids=lambda said: type(said).__name__)
def test_every_message_is_read_as_it_was_written(said, protocol):
    """By every Python that is supported."""
    assert parsed(pickle.dumps(said, protocol=protocol)) == said


def test_the_largest_messages_are_read():
    """64 pictures in one job, or 64 jobs in one step, have far fewer opcodes than are read."""
    picture = Picture(width=8, height=8, pixels=bytes(192), seed=2**32 - 1)
    finished = JobFinished(job_id="x" * 32, pictures=(picture,) * 64, memory=MEMORY)
    jobs = {f"{number:032x}": number for number in range(64)}
    stepped = Stepped(batch_size=64, pixels=2**30, seconds=1.0, progress=jobs, shares={})
    assert parsed(pickle.dumps(finished)) == finished
    assert parsed(pickle.dumps(stepped)) == stepped


def test_a_message_sets_nothing_in_the_service():
    """Neither in a class of ours nor in what else it can name."""
    evil = PROTO + kind(Began) + b"N}" + word("stage") + word("evil") + b"s\x86b."
    lawful = PROTO + kind(Began) + state(stage=word("evil"), pictures=b"K\x00") + b"b."
    for message in (evil, lawful):
        with pytest.raises(GarbageError):
            parsed(message)
    assert "stage" not in vars(Began)


def test_a_few_bytes_take_no_memory():
    """An index of forty million made a table of as many places."""
    message = PROTO + b"Nr" + (40_000_000).to_bytes(4, "little") + b"."
    tracemalloc.start()
    try:
        with pytest.raises(GarbageError):
            parsed(message)
        assert tracemalloc.get_traced_memory()[1] < MEBIBYTE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (PROTO + b"cos\nabort\n.", "GLOBAL is in no message"),
        (PROTO + word("os") + word("abort") + b"\x93.", "it named os"),
        (PROTO + kind(Began) + b")R.", "REDUCE is in no message"),
        (PROTO + kind(Began) + word("x") + b"\x85\x81.", "made in another way"),
        (PROTO + word("x") + b")\x81.", "made in another way"),
        (PROTO + NEW + b".", "has no fields"),
        (PROTO + NEW + BEGAN + b"b" + BEGAN + b"b.", "no new object"),
        (PROTO + NEW + state(stage=word("load")) + b"b.", "other fields"),
        (PROTO + NEW + BEGAN + b"}" + word("x") + b"K\x00s\x86b.", "no new object"),
        (PROTO + NEW + state(stage=word("a"), pictures=b"K\x00", x=b"K\x00") + b"b.", "other f"),
        (PROTO + b"})K\x00s.", "no name"),
        (PROTO + b")" + word("x") + b"K\x00s.", "no mapping"),
        (PROTO + b"\x8a\x09" + bytes(8) + b"\x01.", "too large"),
        (PROTO + b"K\x00\x86.", "missing"),
        (PROTO + b"(.", "a mark is no value"),
        (PROTO + b"h\x00.", "IndexError"),
        (AN_OBJECT + b"x", "something follows"),
        (PROTO + AN_OBJECT, "not how a message is written"),
        (AN_OBJECT[2:], "not how a message is written"),
        (b"\x80\x03" + AN_OBJECT[2:], "protocol 3"),
        (PROTO + b")" * MOST_OPCODES + b".", "not how a message is written"),
    ],
)
def test_what_is_written_otherwise_is_refused(message, reason):
    """Whatever pickle would make of it."""
    assert parsed(AN_OBJECT) == Began(stage="load")
    with pytest.raises(GarbageError, match=reason):
        parsed(message)


def test_broken_bytes_are_garbage_or_a_message():
    """Nothing else comes of a message with bytes of chance in it."""
    chance = random.Random(14)  # noqa: S311 - the same every time
    whole = pickle.dumps(FINISHED, protocol=4)
    for _ in range(2000):
        broken = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            place = chance.choice((chance.randrange(200), chance.randrange(len(whole))))
            broken[place] = chance.randrange(256)
        try:
            parsed(bytes(broken[: chance.choice((len(whole), chance.randrange(len(whole))))]))
        except GarbageError:
            continue
