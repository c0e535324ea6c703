"""What is around a setting, and unseen in it."""

from dataclasses import fields
from pathlib import Path

import pytest

from service.config import loading
from service.config.cleaning import QUOTES, cleaned, expanded
from service.config.credentials import Keys
from service.config.setting import display, environment_name
from service.config.table import Config
from service.errors import ConfigError

ALICE = "alice:5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"
BOB = "2b7d4055f0c2f8e9f1b4b7f8d3a61c9e"
VALUES = {
    "API_KEYS": ALICE,
    "API_KEYS_FILE": "/keys",
    "METRICS_TOKEN": BOB,
    "ALLOWED_HOSTS": "gpu.lan",
    "CORS_ORIGINS": "https://a.example",
    "TRUSTED_PROXIES": "10.0.0.1",
    "WEBHOOK_SECRET": BOB,
    "WEBHOOK_HOSTS": "a.example",
    "FAULT_FILE": "/faults",
    "VAE": "/vae",
    "TINY_VAE": "/taesd",
    "DEFAULT_SIZE": "512",
    "MIN_SIZE": "256",
    "MAX_SIZE": "768",
    "DEFAULT_STEPS": "20",
    "DEFAULT_SAMPLER": "euler",
    "DEFAULT_SCHEDULE": "karras",
    "DEFAULT_GUIDANCE_SCALE": "7.5",
    "LORA_DIR": "/loras",
    "MODELS": "organisation/name",
    "RAY_ADDRESS": "10.0.0.1:6379",
    "RAY_TOKEN_FILE": "/token",
}
"""Of settings whose default is empty or left open; all others are set to their default."""

NEEDED = {"RAY_TOKEN_FILE": {"ENGINE": "ray", "RAY_ADDRESS": "10.0.0.1:6379"}}
"""Settings without which another one is refused."""

SETTINGS = [(environment_name(row), display(row.default)) for row in fields(Config)]
GIVEN = [(name, VALUES.get(name) or default) for name, default in SETTINGS]


def wrong(environment: dict[str, str], *, error: type[ConfigError] = ConfigError) -> str:
    with pytest.raises(error) as caught:
        loading.load(environment)
    return str(caught.value.detail)


def test_every_setting_has_a_value_to_try():
    """A new one with an empty default has to be added to this table."""
    assert [name for name, text in GIVEN if not text] == []


@pytest.mark.parametrize(("name", "text"), GIVEN)
def test_blanks_and_line_ends_around_a_value_are_no_part_of_it(name, text):
    """As compose files, editors of other systems and command substitutions leave them."""
    for around in (f" {text}\t", f"{text}\r", f"{text}\r\n", f"\n{text}\n"):
        needed = NEEDED.get(name, {})
        found = loading.load({**needed, name: around})
        assert repr(found) == repr(loading.load({**needed, name: text}))
        assert getattr(found, name.lower()) is not None


def test_a_secret_without_its_line_end_is_the_secret():
    """Its text shows nowhere, so it is tried."""
    settings = loading.load(
        {
            "METRICS_TOKEN": f"{BOB}\r\n",
            "API_KEYS": f"{ALICE}\r\n",
            "WEBHOOK_SECRET": f" {BOB}\n",
        }
    )
    assert settings.metrics_token.matches(BOB)
    assert settings.api_keys.find(ALICE.partition(":")[2]) is not None
    assert settings.webhook_secret == BOB


@pytest.mark.parametrize(("name", "text"), GIVEN)
@pytest.mark.parametrize(("left", "right"), ['""', "''", "``", "\u201c\u201d", "\u2018\u2019"])
def test_quotes_around_a_value_are_refused(name, text, left, right):
    """The line names the setting and shows the character; a secret is not in it."""
    for around in (f"{left}{text}{right}", f" {left}{text}{right}\r\n"):
        line = wrong({name: around}, error=ConfigError)
        assert line.startswith(name)
        assert f"has {left} (U+{ord(left):04X}, " in line
        assert "leave it out" in line
        if name in {"API_KEYS", "METRICS_TOKEN", "WEBHOOK_SECRET"}:
            assert text not in line


@pytest.mark.parametrize(("name", "text"), GIVEN)
@pytest.mark.parametrize("unseen", ["\u00a0", "\u200b", "\ufeff", "\u2060", "\x00", "\u202e"])
def test_what_nobody_sees_is_refused(name, text, unseen):
    """At either end, by its number and name."""
    for around in (f"{unseen}{text}", f"{text}{unseen}"):
        line = wrong({name: around})
        assert f"{name}" in line
        assert f"U+{ord(unseen):04X}" in line


