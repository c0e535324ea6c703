"""The dashboard of GPU and memory: what the card gives, what it holds, what broke it."""

from typing import Any, Final

from dashboards import queries as q
from dashboards.kinds import lines, tile
from dashboards.layout import Dashboard, Row
from dashboards.pages.gpu_causes import NO_READING, faults, host, load
from dashboards.panel import (
    BLUE,
    DARK_RED,
    GREEN,
    ORANGE,
    RED,
    Panel,
    Target,
    Word,
    colored,
    limit,
    override,
)

NEVER: Final = -5
LOST: Final = -6
NOT_ORDINARY: Final = 'reason!~"sw_power_cap|sync_boost"'


def _sensor(title: str, description: str, unit: str, reading: str, **more: Any) -> Panel:
    """Show a reading, or which of the four reasons keeps it away."""
    return tile(
        title,
        f"{description} Grey: this hardware or driver has no such figure. Red or dark red with "
        "words: nothing is known.",
        unit,
        Target(expr=q.sensor(reading)),
        words={**q.STATES, **more.pop("words", {})},
        **more,
    )


def _out_of_memory() -> str:
    """Count what happened, by itself: the names of all that can happen would hide it."""
    by_rung = q.grown("sd_oom_total", by="engine, stage, rung", over="$__rate_interval")
    none = f"{q.grown('sd_oom_total', by='engine', over='$__rate_interval')} * 0"
    for label, value in (("stage", "otherwise"), ("rung", "none")):
        none = f'label_replace({none}, "{label}", "{value}", "", "")'
    return f"({by_rung} > 0)\nor {none}"


def _age(name: str) -> str:
    """Seconds since a time stamp; 0 there stands for never."""
    return f"(time() - ({q.most(name)} > 0)) or ({q.most(name)} == 0) + {NEVER}"


