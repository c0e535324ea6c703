"""Adapters of the jobs in a step loop: loaded while others step, kept within budgets."""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog
import torch

from service.core.events import AdaptersChanged
from service.core.spec import Adapter
from service.diffusion.adapters.cache import AdapterMemory, Key, Owner, memory_of
from service.diffusion.adapters.modules import Modules
from service.diffusion.adapters.reading import Loaded, read
from service.diffusion.adapters.rows import RowAdapters, Use
from service.diffusion.conditioning.encoding import Word
from service.errors import AdapterUnsuitable, ServiceError
from service.models.adapters.catalog import AdapterCatalog, Entry, Stamp
from service.models.adapters.names import Part

log = structlog.get_logger(__name__)

GIB: Final = 2**30
TEXT_PARTS: Final = (Part.TEXT, Part.TEXT_2)


@dataclass(kw_only=True, eq=False)
class Lease:
    """The adapters of one job: asked for, loaded, and kept until it is given back."""

    wanted: tuple[Adapter, ...] = ()
    entries: tuple[Entry, ...] = ()
    loaded: tuple[Loaded, ...] = ()
    """On the device, in the order of ``wanted``."""
    pinned: bool = False
    ready: bool = False
    error: ServiceError | None = None

    @property
    def stamps(self) -> tuple[Stamp, ...]:
        """The states of its files, each once."""
        return tuple(dict.fromkeys(each.stamp for each in self.entries))

    @property
    def words(self) -> tuple[Word, ...]:
        """The embeddings that its texts name."""
        return tuple(each.word for each in self.loaded if each.word is not None)

    def hashes(self, *, words: bool) -> dict[str, str]:
        """Return the short hashes of its embeddings, or of its adapters, by name."""
        return {each.name: each.short_hash for each in self.loaded if (each.word is None) != words}

    @property
    def denoiser(self) -> Use:
        """What its rows use in the denoiser."""
        return tuple(zip(self.loaded, (each.weight for each in self.wanted), strict=False))

    @property
    def text(self) -> Use:
        """What its texts use in the text encoders, and nothing else."""
        pairs = zip(self.loaded, (each.text_weight for each in self.wanted), strict=False)
        return tuple(
            (each, weight)
            for each, weight in pairs
            if weight and any(each.changes(part) for part in TEXT_PARTS)
        )

    @property
    def text_key(self) -> tuple[tuple[Stamp, float], ...]:
        """What tells its embeddings from those of the same text without it."""
        return tuple((each.stamp, weight) for each, weight in self.text)


