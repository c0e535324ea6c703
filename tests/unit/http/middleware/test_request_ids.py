"""Ids of requests."""

import re

import pytest


@pytest.mark.parametrize("given", ["a", "7f1c-9a52_x.1", "A" * 128])
async def test_a_sane_request_id_is_taken_over(client, given):
    """A client, or a proxy in front, can name its requests."""
    async with client.get("/health", headers={"X-Request-ID": given}) as answer:
        assert given == answer.headers["X-Request-ID"]


@pytest.mark.parametrize("given", ["", " ", "A" * 129, "a b", "a;b", "ä", "${jndi}", "a/b"])
async def test_any_other_request_id_is_replaced(client, given):
    """What could break a log line or a query is not taken over."""
    async with client.get("/health", headers={"X-Request-ID": given}) as answer:
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])


async def test_two_requests_get_two_ids(client):
    """An id finds one request."""
    ids = set()
    for _ in range(2):
        async with client.get("/health") as answer:
            ids.add(answer.headers["X-Request-ID"])
    assert len(ids) == 2
