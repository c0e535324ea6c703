"""What ends a start with ENGINE=ray before anything listens."""

from importlib import util

import pytest

from service.cli import cluster_check, preflight
from service.cli.exits import Exit, code
from service.config import loading
from service.config.table import Config
from service.errors import ConfigError, NotInstalled
from tests.unit.cli.preflight.start import told

TOKEN = "0123456789abcdef" * 4


@pytest.fixture
def token(tmp_path):
    """Return a file with a token that only its user can read."""
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


@pytest.fixture(autouse=True)
def ray(request, monkeypatch):
    """Let Ray be installed, as it is not for each version of Python."""
    found = util.find_spec
    if "start" not in request.fixturenames:
        monkeypatch.setattr(util, "find_spec", lambda name: name == "ray" or found(name))


def config(token) -> Config:
    return Config(engine="ray", ray_address="10.0.0.1:6379", ray_token_file=str(token), data_dir="")


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_neither_packages_nor_model_nor_gpu_are_asked_for_here(token, monkeypatch, mode):
    """They are on the nodes; a group may read the token, as pods get theirs."""
    token.chmod(mode)
    found = util.find_spec
    gone = {*preflight.PACKAGES}
    monkeypatch.setattr(util, "find_spec", lambda name: None if name in gone else found(name))
    preflight.check(config(token))


def test_without_ray_the_line_says_how_to_install_it(token, monkeypatch):
    """As for the engine's packages."""
    monkeypatch.setattr(util, "find_spec", lambda _name: None)
    with pytest.raises(NotInstalled, match=r"ENGINE=ray needs: .*\[ray\]") as caught:
        cluster_check.check(config(token))
    assert code(caught.value) == Exit.NOT_INSTALLED


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o660, 0o666, 0o644])
def test_a_token_that_others_can_read_is_none(token, mode):
    """Whoever has it runs what he likes on every node."""
    token.chmod(mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {token}"):
        cluster_check.check(config(token))


@pytest.mark.parametrize("content", [None, "", "short\n"])
def test_a_file_without_a_token_is_refused_with_the_line_that_makes_one(token, content):
    """Missing, empty or a password of a person."""
    if content is None:
        token.unlink()
    else:
        token.write_text(content)
    with pytest.raises(ConfigError, match="openssl rand -hex 32"):
        cluster_check.check(config(token))


def test_a_folder_in_the_place_of_the_token(tmp_path):
    """The line says what it is."""
    with pytest.raises(ConfigError, match="is a folder"):
        cluster_check.check(config(tmp_path))


@pytest.mark.skipif(util.find_spec("ray") is None, reason="needs ray: the extra [ray]")
def test_a_start_ends_in_one_line(start, token):
    """The service itself, with the exit code of a wrong setting."""
    token.chmod(0o644)
    status, line = told(
        start.run(ENGINE="ray", RAY_ADDRESS="127.0.0.1:1", RAY_TOKEN_FILE=token, DEVICE="cpu")
    )
    assert status == Exit.SETTING
    assert "RAY_TOKEN_FILE" in line
    assert TOKEN not in line


def test_what_a_cluster_needs_is_named_at_once():
    """Address, token, and a name that can be part of another."""
    with pytest.raises(ConfigError) as caught:
        loading.load({"ENGINE": "ray", "RAY_NAMESPACE": "a/b"})
    for name in ("RAY_ADDRESS", "RAY_TOKEN_FILE", "RAY_NAMESPACE"):
        assert name in caught.value.detail


def test_the_address_of_a_client_server_is_refused():
    """The service's machine is a node of the cluster: that one is for programs that are not."""
    with pytest.raises(ConfigError, match="ray start --address"):
        loading.load(
            {"ENGINE": "ray", "RAY_ADDRESS": "ray://10.0.0.1:10001", "RAY_TOKEN_FILE": "/t"}
        )
