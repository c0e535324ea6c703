"""Metrics of the service, except those that every engine has."""

from functools import partial
from itertools import product

from service import __version__
from service.core.outcome import Outcome
from service.system.executors import EXECUTORS
from service.telemetry import labels
from service.telemetry.engine import EngineMetrics
from service.telemetry.registry import Registry


class Metrics(Registry):
    """The service's metrics."""

    def __init__(self) -> None:
        super().__init__()
        self._http()
        self._jobs()
        self._work()
        self._kept()
        self._keys()
        self._state()
        self._threads()
        self._engines: dict[str, EngineMetrics] = {}
        self._models: tuple[str, ...] = ()
        self.know_engine(labels.FIRST_ENGINE)

    def know_engine(self, name: str) -> EngineMetrics:
        """Count for the engine slot of this name, from 0 when it is first made known."""
        if name not in self._engines:
            self._engines[name] = EngineMetrics(self, name)
            self._engines[name].know_models(self._models)
        return self._engines[name]

    def know_models(self, names: tuple[str, ...]) -> None:
        """Count for the models of these names from 0."""
        self._models = names
        for name in names:
            self.model_wait.labels(name)
        for engine in self._engines.values():
            engine.know_models(names)

    def engine(self, name: str) -> EngineMetrics:
        """Return the metrics of an engine that was made known."""
        return self._engines[name]

    def _http(self) -> None:
        self.http_requests = self.counter(
            "sd_http_requests_total",
            "Answers by API and route template.",
            api=labels.APIS,
            route=(),
            method=(),
            status=(),
        )
        self.http_duration = self.histogram(
            "sd_http_request_duration_seconds",
            "Time to answer.",
            labels.SECONDS,
            api=labels.APIS,
            route=(),
            method=(),
        )
        self.http_in_flight = self.gauge(
            "sd_http_requests_in_flight", "Requests being answered now."
        )
        self.connections = self.gauge("sd_connections", "Connections open now.")
        self.connections_limit = self.gauge("sd_connections_limit", "Connections that may be open.")
        self.event_streams = self.gauge("sd_event_streams", "Event streams open now.")
        self.answers_failed = self.counter(
            "sd_answers_failed_total", "Answers that failed after their job had succeeded."
        )
        self.options_held = self.gauge(
            "sd_sdapi_callers_with_options",
            "Callers of the AUTOMATIC1111 API who have set options.",
        )
        self.options_evicted = self.counter(
            "sd_sdapi_options_evicted_total",
            "Callers whose options were dropped to make room for those of another.",
        )
        self.refused = self.counter(
            "sd_requests_refused_total",
            "Requests refused before any work on them, by API and reason.",
            api=labels.APIS,
            reason=labels.REFUSALS,
        )

    def _jobs(self) -> None:
        self.accepted = self.counter(
            "sd_jobs_accepted_total",
            "Jobs taken into the queue, by API and sampler.",
            api=labels.APIS,
            sampler=(),
        )
        self.queue_depth = self.gauge("sd_queue_depth", "Jobs waiting.")
        self.queue_limit = self.gauge("sd_queue_limit", "Jobs that may wait.")
        self.queue_oldest = self.gauge(
            "sd_queue_oldest_job_age_seconds", "Age of the oldest waiting job; 0 when none waits."
        )
        self.queue_wait = self.histogram(
            "sd_queue_wait_seconds", "Time from acceptance to the first batch.", labels.WAIT_SECONDS
        )
        self.model_wait = self.histogram(
            "sd_model_wait_seconds",
            "Time from a job's fair turn until its model was loaded, where it was not.",
            labels.WAIT_SECONDS,
            model_id=(),
        )
        self.jobs = self.counter(
            "sd_jobs_total",
            "Jobs that ended, by API and outcome; code says why they failed, and is empty else.",
            api=labels.APIS,
            outcome=labels.OUTCOMES,
            code=(),
        )
        for api, outcome in product(labels.APIS, labels.OUTCOMES):
            for code in labels.JOB_ERRORS if outcome == Outcome.FAILED else ("",):
                self.jobs.labels(api, outcome, code)
        self.job_duration = self.histogram(
            "sd_job_duration_seconds",
            "Time from acceptance to the end, by API and outcome.",
            labels.SECONDS,
            api=labels.APIS,
            outcome=labels.OUTCOMES,
        )
        self.job_finished_at = self.gauge(
            "sd_job_last_finished_timestamp_seconds", "When a job last ended; 0 for never."
        )

    def _work(self) -> None:
        self.job_images = self.histogram(
            "sd_job_images", "Images asked for in a job.", labels.IMAGES
        )
        self.job_steps = self.histogram("sd_job_steps", "Steps asked for in a job.", labels.STEPS)
        self.job_pixels = self.histogram(
            "sd_job_pixels", "Pixels asked for in each image of a job.", labels.PIXELS
        )

    def _kept(self) -> None:
        self.store_commit = self.histogram(
            "sd_store_commit_duration_seconds",
            "Time until a change is in the job store, its wait in line included.",
            labels.COMMIT_SECONDS,
        )
        self.store_failures = self.counter(
            "sd_store_failures_total",
            "Times the job store could not be used, by what was wrong.",
            reason=labels.STORE_FAILURES,
        )
        self.rows_set_aside = self.reading(
            "sd_store_rows_set_aside",
            "Rows of the job store that no service wrote, set aside in a table of their own.",
        )
        self.results_damaged = self.counter(
            "sd_results_damaged_total",
            "Times a kept image was requested and found damaged.",
        )
        self.jobs_kept = self.gauge(
            "sd_jobs_kept", "Jobs on the disk, by state; absent where none are kept.", state=()
        )
        self.results_bytes = self.reading(
            "sd_results_bytes", "Size of the finished images that are kept."
        )
        self.results_limit = self.reading(
            "sd_results_limit_bytes", "Size above which the oldest images are deleted."
        )
        self.results_removed = self.counter(
            "sd_results_removed_bytes_total",
            "Size of finished images that were removed, by age or to make room.",
            reason=("age", "room"),
        )
        self.inputs_bytes = self.reading(
            "sd_inputs_bytes", "Size of the input images of jobs that are kept on the disk."
        )
        self.uploads = self.counter(
            "sd_uploads_total",
            "Images and bodies with images that were sent, by what became of them.",
            outcome=labels.UPLOADS,
        )
        self.uploads_bytes = self.gauge(
            "sd_uploads_bytes",
            "Size of images on their way in; without DATA_DIR those of jobs, too.",
        )
        self.uploads_limit = self.gauge(
            "sd_uploads_limit_bytes", "Size that images on their way in may have."
        )
        self.webhook_attempts = self.counter(
            "sd_webhook_attempts_total",
            "Attempts to deliver a webhook: delivered, retried later, or failed for good.",
            outcome=("delivered", "retried", "failed"),
        )
        self.webhooks_pending = self.reading(
            "sd_webhooks_pending", "Webhooks of jobs that are over, and not delivered yet."
        )
        self.webhooks_waiting = self.gauge(
            "sd_webhooks_waiting", "Webhooks whose next attempt waits for the turn of their key."
        )
        self.webhook_oldest = self.reading(
            "sd_webhook_oldest_pending_age_seconds",
            "Time since the end of the job whose webhook waits longest; 0 when none waits.",
        )

    def _keys(self) -> None:
        self.key_jobs = self.counter(
            "sd_key_jobs_total",
            "Jobs that ended, by the name of their key and outcome.",
            key=(),
            outcome=labels.OUTCOMES,
        )
        self.key_images = self.counter(
            "sd_key_images_total", "Images finished, by the name of their key.", key=()
        )
        self.key_gpu_seconds = self.counter(
            "sd_key_gpu_seconds_total",
            "Time of the device that computes, by the name of the key it worked for.",
            key=(),
        )
        self._known_keys: tuple[str, ...] = ()
        self.know_keys((labels.ANONYMOUS,))

    def know_keys(self, names: tuple[str, ...]) -> None:
        """Count for these keys from 0; series of keys that are gone go, too."""
        for name in {*self._known_keys} - {*names}:
            for outcome in labels.OUTCOMES:
                self.key_jobs.remove(name, outcome)
            self.key_images.remove(name)
            self.key_gpu_seconds.remove(name)
        self._known_keys = names
        for name in (*names, labels.OTHER_KEY):
            for outcome in labels.OUTCOMES:
                self.key_jobs.labels(name, outcome)
            self.key_images.labels(name)
            self.key_gpu_seconds.labels(name)

    def key(self, name: str) -> str:
        """Return the label of a key: its name, as long as it is in force."""
        return name if name in self._known_keys else labels.OTHER_KEY

    def _state(self) -> None:
        self.ready = self.gauge("sd_ready", "1 while new work is taken and can be worked on.")
        self.gauge("sd_build_info", "1 for this build.", version=(__version__,)).labels(
            __version__
        ).set(1)

    def _threads(self) -> None:
        names = [pool.name for pool in EXECUTORS]
        limit = self.gauge(
            "sd_executor_threads", "Threads that may call at a time.", executor=names
        )
        busy = self.gauge(
            "sd_executor_busy_threads", "Threads with a blocking call.", executor=names
        )
        waiting = self.gauge(
            "sd_executor_waiting_calls", "Blocking calls that wait for a thread.", executor=names
        )
        for pool in EXECUTORS:
            limit.labels(pool.name).set(pool.limits.most)
            busy.labels(pool.name).set_function(partial(getattr, pool, "busy"))
            waiting.labels(pool.name).set_function(partial(getattr, pool, "waiting"))
