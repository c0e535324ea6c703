"""The one table of settings: it drives the environment, the flags, --help and the docs."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from service.addresses import Hosts, Networks, Origins
from service.credentials import Keys, Token
from service.errors import ConfigError
from service.setting import check, environment_name, flag_name, parse, setting, shown, told

SAMPLERS = (
    "ddim",
    "dpmpp_2m",
    "dpmpp_2m_karras",
    "euler",
    "euler_a",
    "heun",
    "lcm",
    "pndm",
    "unipc",
)
MOST_STEPS: Mapping[str, int] = {"lcm": 50}
"""Samplers with a limit of their own: LCM picks its steps out of those it was distilled with."""

PROFILES: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    # SDPA is always on: with it a GTX 1060 makes 512x512 in about 3.5 GB, and attention slicing
    # takes more memory, not less. DTYPE=auto is float16 on a GPU; naming it would refuse a CPU.
    "6gb": {
        "dtype": "auto",
        "attention_slicing": False,
        "cpu_offload": "none",
        "vae_tiling_above": 512,
        "batch_calibration": True,
    },
}
"""What a profile sets, where no variable or flag does."""

BYTES_PER_CHARACTER = 12
"""JSON may write a character beyond the 16-bit ones as two escapes of six bytes."""

BYTES_BESIDE_PROMPTS = 1024
"""Generous: every other field with its name takes about 300."""

LEAST_VRAM_GB = 1.0
"""CUDA itself takes about half of it."""

DEMO = "demo"
DEMO_GUIDANCE_SCALE = 3.0
"""What suits the bundled model best, by its evaluation; published models want about 7.5."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one service; each field is the environment variable of the same name."""

    # The door.
    api_host: str = setting("127.0.0.1", "Address to listen on.")
    api_port: int = setting(
        8000, "Port to listen on; 0 takes a free one.", minimum=0, maximum=65535
    )
    max_body_bytes: int = setting(65_536, "Largest request body.", minimum=1024)
    max_connections: int = setting(
        512,
        "Connections open at a time; one more ends the longest idle one, or is refused with 503.",
        minimum=1,
    )
    header_timeout_seconds: float = setting(
        20.0, "How long a request's headers may take to arrive.", minimum=0.01
    )
    body_timeout_seconds: float = setting(
        30.0, "How long a request's body may take to arrive.", minimum=0.01
    )
    send_timeout_seconds: float = setting(
        30.0,
        "A client that takes less than 1 KiB a second of its answer over this time is cut off.",
        minimum=0.01,
    )

    # Who may come in.
    api_keys: Keys = setting(  # noqa: RUF009 - it is immutable
        Keys(),
        "Keys, as name:secret pairs between commas; without keys everybody may.",
        secret=True,
    )
    api_keys_file: str = setting(
        "",
        "File of keys instead: name:secret [rate=30] [burst=5] [images=500] [priority=2] a line.",
    )
    metrics_token: Token = setting(  # noqa: RUF009 - it is immutable
        Token(),
        "Secret that /metrics then wants as a Bearer token; keys do not open it.",
        secret=True,
    )
    allow_unauthenticated: bool = setting(
        False, "Listen where other machines reach it, without keys."
    )
    allowed_hosts: Hosts = setting(  # noqa: RUF009 - it is immutable
        Hosts(),
        "Names to be called by, between commas; without keys on a loopback address only "
        "localhost and loopback addresses are answered besides.",
    )
    cors_origins: Origins = setting(  # noqa: RUF009 - it is immutable
        Origins(), "Origins whose pages may use the service, between commas; * for all."
    )
    trusted_proxies: Networks = setting(  # noqa: RUF009 - it is immutable
        Networks(), "Addresses or networks whose X-Forwarded-For is believed, between commas."
    )
    auth_failures_per_minute: int = setting(
        10, "Wrong keys from one address before it has to wait; 0 for any number.", minimum=0
    )
    rate_limit_per_minute: float = setting(
        0, "Requests for pictures in a minute, for each key; 0 for any number.", minimum=0
    )
    rate_limit_burst: int = setting(10, "Of these, how many at once after a pause.", minimum=1)
    quota_images_per_day: int = setting(
        0, "Pictures in any 24 hours, for each key; 0 for any number.", minimum=0
    )

    # The model and where it runs.
    model_id: str = setting(
        "demo", "'demo' (bundled), a hub id, a folder in diffusers layout or a .safetensors file."
    )
    profile: str = setting(
        "none",
        "Values for a kind of card, each of which a setting of its own beats. 6gb (GTX 1060): "
        "DTYPE=auto, ATTENTION_SLICING=false, CPU_OFFLOAD=none, VAE_TILING_ABOVE=512, "
        "BATCH_CALIBRATION=true.",
        choices=("none", "6gb"),
    )
    model_cache_dir: Path = setting(  # noqa: RUF009 - a Path is immutable
        Path("models"), "Where models from the hub are kept."
    )
    cuda_visible_devices: str = setting(
        "0", "GPU to use, by index or UUID; empty for none.", empty=True
    )
    device: str = setting("auto", "Where to compute.", choices=("auto", "cpu", "cuda"))
    dtype: str = setting(
        "auto",
        "Number format of the weights; auto is float16 on a GPU and float32 on a CPU.",
        choices=("auto", "float16", "bfloat16", "float32"),
    )
    torch_threads: int = setting(
        0, "CPU threads of the engine; 0 takes every core it is given.", minimum=0, maximum=1024
    )
    attention_slicing: bool = setting(
        False, "Compute attention in slices: slower, and with SDPA it takes more memory, not less."
    )
    cpu_offload: str = setting(
        "none",
        "Keep idle parts of the model in host memory (needs a GPU): slower, smaller.",
        choices=("none", "model", "sequential"),
    )
    vram_limit_gb: float = setting(
        0.0,
        "Most GPU memory that the engine takes, in GB, for a card that is shared; 0.6 of it are "
        "kept for CUDA itself. 0 for the whole card.",
        minimum=0.0,
    )
    prediction_type: str = setting(
        "auto",
        "What the UNet predicts, for a model whose files do not say: a folder without "
        "prediction_type in its scheduler, or a single file without a marker and without a folder "
        "next to it. auto is epsilon for 1.x and XL, and v_prediction for 2.x.",
        choices=("auto", "epsilon", "v_prediction"),
    )
    vae_tiling: bool = setting(False, "Decode in tiles: less memory at large sizes.")
    vae_tiling_above: int = setting(
        0,
        "Decode pictures in tiles of this size where a side is longer; 0 for the model's own tile "
        "with VAE_TILING, and for none without.",
        minimum=0,
        maximum=4096,
        multiple=64,
    )
    safety_checker: bool = setting(
        False, "Black out what the model's safety checker flags; the model must have one."
    )

    # Work.
    max_concurrent_requests: int = setting(
        3, "Upper bound of one GPU batch, in pictures.", minimum=1, maximum=64
    )
    batch_calibration: bool = setting(
        False,
        "Measure at start which batches gain speed, and make none that gain less than 5 % a "
        "picture; MAX_CONCURRENT_REQUESTS stays the upper bound.",
    )
    queue_size: int = setting(64, "Requests that may wait; more are refused with 503.", minimum=1)
    request_timeout_seconds: float = setting(
        300.0, "A request older than this ends with 408 and frees the GPU.", minimum=0.001
    )
    shutdown_timeout_seconds: float = setting(
        60.0, "How long SIGTERM waits for accepted requests.", minimum=0.0
    )
    max_attempts: int = setting(
        3, "How often a request is started before an engine crash fails it.", minimum=1, maximum=10
    )

    engine_stall_seconds: float = setting(
        600.0,
        "Longest silence of an engine that loads or has work before it is killed and started "
        "again; once its usual step is known ten times that, and 5 s at least (for other stages "
        "20 s), if that is less.",
        minimum=0.01,
    )

    # Jobs that outlive their connection.
    data_dir: str = setting(
        "data", "Folder for accepted jobs and their pictures; empty: no jobs are taken.", empty=True
    )
    results_max_age_seconds: float = setting(
        86_400.0, "How long finished jobs and their pictures are kept.", minimum=60.0
    )
    results_max_bytes: int = setting(
        2 * 2**30, "Space for kept pictures; the oldest make room.", minimum=2**20
    )
    webhook_secret: str = setting("", "Secret that webhooks are signed with.", secret=True)
    webhook_hosts: str = setting(
        "",
        "Hosts and networks that webhooks may go to beyond https to public addresses, "
        "between commas.",
    )

    # Limits and defaults of one request.
    max_prompt_chars: int = setting(500, "Longest prompt.", minimum=1, maximum=10_000)
    default_steps: int = setting(20, "Denoising steps when none are asked for.", minimum=1)
    max_steps: int = setting(50, "Most denoising steps.", minimum=1, maximum=1000)
    default_size: int = setting(
        512, "Width and height when none are asked for.", minimum=64, multiple=64
    )
    min_size: int = setting(256, "Smallest width or height.", minimum=64, multiple=64)
    max_size: int = setting(768, "Largest width or height.", minimum=64, maximum=4096, multiple=64)
    max_images: int = setting(4, "Most pictures of one request.", minimum=1, maximum=64)
    default_sampler: str = setting("dpmpp_2m", "Sampler when none is asked for.", choices=SAMPLERS)
    default_guidance_scale: float = setting(
        7.5,
        "Guidance scale when none is asked for; 3 with the demo model.",
        minimum=0.0,
        maximum=30.0,
    )

    # What it says.
    log_level: str = setting(
        "INFO", "Least severe level logged.", choices=("DEBUG", "INFO", "WARNING", "ERROR")
    )
    log_format: str = setting(
        "auto", "auto is colours on a terminal, else JSON.", choices=("auto", "console", "json")
    )
    log_prompts: bool = setting(False, "Write prompts into the log.")

    # For drills.
    fault_file: str = setting(
        "", "JSON file of faults that the engine commits on purpose; never set it in production."
    )

    def __post_init__(self) -> None:
        """Refuse values outside the table, all at once; then those that do not fit together."""
        problems = [p for row in fields(self) for p in check(row, getattr(self, row.name))]
        problems = problems or self._contradictions()
        if problems:
            raise ConfigError("; ".join(problems))

    def _contradictions(self) -> list[str]:
        found = []
        if not self.min_size <= self.default_size <= self.max_size:
            found.append("DEFAULT_SIZE: must lie between MIN_SIZE and MAX_SIZE")
        if self.default_steps > self.max_steps:
            found.append("DEFAULT_STEPS: must not be above MAX_STEPS")
        most = MOST_STEPS.get(self.default_sampler, self.max_steps)
        if self.default_steps > most:
            found.append(f"DEFAULT_STEPS: {self.default_sampler} takes at most {most}")
        need = 2 * BYTES_PER_CHARACTER * self.max_prompt_chars + BYTES_BESIDE_PROMPTS
        if self.max_body_bytes < need:
            found.append(
                f"MAX_BODY_BYTES={self.max_body_bytes}: a prompt and a negative prompt of "
                f"MAX_PROMPT_CHARS={self.max_prompt_chars} may take {need} bytes; set it to that"
            )
        if self.api_keys and self.api_keys_file:
            found.append("API_KEYS: set it or API_KEYS_FILE, not both")
        if "*" in self.cors_origins and (self.api_keys or self.api_keys_file):
            found.append("CORS_ORIGINS=*: not with keys; list the origins that may use them")
        if self.cpu_offload != "none" and self.device == "cpu":
            found.append(f"CPU_OFFLOAD={self.cpu_offload}: needs a GPU; leave it at none")
        if self.vram_limit_gb and self.device == "cpu":
            found.append(f"VRAM_LIMIT_GB={self.vram_limit_gb:g}: needs a GPU; leave it at 0")
        if 0 < self.vram_limit_gb < LEAST_VRAM_GB:
            found.append(
                f"VRAM_LIMIT_GB={self.vram_limit_gb:g}: must be 0, or {LEAST_VRAM_GB:g} or more"
            )
        return found


