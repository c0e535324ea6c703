"""Clients that wait for their images, and look at them; they ask as mixed as many people do."""

import base64
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Final

from service.core.sampler import Sampler
from tests.drills.common import images
from tests.drills.common.ledger import Order
from tests.drills.common.orders import Sizes, drawn, shuffled
from tests.support.load_client import PNG, Client, demand

SIZES: Final = (
    *((256, 256), (320, 256), (256, 384), (384, 384), (448, 320)),
    *((512, 256), (512, 384), (384, 512), (512, 512)),
)
WORDS: Final = (
    *("red", "green", "old", "boat", "cabin", "robot", "mountain", "lake"),
    *("forest", "snow", "dusk", "window", "flowers", "river", "night", "tower"),
)
LONGEST_PROMPT: Final = 40  # In words; prompts differ in length as those of people do.
IMAGES: Final = (1, 1, 1, 1, 1, 1, 1, 2, 2, 3)
FORMATS: Final = {"png": "PNG", "webp": "WEBP", "jpeg": "JPEG"}
Act = Callable[[Client, Order], Awaitable[None]]


def orders(seed: int, sizes: Sizes, most_steps: int) -> Iterator[Order]:
    """Yield orders for ever; sizes and samplers come equally often, in no order."""
    chance = random.Random(seed)
    for size, sampler in zip(shuffled(sizes, chance), shuffled(Sampler, chance), strict=False):
        body = drawn(chance, [size], range(1, most_steps + 1)) | {
            "prompt": " ".join(chance.choices(WORDS, k=chance.randint(2, LONGEST_PROMPT))),
            "sampler": sampler,
            "num_images": chance.choice(IMAGES),
        }
        if chance.random() < 0.5:  # Every other one.
            body["negative_prompt"] = chance.choice(WORDS)
        yield Order(body=body)


async def as_json(client: Client, order: Order) -> None:
    body = (await client.generate(order.body)).require(HTTPStatus.OK).body
    found = body.get("images_base64", [body["image_base64"]])
    demand(len(found) == order.body["num_images"], f"{len(found)} images")
    for each in found:
        _look(base64.b64decode(each), "PNG", order)


async def as_png(client: Client, order: Order) -> None:
    answer = await client.generate(order.but(num_images=1).body, headers=PNG)
    _look(answer.require(HTTPStatus.OK).content, "PNG", order)


def fetched(kind: str) -> Act:
    """Return a client of a durable job that watches its events and fetches every image."""

    async def act(client: Client, order: Order) -> None:
        job = await client.accept(order.body)
        last = await client.followed(job)
        demand(last == "finished", f"the last event of job {job} is {last!r}")
        for index in range(order.body["num_images"]):
            answer = await client.ask("GET", f"/jobs/{job}/image?format={kind}&index={index}")
            _look(answer.require(HTTPStatus.OK).content, FORMATS[kind], order)

    return act


POLITE: Final[Mapping[str, Act]] = {
    "JSON": as_json,
    "PNG": as_png,
    **{f"job, events, {name}": fetched(kind) for kind, name in FORMATS.items()},
}


def _look(content: bytes, kind: str, order: Order) -> None:
    flaw = images.flaw(content, order.size, kind)
    demand(not flaw, flaw)