@pytest.mark.parametrize("quote", sorted(QUOTES))
def test_a_quote_alone_is_refused_too(quote):
    """The other one may be lost; a secret may begin or end with one by chance."""
    assert "leave it out" in wrong({"API_HOST": f"{quote}127.0.0.1"})
    assert "leave it out" in wrong({"API_HOST": f"127.0.0.1{quote}"})
    assert "leave it out" in wrong({"API_HOST": quote})
    secret = f"{quote}{BOB}"
    assert loading.load({"WEBHOOK_SECRET": secret}).webhook_secret == secret


def test_an_empty_value_in_quotes_is_no_empty_value():
    """It would be a folder of that name."""
    assert "leave it out" in wrong({"DATA_DIR": '""'})
    assert loading.load({"DATA_DIR": " \r\n"}).data_dir == ""
    assert loading.load({"MODEL_ID": " \r\n"}).model_id == "demo"


def test_a_line_end_inside_a_value_is_refused_but_between_parts():
    """A list may go over several lines of a file."""
    assert "U+000A, a control character" in wrong({"DATA_DIR": "/a\n/b"})
    assert len(loading.load({"API_KEYS": f"{ALICE},\n  bob:{BOB}\n"}).api_keys) == 2
    assert len(loading.load({"ALLOWED_HOSTS": "a.lan,\r\nb.lan"}).allowed_hosts) == 2


@pytest.mark.parametrize(
    "name", ["/a b", "/\u65b0\u3000folder", "/\u0645\u06cc\u200c\u0634", "/it's'"]
)
def test_folders_have_the_names_that_people_give_them(name):
    """Spaces of any script inside a path, joiners inside a word, a quote at its end."""
    assert loading.load({"DATA_DIR": name}).data_dir == name


def test_a_home_is_expanded_in_every_path(monkeypatch):
    """Where no shell has done it: in files of an environment, or behind an equals sign."""
    monkeypatch.setenv("HOME", "/home/me")
    paths = [row for row in fields(Config) if row.metadata["path"]]
    assert {row.name for row in paths} == {
        *("model_cache_dir", "data_dir", "api_keys_file", "fault_file", "model_id"),
        *("vae", "tiny_vae", "lora_dir", "ray_token_file"),
    }
    for row in paths:
        needed = NEEDED.get(environment_name(row), {})
        settings = loading.load({**needed, environment_name(row): "~/x"})
        assert str(getattr(settings, row.name)) == "/home/me/x"
        assert str(getattr(loading.load(needed, {row.name: "~"}), row.name)) == "/home/me"
    assert (
        loading.load({"MODEL_CACHE_DIR": "~root/m"}).model_cache_dir == Path("~root/m").expanduser()
    )
    assert loading.load({"DATA_DIR": "./~"}).data_dir == "./~"


def test_a_home_that_nobody_has_is_refused():
    """It would be a folder of that name, wherever the service was started."""
    assert wrong({"DATA_DIR": "~nobody-here/x"}) == (
        "DATA_DIR=~nobody-here/x: there is no home ~nobody-here; "
        "a folder of that name is written ./~nobody-here"
    )
    with pytest.raises(ValueError, match="no home"):
        expanded("~nobody-here")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f'"{ALICE}"', 'line 2 has " (U+0022, QUOTATION MARK) around it'),
        (f'"{ALICE} rate=3', 'line 2 has " (U+0022, QUOTATION MARK) around it'),
        (
            ALICE.replace(":", ':"') + '" rate=3',
            'line 2 (alice) has " (U+0022, QUOTATION MARK) in its',
        ),
        (f"{ALICE}\u200b", "line 2 has U+200B, ZERO WIDTH SPACE in it"),
        (f"{ALICE}\u200b rate=3", "line 2 has U+200B, ZERO WIDTH SPACE in it"),
        (f"\ufeff{ALICE}", "line 2 has U+FEFF, ZERO WIDTH NO-BREAK SPACE in it"),
        (f"{ALICE}\u00a0rate=3", "line 2 has U+00A0, NO-BREAK SPACE in it"),
    ],
)
def test_lines_of_the_file_of_keys_are_held_against_the_same(line, words):
    """The place and the character are named, the secret is not."""
    with pytest.raises(ValueError, match=r"^line 2 ") as caught:
        Keys.from_lines(f"# keys\n{line}\n")
    assert words in str(caught.value)
    assert ALICE.partition(":")[2] not in str(caught.value)


def test_lines_of_the_file_of_keys_may_end_as_they_like():
    """CR, blanks and a byte order mark in front of the file are an editor's."""
    assert Keys.from_lines(f"  {ALICE} \r\n\tbob:{BOB}\t\r\n").names == ("alice", "bob")


def test_a_value_without_anything_around_it_is_itself():
    """Whatever it is for."""
    assert cleaned("a b") == "a b"
    assert cleaned("") == ""
