"""The table of settings."""

import pickle
from dataclasses import fields
from pathlib import Path

import pytest

from scripts import settings_table
from service.config import loading
from service.config.profiles import PROFILES
from service.config.table import Config
from service.errors import ConfigError


def test_defaults_are_the_documented_contract():
    """An empty environment gives the documented defaults."""
    settings = loading.load({})
    assert (
        settings.api_port,
        settings.cuda_visible_devices,
        settings.model_cache_dir,
        settings.max_concurrent_requests,
        settings.log_level,
    ) == (8000, "0", Path("models"), 3, "INFO")


def test_environment_beats_default():
    """A variable of a setting's name sets it, in the setting's type."""
    settings = loading.load({"API_PORT": "9000", "LOG_PROMPTS": "yes", "MODEL_CACHE_DIR": "/m"})
    assert (settings.api_port, settings.log_prompts, settings.model_cache_dir) == (
        9000,
        True,
        Path("/m"),
    )


def test_flag_beats_environment():
    """A flag wins over the variable of the same setting."""
    assert loading.load({"API_PORT": "9000"}, {"api_port": "9001"}).api_port == 9001


def test_every_wrong_setting_is_named_at_once():
    """One error tells all that is wrong, with value and limit."""
    with pytest.raises(ConfigError) as caught:
        loading.load({"API_PORT": "70000", "LOG_LEVEL": "LOUD", "QUEUE_SIZE": "0"})
    assert caught.value.detail == (
        "API_PORT=70000: must be 65535 or less; QUEUE_SIZE=0: must be 1 or more; "
        "LOG_LEVEL=LOUD: must be one of DEBUG, INFO, WARNING, ERROR"
    )


def test_text_that_cannot_be_read_hides_no_other_mistake():
    """What is no number and what is out of range are named together."""
    with pytest.raises(ConfigError) as caught:
        loading.load({"API_PORT": "abc", "LOG_LEVEL": "x", "MAX_STEPS": "0", "MAX_SIZE": "700"})
    assert caught.value.detail == (
        "API_PORT=abc: must be a whole number; MAX_STEPS=0: must be 1 or more; "
        "MAX_SIZE=700: must be a multiple of 64; "
        "LOG_LEVEL=x: must be one of DEBUG, INFO, WARNING, ERROR"
    )


def test_a_choice_may_be_written_in_either_case():
    """Only the spelling in the table gets further."""
    settings = loading.load({"LOG_LEVEL": "info", "DEFAULT_SAMPLER": "Euler_A", "DEVICE": "CPU"})
    assert (settings.log_level, settings.default_sampler, settings.device) == (
        "INFO",
        "euler_a",
        "cpu",
    )


def test_an_empty_variable_is_an_unset_one():
    """Compose files write unset variables so; for the GPU and the folder empty means none."""
    names = {row.name.upper(): "" for row in fields(Config)}
    assert loading.load(names) == loading.load({"CUDA_VISIBLE_DEVICES": "", "DATA_DIR": ""})


def test_an_empty_flag_is_a_mistake():
    """Nobody types one without meaning it."""
    with pytest.raises(ConfigError, match="API_PORT=: must be a whole number"):
        loading.load({"API_PORT": "9000"}, {"api_port": ""})


def test_the_longest_prompts_fit_into_the_largest_body():
    """The error says which size does."""
    with pytest.raises(ConfigError, match="may take 49024 bytes; set it to that") as caught:
        loading.load({"MAX_PROMPT_CHARS": "2000", "MAX_BODY_BYTES": "40000"})
    assert caught.value.detail.startswith("MAX_BODY_BYTES=40000: ")
    assert loading.load({"MAX_PROMPT_CHARS": "2000", "MAX_BODY_BYTES": "49024"})


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("API_PORT", "eight", "must be a whole number"),
        ("REQUEST_TIMEOUT_SECONDS", "soon", "must be a number"),
        ("REQUEST_TIMEOUT_SECONDS", "nan", "must be a finite number"),
        ("VAE_TILING", "maybe", "must be true or false"),
        ("MAX_SIZE", "700", "must be a multiple of 64"),
    ],
)
def test_unusable_text_is_refused(name, text, problem):
    """Text that is no value of the setting's type or range is an error that says so."""
    with pytest.raises(ConfigError) as caught:
        loading.load({name: text})
    assert f"{name}={text}: {problem}" in caught.value.detail


