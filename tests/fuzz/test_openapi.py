"""The service against its own description, over real HTTP."""

import pytest
import requests

from service.errors import JobsOff, ModelUnavailable
from tests.fuzz.described import CHECKS, Findings, fuzz
from tests.fuzz.serving import serving

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
"""Of the library's own report of a body as large as the service takes."""

KEY = "alpha-0123456789abcdef-0123456789"
TOKEN = "scrape-0123456789abcdef-0123456789"  # noqa: S105 - of this test

NATIVE = r"/(?!(?:v1|sdapi|internal|queue|config)(?:/|$))"
"""Paths of all but the APIs that follow other products (test_compat.py)."""

DRAWN = {"coverage": {"enabled": False}}
"""For a state in which the boundaries of the fields are not told in another way."""

JOBS = (
    *("GET /jobs", "POST /jobs", "GET /jobs/{id}", "DELETE /jobs/{id}"),
    *("GET /jobs/{id}/events", "GET /jobs/{id}/image", "POST /jobs/{id}/interrupt"),
)


def nothing(findings: Findings) -> None:
    """Fail with everything that is wrong and how to see it again."""
    said = [f"{reason}\n    {command}" for reason, command in findings.wrong.items()]
    assert not said, "\n".join(said)


def test_the_service_is_as_it_is_described(tmp_path, fuzz_cases, fuzz_seed):
    """No 5xx, no undescribed answer; what is valid is taken and what is not is refused."""
    # 700 cases are the boundaries of the fields; the others are drawn, 14 and more by each.
    drawn = 1 + max(0, fuzz_cases - 700) // 14
    with serving(tmp_path) as service:
        findings = fuzz(service.url, seed=fuzz_seed, examples=drawn, paths=NATIVE)
    nothing(findings)
    assert findings.never_succeeded == []
    assert findings.cases >= fuzz_cases


def test_a_service_with_keys_is_as_it_is_described(tmp_path, fuzz_cases, fuzz_seed):
    """With keys, a token for the metrics and limits that are told in headers."""
    variables = {
        "API_KEYS": f"alpha:{KEY}",
        "METRICS_TOKEN": TOKEN,
        "AUTH_FAILURES_PER_MINUTE": "0",
        "RATE_LIMIT_PER_MINUTE": "1000000",
        "RATE_LIMIT_BURST": "1000000",
        "QUOTA_IMAGES_PER_DAY": "1000000",
    }
    auth = {"bearer": {"bearer": KEY}, "metrics_token": {"bearer": TOKEN}}
    with serving(tmp_path, **variables) as service:
        findings = fuzz(
            service.url,
            seed=fuzz_seed,
            examples=fuzz_cases // 200,
            paths=NATIVE,
            finished=finished_job(service.url),
            auth={"openapi": auth},
            # Where a key is needed it is needed first, for a method that there is not, too.
            checks={**CHECKS, "unsupported_method": {"enabled": False}},
        )
    nothing(findings)
    assert findings.never_succeeded == []


def finished_job(url: str) -> str:
    """Have an image made for the key and return the id of its job."""
    headers = {"Authorization": f"Bearer {KEY}"}
    job = requests.post(f"{url}/jobs", json={"prompt": "a"}, headers=headers, timeout=30).json()
    events = requests.get(f"{url}/jobs/{job['id']}/events", headers=headers, timeout=30)
    assert "event: finished" in events.text
    return str(job["id"])


def test_a_service_without_jobs_is_as_it_is_described(fuzz_cases, fuzz_seed):
    """Where DATA_DIR is empty each route under /jobs says so, and all others work."""
    with serving("") as service:
        findings = fuzz(
            service.url,
            seed=fuzz_seed,
            examples=fuzz_cases // 100,
            paths=NATIVE,
            failures=frozenset({JobsOff.code}),
            phases=DRAWN,
        )
    nothing(findings)
    assert findings.never_succeeded == sorted(JOBS)


def test_a_service_without_a_model_is_as_it_is_described(tmp_path, fuzz_cases, fuzz_seed):
    """What needs no model works, and the rest says that there is none."""
    with serving(tmp_path) as service:
        service.do(service.engine.fail_to_load)
        findings = fuzz(
            service.url,
            seed=fuzz_seed,
            examples=fuzz_cases // 100,
            paths=NATIVE,
            failures=frozenset({ModelUnavailable.code}),
            phases=DRAWN,
        )
    nothing(findings)
    # Without a job there is none to be seen either.
    left = set(JOBS) - {"GET /jobs"} | {"POST /generate", "GET /health/ready"}
    assert findings.never_succeeded == sorted(left)
