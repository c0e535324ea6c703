"""The Dockerfile carried out to its end: an image from the service that it makes."""

import base64
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from PIL import Image

from tests.support.clean_room.room import carried_out, missing

pytestmark = pytest.mark.long

REASON = missing()


@pytest.mark.privileged
@pytest.mark.skipif(bool(REASON), reason=REASON or "nothing")
def test_the_image_draws_an_image(monkeypatch):
    """From its own steps, as its own user, in a tree nobody can write to, without a network."""
    monkeypatch.setenv("TORCH_THREADS", "2")
    with TemporaryDirectory(prefix="clean-room-") as room:
        Path(room).chmod(0o755)  # The container's user passes through.
        image, found = carried_out(Path(room))
        megabytes = sum(layer.megabytes for layer in image.layers)
    with Image.open(BytesIO(base64.b64decode(found["image"]["png"]))) as drawn:
        assert drawn.size == (512, 512)
        assert len(drawn.convert("RGB").getcolors(1 << 20) or ()) > 1000
    code, said = found["without_keys"]
    assert code == 2
    assert "no API keys are set" in said[0]
    assert found["tools"] == []
    assert "Read-only file system" in found["root_is_read_only"]
    assert found["process"] == {"Uid": ["1000"] * 4, "Gid": ["0"] * 4, "CapEff": ["0" * 16]}
    assert "jobs.sqlite" in found["data"]
    assert found["exit_code"] == 0
    assert megabytes < 1500
    assert not [path for path in image.context if path.startswith(("tests/", "docs/", ".git"))]
