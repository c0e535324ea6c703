"""What another process of the service's user, the engine first, can read of it."""

import os
import shutil
import subprocess

import pytest

from tests.disasters.conftest import LightService
from tests.support.service_process import ending

ALICE = "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"
SECRETS = {
    "API_KEYS": f"alice:{ALICE}",
    "METRICS_TOKEN": ALICE,
    "WEBHOOK_SECRET": ALICE,
    "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={ALICE}",
}
LIGHT = {"LIGHT_ENTRY": "obedient", "LIGHT_DELAYS": "0"}
ROOTS = os.geteuid() == 0
SETPRIV = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if ROOTS else []
"""Root may read everything, unless it gives that right away."""

needs_setpriv = pytest.mark.skipif(
    ROOTS and shutil.which("setpriv") is None, reason="needs setpriv (util-linux)"
)


class Confined(LightService):
    """A service without root's rights."""

    prefix = tuple(SETPRIV)


def reads(pid: int, name: str) -> subprocess.CompletedProcess[bytes]:
    """Read a file of a process in /proc as another process of its user."""
    path = f"/proc/{pid}/{name}"
    return subprocess.run([*SETPRIV, "cat", path], capture_output=True, check=False)


@needs_setpriv
async def test_the_service_shows_its_secrets_to_no_process_of_its_user(client_of):
    """Neither environment nor memory; it works as before, its own figures included."""
    with ending(Confined(**LIGHT, **SECRETS, ALLOW_DEBUGGER="false")) as service:
        client = await client_of(service, headers={"X-API-Key": ALICE})
        await client.until_ready()
        for name in ("environ", "maps", "mem"):
            done = reads(service.process.pid, name)
            assert (done.returncode, done.stdout) == (1, b"")
            assert b"Permission denied" in done.stderr or b"not permitted" in done.stderr
        assert (await client.generate())[0] == 200
        headers = {"X-API-Key": "", "Authorization": f"Bearer {ALICE}"}
        async with client.session.get("/metrics", headers=headers) as answer:
            text = await answer.text()
        assert "process_open_fds" in text
        assert "process_resident_memory_bytes" in text


@needs_setpriv
async def test_a_debugger_is_let_in_where_that_is_asked_for(client_of):
    """ALLOW_DEBUGGER: with it all secrets are open to the user, and the log says so."""
    with ending(Confined(**LIGHT, **SECRETS)) as service:
        await client_of(service)
        assert (await service.line("debugger_allowed"))["level"] == "warning"
        assert ALICE.encode() in reads(service.process.pid, "environ").stdout


@needs_setpriv
async def test_the_engine_has_no_secret_in_its_environment(client_of):
    """Neither ours, nor those of other programs that it has no use for."""
    with ending(Confined(**LIGHT, **SECRETS)) as service:
        client = await client_of(service, headers={"X-API-Key": ALICE})
        await client.until_ready()
        environment = reads(service.engine_pid, "environ").stdout
        assert b"LIGHT_ENTRY" in environment
        assert ALICE.encode() not in environment
