"""How a receiver knows that a webhook is ours."""

import base64

import pytest

from service.config.webhook_key import webhook_key
from service.webhooks import signature
from tests.support.receiver import verify

BODY = b'{"id": "1"}'
KEY = webhook_key("a secret of some length")


def test_the_signature_is_that_of_the_standard():
    """The example of the Standard Webhooks libraries, so that theirs can check ours."""
    key = webhook_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signature.signed(
        [key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert headers == {
        "Webhook-Id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "Webhook-Timestamp": "1614265330",
        "Webhook-Signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert verify(key, headers, b'{"test": 2432232314}', 1614265330 + 299)


@pytest.mark.parametrize(
    ("changed", "body", "now"),
    [
        ({"Webhook-Id": "2"}, BODY, 1_000),
        ({"Webhook-Timestamp": "1001"}, BODY, 1_000),
        ({"Webhook-Timestamp": "soon"}, BODY, 1_000),
        ({"Webhook-Timestamp": "\u0661"}, BODY, 1),
        ({"Webhook-Signature": ""}, BODY, 1_000),
        ({"Webhook-Signature": "v1,\u00e4"}, BODY, 1_000),
        ({}, BODY + b" ", 1_000),
        ({}, BODY, 1_301),
        ({}, BODY, 699),
    ],
)
def test_what_was_changed_or_is_old_is_found_out(changed, body, now):
    """Id, time and body are all signed."""
    headers = signature.signed([KEY], "1", 1_000, BODY)
    assert verify(KEY, headers, BODY, 1_000)
    assert not verify(KEY, {**headers, **changed}, body, now)
    assert not verify(b"another", headers, BODY, 1_000)


def test_a_secret_can_be_changed_without_a_gap():
    """Both sign for a while, and a receiver with either is content."""
    other = webhook_key("another secret of some length")
    headers = signature.signed([KEY, other], "1", 1_000, BODY)
    assert verify(KEY, headers, BODY, 1_000)
    assert verify(other, headers, BODY, 1_000)


def test_without_a_secret_nothing_is_signed():
    """An empty key would look like a signature, and be none."""
    assert "Webhook-Signature" not in signature.signed([], "1", 1_000, BODY)


@pytest.mark.parametrize("secret", ["", "short", "whsec_c2hvcnQ=", "whsec_***"])
def test_a_weak_secret_is_refused(secret):
    """With a command that makes a good one, or what is wrong with the base64."""
    with pytest.raises(ValueError, match=r"openssl rand|base64"):
        webhook_key(secret)


def test_a_secret_is_its_bytes_or_their_base64():
    """The second is the form that receivers' libraries take."""
    raw = b"0123456789abcdef"
    assert webhook_key(raw.decode()) == raw
    assert webhook_key(f"whsec_{base64.b64encode(raw).decode()}") == raw
