"""Who is let in at the ports of Ray: every process of a cluster that listens asks for its token."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
import requests

from tests.support.ray.cluster import NODE_SETTINGS, Cluster

METHODS = (
    "NodeInfoGcsService/GetAllNodeInfo",
    "NodeManagerService/GetNodeStats",
    "ObjectManagerService/Pull",
    "CoreWorkerService/NumPendingTasks",
)
"""One of each of Ray's services, which take an empty message: state, node, objects, workers."""

SERVERS = ("gcs_server", "raylet")
OK, UNAUTHENTICATED, NO_ANSWER = 0, 16, -1
EMPTY = bytes(5)
"""A message of gRPC without fields."""

DRIVER = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); print(); input()"
"""A program of the cluster, which listens as the service's own driver does."""


@pytest.fixture
def driver(cluster: Cluster) -> Iterator[int]:
    """Start a driver and return its process id."""
    environment = {**os.environ, **NODE_SETTINGS, "RAY_AUTH_TOKEN_PATH": str(cluster.token)}
    program = subprocess.Popen(
        [sys.executable, "-c", DRIVER, cluster.address],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert program.stdout is not None
    assert program.stdout.readline(), "the driver joins"
    yield program.pid
    program.communicate(b"\n", timeout=60)


def listening(pid: int) -> set[tuple[str, int]]:
    """Return the addresses at which a process listens, loopback for all of them."""
    found = psutil.Process(pid).net_connections("tcp")
    return {
        (each.laddr.ip if "." in each.laddr.ip else "127.0.0.1", each.laddr.port)
        for each in found
        if each.status == psutil.CONN_LISTEN
    }


def status(address: tuple[str, int], method: str, token: str = "") -> int:
    """Call a method by gRPC and return its status; a method of another port may have no answer."""
    host, port = address
    command = ["curl", "-s", "-v", "-m", "20", "--http2-prior-knowledge", "-o", os.devnull]
    headers = ["content-type: application/grpc", "te: trailers"]
    headers += [f"authorization: Bearer {token}"] if token else []
    for header in headers:
        command += ["-H", header]
    url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}/ray.rpc.{method}"  # noqa: S104
    done = subprocess.run(
        [*command, "--data-binary", "@-", url], input=EMPTY, capture_output=True, check=False
    )
    found = re.findall(rb"(?im)^< grpc-status: (\d+)", done.stderr)
    return int(found[0]) if found else NO_ANSWER


@pytest.mark.long
def test_every_port_of_ray_asks_for_the_token(cluster, driver):
    """That of the head's state, of nodes and objects, and of every program of the cluster."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    token = cluster.token.read_text()
    processes = [pid for node in cluster.nodes for name, pid in node.items() if name in SERVERS]
    ports = {port for pid in (*processes, driver) for port in listening(pid)}
    assert len(ports) >= 2 * len(cluster.nodes) + 2, "each node has two, the head one more"
    for port in ports:
        for wrong in ("", "a" * 32):
            found = {method: status(port, method, wrong) for method in METHODS}
            assert UNAUTHENTICATED in found.values(), (port, found)
            assert OK not in found.values(), (port, found)
        assert OK in {status(port, method, token) for method in METHODS}, port


@pytest.mark.long
def test_the_one_port_that_speaks_http_asks_for_it_too(cluster):
    """That of the environments in which programs run."""
    agents = [
        process
        for raylet in (node["raylet"] for node in cluster.nodes)
        for process in psutil.Process(raylet).children()
        if listening(process.pid)
    ]
    assert agents
    for address, port in {port for agent in agents for port in listening(agent.pid)}:
        assert requests.get(f"http://{address}:{port}/", timeout=20).status_code == 401
