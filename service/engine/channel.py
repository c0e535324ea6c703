"""Typed messages as bytes, and the pipe that carries them between the service and an engine.

A message is MessagePack: the name of its kind and its fields. Each field is checked against its
declared type when the message is read; what the values say is ``inspection``'s to check.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from multiprocessing.connection import Connection
from typing import Any, Final, Generic, TypeVar, get_args

import msgspec

from service.engine.protocol import Command, EngineEvent

Sent = TypeVar("Sent")
Received = TypeVar("Received")

LONGEST_NAME: Final = 64
"""Characters of an unknown kind that the log shows."""


class GarbageError(Exception):
    """The engine said what cannot be true."""


class Reader(Generic[Received]):
    """Reads messages of some kinds."""

    def __init__(self, kinds: object) -> None:
        """Set up for a union of dataclasses."""
        self._envelope = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw])
        self._kinds: Mapping[str, msgspec.msgpack.Decoder[Any]] = {
            kind.__name__: msgspec.msgpack.Decoder(kind) for kind in get_args(kinds)
        }
        self._of = kinds

    def __reduce__(self) -> "tuple[type[Reader[Received]], tuple[object]]":
        """Pickle as the kinds: another process makes decoders of its own."""
        return type(self), (self._of,)

    def read(self, data: bytes) -> Received:
        """Return the message in these bytes.

        Raises:
            GarbageError: there is none.

        """
        try:
            # The first pass finds the end of the message before anything is made of it.
            name, body = self._envelope.decode(data)
            if name not in self._kinds:
                raise GarbageError(f"{name[:LONGEST_NAME]!r} is no kind of message")
            message: Received = self._kinds[name].decode(body)
            _demand_fields(message, body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise GarbageError(f"{len(data)} bytes are no message ({error})") from error
        return message


def _demand_fields(value: Any, body: msgspec.Raw) -> None:
    """Raise GarbageError unless every dataclass was sent with its own fields and no others.

    msgspec fills in what is missing and passes over what it does not know.
    """
    if is_dataclass(value):
        sent = FIELDS.decode(body)
        if sent.keys() != {each.name for each in fields(value)}:
            raise GarbageError(f"a {type(value).__name__} has other fields")
        for name, part in sent.items():
            _demand_fields(getattr(value, name), part)
    elif isinstance(value, tuple) and value and is_dataclass(value[0]):
        for each, part in zip(value, PARTS.decode(body), strict=True):
            _demand_fields(each, part)


FIELDS: Final = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
PARTS: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
EVENTS: Final[Reader[EngineEvent]] = Reader(EngineEvent)
COMMANDS: Final[Reader[Command]] = Reader(Command)


def written(message: object) -> bytes:
    """Return a message as bytes."""
    return msgspec.msgpack.encode((type(message).__name__, message))


class Channel(Generic[Sent, Received]):
    """One end of a pipe; the other end may be in another process."""

    def __init__(self, pipe: "Connection[bytes, bytes]", reader: Reader[Received]) -> None:
        self.pipe = pipe
        self._reader = reader

    def send(self, message: Sent) -> None:
        """Send a message; blocks while the pipe is full.

        Raises:
            OSError: the other end is gone.

        """
        self.pipe.send_bytes(written(message))

    def receive(self, most_bytes: int | None = None) -> Received:
        """Wait for the next message, of ``most_bytes`` bytes at most.

        Raises:
            EOFError, OSError: the other end is gone.
            GarbageError: what came is no message.

        """
        try:
            data = self.pipe.recv_bytes(most_bytes)
        except OSError as error:
            if error.errno is None:  # The length in front of it, not the pipe, is bad.
                raise GarbageError("a message has an impossible length") from error
            raise
        return self._reader.read(data)

    def poll(self, seconds: float | None = 0) -> bool:
        """Wait up to ``seconds`` for a message, None for as long as it takes."""
        return self.pipe.poll(seconds)

    def close(self) -> None:
        """End the pipe."""
        self.pipe.close()
