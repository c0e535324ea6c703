"""The messages of engines on other machines."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from service.config import loading
from service.config.table import Config
from service.core.spec import GenerationSpec
from service.core.stage import Stage
from service.engine.channel import GarbageError, Reader, written
from service.engine.protocol import EngineExited, Generate, Held, StageStarted
from service.engine.ray import messages
from service.engine.ray.messages import (
    FROM_DRIVER,
    FROM_HOST,
    REMOTE_EVENTS,
    TO_DRIVER,
    read_settings,
    written_settings,
)

VALUES: dict[Any, Any] = {
    str: "sd/home/node/0",
    int: 7,
    float: 0.5,
    bool: True,
    bytes: b"\x00\xff",
    tuple[bytes, ...]: (b"one", b""),
    tuple[str, ...]: ("sd/home/node/0", "sd/home/node/1"),
    tuple[Held, ...]: (Held(job_id="one", epoch=2), Held(job_id="two", epoch=1)),
}
"""A value of each type that a field has."""

KINDS = [
    (reader, kind)
    for reader, union in (
        (TO_DRIVER, messages.ToDriver),
        (FROM_DRIVER, messages.FromDriver),
        (FROM_HOST, messages.FromHost),
    )
    for kind in get_args(union)
]


@pytest.mark.parametrize(("reader", "kind"), KINDS, ids=lambda each: getattr(each, "__name__", ""))
def test_every_message_is_read_as_it_was_written(reader: Reader[Any], kind: type):
    """With every field and its type; one more or less is garbage."""
    assert is_dataclass(kind)
    said = kind(**{each.name: VALUES[each.type] for each in fields(kind)})
    assert reader.read(written(said)) == said
    with pytest.raises(GarbageError):
        reader.read(written(Generate(job_id="one", epoch=1, request=GenerationSpec(prompt="a"))))


def test_a_host_says_what_an_engine_says_and_that_its_child_ended():
    """Neither commands nor what only the service itself says are among it."""
    for said in (StageStarted(stage=Stage.LOAD), EngineExited(exit_code=-9, restarts=1)):
        assert REMOTE_EVENTS.read(written(said)) == said
    with pytest.raises(GarbageError):
        REMOTE_EVENTS.read(written(messages.Stop()))


def test_settings_arrive_as_they_are_but_for_secrets(tmp_path, monkeypatch):
    """Whatever differs from a default; paths mean the same in any folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    texts = {
        "MODEL_ID": "mine",
        "MODELS": "mine,org/other",
        "MODEL_CACHE_DIR": "kept",
        "CUDA_VISIBLE_DEVICES": "",
        "DATA_DIR": "",
        "PROFILE": "6gb",
        "DTYPE": "float32",
        "ALLOWED_HOSTS": "a.example,b.example",
        "DEFAULT_STEPS": "7",
        "LOG_PROMPTS": "true",
        "API_KEYS": "me:0123456789abcdef0123456789abcdef",
        "VRAM_LIMIT_GB": "1.25",
    }
    config = loading.load(texts)
    found = read_settings(written_settings(config))
    assert found == replace(
        loading.without_secrets(config),
        model_id=str(tmp_path / "mine"),
        models=type(config.models)(f"{tmp_path / 'mine'},org/other"),
        model_cache_dir=tmp_path / "kept",
    )
    assert b"0123456789abcdef" not in written_settings(config)


def test_every_default_is_read_as_it_was_written():
    """What is left open too."""
    here = Path("models").absolute()
    assert read_settings(written_settings(Config())) == replace(Config(), model_cache_dir=here)


@pytest.mark.parametrize("data", [b"", b"\x81\xa1a\x01", written({"API_PORT": "no"})])
def test_what_is_no_settings_is_garbage(data):
    """Of another version, or damaged."""
    with pytest.raises(GarbageError):
        read_settings(data)
