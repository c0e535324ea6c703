"""A service, asked for everything that its own description says, and for what it forbids."""

import base64
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import requests
import schemathesis
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import Interaction, ScenarioRecorder

from service.core.image import RawImage
from service.core.prompt.syntax import PromptSyntax
from service.core.sampler import ETA
from service.core.spec import GenerationSpec
from service.errors import KINDS
from service.http.uploads.multipart import MEDIA_TYPE
from service.images import encode
from tests.fuzz.error_forms import A1111, NATIVE, OPENAI, Form, form_of

Operation = schemathesis.APIOperation[Any, Any, Any, Any]

CHECKS: Mapping[str, Any] = {
    # 408 may follow any deadline of less than the time that the answer takes.
    "positive_data_acceptance": {
        "expected-statuses": ["2xx", "3xx", "401", "403", "404", "408", "409", "410", "429"]
    },
    "negative_data_rejection": {
        "expected-statuses": ["400", "401", "403", "404", "405", "406", "408", "409", "415", "429"]
    },
    # DELETE cancels a job, and its owner can still read what became of it.
    "use_after_free": {"enabled": False},
    # Which 5xx may come depends on the state of the service: see ``Findings``.
    "not_a_server_error": {"enabled": False},
}
"""All of the library's checks but two."""

TOLD_BY_THE_STATE = frozenset({"adapters", "webhook", "cursor", "index"})
"""Fields that only the settings or the stored jobs can judge: which hosts may be told of a job,
which cursors were given out, how many images a job has, which adapters there are."""

TOLD_BY_ANOTHER_FIELD: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    # Few samplers take one, and the default is none of them.
    "eta": lambda body: bool(body.get("eta")) and body.get("sampler") not in ETA,
    # Both belong to an image; a pad that is empty adds nothing to it.
    "mask": lambda body: body.get("image") is None,
    "pad": lambda body: body.get("image") is None or not any((body.get("pad") or {}).values()),
    # Only this syntax has parts that can be wrong, and steps that they are told by.
    "prompt": lambda body: body.get("prompt_syntax") == PromptSyntax.A1111,
    "negative_prompt": lambda body: body.get("prompt_syntax") == PromptSyntax.A1111,
    # A sampler follows some schedules, and the default one does not follow all.
    "schedule": lambda body: body.get("schedule") is not None,
    # Of the steps of an image at least one has to be left.
    "strength": lambda body: body.get("image") is not None,
    # Its size, steps and sampler go with those of the first pass, and its fields with each other.
    "hires": lambda body: body.get("hires") is not None,
}
"""Fields whose values are judged together with another's, which no description can say: tells
whether a body has such a pair."""

IMAGES = frozenset({"image", "init_images", "mask"})
FILES = frozenset({"image", "image[]", "mask", "mask[]", "mask_image"})
"""The same in forms."""
FILE = encode.png(
    RawImage(width=64, height=64, pixels=bytes(3 * 64 * 64), seed=0), GenerationSpec(prompt=""), ""
)
IMAGE = base64.b64encode(FILE).decode()
"""What is sent for an image: no description can say which texts are one."""

GENEROUS: Mapping[str, Any] = {
    **CHECKS,
    "positive_data_acceptance": {"enabled": False},
    "negative_data_rejection": {"enabled": False},
}
"""For APIs that take nearly everything, and whose limits are those of the model: what is valid
or not is no matter of the description there."""

OPENAI_CODES = {"unauthorized": "invalid_api_key"}
"""Codes of errors that are other ones there."""

UNDESCRIBED_METHOD = frozenset({"method_not_allowed", "unauthorized"})
"""What a method is answered with that the description does not have; keys are asked for first."""


@dataclass
class Findings:
    """What a run met."""

    document: Mapping[str, Any]
    failures: frozenset[str]
    """Codes of the 5xx that the state of the service explains."""
    cases: int = 0
    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    """By operation."""
    wrong: dict[str, str] = field(default_factory=dict)
    """What is wrong, and a command that shows it."""

    @property
    def never_succeeded(self) -> list[str]:
        """Operations that never gave a good answer."""
        return sorted(
            f"{method.upper()} {path}"
            for path, operations in self.document["paths"].items()
            for method in operations
            if not any(
                status < 400 and status != 204
                for status in self.statuses.get(f"{method.upper()} {path}", ())
            )
        )

    def add(self, recorder: ScenarioRecorder) -> None:
        """Take in what one scenario did."""
        for case_id, interaction in recorder.interactions.items():
            self.cases += 1
            operation = recorder.cases[case_id].value.operation
            answer = interaction.response
            command = f"{interaction.request.method} {interaction.request.uri}"
            if answer is None:
                self.wrong[f"{operation.label}: no answer"] = command
                continue
            self.statuses.setdefault(operation.label, Counter())[answer.status_code] += 1
            if answer.status_code >= 400 and interaction.request.method != "HEAD":
                for reason in self._error(operation, interaction):
                    self.wrong[f"{operation.label}: {reason}"] = command
        for case_id, checks in recorder.checks.items():
            for check in checks:
                if check.failure_info is None or self._of_the_state(recorder, case_id, check.name):
                    continue
                label = recorder.cases[case_id].value.operation.label
                failure = check.failure_info.failure
                reason = f"{label}: {check.name}: {failure.title}: {failure.message}"
                self.wrong[reason] = check.failure_info.code_sample

    def _error(self, operation: Operation, interaction: Interaction) -> list[str]:
        """Say what is wrong with an error: each has the form of its API, and is described."""
        answer, form = interaction.response, form_of(operation.path)
        assert answer is not None
        status = answer.status_code
        try:
            kind = form.kind(answer.content or b"")
        except (ValueError, KeyError, TypeError) as error:
            return [f"{status} has another form: {error}"]
        found = []
        if not answer.headers["content-type"][0].startswith(form.media_type):
            found.append(f"{kind} comes as {answer.headers['content-type']}")
        if form is NATIVE and (inside := json.loads(answer.content)["status"]) != status:
            found.append(f"{kind} has status {inside} inside and {status} outside")
        if status >= 500 and kind not in {_called(code, form) for code in self.failures}:
            found.append(f"{status} {kind} without a cause")
        if kind not in self._kinds(operation, interaction, form):
            found.append(f"{status} {kind} is not described")
        return found

    def _kinds(self, operation: Operation, interaction: Interaction, form: Form) -> Collection[str]:
        if interaction.request.method.lower() != operation.method.lower():
            return {_called(code, form) for code in UNDESCRIBED_METHOD}
        assert interaction.response is not None
        described = self.document["paths"][operation.path][operation.method]["responses"]
        response = described.get(str(interaction.response.status_code), {})
        if "$ref" in response:
            name = response["$ref"].rpartition("/")[2]
            response = self.document["components"]["responses"][name]
        examples = response.get("content", {}).get(form.media_type, {}).get("examples", {})
        return {form.inner(example["value"])[form.name] for example in examples.values()}

    def _of_the_state(self, recorder: ScenarioRecorder, case_id: str, check: str) -> bool:
        """Whether a request got its answer for what no description can know."""
        answer = recorder.interactions[case_id].response
        if answer is None or not check.endswith(("_rejection", "_acceptance")):
            return False
        if form_of(recorder.cases[case_id].value.operation.path) is not NATIVE:
            return False
        problem = json.loads(answer.content)
        if answer.status_code >= 500:
            return problem["code"] in self.failures
        body = recorder.cases[case_id].value.body
        if check == "negative_data_rejection":
            return _has_our_image(body)
        wrong = problem.get("errors", {}).keys()
        told = {name for name in wrong & TOLD_BY_ANOTHER_FIELD.keys() if _goes_with(name, body)}
        explained = wrong <= TOLD_BY_THE_STATE | told
        return bool(wrong) and explained