def _tiles() -> list[Panel]:
    used = q.metric("sd_gpu_memory_used_bytes")
    size = q.metric("sd_gpu_memory_total_bytes")
    reserved, allocated = (
        q.metric("sd_engine_gpu_memory_bytes", f'kind="{kind}"')
        for kind in ("reserved", "allocated")
    )
    on = q.metric("sd_engine_gpu_info")
    cache = (
        f"sum by (job, instance, gpu) (({reserved} - ignoring (kind) {allocated})"
        f" * on (job, instance, engine) group_left (gpu) {on})"
    )
    readings = q.sensor(f"{q.least('sd_gpu_collector_up')} == 1")
    never = {NEVER: Word(text="Never", color=GREEN)}
    return [
        tile(
            "GPU readings",
            "Can the figures below be trusted? LOST: a GPU fell off the bus, only a reset helps; "
            "figures of several are those of the others. BROKEN: the driver stopped answering; no "
            "driver: this machine computes on its CPU.",
            "none",
            Target(expr=f"({q.most('sd_gpu_lost')} == 1) * {LOST}\nor {readings}"),
            thresholds=((None, RED), (1, GREEN)),
            words={
                1: Word(text="OK", color=GREEN),
                LOST: Word(text="GPU LOST", color=DARK_RED),
                **q.STATES,
            },
        ),
        _sensor(
            "VRAM in use",
            "Of the fullest GPU, by everything that runs there, without torch's cache, which it "
            "gives back when it has to. Above 92 % the next large request may run out: lower "
            "MAX_CONCURRENT_REQUESTS, or see who else is there.",
            "percentunit",
            f"max(({used} - on (job, instance, gpu) group_left () {cache} or {used})"
            f" / on (job, instance, gpu) {size})",
            thresholds=((None, GREEN), (0.85, ORANGE), (0.92, RED)),
            decimals=0,
        ),
        tile(
            "Out of memory, last hour",
            "Failed: a request was lost to it. Recovered: a milder measure helped, at a price in "
            "time. Below you see in which stage and what helped.",
            "none",
            Target(
                expr=q.grown("sd_oom_total", 'rung="fail"', over="1h"),
                legend="failed",
            ),
            Target(
                expr=q.grown("sd_oom_total", 'rung!="fail"', over="1h"),
                legend="recovered",
            ),
            thresholds=((None, GREEN), (0.5, RED)),
            overrides=[
                override(
                    "recovered",
                    thresholds={
                        "mode": "absolute",
                        "steps": [
                            {"color": GREEN, "value": None},
                            {"color": ORANGE, "value": 0.5},
                        ],
                    },
                )
            ],
            decimals=0,
        ),
        _sensor(
            "Hottest GPU",
            "Most cards slow down between 83 and 95 degrees; the graph below shows where this "
            "one does. Orange: look at fans and dust before it does.",
            "celsius",
            q.most("sd_gpu_temperature_celsius"),
            thresholds=((None, GREEN), (80, ORANGE), (85, RED)),
            decimals=0,
        ),
        _sensor(
            "Throttle reason",
            "Reasons for which the GPU is throttled now, heat and supply. Its power limit does not "
            "count: a busy card is often at it. Which reasons they are stands below.",
            "none",
            f"sum({q.most('sd_gpu_throttled', NOT_ORDINARY, by='gpu, reason')})"
            f" or {q.most('sd_gpu_throttled')} * 0",
            thresholds=((None, GREEN), (1, ORANGE)),
            words={0: Word(text="Nothing", color=GREEN)},
        ),
        _sensor(
            "Last XID fault",
            "Time since the driver last reported a fault of the GPU. Its number below says "
            "whether a restart is enough or the card must be replaced.",
            "s",
            _age("sd_gpu_xid_last_timestamp_seconds"),
            thresholds=((None, RED), (3600, ORANGE), (86400, GREEN)),
            words=never,
            decimals=0,
        ),
        tile(
            "Restarts, last hour",
            "The engine ended by itself and was started again. Once is an accident, three times "
            "a crash loop.",
            "none",
            Target(expr=q.grown("sd_engine_restarts_total", over="1h")),
            thresholds=((None, GREEN), (0.5, ORANGE), (2.5, RED)),
            decimals=0,
        ),
        tile(
            "Disk free, fuller volume",
            "Of models, and of results where the service stores jobs. Below 5 % remove models that "
            "nobody uses, or keep results for less time, before writing fails.",
            "percentunit",
            Target(
                expr=f"min({q.metric('sd_disk_free_bytes')}"
                f" / ({q.metric('sd_disk_size_bytes')} > 0))"
            ),
            thresholds=((None, RED), (0.05, ORANGE), (0.15, GREEN)),
            decimals=0,
        ),
    ]


