"""API keys and tokens, as they are written and as they are kept."""

import pickle
from dataclasses import fields
from typing import Any

import pytest

from service.__main__ import parser
from service.config import loading
from service.config.credentials import MOST_NAMES, ApiKey, Keys, Token
from service.config.table import Config
from service.config.webhook_key import webhook_key
from service.errors import ConfigError

ALICE = "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"
BOB = "Zk3-vQ_8.t~Xw+/1LmNoPqRsTu=="
OWN = "webhook_secret="
ENCODED = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_keys_are_found_by_their_secret():
    """Name by name; what is no key finds nobody."""
    keys = Keys(f"alice:{ALICE}, bob:{BOB},")
    assert keys.names == ("alice", "bob")
    assert keys.find(ALICE) == ApiKey(name="alice")
    assert keys.find(BOB) == ApiKey(name="bob")
    assert [keys.find(wrong) for wrong in ("", "alice", ALICE[:-1], ALICE.upper(), "\udcff")] == (
        [None] * 5
    )


def test_the_lines_of_a_file_may_carry_limits():
    """Rate, burst, images and priority; empty lines and comments are skipped."""
    keys = Keys.from_lines(
        f"# our people\n\nalice:{ALICE}  rate=30 burst=5 images=500 priority=2 # her\nbob:{BOB}\n"
    )
    assert keys.find(ALICE) == ApiKey(name="alice", rate=30, burst=5, images=500, priority=2)
    assert keys.find(BOB) == ApiKey(name="bob")


def test_a_key_may_have_a_secret_of_its_own_for_its_webhooks():
    """It is no part of its limits, and shows nowhere; a comment may follow."""
    keys = Keys.from_lines(f"alice:{ALICE} rate=3 {OWN}{BOB}\t# hers\nbob:{BOB} {OWN}{ENCODED}\n")
    assert keys.find(ALICE) == ApiKey(name="alice", rate=3)
    assert keys.webhook_keys == {
        "alice": (BOB.encode(),),
        "bob": (webhook_key(ENCODED),),
    }
    assert BOB not in repr(keys)
    assert pickle.loads(pickle.dumps(keys)).webhook_keys == {}  # noqa: S301 - our own


def test_a_secret_for_webhooks_may_be_changed_over_two_lines():
    """Deliveries have a signature of each meanwhile; the key itself may stay or change."""
    new = "b" * 20
    keys = Keys.from_lines(f"alice:{ALICE} {OWN}{BOB}\nalice:{BOB} {OWN}{new}\n")
    assert keys.webhook_keys == {"alice": (BOB.encode(), new.encode())}


def test_a_secret_for_webhooks_is_never_cut_short_by_a_comment():
    """It would be another one, without a word."""
    with pytest.raises(ValueError, match=r"line 1 \(alice\) needs a webhook_secret"):
        Keys.from_lines(f"alice:{ALICE} {OWN}{BOB[:20]}#{BOB}")


def test_a_name_may_have_two_secrets():
    """The old and the new one, while its clients change over."""
    keys = Keys(f"alice:{ALICE},alice:{BOB}")
    assert (keys.names, keys.find(ALICE)) == (("alice",), keys.find(BOB))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" , ", "holds no key"),
        (ALICE, "pair 1 must be name:secret"),
        (f"a b:{ALICE}", "pair 1 must be name:secret"),
        (f"ä:{ALICE}", "pair 1 must begin with a name"),
        (f'a"b:{ALICE}', "pair 1 must begin with a name"),
        (f"{'a' * 33}:{ALICE}", "pair 1 must begin with a name"),
        (f"-a:{ALICE}", "pair 1 must begin with a name"),
        (f"Anonymous:{ALICE}", "not anonymous or other"),
        (f"alice:{BOB},bob:{ALICE[:23]}", "pair 2 (bob) needs a secret of 24-256 characters"),
        (f"alice:{ALICE * 9}", "needs a secret of 24-256 characters"),
        ("alice:" + "ab" * 20, "needs a random secret"),
        (f"alice:{ALICE}é", "needs a secret of A-Za-z0-9"),
        (f"alice:{ALICE},bob:{ALICE}", "pair 2 (bob) has a secret that stands above"),
        (f"alice:{ALICE} rate=1,alice:{BOB} rate=2", "gives alice other limits"),
        (f"alice:{ALICE} rate", "takes each of rate, burst, images, priority once"),
        (f"alice:{ALICE} rate=1 rate=1", "takes each of"),
        (f"alice:{ALICE} speed=1", "takes each of"),
        (
            f"alice:{ALICE} {OWN}short",
            "has an unusable webhook_secret: A webhook secret",
        ),
        (f"alice:{ALICE} {OWN}whsec_=", "has an unusable webhook_secret: What follows"),
        (f"alice:{ALICE} {OWN}a:b", "(alice) needs a webhook_secret of 16-256 characters"),
        (f"alice:{ALICE} {OWN}{'a' * 257}", "needs a webhook_secret of 16-256 characters"),
        (f"alice:{ALICE} {OWN}{BOB} {OWN}{BOB}", "(alice) takes webhook_secret once"),
        (
            f"alice:{ALICE} {OWN}{ALICE}",
            "has its own secret as webhook_secret",
        ),
        (f"alice:{ALICE} rate=fast", "needs a number for rate"),
        (f"alice:{ALICE} images=1.5", "needs a number for images"),
        (f"alice:{ALICE} rate=nan", "needs rate between 0 and"),
        (f"alice:{ALICE} rate=-1", "needs rate between 0 and"),
        (f"alice:{ALICE} burst=0", "needs burst between 1 and"),
        (f"alice:{ALICE} priority=101", "needs priority between -100 and 100"),
    ],
)
def test_what_cannot_be_a_key_is_named_by_its_place(text, words):
    """Never by its secret."""
    with pytest.raises(ValueError, match=r".*") as caught:
        Keys(text)
    said = str(caught.value)
    assert words in said
    assert ALICE[:20] not in said
    assert BOB not in said


