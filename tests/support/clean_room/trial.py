"""An image's tree, run as a hardened container is: what compose gives it, and no more.

Runs as the first process of namespaces of its own: no network but loopback, a tree that nobody
can write to, and a user without any right. Prints one JSON line: what was found.
"""

import base64
import fcntl
import json
import os
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any, Final

TOOLS: Final = ("gcc", "cc", "g++", "make", "ld", "git", "pip", "pip3", "curl", "wget")
START_SECONDS: Final = 240.0
STOP_SECONDS: Final = 60.0
ORDER: Final = {"prompt": "A cozy cabin in the woods", "seed": 1, "steps": 8}
SCRATCH: Final = "/tmp"  # noqa: S108 - the one of the container
SIOCSIFFLAGS: Final = 0x8914
UP: Final = 0x1


class Container:
    """A tree at ``root`` and the words of its Dockerfile."""

    def __init__(self, root: str, image: dict[str, Any]) -> None:
        self.root = root
        self.image = image
        for volume in image["volumes"]:
            path = root + volume
            before = os.stat(path)  # noqa: PTH116 - one way for all three
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)
            # An engine fills a new volume with what the image has there, its owner too.
            os.chown(path, before.st_uid, before.st_gid)
            os.chmod(path, before.st_mode & 0o7777)  # noqa: PTH101
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", f"{root}{SCRATCH}"], check=True)

    def command(self, words: list[str], *, user: str = "", **more: str) -> list[str]:
        """Return how the container runs ``words``: as its user, with its variables."""
        uid, gid = (user or self.image["user"]).split(":")
        rights = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--clear-groups"]
        variables = {**self.image["variables"], **more}
        told = [f"{name}={value}" for name, value in variables.items()]
        as_user = ["setpriv", f"--reuid={uid}", f"--regid={gid}", *rights]
        return ["chroot", self.root, *as_user, "env", "-i", *told, *words]

    def run(self, words: list[str], **more: str) -> subprocess.CompletedProcess[str]:
        """Run ``words`` to their end."""
        return subprocess.run(
            self.command(words, **more), capture_output=True, text=True, check=False, timeout=120
        )


def tried(container: Container) -> dict[str, Any]:
    """Start the service, ask it for its health and an image, and end it."""
    image = container.image
    start = [*image["entrypoint"], *image["command"]]
    found: dict[str, Any] = {}
    refused = container.run(start)
    found["without_keys"] = [refused.returncode, refused.stderr.strip().splitlines()[-1:]]
    found["tools"] = [
        name for name in TOOLS if container.run(["sh", "-c", f"command -v {name}"]).returncode == 0
    ]
    found["root_is_read_only"] = container.run(["touch", "/opt/x"], user="0:0").stderr.strip()
    open_door = {"ALLOW_UNAUTHENTICATED": "true", "ALLOWED_HOSTS": "localhost"}
    more = {"TORCH_THREADS": os.environ.get("TORCH_THREADS", "0")}
    begun = time.monotonic()
    service = subprocess.Popen(
        container.command(start, **open_door, **more),
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        stderr=sys.stderr,
    )
    try:
        while container.run(list(image["health"])).returncode:
            if service.poll() is not None or time.monotonic() - begun > START_SECONDS:
                raise SystemExit(f"not ready; exit code {service.poll()}")
            time.sleep(0.5)
        found["ready_seconds"] = round(time.monotonic() - begun, 1)
        found["image"] = picture(image["port"])
        found["data"] = sorted(os.listdir(container.root + "/data"))  # noqa: PTH208
        whoami = f"{container.root}/proc/{service.pid}/status"
        with open(whoami, encoding="ascii") as status:  # noqa: PTH123
            rows = dict(line.split(":", 1) for line in status.read().splitlines() if ":" in line)
        found["process"] = {name: rows[name].split() for name in ("Uid", "Gid", "CapEff")}
        service.send_signal(signal.SIGTERM)
        found["exit_code"] = service.wait(STOP_SECONDS)
    finally:
        service.kill()
    return found


def picture(port: int) -> dict[str, Any]:
    """Ask for one and return its bytes, in base64, with how long it took."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/generate",
        data=json.dumps(ORDER).encode(),
        headers={"Content-Type": "application/json"},
    )
    begun = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:  # noqa: S310
            body = json.load(answer)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"no image: {error.status} {error.read()!r}") from error
    seconds = round(time.monotonic() - begun, 1)
    if not base64.b64decode(body["image_base64"]).startswith(b"\x89PNG"):
        raise SystemExit(f"no PNG: {body['metadata']}")
    return {"seconds": seconds, "png": body["image_base64"], "metadata": body["metadata"]}


def loopback_up() -> None:
    """Bring up the only network there is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        fcntl.ioctl(door, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", UP))


def main() -> int:
    """Mount what the arguments say and try it: the mounts' commands, the tree, the image."""
    mounts, root, image = sys.argv[1:]
    subprocess.run(["sh", "-euc", mounts], check=True)
    loopback_up()
    print(json.dumps(tried(Container(root, json.loads(image)))))
    return 0


def begin(mounts: str, root: str, image: dict[str, Any]) -> dict[str, Any]:
    """Run this module in namespaces of its own and return what it found."""
    words = [sys.executable, "-m", __name__, mounts, root, json.dumps(image)]
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{shlex.join(words[:3])} …\n{done.stdout}\n{done.stderr[-6000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