def _memory() -> list[Panel]:
    used = q.total("sd_gpu_memory_used_bytes")
    allocated = q.total("sd_engine_gpu_memory_bytes", 'kind="allocated"')
    reserved = q.total("sd_engine_gpu_memory_bytes", 'kind="reserved"')
    return [
        lines(
            "VRAM by owner",
            "Who fills the card. Weights and work: the model and its batch, so fewer or smaller "
            "requests help. Cache: torch gives it back when it has to. Others: other programs "
            "and about 0.3 GiB of CUDA itself; if it grows, somebody else moved in. Peak: how near "
            "the largest request came.",
            "bytes",
            Target(expr=allocated, legend="weights and work"),
            Target(expr=f"{reserved} - {allocated}", legend="cache"),
            Target(expr=f"clamp_min({used} - ({reserved} or {used} * 0), 0)", legend="others"),
            Target(
                expr=q.total("sd_engine_gpu_memory_bytes", 'kind="peak"'), legend="torch's peak"
            ),
            Target(expr=q.total("sd_gpu_memory_total_bytes"), legend="limit"),
            overrides=[
                *colored({"weights and work": BLUE, "cache": "light-blue", "others": ORANGE}),
                limit("torch's peak", "yellow"),
                limit("limit"),
            ],
            stacked=True,
            width=12,
            no_value=NO_READING,
        ),
        lines(
            "Out-of-memory events by stage and action",
            "fail lost a request; the other rungs cost time only. Always the same stage: "
            "text_encode hints at other programs, denoise at the batch, vae_decode at the size.",
            "short",
            Target(expr=_out_of_memory(), legend="engine {{engine}} {{stage}}: {{rung}}"),
            overrides=colored({"/: /": ORANGE, "/: fail$/": RED, "/ otherwise: /": GREEN}),
            stacked=True,
            bars=True,
            legend="right",
            top=1,
            width=12,
        ),
        lines(
            "Memory per image and available memory",
            "Memory that images may use next to the model, and the measured need of one image of "
            "the default size by stage. When a need comes near the available memory, batches "
            "shrink first, then requests are refused: lower MAX_SIZE, or free memory. Without a "
            "GPU it is the host's memory.",
            "bytes",
            Target(
                expr=q.least("sd_memory_available_bytes", by="engine"),
                legend="available, engine {{engine}}",
            ),
            Target(expr=f"max by (stage) ({q.metric('sd_memory_need_bytes')})", legend="{{stage}}"),
            overrides=[limit("/^available/")],
            legend="right",
            width=24,
        ),
        lines(
            "Memory of adapters",
            "Bytes of LoRA files in memory. They stay until others need the room: LORA_GPU_GB and "
            "LORA_HOST_GB are the limits.",
            "bytes",
            Target(expr=q.total("sd_adapter_bytes", by="place"), legend="{{place}}"),
            overrides=colored({"gpu": BLUE, "host": GREEN}),
            width=12,
        ),
        lines(
            "Adapters loaded and dropped",
            "Evictions that go on with the loads mean that the memory of adapters is too small: "
            "requests wait for files to be read again. failed: a file that cannot be used.",
            "short",
            Target(
                expr=q.grown("sd_adapter_loads_total", by="outcome", over="$__rate_interval"),
                legend="{{outcome}}",
            ),
            Target(
                expr=q.grown("sd_adapter_evictions_total", over="$__rate_interval"),
                legend="dropped",
            ),
            overrides=colored({"loaded": GREEN, "failed": RED, "dropped": ORANGE}),
            width=6,
        ),
        lines(
            "Time to load an adapter",
            "How long a request waits, on average, for a file that is not in memory; others step "
            "on meanwhile.",
            "s",
            Target(expr=q.mean("sd_adapter_load_seconds"), legend="mean"),
            width=6,
        ),
    ]


def _models() -> list[Panel]:
    return [
        lines(
            "Memory of models",
            "Bytes of each model in the memory of the GPU and of the host. Without a GPU all are "
            "in the host's. The limits are the GPU's memory and HOST_CACHE_GB.",
            "bytes",
            Target(
                expr=q.total("sd_model_resident_bytes", by="model_id, place"),
                legend="{{model_id}}: {{place}}",
            ),
            legend="right",
            stacked=True,
            width=12,
        ),
        lines(
            "Models loaded",
            "disk: read from files; parked: copied back from host memory; failed: it cannot be "
            "loaded, and its requests get 503. Loads that go on mean that requests name models "
            "that do not fit into memory together.",
            "short",
            Target(
                expr=q.grown(
                    "sd_model_loads_total", by="model_id, outcome", over="$__rate_interval"
                ),
                legend="{{model_id}}: {{outcome}}",
            ),
            overrides=colored({"/: failed$/": RED}),
            width=12,
        ),
        lines(
            "Time to load a model",
            "On average, by model. The batch steps on meanwhile, if there is room for both.",
            "s",
            Target(expr=q.mean("sd_model_load_seconds", by="model_id"), legend="{{model_id}}"),
            width=12,
        ),
        lines(
            "Wait for a model",
            "From a request's fair turn until its model was in memory, on average, for requests "
            "that had to wait. Other requests go before them for a while.",
            "s",
            Target(expr=q.mean("sd_model_wait_seconds", by="model_id"), legend="{{model_id}}"),
            width=12,
        ),
    ]


def dashboard() -> Dashboard:
    """Describe the dashboard of GPU and memory."""
    return Dashboard(
        uid="sd-gpu",
        title="Stable Diffusion API: GPU and memory",
        description="GPU sensors, memory and faults, and the host.",
        rows=[
            Row(title="", panels=_tiles()),
            Row(title="Memory", panels=_memory()),
            Row(title="Models", panels=_models()),
            Row(title="GPU load", panels=load()),
            Row(title="GPU faults and readings", panels=faults()),
            Row(title="Host", panels=host()),
        ],
    )
