"""Everything that can go wrong with a request or a start, one class per case."""

from collections.abc import Mapping
from typing import ClassVar, Final

LONGEST_DETAIL: Final = 2000
"""Characters; what a client shows to a person. The list of fields next to it has them all."""


KINDS: Final[dict[str, type["ServiceError"]]] = {}
"""Each class below ``ServiceError`` by its code."""


class ServiceError(Exception):
    """Internal Error."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    refusal: ClassVar[str] = ""
    """Reason in the metrics of a request that HTTP refuses; others are counted where they arise."""
    cure: ClassVar[str] = ""
    """Detail of an error that is raised without one; empty: its title."""
    field: ClassVar[str] = ""
    """The field of a request that an engine finds wrong: clients get ``validation_error``."""

    def __init_subclass__(cls, *, code: str, status: int | None = None, refusal: str = "") -> None:
        cls.code, cls.refusal = code, refusal
        KINDS[code] = cls
        if status is not None:
            cls.status = status

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        self.detail = detail or self.cure or self.title
        self.retry_after = retry_after
        super().__init__(self.detail)

    @property
    def title(self) -> str:
        """The class's docstring, which is what a client reads first."""
        return (type(self).__doc__ or "").strip().rstrip(".")


class ValidationFailed(ServiceError, code="validation_error", status=400, refusal="validation"):
    """Validation Error."""

    def __init__(self, errors: Mapping[str, list[str]], detail: str = "") -> None:
        self.errors = dict(errors)
        said = detail or "; ".join(f"{k}: {' '.join(v)}" for k, v in errors.items())
        super().__init__(said if len(said) <= LONGEST_DETAIL else f"{said[:LONGEST_DETAIL]}…")


class SamplerUnsuitable(ServiceError, code="sampler_unsuitable", status=400):
    """Validation Error: the sampler cannot take so many steps with this model."""

    field = "sampler"


class SamplerNotFound(ServiceError, code="sampler_not_found", status=404, refusal="validation"):
    """Sampler not found."""


class AdapterUnsuitable(ServiceError, code="adapter_unsuitable", status=400):
    """Validation Error: an adapter cannot be used with this model."""

    field = "adapters"


class MalformedRequest(ServiceError, code="malformed_request", status=400, refusal="validation"):
    """Bad Request."""


class Unauthorized(ServiceError, code="unauthorized", status=401, refusal="auth"):
    """Unauthorized."""

    challenge: ClassVar = 'Bearer realm="sd-api"'
    # One text for every reason: what is wrong with a key is no stranger's business.
    cure = "Send a valid key as Authorization: Bearer KEY, or as X-API-Key: KEY."


class Forbidden(ServiceError, code="forbidden", status=403, refusal="host"):
    """Forbidden."""


class CrossOrigin(ServiceError, code="cross_origin", status=403, refusal="origin"):
    """Forbidden: the request comes from a page of another origin."""


class LinkRefused(ServiceError, code="link_refused", status=403, refusal="auth"):
    """Forbidden: the link to an image is wrong, or its time is over."""


class NotFound(ServiceError, code="not_found", status=404):
    """Not Found."""


class ModelNotFound(ServiceError, code="model_not_found", status=404, refusal="validation"):
    """Not Found: there is no model of this name."""


class MethodNotAllowed(ServiceError, code="method_not_allowed", status=405):
    """Method Not Allowed."""

    def __init__(self, detail: str = "", *, allow: tuple[str, ...] = ()) -> None:
        self.allow = allow
        super().__init__(detail)


class NotAcceptable(ServiceError, code="not_acceptable", status=406, refusal="validation"):
    """Not Acceptable."""


class RequestTimedOut(ServiceError, code="timeout", status=408):
    """Timeout."""


class IdempotencyConflict(ServiceError, code="idempotency_conflict", status=409):
    """Conflict: the idempotency key was used for another request."""


class Cancelled(ServiceError, code="cancelled", status=409):
    """Conflict: the job was cancelled."""


class NotReady(ServiceError, code="not_ready", status=409):
    """Conflict: the job has no images, or none yet."""


class JobExpired(ServiceError, code="job_expired", status=410):
    """Gone: the job and its images have expired."""


class BodyTooLarge(ServiceError, code="body_too_large", status=413, refusal="validation"):
    """Body Too Large."""


class UnsupportedMediaType(
    ServiceError, code="unsupported_media_type", status=415, refusal="validation"
):
    """Unsupported Media Type."""


class UnsupportedEncoding(
    ServiceError, code="unsupported_encoding", status=415, refusal="validation"
):
    """Unsupported Content Encoding."""

    known: ClassVar = ("gzip", "deflate", "identity")
    cure = f"Send the body as Content-Encoding: {' or '.join(known)}."


class ExpectationFailed(ServiceError, code="expectation_failed", status=417):
    """Expectation Failed."""


class RateLimited(ServiceError, code="rate_limited", status=429, refusal="rate"):
    """Too Many Requests."""


class QuotaExceeded(ServiceError, code="quota_exceeded", status=429, refusal="rate"):
    """Too Many Requests: the quota of images is used up."""


class TooManyFailures(ServiceError, code="too_many_failures", status=429, refusal="auth"):
    """Too Many Requests: too many wrong keys came from this address."""


