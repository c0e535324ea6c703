"""The deadline of a request."""

import asyncio


async def test_a_body_that_comes_too_slowly_ends_like_any_late_request(serve):
    """The deadline counts from the first line, not from the last byte."""
    client = await serve(request_timeout_seconds=0.01)
    never = asyncio.Event()

    async def body():
        yield b"{"
        await never.wait()

    async with client.post(
        "/generate", data=body(), headers={"Content-Type": "application/json"}
    ) as answer:
        assert answer.status == 408
