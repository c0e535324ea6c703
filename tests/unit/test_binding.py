"""Where the service may listen."""

import pytest
from structlog.testing import capture_logs

from service import binding, config
from service.errors import ConfigError

KEY = {"API_KEYS": "alice:5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"}
TOKEN = {"METRICS_TOKEN": "2b7d4055f0c2f8e9f1b4b7f8d3a61c9e"}
EVERYWHERE = {"API_HOST": "0.0.0.0"}  # noqa: S104 - what is refused here


def said(environment: dict[str, str]) -> list[tuple[str, str]]:
    with capture_logs() as lines:
        binding.check(config.load(environment))
    return [(line["log_level"], line["event"]) for line in lines]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gpu.lan"])  # noqa: S104 - refused
def test_a_public_address_without_keys_is_refused(host):
    """The error names the ways out."""
    with pytest.raises(ConfigError) as caught:
        binding.check(config.load({"API_HOST": host}))
    for words in (f"API_HOST={host}", "API_KEYS", "ALLOW_UNAUTHENTICATED=true", "127.0.0.1"):
        assert words in caught.value.detail


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_loopback_address_needs_no_keys(host):
    """Nothing is said about it either."""
    assert said({"API_HOST": host}) == []


def test_who_insists_is_warned():
    """A service that everybody may use says so at its start."""
    assert said({**EVERYWHERE, "ALLOW_UNAUTHENTICATED": "true"}) == [
        ("warning", "service_open_to_everybody")
    ]


def test_keys_open_every_address():
    """Metrics without a token are worth a warning: they name the keys."""
    assert said({**EVERYWHERE, **KEY}) == [("warning", "metrics_open_to_everybody")]
    assert said({**EVERYWHERE, "API_KEYS_FILE": "keys", **TOKEN}) == []
