"""Clients that wait for their pictures, and look at them."""

import base64
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from PIL import Image

from scripts.stress.orders import Order

FORMATS: Final = {"png": "PNG", "webp": "WEBP", "jpeg": "JPEG"}
FINAL: Final = frozenset({"finished", "failed", "cancelled"})


class WrongAnswerError(Exception):
    """An answer that no client should get."""


def demand(true: object, what: str) -> None:
    """Insist on something.

    Raises:
        WrongAnswerError: it is not so.

    """
    if not true:
        raise WrongAnswerError(what)


async def expect(answer: aiohttp.ClientResponse, status: HTTPStatus) -> None:
    """Insist on a status; another one is told with what came with it.

    Raises:
        WrongAnswerError: it is another one.

    """
    if answer.status != status:
        said = (await answer.read()).decode(errors="replace")
        raise WrongAnswerError(f"{answer.status} in place of {status.value}: {said}")


async def as_json(session: aiohttp.ClientSession, order: Order) -> None:
    """Wait for pictures in JSON."""
    async with session.post("/generate", json=order.body) as answer:
        body = await _json(answer, HTTPStatus.OK)
    pictures = body.get("images_base64", [body["image_base64"]])
    demand(len(pictures) == order.body["num_images"], f"{len(pictures)} pictures")
    for each in pictures:
        _look(base64.b64decode(each), "PNG", order)


async def as_png(session: aiohttp.ClientSession, order: Order) -> None:
    """Wait for one picture as a file."""
    headers = {"Accept": "image/png"}
    async with session.post("/generate", json=order.single().body, headers=headers) as answer:
        await expect(answer, HTTPStatus.OK)
        _look(await answer.read(), "PNG", order)


def fetched(kind: str) -> "Client":
    """Return a client of a durable job that watches its events and fetches every picture."""

    async def client(session: aiohttp.ClientSession, order: Order) -> None:
        job = await accept(session, order.body)
        last = ""
        async with events(session, job) as stream:
            async for name, _ in stream:
                last = name
        demand(last == "finished", f"the last event of job {job} is {last!r}")
        for index in range(order.body["num_images"]):
            where = f"/jobs/{job}/image?format={kind}&index={index}"
            async with session.get(where) as answer:
                await expect(answer, HTTPStatus.OK)
                _look(await answer.read(), FORMATS[kind], order)

    return client


Client = Callable[[aiohttp.ClientSession, Order], Awaitable[None]]

POLITE: Final[Mapping[str, Client]] = {
    "JSON": as_json,
    "PNG": as_png,
    **{f"job, events, {name}": fetched(kind) for kind, name in FORMATS.items()},
}


async def accept(session: aiohttp.ClientSession, body: Mapping[str, Any]) -> str:
    """Hand in a durable job and return its id."""
    async with session.post("/jobs", json=body) as answer:
        return str((await _json(answer, HTTPStatus.ACCEPTED))["id"])


@asynccontextmanager
async def events(
    session: aiohttp.ClientSession, job: str
) -> AsyncIterator[AsyncIterator[tuple[str, dict[str, Any]]]]:
    """Follow a job; the stream is closed however it is left."""
    async with session.get(f"/jobs/{job}/events") as answer:
        await expect(answer, HTTPStatus.OK)
        yield _events(answer)


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    name = ""
    async for line in answer.content:
        field, _, value = line.decode().strip().partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


async def _json(answer: aiohttp.ClientResponse, status: HTTPStatus) -> dict[str, Any]:
    await expect(answer, status)
    body = await answer.json()
    assert isinstance(body, dict)  # noqa: S101 - tells mypy what every answer of this API is
    return body


def _look(data: bytes, kind: str, order: Order) -> None:
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        demand(picture.format == kind, f"{picture.format} in place of {kind}")
        demand(picture.size == order.size, f"{picture.size} in place of {order.size}")