class TooManyFromAddress(ServiceError, code="too_many_from_address", status=429, refusal="address"):
    """Too Many Requests: too many connections are open from this address."""


class TooManyStreams(ServiceError, code="too_many_streams", status=429, refusal="streams"):
    """Too Many Requests: too many event streams are open."""


class TooManyUploads(ServiceError, code="too_many_uploads", status=429, refusal="uploads"):
    """Too Many Requests: this key is sending too many images at the same time."""


class TooManyConnections(
    ServiceError, code="too_many_connections", status=503, refusal="connections"
):
    """Service Unavailable: too many connections are open."""


class Overloaded(ServiceError, code="overloaded", status=503):
    """Service Unavailable: too many requests of this key are waiting."""


class UploadsFull(ServiceError, code="uploads_full", status=503, refusal="uploads"):
    """Service Unavailable: too many images are being sent at the same time."""


class QueueFull(ServiceError, code="queue_full", status=503):
    """Service Unavailable: the queue is full."""


class ShuttingDown(ServiceError, code="shutting_down", status=503):
    """Service Unavailable: the service is shutting down."""


class ModelUnavailable(ServiceError, code="model_unavailable", status=503):
    """Service Unavailable: the model is not loaded."""


class EngineUnavailable(ServiceError, code="engine_unavailable", status=503):
    """Service Unavailable: the engine keeps crashing or does not respond."""


class ClusterUnreachable(ServiceError, code="cluster_unreachable", status=503):
    """Service Unavailable: the cluster with the engines cannot be reached."""


class OutOfMemory(ServiceError, code="out_of_memory", status=503):
    """Service Unavailable: GPU memory exhausted."""


class StoreUnavailable(ServiceError, code="store_unavailable", status=503):
    """Service Unavailable: the job store cannot be used."""


class JobsOff(ServiceError, code="jobs_off", status=503):
    """Service Unavailable: jobs are turned off."""


class StorageFull(ServiceError, code="storage_full", status=503):
    """Service Unavailable: the disk for finished images is full."""


class StorageUnavailable(ServiceError, code="storage_unavailable", status=503):
    """Service Unavailable: the folder of finished images cannot be used."""


class EngineCrashed(ServiceError, code="engine_crashed", status=500):
    """Internal Error: the engine crashed while it made this image."""


class GenerationFailed(ServiceError, code="generation_failed", status=500):
    """Internal Error: the image could not be made."""


class ResultDamaged(ServiceError, code="result_damaged", status=500):
    """Internal Error: the stored image is damaged."""


class InputLost(ServiceError, code="input_lost", status=500):
    """Internal Error: an input image of the job is missing or damaged."""


class Disconnected(ServiceError, code="disconnected", status=499):
    """The client closed the connection."""

    # 499 is nginx's code for it; nobody is left to read it.


class ConfigError(ServiceError, code="config_error"):
    """A setting is wrong."""


class StoreError(ConfigError, code="store_error"):
    """The job store cannot be opened."""


class StoreInUse(StoreError, code="store_in_use"):
    """The job store cannot be opened: it is in use."""


class StoreFull(StoreError, code="store_full"):
    """The job store cannot be opened: its disk is full."""


class PortTaken(ConfigError, code="port_taken"):
    """The service cannot start: its port is taken."""


class FolderUnusable(ConfigError, code="folder_unusable"):
    """The service cannot start: a folder cannot be used."""


class GpuMissing(ConfigError, code="gpu_missing"):
    """The service cannot start: the GPU was not found."""


class TorchMismatch(ConfigError, code="torch_mismatch"):
    """The service cannot start: this torch does not fit the GPU."""


class ModelError(ServiceError, code="model_error", status=503):
    """The model cannot be loaded."""

    def __init__(self, detail: str = "", *, transient: bool = False) -> None:
        super().__init__(detail)
        self.transient = transient
        """Whether the same start may succeed a little later."""


class ModelInUse(ServiceError, code="model_in_use"):
    """The model cannot be removed: it is in use."""


class ModelMissing(ModelError, code="model_missing"):
    """The model cannot be loaded: it was not found."""


class ModelUnsuitable(ModelError, code="model_unsuitable"):
    """The model cannot be loaded: this kind of model is not supported."""


class HubUnreachable(ModelError, code="hub_unreachable"):
    """The model cannot be loaded: the hub is out of reach."""


class NotInstalled(ModelError, code="not_installed"):
    """The model cannot be loaded: packages are missing."""


class DiskFull(ModelError, code="disk_full"):
    """The model cannot be loaded: the disk is full."""


class GpuBusy(ModelError, code="gpu_busy"):
    """The model cannot be loaded: the GPU's memory is taken."""


class GpuTooSmall(ModelError, code="gpu_too_small"):
    """The model cannot be loaded: the GPU is too small."""


def error_class(code: str) -> type[ServiceError]:
    """Return the class whose ``code`` crossed a process boundary; unknown codes are internal."""
    return KINDS.get(code, ServiceError)


def error_of(code: str, detail: str) -> ServiceError:
    """Return the error that an engine told, or that a job ended with, as its client gets it."""
    kind = error_class(code)
    if kind.field:
        return ValidationFailed({kind.field: [detail]})
    if kind is ValidationFailed:
        field, _, said = detail.partition(": ")
        return ValidationFailed({field: [said]} if said else {}, detail)
    return kind(detail)
