"""Metrics of one engine: each has the label ``engine``, bound to the name of its slot."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any, Final

from service.core.capacity import AdapterPlace
from service.core.stage import LOOP_STAGES, OomRung
from service.telemetry import labels
from service.telemetry.registry import Family, Reading, Registry

MEMORY_KINDS: Final = ("allocated", "reserved", "peak")


class EngineMetrics:
    """Metrics of one engine, from 0 for every label set that is known beforehand.

    A metric with further labels is a function of their values; it remembers what it returned,
    so that no step looks up a label.
    """

    def __init__(self, registry: Registry, name: str) -> None:
        self.name = name
        self._registry = registry
        self._steps()
        self._work()
        self._memory()
        self._adapters()
        self._models()
        self._process()

    def _steps(self) -> None:
        gauge, histogram = self._registry.gauge, self._registry.histogram
        self.step_duration = self._by(
            histogram,
            "sd_step_duration_seconds",
            "Time of one denoising step of one batch, by size class.",
            labels.STEP_SECONDS,
            size_class=labels.SIZES,
        )
        self.batch_size = self._by(
            histogram,
            "sd_batch_size",
            "Images in one denoising step, by size class.",
            labels.BATCH_SIZES,
            size_class=labels.SIZES,
        )
        self.batch_occupancy = self._one(
            histogram,
            "sd_batch_occupancy_ratio",
            "Images in one denoising step, as a share of the cap.",
            labels.OCCUPANCY,
        )
        self.batch_live = self._one(
            gauge, "sd_batch_live_images", "Images in the latest denoising step; 0 when idle."
        )
        self.batch_limit = self._one(
            gauge, "sd_batch_limit", "Most images in one denoising step, as configured."
        )
        self.batch_calibrated = self._one(
            self._registry.reading,
            "sd_batch_calibrated",
            "Largest batch that gained speed when measured at start; absent if not measured.",
        )
        self.stepped_at = self._one(
            gauge, "sd_engine_last_step_timestamp_seconds", "When a step last ended; 0 for never."
        )

    def _work(self) -> None:
        counter, histogram = self._registry.counter, self._registry.histogram
        self.jobs_running = self._one(
            self._registry.gauge, "sd_jobs_running", "Jobs in the engine."
        )
        self.generation_duration = self._by(
            histogram,
            "sd_generation_duration_seconds",
            "Time from the first batch to the finished images of a job, by size class.",
            labels.SECONDS,
            size_class=labels.SIZES,
        )
        self.stage_duration = self._by(
            histogram,
            "sd_stage_duration_seconds",
            "Time of one job in one stage.",
            labels.STAGE_SECONDS,
            stage=labels.STAGES,
        )
        self.images = self._one(counter, "sd_images_total", "Images finished.")
        self.steps = self._one(
            counter, "sd_steps_total", "Denoising steps done, summed over images."
        )
        self.pixels = self._one(counter, "sd_pixels_total", "Pixels of the finished images.")
        self.gpu_seconds = self._by(
            counter,
            "sd_gpu_seconds_total",
            "Time of the device that computes, by what became of the work.",
            use=labels.GPU_USES,
        )

    def _memory(self) -> None:
        reading = self._registry.reading
        self.memory = self._by(
            reading,
            "sd_engine_gpu_memory_bytes",
            "GPU memory of the engine by kind (allocated, reserved, peak); absent on a CPU.",
            kind=MEMORY_KINDS,
        )
        self.resident = self._one(
            reading, "sd_engine_resident_memory_bytes", "Host memory of the engine process."
        )
        self.memory_available = self._one(
            reading,
            "sd_memory_available_bytes",
            "Memory that images may take next to the model; without a GPU the host's.",
        )
        self.memory_need = self._by(
            reading,
            "sd_memory_need_bytes",
            "Memory that an image of the default size takes by stage, as far as was measured.",
            stage=LOOP_STAGES,
        )
        self.out_of_memory = self._by(
            self._registry.counter,
            "sd_oom_total",
            "Times memory ran out, by the stage it ran out in and what was done about it.",
            stage=LOOP_STAGES,
            rung=tuple(OomRung),
        )
        self.out_of_memory_at = self._one(
            self._registry.gauge,
            "sd_oom_last_timestamp_seconds",
            "When memory last ran out; 0 for never.",
        )

    def _adapters(self) -> None:
        counter = self._registry.counter
        self.adapter_loads = self._by(
            counter,
            "sd_adapter_loads_total",
            "Adapters (LoRA files, embeddings) read from the disk, by whether they can be used.",
            outcome=labels.ADAPTER_OUTCOMES,
        )
        self.adapter_load = self._one(
            self._registry.histogram,
            "sd_adapter_load_seconds",
            "Time an adapter took to be read from the disk.",
            labels.STAGE_SECONDS,
        )
        self.adapter_evictions = self._one(
            counter,
            "sd_adapter_evictions_total",
            "Adapters dropped from memory to make room for others.",
        )
        self.adapter_bytes = self._by(
            self._registry.gauge,
            "sd_adapter_bytes",
            "Memory that adapters take, by where it is.",
            place=tuple(AdapterPlace),
        )

    def _models(self) -> None:
        self.model_loads = self._by(
            self._registry.counter,
            "sd_model_loads_total",
            "Models loaded on demand, by where they came from, or failed.",
            model_id=(),
            outcome=labels.MODEL_OUTCOMES,
        )
        self.model_load_seconds = self._by(
            self._registry.histogram,
            "sd_model_load_seconds",
            "Time a model took to load on demand.",
            labels.SECONDS,
            model_id=(),
        )
        self._model_bytes = self._by(
            self._registry.gauge,
            "sd_model_resident_bytes",
            "Memory that each model takes, by where it is.",
            model_id=(),
            place=tuple(AdapterPlace),
        )
        self._known_models: tuple[str, ...] = ()

    def know_models(self, names: tuple[str, ...]) -> None:
        """Count for these models from 0."""
        self._known_models = names
        for name in names:
            for outcome in labels.MODEL_OUTCOMES:
                self.model_loads(name, outcome)
            self.model_load_seconds(name)
            for place in AdapterPlace:
                self._model_bytes(name, place)

    def show_resident(self, place: AdapterPlace, sizes: Mapping[str, int]) -> None:
        """Show the bytes of the models in a memory, and 0 for those that are not in it."""
        for name in self._known_models:
            self._model_bytes(name, place).set(sizes.get(name, 0))

    def _process(self) -> None:
        gauge = self._registry.gauge
        self.state = self._by(
            gauge,
            "sd_engine_state",
            "1 for the state the engine is in.",
            state=labels.ENGINE_STATES,
        )
        self.restarts = self._by(
            self._registry.counter,
            "sd_engine_restarts_total",
            "Times the engine process ended by itself and was started again, by reason.",
            reason=labels.RESTART_REASONS,
        )
        self.heartbeat_age = self._one(
            gauge,
            "sd_engine_heartbeat_age_seconds",
            "Silence of an engine that loads or has work; 0 when it may be silent.",
        )
        self.model_load = self._one(
            self._registry.reading,
            "sd_model_load_duration_seconds",
            "Time the loaded model took to load.",
        )
        self._model = gauge(
            "sd_model_info",
            "1 for the model in use.",
            **dict.fromkeys(("engine", "model_id", "version", "device", "dtype"), ()),
        )
        self._gpu = gauge(
            "sd_engine_gpu_info", "1 for the GPU of the engine; absent on a CPU.", engine=(), gpu=()
        )

    def show_model(self, *values: str, gpu: str) -> None:
        """Show the model in use by its id, version, device and dtype, and its GPU; no other."""
        for info in (self._model, self._gpu):
            info.remove_by_labels({"engine": self.name})
        self._model.labels(self.name, *values).set(1)
        if gpu:
            self._gpu.labels(self.name, gpu).set(1)

    def forget(self) -> None:
        """Show nothing any more that was read from a process which ended."""
        readings: tuple[Reading, ...] = (
            *(self.resident, self.memory_available, self.batch_calibrated),
            *map(self.memory, MEMORY_KINDS),
            *map(self.memory_need, LOOP_STAGES),
        )
        for reading in readings:
            reading.forget()
        for place in AdapterPlace:
            self.adapter_bytes(place).set(0)
            self.show_resident(place, {})

    def leave(self) -> None:
        """Show an engine that is not there: it is in no state, and has nothing.

        What was counted stays, for the next one in its slot.
        """
        self.forget()
        self.heartbeat_age.set_function(lambda: 0.0)
        for gauge in (self.jobs_running, self.batch_live, self.batch_limit):
            gauge.set(0)
        for state in labels.ENGINE_STATES:
            self.state(state).set(0)
        self.model_load.forget()
        for info in (self._model, self._gpu):
            info.remove_by_labels({"engine": self.name})

    def _one(self, build: Callable[..., Family], *definition: Any) -> Family:
        return build(*definition, engine=(self.name,)).labels(self.name)

    def _by(
        self, build: Callable[..., Family], *definition: Any, **values: Iterable[str]
    ) -> Callable[..., Family]:
        return cache(partial(build(*definition, engine=(self.name,), **values).labels, self.name))
