"""deploy/ray/kubernetes: the manifests of a cluster of Ray, and how KEDA is asked for nodes."""

import copy
import json
import math
import os
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from promql_parser import parse

from service.config.loading import load
from service.config.setting import environment_name
from service.config.table import Config
from tests.unit.alerts.vocabulary import scraped, selectors
from tests.unit.deploy.test_deploy import MANIFESTS, NEEDED_SECONDS, VERSION
from tests.unit.deploy.test_ray import NODE, RAY, flags

FOLDER = RAY / "kubernetes"
ROOT = Path(__file__).parents[3]
SCHEMAS = Path(os.environ.get("CLUSTER_SCHEMAS", ROOT.parent / "shared" / "schemas"))
"""Facts of KubeRay and KEDA, which are no part of this project."""

DOCUMENTS: dict[str, Any] = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.yaml")
}
CLUSTER, NODES = DOCUMENTS["raycluster"]["spec"], DOCUMENTS["nodes"]
SCALED = DOCUMENTS["scaledobject"]["spec"]
QUERIES = {each["name"]: each["metadata"]["query"] for each in SCALED["triggers"]}
PATCH = json.loads((FOLDER / "service.json").read_text(encoding="utf-8"))
MEMBER = {"sd-api/cluster": "sd-ray"}


def patched(document: Any, patch: list[dict[str, Any]]) -> Any:
    """Return a document changed by a JSON patch (RFC 6902: add, remove, replace)."""
    document = copy.deepcopy(document)
    for step in patch:
        *path, last = (
            part.replace("~1", "/").replace("~0", "~") for part in step["path"][1:].split("/")
        )
        place = document
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if isinstance(place, list):
            assert (step["op"], last) == ("add", "-")
            place.append(step["value"])
            continue
        assert (last in place) or step["op"] == "add", step
        if step["op"] == "remove":
            del place[last]
        else:
            place[last] = step["value"]
    return document


SERVICE = patched(MANIFESTS["statefulset"], PATCH)
POD = SERVICE["spec"]["template"]["spec"]
SIDECAR, GATEWAY = POD["initContainers"][0], POD["containers"][0]
HEAD = CLUSTER["headGroupSpec"]
(WORKERS,) = CLUSTER["workerGroupSpecs"]
PODS = {
    "service": SERVICE["spec"]["template"],
    "head": HEAD["template"],
    "workers": WORKERS["template"],
    "nodes": NODES["spec"]["template"],
}


def variables(container: dict[str, Any]) -> dict[str, str]:
    """Return what a container is given in its environment, references left out."""
    return {one["name"]: one["value"] for one in container["env"] if "value" in one}


def options(words: list[str]) -> dict[str, str]:
    """Return the options of a ``ray start``."""
    return dict(word.removeprefix("--").partition("=")[::2] for word in words[2:])


@pytest.mark.privileged  # No installation brings the schemas, so that a run may lack them.
@pytest.mark.parametrize("name", ["raycluster", "scaledobject"])
def test_the_operators_take_the_manifests(name):
    """Every field is one of KubeRay's or of KEDA's, with a value of its kind."""
    path = SCHEMAS / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there: CLUSTER_SCHEMAS names the folder of the two schemas")
    found = closed(json.loads(path.read_text(encoding="utf-8")))
    jsonschema.validate(DOCUMENTS[name], found)
    wrong = copy.deepcopy(DOCUMENTS[name])
    wrong["spec"]["replicass"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, found)


def closed(schema: Any) -> Any:
    """Return a schema in which an object has no other fields than those that it names."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    known = schema.get("properties")
    if isinstance(known, dict) and schema.get("type", "object") == "object":
        schema.setdefault("additionalProperties", False)
    return schema


@pytest.mark.parametrize("document", [NODES, DOCUMENTS["networkpolicy"], SERVICE])
def test_kubernetes_takes_the_manifests(document):
    """Every field is one of the API's, in the oldest version that they are for and the newest."""
    for version in (VERSION, kubernetes_validate.latest_version()):
        kubernetes_validate.validate(document, version, strict=True)


def test_kubernetes_takes_the_pods_of_the_cluster():
    """They are those of a Deployment as well, whose fields are checked."""
    for name in ("head", "workers"):
        template = copy.deepcopy(PODS[name])
        template["metadata"]["labels"] |= {"app": "a"}
        spec = {"selector": {"matchLabels": {"app": "a"}}, "template": template}
        document = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}}
        kubernetes_validate.validate(document | {"spec": spec}, VERSION, strict=True)


