"""What passes between the service, its Ray driver and the hosts of engines, as bytes.

Ray carries these bytes and nothing else: whatever it would unpickle is code of whoever sent it.
An ``engine`` is the name of an actor, ``sd/<namespace>/<node>/<number>``. A ``generation`` numbers
the attachments to it: a host obeys the highest it has seen.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from service.config.loading import load, texts
from service.config.table import Config
from service.engine.channel import GarbageError, Reader
from service.engine.protocol import EngineEvent, EngineExited, Held
from service.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Stop:
    """End the driver, and the engines that it has found."""


@dataclass(frozen=True, kw_only=True)
class Attach:
    """Take up an engine anew: what the attachment before still says is not heard."""

    engine: str


@dataclass(frozen=True, kw_only=True)
class ToEngine:
    """A command, dropped where another generation is attached by now."""

    engine: str
    generation: int
    command: bytes


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Somebody looks at a job's steps, or nobody does any more."""

    engine: str
    generation: int
    job_id: str
    wanted: bool


@dataclass(frozen=True, kw_only=True)
class Acknowledge:
    """The end of an attempt has arrived; the host may forget it."""

    engine: str
    generation: int
    job_id: str
    epoch: int


@dataclass(frozen=True, kw_only=True)
class Drain:
    """End an engine that has no jobs any more, because its node leaves."""

    engine: str


@dataclass(frozen=True, kw_only=True)
class End:
    """Kill an engine with its actor, because what it said cannot be; another is made."""

    engine: str
    reason: str


ToDriver = Stop | Attach | ToEngine | Watch | Acknowledge | Drain | End
"""What a service tells its driver."""


@dataclass(frozen=True, kw_only=True)
class EngineJoined:
    """There is an engine; ``EngineAttached`` follows when it has answered."""

    engine: str
    node: str
    """Address of its machine."""


@dataclass(frozen=True, kw_only=True)
class EngineAttached:
    """A host obeys a generation from now on; also its own answer to ``attach``."""

    engine: str
    generation: int
    held: tuple[Held, ...]
    """Attempts in work, and those whose end was not acknowledged."""
    ready: bytes
    """Its ``EngineReady`` event; empty while it loads."""
    starts: int
    """Children it has started so far: another number tells that work was lost meanwhile."""
    gpu: str
    """UUID or index of the GPU; empty on a CPU."""
    pulse: int = 0
    """Number of this sign of life, as in ``Pulse``."""


@dataclass(frozen=True, kw_only=True)
class FromEngine:
    """Events of an engine, in their order."""

    engine: str
    generation: int
    events: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class Alive:
    """An engine has answered, once a second; what its host says of its child."""

    engine: str
    generation: int
    silence: float
    """Seconds since the child last said something; 0 when it may be silent."""
    late: bool
    """Whether that is half as long as it takes to be taken for dead."""


@dataclass(frozen=True, kw_only=True)
class EngineGone:
    """An engine's actor has ended, with what it had."""

    engine: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ClusterState:
    """What the driver sees of the cluster, every few seconds."""

    nodes: int
    engines: tuple[str, ...]
    """Engines to work with: those that are not named any more are to end their jobs and go."""
    draining: tuple[str, ...]
    """Engines whose node is leaving: one that is in neither was lost."""


@dataclass(frozen=True, kw_only=True)
class DriverAlive:
    """The driver works, once a second, whether or not there is a cluster."""


FromDriver = (
    EngineJoined | EngineAttached | FromEngine | Alive | EngineGone | ClusterState | DriverAlive
)
"""What a driver tells its service."""


@dataclass(frozen=True, kw_only=True)
class EventBatch:
    """Events of a host, in their order; none is a sign of life."""

    events: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """A host's answer to a renewal of its lease: a sign of life.

    The next renewal says its number, and the lease counts from when it was sent.
    """

    number: int
    silence: float
    late: bool


FromHost = EngineAttached | EventBatch | Pulse
"""What a host answers its driver."""

TO_DRIVER: Final[Reader[ToDriver]] = Reader(ToDriver)
FROM_DRIVER: Final[Reader[FromDriver]] = Reader(FromDriver)
FROM_HOST: Final[Reader[FromHost]] = Reader(FromHost)
REMOTE_EVENTS: Final[Reader[EngineEvent | EngineExited]] = Reader(EngineEvent | EngineExited)
"""Events as a host sends them, and the end of its child among them."""

SETTINGS: Final = msgspec.msgpack.Decoder(dict[str, str])


def written_settings(config: Config) -> bytes:
    """Return the settings as a host gets them: their texts, without secrets."""
    return msgspec.msgpack.encode(texts(config))


def read_settings(data: bytes) -> Config:
    """Return the settings in these bytes.

    Raises:
        GarbageError: there are none that can be used.

    """
    try:
        return load(SETTINGS.decode(data))
    except (msgspec.MsgspecError, ConfigError) as error:
        raise GarbageError(f"{len(data)} bytes are no settings ({error})") from error
