"""Everything that can go wrong with a request or a start, one class per case."""

from collections.abc import Mapping
from typing import ClassVar, Final

LONGEST_DETAIL: Final = 2000
"""Characters; what a client shows to a person. The list of fields beside it has them all."""


class ServiceError(Exception):
    """Internal Error."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        self.detail = detail or self.title
        self.retry_after = retry_after
        super().__init__(self.detail)

    @property
    def title(self) -> str:
        """The class's docstring, which is what a client reads first."""
        return (type(self).__doc__ or "").strip().rstrip(".")


class ValidationFailed(ServiceError):
    """Validation Error."""

    code = "validation_error"
    status = 400

    def __init__(self, errors: Mapping[str, list[str]], detail: str = "") -> None:
        self.errors = dict(errors)
        said = detail or "; ".join(f"{k}: {' '.join(v)}" for k, v in errors.items())
        super().__init__(said if len(said) <= LONGEST_DETAIL else f"{said[:LONGEST_DETAIL]}…")


class SamplerUnsuitable(ServiceError):
    """Validation Error: the sampler cannot take so many steps with this model."""

    code = "sampler_unsuitable"
    status = 400


class MalformedRequest(ServiceError):
    """Bad Request."""

    code = "malformed_request"
    status = 400


class Unauthorized(ServiceError):
    """Unauthorized."""

    code = "unauthorized"
    status = 401

    challenge: ClassVar = 'Bearer realm="sd-api"'

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        # One text for every reason: what is wrong with a key is no stranger's business.
        super().__init__(
            detail or "Send a valid key as Authorization: Bearer KEY, or as X-API-Key: KEY.",
            retry_after=retry_after,
        )


class Forbidden(ServiceError):
    """Forbidden."""

    code = "forbidden"
    status = 403


class NotFound(ServiceError):
    """Not Found."""

    code = "not_found"
    status = 404


class MethodNotAllowed(ServiceError):
    """Method Not Allowed."""

    code = "method_not_allowed"
    status = 405

    def __init__(self, detail: str = "", *, allow: tuple[str, ...] = ()) -> None:
        self.allow = allow
        super().__init__(detail)


class NotAcceptable(ServiceError):
    """Not Acceptable."""

    code = "not_acceptable"
    status = 406


class RequestTimedOut(ServiceError):
    """Timeout."""

    code = "timeout"
    status = 408


class IdempotencyConflict(ServiceError):
    """Conflict: the idempotency key stands for another request."""

    code = "idempotency_conflict"
    status = 409


class NotReady(ServiceError):
    """Conflict: the job has no pictures, or none yet."""

    code = "not_ready"
    status = 409


class JobExpired(ServiceError):
    """Gone: the job and its pictures were kept for their time."""

    code = "job_expired"
    status = 410


class BodyTooLarge(ServiceError):
    """Body Too Large."""

    code = "body_too_large"
    status = 413


class UnsupportedMediaType(ServiceError):
    """Unsupported Media Type."""

    code = "unsupported_media_type"
    status = 415


class UnsupportedEncoding(ServiceError):
    """Unsupported Content Encoding."""

    code = "unsupported_encoding"
    status = 415

    known: ClassVar = ("gzip", "deflate", "identity")

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(
            detail or f"Send the body as Content-Encoding: {' or '.join(self.known)}.",
            retry_after=retry_after,
        )


class ExpectationFailed(ServiceError):
    """Expectation Failed."""

    code = "expectation_failed"
    status = 417


class RateLimited(ServiceError):
    """Too Many Requests."""

    code = "rate_limited"
    status = 429


class QuotaExceeded(ServiceError):
    """Too Many Requests: the quota of pictures is used up."""

    code = "quota_exceeded"
    status = 429


class TooManyFailures(ServiceError):
    """Too Many Requests: too many wrong keys came from this address."""

    code = "too_many_failures"
    status = 429


class TooManyConnections(ServiceError):
    """Service Unavailable: too many connections are open."""

    code = "too_many_connections"
    status = 503


class QueueFull(ServiceError):
    """Service Unavailable: the queue is full."""

    code = "queue_full"
    status = 503


