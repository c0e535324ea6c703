"""The settings of engines on other machines."""

from dataclasses import dataclass

from service.config.access_settings import AccessSettings
from service.config.setting import setting


@dataclass(frozen=True, kw_only=True)
class ClusterSettings(AccessSettings):
    """Settings of the Ray cluster whose nodes make the images."""

    # Engines on other machines.
    engine: str = setting(
        "process",
        "Where images are made: process is this machine, ray the nodes of a Ray cluster.",
        choices=("process", "ray"),
    )
    ray_address: str = setting(
        "",
        "Address of the Ray cluster: host:port of its head, of which this machine is a node. "
        "ENGINE=ray needs it.",
    )
    ray_namespace: str = setting(
        "sd",
        "Name of the service in the Ray cluster. Two services with one name would take each "
        "other's engines.",
    )
    ray_token_file: str = setting(
        "",
        "File with the token of the Ray cluster, mode 0600. Its group may read it (0640, 0440), "
        "as where Kubernetes mounts it; others must not. ENGINE=ray needs it.",
        path=True,
    )
