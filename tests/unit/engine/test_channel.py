"""How messages are read, and what bytes of another making cannot do to the service."""

import pickle
import random
import tracemalloc

import msgspec
import pytest

from service.core.events import JobFinished, Stepped, UnloadReason
from service.core.image import RawImage
from service.core.spec import GenerationSpec
from service.core.stage import Stage
from service.engine.channel import COMMANDS, EVENTS, GarbageError, written
from service.engine.protocol import (
    Cancel,
    Generate,
    Interrupt,
    LoadModel,
    Preview,
    Shutdown,
    StageStarted,
    UnloadModel,
)
from tests.unit.engine.test_inspection import FINISHED, GOOD, MEMORY

MEBIBYTE = 2**20
COUNT_32 = b"\xdd\xff\xff\xff\xff"
"""MessagePack for a list of 2**32 - 1 values, of which none follows."""

SPEC = GenerationSpec(prompt="a cat", negative_prompt="夜", seed=2**32 - 1)


def packed(*values: object) -> bytes:
    return msgspec.msgpack.encode(values)


@pytest.mark.parametrize("said", GOOD, ids=lambda said: type(said).__name__)
def test_every_event_is_read_as_it_was_written(said):
    """With every field and its type."""
    found = EVENTS.read(written(said))
    assert (type(found), found) == (type(said), said)


@pytest.mark.parametrize(
    "command",
    [
        Generate(job_id="one", epoch=1, request=SPEC),
        Cancel(job_id="one"),
        Interrupt(job_id="one"),
        Preview(job_id="one", wanted=True),
        LoadModel(model_id="m"),
        UnloadModel(model_id="m", reason=UnloadReason.IDLE),
        Shutdown(),
    ],
    ids=lambda command: type(command).__name__,
)
def test_every_command_is_read_as_it_was_written(command):
    """Nothing of a request changes on its way, whatever it is written in."""
    assert COMMANDS.read(written(command)) == command
    with pytest.raises(GarbageError, match="no kind of message"):
        EVENTS.read(written(command))


def test_the_largest_messages_are_read():
    """64 images in one job, or 64 jobs in one step."""
    image = RawImage(width=8, height=8, pixels=bytes(192), seed=2**32 - 1)
    finished = JobFinished(job_id="x" * 32, epoch=1, images=(image,) * 64, memory=MEMORY)
    jobs = {f"{number:032x}": number for number in range(64)}
    stepped = Stepped(
        batch_size=64, pixels=2**30, seconds=1.0, progress=jobs, shares={}, epochs=jobs
    )
    assert EVENTS.read(written(finished)) == finished
    assert EVENTS.read(written(stepped)) == stepped


def test_a_message_sets_nothing_in_the_service():
    """A field that its kind does not have is refused, and so is a message without all of them."""
    for odd in ({"stage": "load", "images": 0, "evil": 1}, {"stage": "load"}):
        with pytest.raises(GarbageError, match="other fields"):
            EVENTS.read(packed("StageStarted", odd))
    assert "stage" not in vars(StageStarted)


@pytest.mark.parametrize("place", [("memory",), ("times",), ("images", 0)])
def test_a_part_of_a_message_has_its_own_fields_and_no_others(place):
    """Whichever part it is: a field too many is refused, and so is one too few."""
    for spoil in (lambda part: part.update(evil=1), dict.popitem):
        body = msgspec.to_builtins(FINISHED)
        part = body
        for step in place:
            part = part[step]
        spoil(part)
        body["images"] = [each | {"pixels": bytes(24576)} for each in body["images"]]
        with pytest.raises(GarbageError, match=r"other fields|missing required field"):
            EVENTS.read(packed("JobFinished", body))


@pytest.mark.parametrize(
    "message",
    [
        COUNT_32,
        b"\x92\xacJobFinished" + COUNT_32,
        b"\x92\xabJobFinished\x81\xa6images" + COUNT_32,
        b"\x92\xdb\xff\xff\xff\xff",
        b"\x92\xabJobFinished\x81\xa6job_id\xdb\xff\xff\xff\xff",
    ],
)
def test_a_few_bytes_take_no_memory(message):
    """A length that the message does not have makes no room for it."""
    tracemalloc.start()
    try:
        with pytest.raises(GarbageError):
            EVENTS.read(message)
        assert tracemalloc.get_traced_memory()[1] < MEBIBYTE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "0 bytes are no message"),
        (b"hello", "no message"),
        (pickle.dumps(StageStarted(stage=Stage.LOAD)), "no message"),
        (packed("os.abort", {}), "'os.abort' is no kind"),
        (packed("x" * 10_000, {}), f"'{'x' * 64}' is no kind"),
        (packed("dict", {}), "no kind of message"),
        (packed("MemoryUse", {}), "no kind of message"),
        (packed("StageStarted"), "no message"),
        (packed("StageStarted", {}, {}), "no message"),
        (packed("StageStarted", {}), "missing required field `stage`"),
        (packed("StageStarted", {1: "load"}), "no message"),
        (packed("StageStarted", ["load", 0]), "no message"),
        (packed("StageStarted", {"stage": "load", "images": None}), "images"),
        (packed("StageStarted", {"stage": b"load"}), "stage"),
        (packed("StageStarted", {"stage": "load", "images": True}), "images"),
        (packed("StageStarted", {"stage": "load", "images": 1.5}), "images"),
        (packed("StageStarted", {"stage": "load", "images": "1"}), "images"),
        (written(StageStarted(stage=Stage.LOAD)) + b"x", "no message"),
        (written(StageStarted(stage=Stage.LOAD))[:-1], "no message"),
        (b"\x91" * 100_000, "no message"),
        (b"\x92\xacStageStarted\x81\xa5stage\xa2\xff\xfe", "no message"),
        (b"\xc7\x08\x05" + bytes(8), "no message"),
    ],
)
def test_what_is_written_otherwise_is_refused(message, reason):
    """Whatever it is, nothing else is raised."""
    with pytest.raises(GarbageError, match=reason):
        EVENTS.read(message)


def test_broken_bytes_are_garbage_or_a_message():
    """Nothing else comes of a message with bytes of chance in it."""
    chance = random.Random(14)  # noqa: S311 - the same every time
    whole = written(FINISHED)
    for _ in range(2000):
        broken = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            place = chance.choice((chance.randrange(200), chance.randrange(len(whole))))
            broken[place] = chance.randrange(256)
        try:
            EVENTS.read(bytes(broken[: chance.choice((len(whole), chance.randrange(len(whole))))]))
        except GarbageError:
            continue