def test_the_number_of_names_is_bounded():
    """Each is a label value of the metrics."""
    pairs = [f"key{n}:{ALICE}{n:04}" for n in range(MOST_NAMES + 1)]
    assert len(Keys(",".join(pairs[:-1]))) == MOST_NAMES
    with pytest.raises(ValueError, match="holds more than 100 names"):
        Keys(",".join(pairs))


def test_a_token_is_one_secret():
    """It matches itself only; an empty one matches nothing."""
    token = Token(ALICE)
    assert (bool(token), token.matches(ALICE), token.matches(BOB)) == (True, True, False)
    assert (bool(Token()), Token().matches("")) == (False, False)
    with pytest.raises(ValueError, match="needs a secret of 24-256"):
        Token("short")


def test_secrets_are_kept_as_digests_only():
    """No attribute, text or pickle of the settings has them; the engine's process gets none."""
    settings = loading.load(
        {"API_KEYS": f"alice:{ALICE},bob:{BOB}", "METRICS_TOKEN": BOB[::-1][2:]}
    )
    travelled = pickle.loads(pickle.dumps(settings))  # noqa: S301 - our own bytes
    assert len(settings.api_keys) == 2
    assert (len(travelled.api_keys), bool(travelled.metrics_token)) == (0, False)
    shown = repr(settings) + str(settings) + repr(pickle.dumps(settings))
    shown += repr(vars(settings.api_keys)) + repr(vars(settings.metrics_token))
    shown += "".join(f"{getattr(settings, row.name)}" for row in fields(Config))
    assert [secret for secret in (ALICE, BOB, BOB[::-1][2:]) if secret in shown] == []
    assert "<2 keys: alice, bob>" in repr(settings)


@pytest.mark.parametrize("name", ["API_KEYS", "METRICS_TOKEN"])
def test_an_error_in_a_secret_setting_does_not_repeat_it(name):
    """The setting is named, and what is wrong."""
    with pytest.raises(ConfigError) as caught:
        loading.load({name: f"alice {ALICE}"})
    assert caught.value.detail.startswith(f"{name}: ")
    assert ALICE not in str(caught.value)


def test_secrets_have_no_flags(monkeypatch):
    """Everybody on a machine can read a command line; and the help shows no value."""
    monkeypatch.setenv("API_KEYS", f"alice:{ALICE}")
    commands: Any = next(a for a in parser()._actions if isinstance(a.choices, dict))
    page = commands.choices["serve"].format_help()
    assert "--api-keys-file" in page
    assert "--api-keys " not in page
    assert "--metrics-token" not in page
    assert ALICE not in page


def test_keys_come_from_one_place():
    """A revoked key must not live on in the other."""
    with pytest.raises(ConfigError, match="API_KEYS: set it or API_KEYS_FILE, not both"):
        loading.load({"API_KEYS": f"alice:{ALICE}", "API_KEYS_FILE": "keys"})


def test_every_digest_is_compared(monkeypatch):
    """In constant time, and without an end at the first hit."""
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr("service.config.credentials.hmac.compare_digest", compare)
    keys = Keys(f"alice:{ALICE},bob:{BOB}")
    assert keys.find(ALICE) == ApiKey(name="alice")
    assert len(compared) == 2
