"""Several engines behind one queue: the images of one engine, and no work lost with one of them."""

import asyncio
import io
from pathlib import Path

import pytest
from PIL import Image

from tests.support.drilled import drilled
from tests.support.load_client import PNG, client_of
from tests.support.service_process import READY_SECONDS, SAME_IMAGES, service_in
from tests.support.wait import until

pytestmark = pytest.mark.long

SEEDS = range(8)


async def made(folder: Path, engines: int) -> tuple[dict[int, bytes], set[str]]:
    """Return the pixels of some images by their seeds, and the engines that made them."""
    async with (
        service_in(folder, ENGINES=engines, **SAME_IMAGES) as service,
        client_of(service.url) as client,
    ):
        await service.start()

        async def all_loaded() -> bool:
            return len(service.lines("model_loaded")) >= engines

        async def image(seed: int) -> bytes:
            body = {"prompt": "a cabin", "width": 128, "height": 128, "steps": 4, "seed": seed}
            answer = await client.generate(body, headers=PNG)
            assert answer.status == 200, answer
            with Image.open(io.BytesIO(answer.content)) as made:
                return made.convert("RGB").tobytes()

        await until(all_loaded, READY_SECONDS, f"{engines} engines")
        found = await asyncio.gather(*map(image, SEEDS))
        return (
            dict(zip(SEEDS, found, strict=True)),
            {str(line["engine"]) for line in service.lines("job_started")},
        )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return what one engine makes."""
    found, _ = asyncio.run(made(tmp_path_factory.mktemp("one"), 1))
    assert len(set(found.values())) == len(SEEDS)
    return found


@pytest.mark.parametrize("engines", [2, 4])
async def test_several_engines_make_the_images_of_one(engines, alone, tmp_path):
    """Byte for byte, whichever of them makes which, and each makes some."""
    together, names = await made(tmp_path, engines)
    assert names == {str(number) for number in range(engines)}
    assert together == alone


def test_an_engine_dies_and_the_others_go_on():
    """Killed, stopped or taken out: each order gets its image."""
    short = ("--engines", 2, "--seconds", 1, "--jobs", 20, "--strikes", 1)
    code, said = drilled("tests.drills.engines", *short)
    assert code == 0, said
    assert "| killed at each start | 1" in said