def test_every_manifest_is_applied():
    """Together with the service's own, which the patch changes."""
    kustomization = DOCUMENTS["kustomization"]
    listed = {Path(name).stem for name in kustomization["resources"]} - {"kubernetes"}
    assert listed == set(DOCUMENTS) - {"kustomization"}
    assert [each["path"] for each in kustomization["patches"]] == ["service.json"]


def test_the_service_computes_nothing_and_knows_its_cluster(tmp_path):
    """Its GPU is gone, its settings are taken, and it finds Ray's sockets and the token."""
    assert "nvidia.com/gpu" not in GATEWAY["resources"]["limits"]
    given = MANIFESTS["configmap"]["data"] | variables(GATEWAY)
    settings = {environment_name(row) for row in fields(Config)}
    keys = tmp_path / "keys"
    keys.write_text("alice:5f0c2f8e51d94b0ab1f7c8d2e6a3490b\n", encoding="utf-8")
    known = {name: text for name, text in given.items() if name in settings}
    config = load(known | {"API_KEYS_FILE": str(keys)}, {})
    assert config.engine == "ray"
    assert options(SIDECAR["command"])["address"] == config.ray_address
    assert config.ray_address == f"{DOCUMENTS['raycluster']['metadata']['name']}-head-svc:6379"
    assert variables(SIDECAR)["RAY_AUTH_TOKEN_PATH"] == config.ray_token_file
    # Ray asks for both: the same folder of sockets, and the processes of the node it speaks to.
    mounts = [{m["name"]: m["mountPath"] for m in c["volumeMounts"]} for c in (SIDECAR, GATEWAY)]
    for name in ("ray", "shm", "ray-token"):
        assert mounts[0][name] == mounts[1][name]
    assert mounts[0]["ray"] == options(SIDECAR["command"])["temp-dir"]
    assert POD["shareProcessNamespace"]
    assert SIDECAR["restartPolicy"] == "Always", "it starts before the service and ends after it"


def test_every_node_has_the_token_and_the_folders_of_the_service():
    """Who joins needs the first; in the second the service's settings look for models."""
    assert CLUSTER["authOptions"] == {"mode": "token", "secretName": "sd-ray"}
    for container in (SIDECAR, PODS["nodes"]["spec"]["containers"][0]):
        given = variables(container)
        assert given["RAY_AUTH_MODE"] == "token"
        (mount,) = [m for m in container["volumeMounts"] if m["name"] == "ray-token"]
        assert Path(given["RAY_AUTH_TOKEN_PATH"]).parent == Path(mount["mountPath"])
    secrets = [each for pod in PODS.values() for each in pod["spec"].get("volumes", ())]
    modes = {v["secret"]["defaultMode"] for v in secrets if v["name"] == "ray-token"}
    assert modes == {0o440}
    cache = Path(MANIFESTS["configmap"]["data"]["MODEL_CACHE_DIR"])
    for name in ("workers", "nodes"):
        mounts = PODS[name]["spec"]["containers"][0]["volumeMounts"]
        assert any(cache.is_relative_to(mount["mountPath"]) for mount in mounts)


def test_ports_are_those_of_the_units():
    """One list for a firewall, and for those who read."""
    wanted = {n.strip("-"): port for n, port in flags(NODE).items() if n.endswith("-port")}
    for command in (SIDECAR["command"], PODS["nodes"]["spec"]["containers"][0]["command"]):
        assert wanted.items() <= options(command).items()
    for group in (HEAD, WORKERS):
        assert wanted.items() <= group["rayStartParams"].items()


def test_only_the_cluster_reaches_the_ports_of_ray():
    """Every pod of it is chosen by the policy, and lets in no other."""
    assert all(pod["metadata"]["labels"].items() >= MEMBER.items() for pod in PODS.values())
    policy = DOCUMENTS["networkpolicy"]["spec"]
    assert policy["podSelector"] == {"matchLabels": MEMBER}
    assert policy["ingress"] == [{"from": [{"podSelector": {"matchLabels": MEMBER}}]}]