class AdapterStore:
    """Loads adapters on a thread of its own; everything else is the step loop's thread.

    On a GPU adapters stay in host memory, too, so that one that was evicted from the GPU comes
    back without its file. Where the model computes on the CPU there is one memory, the host's.
    """

    def __init__(
        self,
        parts: Mapping[str, torch.nn.Module],
        device: torch.device,
        *,
        catalog: AdapterCatalog | None = None,
        family: str = "",
        memory: AdapterMemory | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._catalog, self._family = catalog, family
        self._modules = Modules(parts)
        self._rows = {part: RowAdapters(self._modules, part) for part in self._modules.parts}
        self._device = device
        self.memory = memory or memory_of(host_budget=2 * GIB, device_budget=GIB)
        self._host, self._cache = self.memory.host, self.memory.next_to(device)
        self._owner = Owner(self._forget_stacks)
        self._loads: dict[Stamp, Future[Loaded]] = {}
        self._waiting: list[Lease] = []
        self._thread: ThreadPoolExecutor | None = None
        self._clock = clock
        self._lock = threading.Lock()
        self._seconds: list[float] = []
        """Of each load since the last report; the thread writes it."""
        self._failures = 0
        self._evicted = 0
        """Evictions that were reported."""

    def news(self) -> AdaptersChanged | None:
        """Return what has changed since this was called last; None for nothing."""
        evictions = self._owner.evictions
        with self._lock:
            seconds, self._seconds = tuple(self._seconds), []
        failures, self._failures = self._failures, 0
        evicted, self._evicted = evictions - self._evicted, evictions
        if not (seconds or failures or evicted):
            return None
        return AdaptersChanged(
            load_seconds=seconds, failures=failures, evictions=evicted, held=self.memory.held
        )

    @property
    def waiting(self) -> bool:
        """Whether some job waits for its adapters."""
        return bool(self._waiting)

    @property
    def loading(self) -> bool:
        """Whether a file is being read."""
        return any(not load.done() for load in self._loads.values())

    def ask(
        self, wanted: Sequence[Adapter], texts: Collection[str] = (), *, bare: bool = False
    ) -> Lease:
        """Ask for the adapters of a job; they come by and by, see ``pump``.

        With them come the embeddings that its texts name: with ``bare`` without brackets, too.
        """
        lease = Lease(wanted=tuple(wanted))
        try:
            lease.entries = tuple(self._find(each.name) for each in wanted)
            if self._catalog is not None:
                named = self._catalog.embeddings_in(texts, bare=bare, family=self._family)
                lease.entries += tuple(named)
        except ServiceError as error:
            lease.error = error
            return lease
        lease.ready = not lease.entries
        if lease.ready:
            return lease
        self._waiting.append(lease)
        self.pump()
        return lease

    def give_back(self, lease: Lease) -> None:
        """Let the adapters of a job go; they stay until their memory is needed."""
        if lease in self._waiting:
            self._wait_no_more(lease)
        if lease.pinned:
            self._cache.unpin(self._keys(lease))
            lease.pinned = False
        lease.loaded, lease.ready = (), False

    def pump(self) -> None:
        """Take in what was loaded, and load what is asked for, as far as there is room."""
        short = self._cache.first not in {None, self._owner}
        for lease in list(self._waiting):
            missing = [s for s in lease.stamps if self._cache.get((self._owner, s)) is None]
            if not missing and not short:
                self._admit(lease)
                continue
            found = [done for s in missing if (done := self._taken(lease, s)) is not None]
            if lease.error is not None:
                self._wait_no_more(lease)
                continue
            if short or len(found) < len(missing):
                continue
            size = sum(each.size for each in found)
            if not self._cache.make_room(size, keep=self._keys(lease)):
                self._demand_possible(lease, found)
                # Nobody overtakes it now, or it would never have room.
                short = lease.error is None
                if short:
                    self._cache.first = self._owner
                continue
            self._forget_stacks()
            for each in found:
                there = each.to(self._device) if self._cache is not self._host else each
                self._cache.put(self._owner, there)
                self._loads.pop(each.stamp, None)
            self._admit(lease)
        self._drop_unwanted()

    def rest(self, seconds: float) -> None:
        """Wait for a load to end, with nothing else to do."""
        loads = [load for load in self._loads.values() if not load.done()]
        wait(loads, timeout=seconds, return_when=FIRST_COMPLETED)

    def release_memory(self) -> None:
        """Evict what no job of any model uses, because memory ran out."""
        self._cache.evict_unused()
        self._forget_stacks()

    def leave_device(self) -> None:
        """Evict what was read for this model, which leaves the device."""
        self._cache.evict_unused(self._owner)
        self._forget_stacks()

    def close(self) -> None:
        """Let everything go: the model is no more."""
        for cache in {self._host, self._cache}:
            cache.drop(self._owner)
        self._forget_stacks()

    @contextmanager
    def on_rows(self, rows: Sequence[Use]) -> Iterator[None]:
        """Change the denoiser for one call with these rows."""
        with self._rows[Part.UNET].applied(rows) if any(rows) else ExitStack():
            yield

    @contextmanager
    def on_texts(self, lease: Lease) -> Iterator[None]:
        """Change the text encoders for a job's texts."""
        with ExitStack() as changed:
            for part in TEXT_PARTS if lease.text else ():
                if part in self._rows:
                    changed.enter_context(self._rows[part].applied([lease.text]))
            yield

    def _find(self, name: str) -> Entry:
        if self._catalog is None:
            raise AdapterUnsuitable(f"There is no adapter {name!r}: no folder of adapters is set.")
        return self._catalog.find(name, self._family)

    def _admit(self, lease: Lease) -> None:
        held = {stamp: self._cache.get((self._owner, stamp)) for stamp in lease.stamps}
        lease.loaded = tuple(found for e in lease.entries if (found := held[e.stamp]) is not None)
        self._cache.pin(self._keys(lease))
        lease.pinned = lease.ready = True
        self._wait_no_more(lease)

    def _keys(self, lease: Lease) -> list[Key]:
        return [(self._owner, stamp) for stamp in lease.stamps]

    def _wait_no_more(self, lease: Lease) -> None:
        """Take a job out of those that wait; other models may go on if it was the one to wait for.

        Whoever has no room says so again.
        """
        self._waiting.remove(lease)
        if self._cache.first is self._owner:
            self._cache.first = None

    def _taken(self, lease: Lease, stamp: Stamp) -> Loaded | None:
        """Return an adapter in host memory, or begin to load it; None while it is on its way."""
        if self._host is not self._cache and (kept := self._kept(stamp)) is not None:
            return kept
        if stamp not in self._loads:
            entry = next(each for each in lease.entries if each.stamp == stamp)
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="adapters")
            self._loads[stamp] = self._thread.submit(self._load, entry)
            return None
        load = self._loads[stamp]
        if not load.done():
            return None
        if (error := load.exception()) is not None:
            del self._loads[stamp]
            self._failures += 1
            reason = error if isinstance(error, ServiceError) else _unforeseen(stamp, error)
            lease.error = reason
            return None
        loaded = load.result()
        if self._host is not self._cache and self._host.make_room(loaded.size):
            self._host.put(self._owner, loaded)
        return loaded

    def _kept(self, stamp: Stamp) -> Loaded | None:
        return self._host.get((self._owner, stamp))

    def _load(self, entry: Entry) -> Loaded:
        """Read an adapter, on the thread."""
        started = self._clock()
        loaded = read(entry, self._modules)
        hashes = self._catalog.hashes(entry) if self._catalog is not None else None
        loaded = replace(loaded, short_hash=hashes.short if hashes else "")
        seconds = self._clock() - started
        facts = {"bytes": loaded.size, "seconds": round(seconds, 3)}
        log.info("adapter_loaded", adapter=entry.name, **facts)
        with self._lock:
            self._seconds.append(seconds)
        return loaded

    def _demand_possible(self, lease: Lease, missing: Sequence[Loaded]) -> None:
        """Fail a job whose adapters alone are more than the budget."""
        held = [self._cache.get(key) for key in self._keys(lease)]
        size = sum(each.size for each in (*held, *missing) if each is not None)
        if size > self._cache.budget:
            setting = "LORA_HOST_GB" if self._cache is self._host else "LORA_GPU_GB"
            lease.error = AdapterUnsuitable(
                f"The adapters take {size / GIB:.2f} GB, and {setting} allows "
                f"{self._cache.budget / GIB:.2f} GB. Use fewer of them, or raise it."
            )
            self._wait_no_more(lease)

    def _drop_unwanted(self) -> None:
        """Let go of what was loaded for jobs that are gone."""
        wanted = {stamp for lease in self._waiting for stamp in lease.stamps}
        for stamp in [s for s, load in self._loads.items() if s not in wanted and load.done()]:
            load = self._loads.pop(stamp)
            if load.exception() is None and self._host.make_room(load.result().size):
                self._host.put(self._owner, load.result())

    def _forget_stacks(self) -> None:
        for rows in self._rows.values():
            rows.forget()


def _unforeseen(stamp: Stamp, error: BaseException) -> AdapterUnsuitable:
    log.error("adapter_failed", adapter=stamp.path.stem, error=f"{type(error).__name__}: {error}")
    return AdapterUnsuitable(
        f"{stamp.path.name} cannot be loaded ({type(error).__name__}). Use another copy of it."
    )


def store_of(model: Any, **settings: Any) -> AdapterStore:
    """Return the store of a loaded model."""
    parts = model.family.networks
    family = model.info.adapters or model.info.family
    return AdapterStore(parts, model.device, family=family, **settings)
