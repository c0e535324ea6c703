"""Every metric of the service: all names, labels and buckets in one place."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service import __version__
from service.telemetry.gpu import GpuSampler

SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 20, 30, 45, 60, 120, 300)
WAIT_SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
STEP_SECONDS: Final = (0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.25, 0.5, 0.75, 1, 2, 5, 10)
BATCH_SIZES: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)

OUTCOMES: Final = ("succeeded", "failed", "timed_out", "client_gone", "cancelled")
REFUSALS: Final = ("validation", "queue_full", "shutting_down", "model_unavailable")
STAGES: Final = ("text_encode", "denoise", "decode", "png_encode")
OOM_STAGES: Final = ("text_encode", "denoise", "decode")


class Metrics:
    """The service's metrics in a registry of their own.

    Label sets that are known beforehand start at 0: an ``increase()`` over a series
    that is born with its first event never sees that event.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._http()
        self._jobs()
        self._generation()
        self._engine()

    def _http(self) -> None:
        self.http_requests = self._counter(
            "sd_http_requests", "Answers by route template.", ["route", "method", "status"]
        )
        self.http_duration = self._histogram(
            "sd_http_request_duration_seconds", "Time to answer.", SECONDS, ["route", "method"]
        )
        self.http_in_flight = self._gauge(
            "sd_http_requests_in_flight", "Requests being answered now."
        )
        self.refused = self._counter(
            "sd_requests_refused", "Requests refused at the door, by reason.", ["reason"]
        )
        for reason in REFUSALS:
            self.refused.labels(reason)

    def _jobs(self) -> None:
        self.queue_depth = self._gauge("sd_queue_depth", "Jobs waiting.")
        self.queue_limit = self._gauge("sd_queue_limit", "Jobs that may wait.")
        self.queue_wait = self._histogram(
            "sd_queue_wait_seconds", "Time from acceptance to the first batch.", WAIT_SECONDS
        )
        self.jobs_running = self._gauge("sd_jobs_running", "Jobs in the engine.")
        self.jobs = self._counter("sd_jobs", "Jobs that ended, by outcome.", ["outcome"])
        for outcome in OUTCOMES:
            self.jobs.labels(outcome)
        self.job_duration = self._histogram(
            "sd_job_duration_seconds", "Time from acceptance to the end.", SECONDS
        )

    def _generation(self) -> None:
        self.stage_duration = self._histogram(
            "sd_stage_duration_seconds", "Time of one job in one stage.", SECONDS, ["stage"]
        )
        for stage in STAGES:
            self.stage_duration.labels(stage)
        self.step_duration = self._histogram(
            "sd_step_duration_seconds", "Time of one denoising step of one batch.", STEP_SECONDS
        )
        self.batch_size = self._histogram(
            "sd_batch_size", "Pictures in one denoising step.", BATCH_SIZES
        )
        self.batch_limit = self._gauge("sd_batch_limit", "Most pictures in one denoising step.")
        self.steps = self._counter("sd_steps", "Denoising steps done, summed over pictures.")
        self.images = self._counter("sd_images", "Pictures finished.")
        self.pixels = self._counter("sd_pixels", "Pixels of the finished pictures.")

    def _engine(self) -> None:
        self.engine_ready = self._gauge("sd_engine_ready", "1 while the model can be used.")
        self.engine_restarts = self._counter(
            "sd_engine_restarts", "Times the engine process ended by itself and was started again."
        )
        self.out_of_memory = self._counter(
            "sd_oom", "Times memory ran out, by the stage it ran out in.", ["stage"]
        )
        for stage in OOM_STAGES:
            self.out_of_memory.labels(stage)
        self.model_load = self._gauge(
            "sd_model_load_duration_seconds", "Time the loaded model took to load."
        )
        self.model_info = self._gauge(
            "sd_model_info", "1 for the model in use.", ["model_id", "version", "device", "dtype"]
        )
        self.memory = self._gauge(
            "sd_engine_memory_bytes", "Memory of the engine process, by kind.", ["kind"]
        )
        self._gauge("sd_build_info", "1 for this build.", ["version"]).labels(__version__).set(1)

    def watch_gpu(self, sampler: GpuSampler) -> None:
        """Show what ``sampler`` last read: no series without a GPU, never a 0 in its place."""
        self.registry.register(GpuCollector(sampler))

    def _counter(self, name: str, text: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], labels: Iterable[str] = ()
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)


class GpuCollector(Collector):
    """The latest reading of the GPU; a scrape never waits for the driver."""

    def __init__(self, sampler: GpuSampler) -> None:
        self._sampler = sampler

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return each figure that the GPU gives."""
        used = GaugeMetricFamily(
            "sd_gpu_memory_used_bytes",
            "Memory in use on the GPU, by everything that runs there.",
            labels=["gpu", "name"],
        )
        total = GaugeMetricFamily(
            "sd_gpu_memory_total_bytes", "Memory of the GPU.", labels=["gpu", "name"]
        )
        if (reading := self._sampler.reading) is not None:
            for family, value in ((used, reading.memory_used), (total, reading.memory_total)):
                if value is not None:
                    family.add_metric([reading.uuid, reading.name], value)
        return used, total
