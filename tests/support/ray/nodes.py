"""A Ray cluster on this machine: a head without engines, and nodes that run some.

``python -m tests.support.ray.nodes 1 1`` starts a node for each number, which is how many engines
it runs. It says in one line of JSON which processes there are, and again after each line of its
input: ``gcs`` starts the head's store again, ``node 1`` another node, ``drain 1`` does to a node
what its end by SIGTERM does. It ends all of them when its input ends. Its environment decides the
rest: the folder and the token above all.
"""

import json
import sys
from typing import Any

from ray.cluster_utils import Cluster

STORE_BYTES = 80 * 2**20
"""Of shared memory for each node, which is about the least that Ray takes."""


def main() -> None:
    """Start the cluster, and end it when nobody is there any more."""
    engines = sys.argv[1:]
    shared: dict[str, Any] = {
        "num_cpus": 0,
        "object_store_memory": STORE_BYTES,
        "include_dashboard": False,
    }
    cluster = Cluster(initialize_head=True, head_node_args=shared, shutdown_at_exit=False)
    try:
        del shared["include_dashboard"]
        for count in engines:
            add(cluster, count, shared)
        cluster.wait_for_nodes()
        say(cluster)
        for line in sys.stdin:
            match line.split():
                case ["gcs"]:
                    head: Any = cluster.head_node
                    head.kill_gcs_server(check_alive=False)
                    head.start_gcs_server()
                case ["node", count]:
                    add(cluster, count, shared)
                case ["drain", number]:
                    nodes(cluster)[int(number)]._drain_node_before_shutdown()
            say(cluster)
    finally:
        cluster.shutdown()


def add(cluster: Cluster, engines: str, shared: dict[str, Any]) -> None:
    """Start a node that runs so many engines."""
    cluster.add_node(wait=False, resources={"sd_engine": int(engines)}, **shared)


def say(cluster: Cluster) -> None:
    """Tell which processes there are."""
    told = {"address": cluster.address, "nodes": [processes(node) for node in nodes(cluster)]}
    sys.stdout.write(f"{json.dumps(told)}\n")
    sys.stdout.flush()


def nodes(cluster: Cluster) -> list[Any]:
    """Return the head and the others, in the order of their start."""
    return [cluster.head_node, *cluster.worker_nodes]


def processes(node: Any) -> dict[str, int]:
    """Return the process ids of a node by what they are."""
    return {kind: running[0].process.pid for kind, running in node.all_processes.items()}


if __name__ == "__main__":
    main()
