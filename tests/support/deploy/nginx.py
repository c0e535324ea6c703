"""The shipped nginx configuration, run by the nginx of this machine."""

import asyncio
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[3]
TEMPLATE: Final = ROOT / "deploy" / "nginx" / "templates" / "sd-api.conf.template"
COMPOSE: Final = ROOT / "docker-compose.nginx.yml"
PROGRAM: Final = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin") or ""
ENVSUBST: Final = shutil.which("envsubst") or ""
needs_nginx = pytest.mark.skipif(
    not (PROGRAM and ENVSUBST), reason="needs nginx and envsubst (apt: nginx-light, gettext-base)"
)
POLL_SECONDS: Final = 0.02
WAIT_SECONDS: Final = 30.0
MAIN: Final = """\
daemon off;
user nobody nogroup;
pid {folder}/pid;
error_log {folder}/error.log warn;
worker_processes 1;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/sd-api.conf;
}}
"""


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """A running nginx."""

    url: str
    plain: str
    trust: ssl.SSLContext
    folder: Path
    behind: tuple[int, ...]
    """Ports of the services."""

    @property
    def log(self) -> str:
        """Its access log."""
        return (self.folder / "access.log").read_text(encoding="utf-8")


def words() -> dict[str, str]:
    """Return the words of the template as docker-compose.nginx.yml sets them."""
    return {
        name: re.sub(r"\$\{\w+(?::[-?](.*)|:\+.*)\}", lambda word: word[1] or "", value)
        for name, value in described()["environment"].items()
    }


def described() -> dict[str, Any]:
    """Return nginx as docker-compose.nginx.yml has it."""
    services: dict[str, Any] = yaml.load(COMPOSE.read_text("utf-8"), Loader=Loader)["services"]  # noqa: S506
    found: dict[str, Any] = services["nginx"]
    return found


def confined() -> list[str]:
    """Return the command that leaves root no rights but those the container has."""
    if os.geteuid() != 0:
        return []
    rights = ",".join(["-all", *(f"+{name.lower()}" for name in described()["cap_add"])])
    return ["/usr/bin/setpriv", "--no-new-privs", f"--bounding-set={rights}", "--inh-caps=-all"]


class Loader(yaml.SafeLoader):
    """Reads compose files, which may say that a list is not to be merged."""


Loader.add_constructor("!reset", lambda _loader, _node: None)


def filled_in(values: dict[str, str]) -> str:
    """Return the configuration as the nginx image makes it of the template: by envsubst."""
    asked = " ".join(f"${{{name}}}" for name in values)
    done = subprocess.run(
        [ENVSUBST, asked],
        input=TEMPLATE.read_text(encoding="utf-8"),
        env={**os.environ, **values},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for localhost, as docker-compose.nginx.yml says, and return its files."""
    command = re.search(r"openssl req .*\n#.*fullchain\.pem", COMPOSE.read_text("utf-8"))
    assert command is not None
    said = command[0].replace("\n# ", " ")
    subprocess.run(said.split(), cwd=folder, capture_output=True, check=True)
    key = folder / "privkey.pem"
    if os.geteuid() == 0:
        os.chown(key, 1000, 1000)  # Its maker is a user of the machine, and it is theirs alone.
    return folder / "fullchain.pem", key


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        return int(door.getsockname()[1])


@asynccontextmanager
async def nginx(ports: Sequence[int], more: str = "", **changed: str) -> AsyncIterator[Proxy]:
    """Run nginx in front of services on these ports of this machine, with ``more`` servers."""
    with TemporaryDirectory() as name:
        async with _nginx(_opened(name), ports, more, changed) as proxy:
            yield proxy


def _opened(name: str) -> Path:
    """Return a folder that nginx's worker may use, which is another user."""
    folder = Path(name)
    folder.chmod(0o755)
    return folder


@asynccontextmanager
async def _nginx(
    folder: Path, ports: Sequence[int], more: str, changed: dict[str, str]
) -> AsyncIterator[Proxy]:
    public, key = certificate(folder)
    plain, secure = free_port(), free_port()
    values = words() | {
        "SERVER_NAME": "localhost",
        "HTTP_LISTEN": f"127.0.0.1:{plain}",
        "HTTPS_LISTEN": f"127.0.0.1:{secure}",
        "REDIRECT_PORT": f":{secure}",
        "TLS_CERTIFICATE": str(public),
        "TLS_KEY": str(key),
        "UPSTREAM_SERVERS": " ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in ports),
    }
    assert changed.keys() <= values.keys(), changed
    (folder / "sd-api.conf").write_text(filled_in(values | changed) + more, encoding="utf-8")
    main = folder / "nginx.conf"
    main.write_text(MAIN.format(folder=folder), encoding="utf-8")
    process = _started(main, folder)
    try:
        await _listens(secure, process, folder)
        yield Proxy(
            url=f"https://localhost:{secure}",
            plain=f"http://localhost:{plain}",
            trust=ssl.create_default_context(cafile=str(public)),
            folder=folder,
            behind=tuple(ports),
        )
    finally:
        process.terminate()
        process.wait(WAIT_SECONDS)


def _started(main: Path, folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "access.log").open("wb") as log:
        return subprocess.Popen(
            [*confined(), PROGRAM, "-p", folder, "-c", main, "-e", folder / "error.log"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


async def _listens(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            if process.poll() is not None:
                said = (folder / "access.log").read_text() + (folder / "error.log").read_text()
                raise AssertionError(f"nginx ended: {said}")
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(POLL_SECONDS)
                continue
            writer.close()
            await writer.wait_closed()
            return
