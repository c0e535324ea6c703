"""How an engine's messages are read: the few opcodes of pickle that they are written with.

``pickle.Unpickler`` is a machine that bytes from elsewhere can drive to much more than to make
values: to allocate gigabytes for an index, or to set attributes of a class that it may name. This
one knows no calls, no globals but ours, no attributes but the fields of a new object of ours. A
job of four pictures of 768x768 is read in 0.4 ms, where an unpickler takes 0.2.
"""

import io
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final

MOST_OPCODES: Final = 2**14
"""The largest message of our own, of 64 jobs or pictures, has a tenth of them."""

LARGEST_NUMBER: Final = 2**63
LONGEST_WORD: Final = 64
PROTOCOLS: Final = (4, 5)
"""What this Python writes, and what those from 3.14 on do."""

_MARK: Final = object()


class GarbageError(Exception):
    """The engine said what cannot be true."""


def values(data: bytes, kinds: Mapping[tuple[str, str], type]) -> Any:
    """Return what these bytes hold, made of ``kinds`` and plain values.

    Raises:
        GarbageError, ValueError, IndexError, TypeError: they hold no such thing.

    """
    machine = _Machine(kinds)
    position = 0
    for count, (opcode, argument, found) in enumerate(pickletools.genops(io.BytesIO(data))):
        if (count == 0) != (opcode.name == "PROTO") or count >= MOST_OPCODES:
            raise GarbageError("it is not how a message is written")
        do = _DO.get(opcode.name)
        if do is None:
            raise GarbageError(f"{opcode.name} is in no message")
        do(machine, argument)
        position = found or 0
    if position + 1 != len(data):
        raise GarbageError("something follows the message")
    return machine.result


class _Machine:
    """A stack and a memo, as the documentation of ``pickletools`` has them."""

    def __init__(self, kinds: Mapping[tuple[str, str], type]) -> None:
        self.result: Any = None
        self._kinds = kinds
        self._stack: list[Any] = []
        self._memo: list[Any] = []
        self._hollow: dict[int, object] = {}
        """New objects without their fields, by ``id``."""

    def protocol(self, number: int) -> None:
        if number not in PROTOCOLS:
            raise GarbageError(f"protocol {number} is not ours")

    def skip(self, _argument: object) -> None:
        """Frames only help those who read from a file."""

    def push(self, value: object) -> None:
        self._stack.append(value)

    def number(self, value: int) -> None:
        if not -LARGEST_NUMBER <= value < LARGEST_NUMBER:
            raise GarbageError("a number is too large")
        self._stack.append(value)

    def true(self, _argument: None) -> None:
        self._stack.append(True)

    def false(self, _argument: None) -> None:
        self._stack.append(False)

    def mark(self, _argument: None) -> None:
        self._stack.append(_MARK)

    def memoize(self, _argument: None) -> None:
        self._memo.append(self._value(self._stack[-1]))

    def get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def mapping(self, _argument: None) -> None:
        self._stack.append({})

    def set_one(self, _argument: None) -> None:
        self._set(self._taken(2))

    def set_many(self, _argument: None) -> None:
        self._set(self._taken_to_mark())

    def nothing(self, _argument: None) -> None:
        self._stack.append(())

    def tuple_to_mark(self, _argument: None) -> None:
        self._stack.append(tuple(self._taken_to_mark()))

    def kind(self, _argument: None) -> None:
        module, name = self._taken(2)
        found = self._kinds.get((module, name))
        if found is None:
            raise GarbageError(f"it named {str(module)[:LONGEST_WORD]}, which is no message")
        self._stack.append(found)

    def make(self, _argument: None) -> None:
        kind, arguments = self._taken(2)
        if not isinstance(kind, type) or arguments != ():
            raise GarbageError("an object is made in another way than ours")
        made: Any = object.__new__(kind)
        self._hollow[id(made)] = made
        self._stack.append(made)

    def fill(self, _argument: None) -> None:
        """Give a new object of ours its fields: all of them, nothing else, and once."""
        target, state = self._taken(2)
        if self._hollow.pop(id(target), None) is None or type(state) is not dict:
            raise GarbageError("fields are set in what is no new object")
        if state.keys() != {field.name for field in fields(target)}:
            raise GarbageError(f"a {type(target).__name__} has other fields")
        vars(target).update(state)
        self._stack.append(target)

    def stop(self, _argument: None) -> None:
        (self.result,) = map(self._value, self._stack)
        if self._hollow:
            raise GarbageError("an object has no fields")

    def _set(self, found: list[Any]) -> None:
        target = self._stack[-1]
        keys = found[::2]
        if type(target) is not dict or not all(type(key) in (str, int) for key in keys):
            raise GarbageError("an entry has no name, or no mapping to be in")
        target.update(zip(keys, found[1::2], strict=True))

    def _taken(self, count: int) -> list[Any]:
        taken = [self._value(value) for value in self._stack[-count:]]
        if len(taken) != count:
            raise GarbageError("a value is missing")
        del self._stack[-count:]
        return taken

    def _taken_to_mark(self) -> list[Any]:
        taken: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            taken.append(value)
        taken.reverse()
        return taken

    def _value(self, value: object) -> object:
        if value is _MARK:
            raise GarbageError("a mark is no value")
        return value


def _tuple_of(count: int) -> Callable[[_Machine, None], None]:
    def make(machine: _Machine, _argument: None) -> None:
        machine.push(tuple(machine._taken(count)))  # noqa: SLF001 - a part of the machine

    return make


_DO: Final[Mapping[str, Callable[[_Machine, Any], None]]] = {
    "PROTO": _Machine.protocol,
    "FRAME": _Machine.skip,
    "MEMOIZE": _Machine.memoize,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "SHORT_BINUNICODE": _Machine.push,
    "BINUNICODE": _Machine.push,
    "SHORT_BINBYTES": _Machine.push,
    "BINBYTES": _Machine.push,
    "BINFLOAT": _Machine.push,
    "BININT": _Machine.push,
    "BININT1": _Machine.push,
    "BININT2": _Machine.push,
    "LONG1": _Machine.number,
    "NEWTRUE": _Machine.true,
    "NEWFALSE": _Machine.false,
    "MARK": _Machine.mark,
    "EMPTY_TUPLE": _Machine.nothing,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "TUPLE": _Machine.tuple_to_mark,
    "EMPTY_DICT": _Machine.mapping,
    "SETITEM": _Machine.set_one,
    "SETITEMS": _Machine.set_many,
    "STACK_GLOBAL": _Machine.kind,
    "NEWOBJ": _Machine.make,
    "BUILD": _Machine.fill,
    "STOP": _Machine.stop,
}
"""What is not here is in none of our messages."""