@schemathesis.hook("before_call")
def _with_images(context: Any, case: Any, kwargs: Any) -> None:
    """Put an image where a valid request has any text for one."""
    del context, kwargs
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if case.media_type == MEDIA_TYPE and isinstance(case.body, dict):
        for name in FILES & case.body.keys():
            case.body[name] = [FILE] if isinstance(case.body[name], list) else FILE
    elif isinstance(case.body, dict):
        for name in IMAGES & case.body.keys():
            case.body[name] = [IMAGE] if isinstance(case.body[name], list) else IMAGE
        for entry in case.body.get("imageList", ()):
            entry["data"] = IMAGE


def _has_our_image(body: Any) -> bool:
    """Tell whether a case was valid: only such get our image, which the library may take amiss."""
    found = body.values() if isinstance(body, dict) else ()
    return any(each in (FILE, IMAGE, [FILE], [IMAGE]) for each in found)


def _goes_with(name: str, body: Any) -> bool:
    """Tell whether a body has another field that the value of this one is judged with."""
    return isinstance(body, dict) and TOLD_BY_ANOTHER_FIELD[name](body)


def _called(code: str, form: Form) -> str:
    """Return what a form calls a kind of errors."""
    if form is A1111:
        return KINDS[code]().title
    return OPENAI_CODES.get(code, code) if form is OPENAI else code


def fuzz(
    url: str,
    *,
    seed: int,
    examples: int,
    failures: frozenset[str] = frozenset(),
    paths: str = "",
    finished: str = "",
    **settings: Any,
) -> Findings:
    """Ask the service at ``url`` for all that it describes: ``examples`` drawn per operation.

    ``paths`` is a pattern of the paths that are asked for; empty for all. Before what is drawn
    come the examples of the description and the boundaries of every field, and after it chains
    of requests along its links. What there is of the job ``finished`` is asked for before all else,
    since a later request may delete all jobs.
    """
    settings = {
        "seed": seed,
        "base-url": url,
        "continue-on-failure": True,
        "request-timeout": 30,
        "suppress-health-check": ["all"],
        "cache": {"enabled": False},
        "generation": {
            "max-examples": examples,
            "database": "none",
            # Headers and query parameters that nobody declared are everybody's to send.
            "allow-extra-parameters": False,
        },
        "checks": CHECKS,
        **settings,
    }
    config = schemathesis.Config.from_dict(settings)
    document = requests.get(f"{url}/openapi.json", timeout=30).json()
    # From its address the library would leave the description's own route out.
    schema = schemathesis.openapi.from_dict(document, config=config)
    if paths:
        document["paths"] = {k: v for k, v in document["paths"].items() if re.match(paths, k)}
        schema = schemathesis.openapi.from_dict(document, config=config)
    schemas = [schema]
    if finished:
        schemas.insert(0, schemathesis.openapi.from_dict(_of(finished, document), config=config))
    findings = Findings(document, failures)
    for event in chain.from_iterable(from_schema(each).execute() for each in schemas):
        match event:
            case events.ScenarioFinished():
                findings.add(event.recorder)
            case events.NonFatalError():
                findings.wrong[f"{event.label}: {event.info.title}"] = str(event.value)
            case events.FatalError():
                raise event.exception
    return findings


def _of(job_id: str, document: Any) -> Any:
    """Return the part of a description that is about one job, with this one's id."""
    found = json.loads(json.dumps(document))
    found["paths"] = {k: v for k, v in found["paths"].items() if k.startswith("/jobs/{id}")}
    for operations in found["paths"].values():
        for operation in operations.values():
            (of_id,) = (each for each in operation["parameters"] if each["name"] == "id")
            of_id["schema"] = {"const": job_id}
    return found
