"""Host names of webhooks, looked up on threads of their own."""

import asyncio
import socket
import threading

import pytest

from service.system.executors import NAMES
from service.webhooks import lookups
from service.webhooks.client import Outbound
from service.webhooks.delivery import Unreachable
from service.webhooks.lookups import Lookups, LookupUnfinished
from service.webhooks.targets import Targets


@pytest.fixture
def silence(monkeypatch):
    """Let names below .example wait until the test is over; all others are looked up."""
    over, real = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        if host.endswith(".example"):
            over.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield
    over.set()
    while NAMES.busy:
        pass


async def test_a_name_becomes_addresses():
    """In the form that aiohttp connects to without another lookup."""
    found = await Lookups("anna").resolve("localhost", 80)
    assert {one["host"] for one in found} <= {"127.0.0.1", "::1"}
    assert found[0] | {"host": ""} == {
        "hostname": "localhost",
        "host": "",
        "port": 80,
        "family": socket.AF_INET,
        "proto": socket.IPPROTO_TCP,
        "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    }


async def test_a_name_without_addresses_is_an_error():
    """Of the kind that aiohttp expects."""
    with pytest.raises(OSError, match=r".") as none:
        await Lookups("anna").resolve("none.invalid.")
    assert not isinstance(none.value, LookupUnfinished)


@pytest.mark.usefixtures("silence")
async def test_a_lookup_has_its_own_time(monkeypatch):
    """The attempt says so, and may be repeated."""
    monkeypatch.setattr(lookups, "LOOKUP_SECONDS", 0.05)
    send = Outbound(Targets.parse(["silent.example"]))
    with pytest.raises(Unreachable, match="its name was not looked up in time"):
        await send("http://silent.example/", b"{}", {}, "anna")


@pytest.mark.usefixtures("silence")
async def test_a_key_holds_a_few_threads_and_a_name_fewer():
    """However many names it sends to; another key's are looked up meanwhile."""
    limits = NAMES.limits
    names = [*((f"h{n}.example", "greedy") for n in range(30)), *[("one.example", "bert")] * 5]
    asked = [asyncio.create_task(Lookups(owner).resolve(name)) for name, owner in names]
    await asyncio.sleep(0)
    assert await Lookups("anna").resolve("localhost")
    assert NAMES.busy == limits.each + limits.alike
    assert NAMES.waiting == len(names) - NAMES.busy
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    assert NAMES.waiting == 0