class ShuttingDown(ServiceError):
    """Service Unavailable: the service is shutting down."""

    code = "shutting_down"
    status = 503


class ModelUnavailable(ServiceError):
    """Service Unavailable: the model is not loaded."""

    code = "model_unavailable"
    status = 503


class EngineUnavailable(ServiceError):
    """Service Unavailable: the engine keeps ending, or does not answer."""

    code = "engine_unavailable"
    status = 503


class OutOfMemory(ServiceError):
    """Service Unavailable: GPU memory exhausted."""

    code = "out_of_memory"
    status = 503


class StoreUnavailable(ServiceError):
    """Service Unavailable: the job store cannot be used."""

    code = "store_unavailable"
    status = 503


class JobsOff(ServiceError):
    """Service Unavailable: this service keeps no jobs."""

    code = "jobs_off"
    status = 503


class StorageFull(ServiceError):
    """Service Unavailable: the disk for finished pictures is full."""

    code = "storage_full"
    status = 503


class StorageUnavailable(ServiceError):
    """Service Unavailable: the folder of finished pictures cannot be used."""

    code = "storage_unavailable"
    status = 503


class EngineCrashed(ServiceError):
    """Internal Error: the engine process ended while it made this picture."""

    code = "engine_crashed"
    status = 500


class GenerationFailed(ServiceError):
    """Internal Error: the picture could not be made."""

    code = "generation_failed"
    status = 500


class ResultDamaged(ServiceError):
    """Internal Error: the stored picture is damaged."""

    code = "result_damaged"
    status = 500


class Cancelled(ServiceError):
    """The request was cancelled."""

    # 499 is nginx's code for a client that closed its connection; nobody is left to read it.
    code = "cancelled"
    status = 499


class ConfigError(ServiceError):
    """A setting is wrong."""

    code = "config_error"


class StoreError(ConfigError):
    """The job store cannot be opened."""

    code = "store_error"


class StoreInUse(StoreError):
    """The job store cannot be opened: it is in use."""

    code = "store_in_use"


class StoreFull(StoreError):
    """The job store cannot be opened: its disk is full."""

    code = "store_full"


class PortTaken(ConfigError):
    """The service cannot start: its port is taken."""

    code = "port_taken"


class FolderUnusable(ConfigError):
    """The service cannot start: a folder cannot be used."""

    code = "folder_unusable"


class GpuMissing(ConfigError):
    """The service cannot start: the GPU is not there."""

    code = "gpu_missing"


class TorchMismatch(ConfigError):
    """The service cannot start: this torch does not fit the GPU."""

    code = "torch_mismatch"


class ModelError(ServiceError):
    """The model cannot be loaded."""

    code = "model_error"
    status = 503

    def __init__(self, detail: str = "", *, passing: bool = False) -> None:
        super().__init__(detail)
        self.passing = passing
        """Whether the same start may succeed a little later."""


class ModelInUse(ServiceError):
    """The model cannot be removed: it is in use."""

    code = "model_in_use"


class ModelMissing(ModelError):
    """The model cannot be loaded: it is not there."""

    code = "model_missing"


class ModelUnsuitable(ModelError):
    """The model cannot be loaded: it is of another kind."""

    code = "model_unsuitable"


class HubUnreachable(ModelError):
    """The model cannot be loaded: the hub is out of reach."""

    code = "hub_unreachable"


class NotInstalled(ModelError):
    """The model cannot be loaded: packages are missing."""

    code = "not_installed"


class DiskFull(ModelError):
    """The model cannot be loaded: the disk is full."""

    code = "disk_full"


class GpuBusy(ModelError):
    """The model cannot be loaded: the GPU's memory is taken."""

    code = "gpu_busy"


class GpuTooSmall(ModelError):
    """The model cannot be loaded: the GPU is too small."""

    code = "gpu_too_small"


def error_class(code: str) -> type[ServiceError]:
    """Return the class whose ``code`` crossed a process boundary; unknown codes are internal."""
    pending = [ServiceError]
    while pending:
        candidate = pending.pop()
        if candidate.code == code:
            return candidate
        pending.extend(candidate.__subclasses__())
    return ServiceError
