"""Every metric of the service: all names, labels and buckets in one place."""

from collections.abc import Iterable, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service import __version__
from service.telemetry.definitions import DISK, GPU, Definition, define
from service.telemetry.labels import (
    ANONYMOUS,
    BATCH_SIZES,
    COMMIT_SECONDS,
    FAILURES,
    GPU_USES,
    IMAGES,
    OCCUPANCY,
    OOM_RUNGS,
    OOM_STAGES,
    OTHER_KEY,
    OUTCOMES,
    PIXELS,
    REFUSALS,
    RESTART_REASONS,
    SECONDS,
    SIZES,
    STAGE_SECONDS,
    STAGES,
    STEP_SECONDS,
    STEPS,
    STORE_FAILURES,
    WAIT_SECONDS,
)

Pairs = Sequence[tuple[str, ...]]


class Reading(Gauge):
    """A gauge that has no series until it is set, and none after it is forgotten."""

    _known = False

    def set(self, value: float) -> None:
        """Show a value."""
        self._known = True
        super().set(value)

    def forget(self) -> None:
        """Show none: what it was read from is gone."""
        self._known = False

    def collect(self) -> Iterable[Metric]:
        """Return the family, empty while nothing is known."""
        return super().collect() if self._known else []


class Metrics:
    """The service's metrics in a registry of their own.

    Label sets that are known beforehand start at 0: an ``increase()`` over a series
    that is born with its first event never sees that event.
    """

    def __init__(self) -> None:
        # A birth date beside every series: a third of the scrape, which nothing here reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.definitions: list[Definition] = [*GPU, *DISK]
        self._http()
        self._jobs()
        self._generation()
        self._work()
        self._kept()
        self._keys()
        self._memory()
        self._engine()
        # process_* as Prometheus names them everywhere: resident memory, CPU, start time.
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def watch(self, collector: Collector) -> None:
        """Show what ``collector`` gives at every scrape; its names stand in this file."""
        self.registry.register(collector)

    def _http(self) -> None:
        self.http_requests = self._counter(
            "sd_http_requests_total",
            "Answers by route template.",
            ("route", "method", "status"),
        )
        self.http_duration = self._histogram(
            "sd_http_request_duration_seconds", "Time to answer.", SECONDS, ("route", "method")
        )
        self.http_in_flight = self._gauge(
            "sd_http_requests_in_flight", "Requests being answered now."
        )
        self.answers_failed = self._counter(
            "sd_answers_failed_total", "Answers that failed after their job had succeeded."
        )
        self.refused = self._counter(
            "sd_requests_refused_total",
            "Requests refused at the door, by reason.",
            ("reason",),
            _each(REFUSALS),
        )

    def _jobs(self) -> None:
        self.accepted = self._counter(
            "sd_jobs_accepted_total", "Jobs taken into the queue, by sampler.", ("sampler",)
        )
        self.queue_depth = self._gauge("sd_queue_depth", "Jobs waiting.")
        self.queue_limit = self._gauge("sd_queue_limit", "Jobs that may wait.")
        self.queue_oldest = self._gauge(
            "sd_queue_oldest_job_age_seconds", "Age of the oldest waiting job; 0 when none waits."
        )
        self.queue_wait = self._histogram(
            "sd_queue_wait_seconds", "Time from acceptance to the first batch.", WAIT_SECONDS
        )
        self.jobs_running = self._gauge("sd_jobs_running", "Jobs in the engine.")
        self.jobs = self._counter(
            "sd_jobs_total",
            "Jobs that ended, by outcome; code says why they failed, and is empty else.",
            ("outcome", "code"),
            [(outcome, "") for outcome in OUTCOMES if outcome != "failed"]
            + [("failed", code) for code in FAILURES],
        )
        self.job_duration = self._histogram(
            "sd_job_duration_seconds",
            "Time from acceptance to the end, by outcome.",
            SECONDS,
            ("outcome",),
            _each(OUTCOMES),
        )
        self.job_finished_at = self._gauge(
            "sd_job_last_finished_timestamp_seconds", "When a job last ended; 0 for never."
        )

    def _generation(self) -> None:
        self.generation_duration = self._histogram(
            "sd_generation_duration_seconds",
            "Time from the first batch to the finished pictures of a job, by size class.",
            SECONDS,
            ("size_class",),
            SIZES,
        )
        self.stage_duration = self._histogram(
            "sd_stage_duration_seconds",
            "Time of one job in one stage.",
            STAGE_SECONDS,
            ("stage",),
            _each(STAGES),
        )
        self.step_duration = self._histogram(
            "sd_step_duration_seconds",
            "Time of one denoising step of one batch, by size class.",
            STEP_SECONDS,
            ("size_class",),
            SIZES,
        )
        self.batch_size = self._histogram(
            "sd_batch_size",
            "Pictures in one denoising step, by size class.",
            BATCH_SIZES,
            ("size_class",),
            SIZES,
        )
        self.batch_occupancy = self._histogram(
            "sd_batch_occupancy_ratio",
            "Pictures in one denoising step, as a share of the cap.",
            OCCUPANCY,
        )
        self.batch_live = self._gauge(
            "sd_batch_live_images", "Pictures in the latest denoising step; 0 when idle."
        )
        self.batch_limit = self._gauge(
            "sd_batch_limit", "Most pictures in one denoising step, as configured."
        )
        self.batch_calibrated = self._reading(
            "sd_batch_calibrated",
            "Largest batch that gained speed when measured at start; absent if not measured.",
        )

    def _work(self) -> None:
        self.images = self._counter("sd_images_total", "Pictures finished.")
        self.steps = self._counter("sd_steps_total", "Denoising steps done, summed over pictures.")
        self.pixels = self._counter("sd_pixels_total", "Pixels of the finished pictures.")
        self.job_images = self._histogram("sd_job_images", "Pictures asked for in a job.", IMAGES)
        self.job_steps = self._histogram("sd_job_steps", "Steps asked for in a job.", STEPS)
        self.job_pixels = self._histogram(
            "sd_job_pixels", "Pixels asked for in each picture of a job.", PIXELS
        )
        self.gpu_seconds = self._counter(
            "sd_gpu_seconds_total",
            "Time of the device that computes, by what became of the work.",
            ("use",),
            _each(GPU_USES),
        )

    def _kept(self) -> None:
        self.store_commit = self._histogram(
            "sd_store_commit_duration_seconds",
            "Time until a change is in the job store, its wait in line included.",
            COMMIT_SECONDS,
        )
        self.store_failures = self._counter(
            "sd_store_failures_total",
            "Times the job store could not be used, by what was wrong.",
            ("reason",),
            _each(STORE_FAILURES),
        )
        self.jobs_kept = self._gauge(
            "sd_jobs_kept", "Jobs on the disk, by state; absent where none are kept.", ("state",)
        )
        self.results_bytes = self._reading(
            "sd_results_bytes", "Size of the finished pictures that are kept."
        )
        self.results_limit = self._reading(
            "sd_results_limit_bytes", "Size from which on the oldest pictures make room."
        )
        self.results_removed = self._counter(
            "sd_results_removed_bytes_total",
            "Size of finished pictures that were removed, by age or to make room.",
            ("reason",),
            _each(("age", "room")),
        )
        self.webhook_attempts = self._counter(
            "sd_webhook_attempts_total",
            "Attempts to deliver a webhook: delivered, retried later, or failed for good.",
            ("outcome",),
            _each(("delivered", "retried", "failed")),
        )
        self.webhooks_pending = self._reading(
            "sd_webhooks_pending", "Webhooks of jobs that are over, and not delivered yet."
        )
        self.webhook_oldest = self._reading(
            "sd_webhook_oldest_pending_age_seconds",
            "Time since the end of the job whose webhook waits longest; 0 when none waits.",
        )

    def _keys(self) -> None:
        self.key_jobs = self._counter(
            "sd_key_jobs_total",
            "Jobs that ended, by the name of their key and outcome.",
            ("key", "outcome"),
        )
        self.key_images = self._counter(
            "sd_key_images_total", "Pictures finished, by the name of their key.", ("key",)
        )
        self.key_gpu_seconds = self._counter(
            "sd_key_gpu_seconds_total",
            "Time of the device that computes, by the name of the key it worked for.",
            ("key",),
        )
        self._known_keys: tuple[str, ...] = ()
        self.know_keys((ANONYMOUS,))

    def know_keys(self, names: tuple[str, ...]) -> None:
        """Count for these keys from 0; series of keys that are gone go, too."""
        for name in {*self._known_keys} - {*names}:
            for outcome in OUTCOMES:
                self.key_jobs.remove(name, outcome)
            self.key_images.remove(name)
            self.key_gpu_seconds.remove(name)
        self._known_keys = names
        for name in (*names, OTHER_KEY):
            for outcome in OUTCOMES:
                self.key_jobs.labels(name, outcome)
            self.key_images.labels(name)
            self.key_gpu_seconds.labels(name)

    def key(self, name: str) -> str:
        """Return the label of a key: its name, as long as it is in force."""
        return name if name in self._known_keys else OTHER_KEY

    def _memory(self) -> None:
        self.memory = self._gauge(
            "sd_engine_gpu_memory_bytes",
            "GPU memory of the engine by kind (allocated, reserved, peak); absent on a CPU.",
            ("kind",),
        )
        self.engine_resident = self._reading(
            "sd_engine_resident_memory_bytes", "Host memory of the engine process."
        )
        self.memory_available = self._reading(
            "sd_memory_available_bytes",
            "Memory that pictures may take beside the model; without a GPU the host's.",
        )
        self.memory_need = self._gauge(
            "sd_memory_need_bytes",
            "Memory that a picture of DEFAULT_SIZE takes by stage, as far as was measured.",
            ("stage",),
        )
        self.out_of_memory = self._counter(
            "sd_oom_total",
            "Times memory ran out, by the stage it ran out in and what was done about it.",
            ("stage", "rung"),
            [(stage, rung) for stage in OOM_STAGES for rung in OOM_RUNGS],
        )
        self.out_of_memory_at = self._gauge(
            "sd_oom_last_timestamp_seconds", "When memory last ran out; 0 for never."
        )

    def _engine(self) -> None:
        self.ready = self._gauge("sd_ready", "1 while new work is taken and can be worked on.")
        self.engine_state = self._gauge(
            "sd_engine_state", "1 for the state the engine is in.", ("state",)
        )
        self.engine_restarts = self._counter(
            "sd_engine_restarts_total",
            "Times the engine process ended by itself and was started again, by reason.",
            ("reason",),
            _each(RESTART_REASONS),
        )
        self.heartbeat_age = self._gauge(
            "sd_engine_heartbeat_age_seconds",
            "Silence of an engine that loads or has work; 0 when it may be silent.",
        )
        self.engine_stepped_at = self._gauge(
            "sd_engine_last_step_timestamp_seconds", "When a step last ended; 0 for never."
        )
        self.model_load = self._reading(
            "sd_model_load_duration_seconds", "Time the loaded model took to load."
        )
        self.model_info = self._gauge(
            "sd_model_info", "1 for the model in use.", ("model_id", "version", "device", "dtype")
        )
        self._gauge("sd_build_info", "1 for this build.", ("version",)).labels(__version__).set(1)

    def _counter(
        self, name: str, text: str, labels: tuple[str, ...] = (), known: Pairs = ()
    ) -> Counter:
        self.definitions.append(define(name, "counter", text, *labels))
        counter = Counter(name.removesuffix("_total"), text, labels, registry=self.registry)
        for values in known:
            counter.labels(*values)
        return counter

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        self.definitions.append(define(name, "gauge", text, *labels))
        return Gauge(name, text, labels, registry=self.registry)

    def _reading(self, name: str, text: str) -> Reading:
        self.definitions.append(define(name, "gauge", text))
        return Reading(name, text, registry=self.registry)

    def _histogram(
        self,
        name: str,
        text: str,
        buckets: tuple[float, ...],
        labels: tuple[str, ...] = (),
        known: Pairs = (),
    ) -> Histogram:
        self.definitions.append(define(name, "histogram", text, *labels))
        histogram = Histogram(name, text, labels, buckets=buckets, registry=self.registry)
        for values in known:
            histogram.labels(*values)
        return histogram


def _each(values: Iterable[str]) -> Pairs:
    return [(value,) for value in values]
