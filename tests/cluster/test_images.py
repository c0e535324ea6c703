"""Images of the demo model that an engine in a Ray cluster makes, against those of a local one."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.load_client import PNG, client_of
from tests.support.ray.cluster import Cluster
from tests.support.service_process import SAME_IMAGES, service_in

pytestmark = pytest.mark.long

SEEDS = range(4)
TIMES = "_seconds"
"""How the names of fields end that tell how long something took."""

OWN = {"request_id", "model_hash"}
"""Fields of one request; the hash is there as soon as the file of the model was read."""

Made = tuple[bytes, dict[str, Any]]


async def made(folder: Path, **settings: Any) -> list[Made]:
    """Return the pixels and the metadata of some images, without times."""
    async with (
        service_in(folder, **SAME_IMAGES, **settings) as service,
        client_of(service.url) as client,
    ):
        await service.start()
        found = []
        for seed in SEEDS:
            body = {"prompt": "a cabin", "width": 128, "height": 128, "steps": 4, "seed": seed}
            file = await client.generate(body, headers=PNG)
            assert file.status == 200, file
            told = (await client.generate(body)).body["metadata"]
            with Image.open(io.BytesIO(file.content)) as image:
                pixels, text = image.convert("RGB").tobytes(), dict(image.info)
            found.append((pixels, {**timeless(told), "file": sorted(text)}))
        return found


def timeless(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata without what differs from one time to the next."""
    return {
        name: value
        for name, value in metadata.items()
        if not name.endswith(TIMES) and name not in OWN
    }


async def test_an_engine_in_a_cluster_makes_the_images_of_a_local_one(tmp_path):
    """Byte for byte, and with the same metadata."""
    local = await made(tmp_path / "local")
    with Cluster((1,), {}) as cluster:
        remote = await made(tmp_path / "remote", **cluster.settings("images"))
    assert len({pixels for pixels, _ in local}) == len(SEEDS)
    assert [pixels for pixels, _ in remote] == [pixels for pixels, _ in local]
    for (_, there), (_, here) in zip(remote, local, strict=True):
        differing = {name for name in there if there[name] != here.get(name)}
        assert (there.keys(), differing) == (here.keys(), set())
