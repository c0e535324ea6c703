"""A service whose engines are in a cluster that cannot be reached."""

import base64
import secrets
from typing import Any

import pytest

from tests.disasters.conftest import IMAGE
from tests.support.service_process import WAIT_SECONDS, ServiceProcess, ending
from tests.support.wait import free_port, until


@pytest.fixture
def settings(tmp_path):
    """Return settings of a service whose cluster should be at a closed port of this machine."""
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(base64.b64encode(secrets.token_bytes(24)).decode())
    return {
        "API_PORT": free_port(),
        "ENGINE": "ray",
        "RAY_ADDRESS": f"127.0.0.1:{free_port()}",
        "RAY_TOKEN_FILE": str(token),
        "FAKE_UNREACHABLE_SECONDS": "1",
    }


async def asked(client, path: str, **body: Any) -> tuple[int, str | None, str]:
    """Ask for an image; return status, Retry-After and what the answer holds."""
    async with client.session.post(path, json=body) as answer:
        return answer.status, answer.headers.get("Retry-After"), await answer.text()


async def test_a_cluster_that_cannot_be_reached_is_told_at_once(settings, client_of):
    """Who waits for an image gets 503 on every API; jobs are accepted and kept for later."""
    module = "tests.support.ray.fake_service"
    with ending(ServiceProcess(module=module, **settings)) as service:
        client = await client_of(service)

        async def degraded() -> dict[str, Any] | None:
            health = (await client.get("/health"))[1]
            return health if health["status"] == "degraded" else None

        health = await until(degraded, WAIT_SECONDS, "the service notices")
        assert "the cluster could not be reached" in health["engine"]["failure"]
        status, body = await client.get("/health/ready")
        assert (status, body["code"]) == (503, "cluster_unreachable")
        status, body = await client.generate()
        assert (status, body["code"], body["retry_after"]) == (503, "cluster_unreachable", "30")
        for path, more in (
            ("/v1/images/generations", {"prompt": "a cat", "size": "256x256"}),
            ("/sdapi/v1/txt2img", IMAGE),
        ):
            status, retry_after, text = await asked(client, path, **more)
            assert (status, retry_after) == (503, "30"), text
            assert "the cluster could not be reached" in text
        job = await client.accepted()
        refused = 'sd_requests_refused_total{reason="cluster_unreachable"}'
        assert await client.metric(refused) == 3
        assert await client.metric("sd_ready") == 0
        assert service.logged("cluster_unreachable")["reason"].endswith("Connection refused")
        assert service.logged("driver_ended", count=2)["exit_code"] == 1
        assert await client.metric("sd_cluster_driver_restarts_total") >= 2
        await service.start(ready=False)

        async def kept() -> bool:
            return bool((await client.job(job))["state"] == "queued")

        await until(kept, WAIT_SECONDS, "the next start has the job")