def secret_names() -> tuple[str, ...]:
    """Return the environment variables that hold secrets."""
    return tuple(environment_name(row) for row in fields(Config) if row.metadata["secret"])


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` one flag per row that is no secret; absent flags leave no attribute."""
    only = ", ".join(secret_names())
    group = parser.add_argument_group(
        f"settings (each is also an environment variable; {only} are variables only)"
    )
    for row in fields(Config):
        if row.metadata["secret"]:
            continue
        default = f"[{environment_name(row)}, default {shown(row.default)}]"
        group.add_argument(
            flag_name(row),
            dest=row.name,
            default=argparse.SUPPRESS,
            metavar=row.name.split("_")[-1].upper(),
            help=f"{row.metadata['help']} {default}".replace("%", "%%"),
        )


def load(environment: Mapping[str, str], flags: Mapping[str, Any] | None = None) -> Config:
    """Build the settings: a flag beats the environment, which beats profile and default.

    An empty variable counts as unset, as compose files and unit files write it, but for
    settings where empty has a meaning.

    Raises:
        ConfigError: names every setting that cannot be used, and why.

    """
    kinds = get_type_hints(Config)
    chosen: dict[str, Any] = {}
    problems = []
    for row in fields(Config):
        variable = environment.get(environment_name(row))
        if variable == "" and not row.metadata["empty"]:
            variable = None
        text = (flags or {}).get(row.name, variable)
        if text is None:
            continue
        try:
            value = parse(str(text), kinds[row.name], row.metadata["choices"])
        except ValueError as error:
            problems.append(f"{told(row, text)}: {error}")
        else:
            problems += check(row, value)
            chosen[row.name] = value
    if problems:
        raise ConfigError("; ".join(problems))
    if chosen.get("model_id", DEMO) == DEMO:
        chosen.setdefault("default_guidance_scale", DEMO_GUIDANCE_SCALE)
    return Config(**{**PROFILES[chosen.get("profile", "none")], **chosen})


def table() -> str:
    """Return the settings as a Markdown table, for the documentation."""
    lines = ["| Setting | Default | Meaning |", "|---|---|---|"]
    for row in fields(Config):
        choices = row.metadata["choices"]
        meaning = row.metadata["help"] + (f" One of {', '.join(choices)}." if choices else "")
        lines.append(f"| `{environment_name(row)}` | `{shown(row.default)}` | {meaning} |")
    return "\n".join(lines)