@pytest.mark.parametrize("name", ["workers", "nodes"])
def test_a_node_has_the_time_that_its_jobs_take(name):
    """Nothing is killed before Ray has given up, and Ray itself gets SIGTERM."""
    spec = PODS[name]["spec"]
    container = spec["containers"][0]
    drain = int(variables(container)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
    assert NEEDED_SECONDS < drain < spec["terminationGracePeriodSeconds"] - 30
    assert container["command"][0] == "ray" or container["command"][-1].startswith("exec ")


@pytest.mark.parametrize("name", PODS)
def test_the_pods_have_no_rights_that_they_do_not_need(name):
    """No root, no way to become it, nothing writable but their volumes."""
    spec = PODS[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert not spec["automountServiceAccountToken"]
    for container in [*spec["containers"], *spec.get("initContainers", ())]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_what_keda_asks_of_prometheus_exists():
    """Series and labels are those of the service, and each query has one value."""
    assert list(QUERIES) == ["work", "seconds"]
    for query in QUERIES.values():
        found = list(selectors(parse(query)))
        assert found
        for each in found:
            assert each.name in scraped()
            labels = {matcher.name for matcher in each.matchers.matchers}
            assert labels <= scraped()[each.name]


CASES: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "nothing to do": ({}, {"work": 0, "seconds": 0}),
    "one GPU works, nobody waits": ({"running": 1}, {"work": 0, "seconds": 0}),
    "a burst": ({"running": 1, "waiting": 40, "oldest": 15}, {"work": 5, "seconds": 0}),
    "four work": ({"ready": 4, "running": 4}, {"work": 3, "seconds": 0}),
    "four work and the oldest waits for long": (
        {"ready": 4, "running": 4, "waiting": 8, "oldest": 45},
        {"work": 4, "seconds": 5},
    ),
    "a very old one": ({"ready": 4, "waiting": 1, "oldest": 900}, {"work": 0, "seconds": 7}),
    "four are there and one works": ({"ready": 4, "running": 1}, {"work": 0, "seconds": 0}),
}
"""What there is, and how many nodes next to the first each query asks for."""


def series(ready: float = 1, running: float = 0, waiting: float = 0, oldest: float = 0) -> Any:
    """Return the input of promtool for some engines, of which some have two jobs each."""
    shown = {
        'sd_queue_depth{job="sd-api", instance="a"}': waiting,
        'sd_queue_oldest_job_age_seconds{job="sd-api", instance="a"}': oldest,
    }
    for engine in range(int(ready)):
        labels = f'job="sd-api", instance="a", engine="{engine}"'
        shown[f"sd_jobs_running{{{labels}}}"] = 2 if engine < running else 0
        shown[f'sd_engine_state{{{labels}, state="ready"}}'] = 1
        shown[f'sd_engine_state{{{labels}, state="loading"}}'] = 0
    return [{"series": name, "values": f"{value}x4"} for name, value in shown.items()]


def test_keda_asks_for_as_many_nodes_as_the_work_needs(tmp_path):
    """As promtool works them out; without the service they have no value, and nothing moves."""
    if (program := shutil.which("promtool")) is None:
        pytest.skip("promtool is not installed (apt: prometheus)")
    tests = [
        {
            "interval": "15s",
            "input_series": series(**given),
            "promql_expr_test": [
                {
                    "expr": QUERIES[name],
                    "eval_time": "1m",
                    "exp_samples": [{"labels": "{}", "value": value}],
                }
                for name, value in expected.items()
            ],
        }
        for given, expected in CASES.values()
    ]
    away = [{"expr": query, "eval_time": "1m", "exp_samples": []} for query in QUERIES.values()]
    tests.append({"interval": "15s", "input_series": [], "promql_expr_test": away})
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [], "tests": tests}), encoding="utf-8")
    done = subprocess.run(
        [program, "test", "rules", file], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_nodes_come_fast_and_leave_slowly():
    """KEDA reads a value as that many nodes, and keeps them where Prometheus does not answer."""
    assert SCALED["scaleTargetRef"] == {"name": NODES["metadata"]["name"]}
    for trigger in SCALED["triggers"]:
        assert trigger["type"] == "prometheus"
        assert (trigger["metricType"], trigger["metadata"]["threshold"]) == ("AverageValue", "1")
        assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert SCALED["fallback"]["behavior"] == "currentReplicas"
    behavior = SCALED["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    up, down = behavior["scaleUp"], behavior["scaleDown"]
    assert up["stabilizationWindowSeconds"] < down["stabilizationWindowSeconds"]
    rates = [
        each["policies"][0]["value"] / each["policies"][0]["periodSeconds"] for each in (up, down)
    ]
    assert rates[0] > rates[1]
    assert math.ceil(SCALED["maxReplicaCount"] + WORKERS["replicas"]) <= 64, "engines of a service"
