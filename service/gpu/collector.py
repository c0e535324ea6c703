"""The series of the GPUs, as the sampler last saw them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.registry import Collector

from service.gpu.nvml import GpuReading
from service.gpu.sampler import GpuSampler
from service.gpu.state import GpuState
from service.telemetry.definitions import GPU, Family, Values

HERE: Final[tuple[str, ...]] = ()


class GpuCollector(Collector):
    """Shows at each scrape what the sampler has; it never asks the driver itself."""

    def __init__(self, sampler: GpuSampler) -> None:
        self._sampler = sampler

    def describe(self) -> Iterable[Family]:
        """Return every family there can be, so that a second one of the name is refused."""
        return [definition.family({}) for definition in GPU]

    def collect(self) -> Iterator[Family]:
        """Return the families that have a value now."""
        found = values(self._sampler.states, self._sampler.duration)
        for definition in GPU:
            filled = definition.family(found.get(definition.name, {}))
            if filled.samples:
                yield filled


def values(states: Sequence[GpuState], duration: float | None) -> dict[str, Values]:
    """Return what is known, by the name of the family; a GPU that is named twice shows once."""
    found = _collector(states, duration)
    for state in states:
        for name, figures in _of_gpu(state).items():
            found[name] = {**found.get(name, {}), **figures}
    return found


def _collector(states: Sequence[GpuState], duration: float | None) -> dict[str, Values]:
    """Return how reading goes; of several GPUs, for the worst of them."""
    known = [state for state in states if state.up is not None]
    if not known:
        return {}
    times = [state.succeeded_at for state in known if state.succeeded_at is not None]
    return {
        "sd_gpu_collector_up": {HERE: all(state.up for state in known)},
        "sd_gpu_collector_last_success_timestamp_seconds": {HERE: min(times, default=None)},
        "sd_gpu_collector_duration_seconds": {HERE: duration if times else None},
    }


def _of_gpu(state: GpuState) -> dict[str, Values]:
    found: dict[str, Values] = {}
    if state.up is not None and state.uuid is not None:
        found["sd_gpu_lost"] = {(state.uuid,): state.lost}
        if state.xids is not None:
            found["sd_gpu_xid_errors_total"] = _by(state.uuid, state.xids)
            found["sd_gpu_xid_last_timestamp_seconds"] = {(state.uuid,): state.xid_at}
    return found if state.reading is None else found | _figures(state.reading)


def _figures(reading: GpuReading) -> dict[str, Values]:
    single = {
        "sd_gpu_memory_used_bytes": reading.memory_used,
        "sd_gpu_memory_total_bytes": reading.memory_total,
        "sd_gpu_utilization_ratio": reading.utilization,
        "sd_gpu_memory_utilization_ratio": reading.memory_utilization,
        "sd_gpu_temperature_celsius": reading.temperature,
        "sd_gpu_temperature_slowdown_celsius": reading.temperature_slowdown,
        "sd_gpu_power_watts": reading.power,
        "sd_gpu_power_limit_watts": reading.power_limit,
        "sd_gpu_energy_joules_total": reading.energy,
    }
    return {
        "sd_gpu_info": {(reading.uuid, reading.name, reading.driver): 1},
        **{name: {(reading.uuid,): value} for name, value in single.items()},
        "sd_gpu_clock_hertz": _by(reading.uuid, reading.clocks),
        "sd_gpu_throttled": _by(reading.uuid, reading.throttled),
        "sd_gpu_ecc_errors_total": _by(reading.uuid, reading.ecc_errors),
    }


def _by(uuid: str, figures: Mapping[str, float]) -> Values:
    return {(uuid, key): value for key, value in figures.items()}
