"""Settings that do not fit together."""

import re
from typing import Any, Final

from service.core.sampler import ALIASES, Sampler, fitting, resolved
from service.core.spec import FIELDS

BYTES_PER_CHARACTER: Final = 12
"""JSON may write a character beyond the 16-bit ones as two escapes of six bytes."""

BYTES_NEXT_TO_PROMPTS: Final = 1024
"""Generous: every other field with its name takes about 300."""

NAMESPACE: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")
"""It is a part of names of actors."""

LEAST_VRAM_GB: Final = 1.0
"""CUDA itself takes about half of it."""


def contradictions(config: Any) -> list[str]:
    """Return what is wrong with a ``Config`` whose settings are right each by itself, in lines."""
    found = []
    sizes = [each for each in (config.min_size, config.default_size, config.max_size) if each]
    if sizes != sorted(sizes):
        found.append("DEFAULT_SIZE: must lie between MIN_SIZE and MAX_SIZE, where they are set")
    found += _too_many_steps(config, config.default_steps or 1)
    found += _not_followed(config.default_sampler, config.default_schedule)
    characters = sum(each.within(config).high for each in FIELDS if each.is_text)
    need = BYTES_PER_CHARACTER * characters + BYTES_NEXT_TO_PROMPTS
    if config.max_body_bytes < need:
        found.append(
            f"MAX_BODY_BYTES={config.max_body_bytes}: a prompt and a negative prompt of "
            f"MAX_PROMPT_CHARS={config.max_prompt_chars} may take {need} bytes; set it to that"
        )
    if config.api_keys and config.api_keys_file:
        found.append("API_KEYS: set it or API_KEYS_FILE, not both")
    if "*" in config.cors_origins and (config.api_keys or config.api_keys_file):
        found.append("CORS_ORIGINS=*: not with keys; list the origins that may use them")
    if config.vae and config.tiny_vae and config.tiny_vae_use == "all":
        found.append("VAE: not with TINY_VAE_USE=all, which decodes with TINY_VAE")
    if config.cpu_offload != "none" and config.device == "cpu":
        found.append(f"CPU_OFFLOAD={config.cpu_offload}: needs a GPU; leave it at none")
    if config.vram_limit_gb and config.device == "cpu":
        found.append(f"VRAM_LIMIT_GB={config.vram_limit_gb:g}: needs a GPU; leave it at 0")
    if 0 < config.vram_limit_gb < LEAST_VRAM_GB:
        found.append(
            f"VRAM_LIMIT_GB={config.vram_limit_gb:g}: must be 0, or {LEAST_VRAM_GB:g} or more"
        )
    return found + _no_cluster(config)


def _no_cluster(config: Any) -> list[str]:
    if config.engine != "ray":
        unread = "RAY_TOKEN_FILE: has no effect without ENGINE=ray; set that too, or leave it out"
        return [unread] if config.ray_token_file else []
    found = [
        f"{name}: ENGINE=ray needs it; set it, or ENGINE=process"
        for name in ("RAY_ADDRESS", "RAY_TOKEN_FILE")
        if not getattr(config, name.lower())
    ]
    if config.engines:
        found.append(
            f"ENGINES={config.engines}: not with ENGINE=ray; each node says what it offers"
        )
    if not NAMESPACE.fullmatch(config.ray_namespace):
        found.append("RAY_NAMESPACE: must be letters, digits, _ and -, 40 at most")
    if "://" in config.ray_address:
        found.append(
            f"RAY_ADDRESS={config.ray_address}: must be host:port of the head, for which this "
            "machine is a node of the cluster; start one here (ray start --address=host:port)"
        )
    return found


def _too_many_steps(config: Any, steps: int) -> list[str]:
    if steps > config.max_steps:
        return ["DEFAULT_STEPS: must not be above MAX_STEPS"]
    sampler = resolved(config.default_sampler)[0] if config.default_sampler else None
    most = Sampler(sampler).most_steps if sampler else None
    if most is not None and steps > most:
        return [f"DEFAULT_STEPS: {config.default_sampler} takes at most {most}"]
    return []


def _not_followed(sampler: str | None, schedule: str | None) -> list[str]:
    if sampler is None or schedule is None or fitting(schedule, sampler) == schedule:
        return []
    known = ALIASES[sampler][1:] if sampler in ALIASES else Sampler(sampler).schedules
    return [f"DEFAULT_SCHEDULE: must be one of {', '.join(known)} with {sampler}"]