@pytest.mark.parametrize(
    "environment",
    [
        {"DEFAULT_SIZE": "1024", "MAX_SIZE": "768"},
        {"MIN_SIZE": "512", "MAX_SIZE": "256"},
        {"DEFAULT_STEPS": "60"},
        {"CPU_OFFLOAD": "model", "DEVICE": "cpu"},
        {"VRAM_LIMIT_GB": "6", "DEVICE": "cpu"},
        {"VRAM_LIMIT_GB": "0.5"},
        {"DEFAULT_SAMPLER": "lcm", "DEFAULT_STEPS": "60", "MAX_STEPS": "100"},
        {"MAX_PROMPT_CHARS": "10000"},
        {"MAX_BODY_BYTES": "8192"},
        {"CORS_ORIGINS": "*", "API_KEYS_FILE": "keys"},
        {"RAY_TOKEN_FILE": "/token"},
        {"ENGINE": "ray", "RAY_ADDRESS": "head:6379", "RAY_TOKEN_FILE": "/token", "ENGINES": "4"},
    ],
)
def test_settings_that_contradict_each_other_are_refused(environment):
    """Values that are fine alone but not together are an error."""
    with pytest.raises(ConfigError):
        loading.load(environment)


def test_a_list_that_cannot_be_read_is_an_error():
    """It says what a part must be."""
    with pytest.raises(ConfigError, match="CORS_ORIGINS=example: must be comma-separated origins"):
        loading.load({"CORS_ORIGINS": "example"})


def test_every_setting_has_a_help_text():
    """No row of the table is without an explanation that ends in a full stop."""
    assert [row.name for row in fields(Config) if not row.metadata["help"].endswith(".")] == []


def test_the_table_lists_every_setting():
    """The documentation's table has one line per setting."""
    shown = settings_table.table()
    assert [row.name for row in fields(Config) if f"`{row.name.upper()}`" not in shown] == []


def test_a_profile_sets_what_suits_a_kind_of_card():
    """6gb is for a GTX 1060: neither slicing nor offload, which only slow it down."""
    settings = loading.load({"PROFILE": "6gb"})
    assert (
        settings.dtype,
        settings.attention_slicing,
        settings.cpu_offload,
        settings.vae_tiling_above,
        settings.batch_calibration,
    ) == ("auto", False, "none", 512, True)
    plain = loading.load({})
    assert (plain.profile, plain.vae_tiling_above, plain.batch_calibration) == ("none", 0, False)


@pytest.mark.parametrize("flags", [{}, {"vae_tiling_above": "640", "profile": "6GB"}])
def test_every_value_of_a_profile_loses_to_a_setting(flags):
    """Whether it is a variable or a flag, and also where it is the default."""
    explicit = {"DTYPE": "float32", "BATCH_CALIBRATION": "false", "VAE_TILING_ABOVE": "0"}
    settings = loading.load({"PROFILE": "6gb", **explicit}, flags)
    assert (settings.dtype, settings.batch_calibration) == ("float32", False)
    assert settings.vae_tiling_above == int(flags.get("vae_tiling_above", 0))


def test_the_help_of_the_profile_names_all_that_it_sets():
    """Whoever reads it need not read the code."""
    (row,) = (row for row in fields(Config) if row.name == "profile")
    for name, values in PROFILES.items():
        assert name in row.metadata["choices"]
        for setting, value in values.items():
            shown = str(value).lower() if isinstance(value, bool) else str(value)
            assert f"{setting.upper()}={shown}" in row.metadata["help"]


def test_the_engine_gets_no_secret():
    """Its settings are the same but for those."""
    secret = "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"  # noqa: S105
    full = loading.load(
        {
            "API_KEYS": f"alice:{secret}",
            "METRICS_TOKEN": secret,
            "WEBHOOK_SECRET": secret,
            "API_PORT": "9000",
        }
    )
    bare = loading.without_secrets(full)
    assert (bare.webhook_secret, bool(bare.metrics_token), bool(bare.api_keys)) == (
        "",
        False,
        False,
    )
    assert bare.api_port == 9000
    assert secret.encode() not in pickle.dumps(bare)
