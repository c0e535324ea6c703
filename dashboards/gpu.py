"""The dashboard of GPU and memory: what the card gives, what it holds, what broke it."""

from typing import Any, Final

from dashboards import queries as q
from dashboards.kinds import lines, states, tile
from dashboards.layout import Dashboard, Row
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

NO_READING: Final = "No reading: see 'Which readings there are'"
"""In place of an empty graph, which cannot tell a missing sensor from a broken collection."""

NEVER: Final = -5
SENSORS: Final = {
    "VRAM": "sd_gpu_memory_used_bytes",
    "utilisation": "sd_gpu_utilization_ratio",
    "temperature": "sd_gpu_temperature_celsius",
    "power": "sd_gpu_power_watts",
    "energy": "sd_gpu_energy_joules_total",
    "clocks": "sd_gpu_clock_hertz",
    "throttling": "sd_gpu_throttled",
    "ECC": "sd_gpu_ecc_errors_total",
    "XID": "sd_gpu_xid_last_timestamp_seconds",
}


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


def _age(name: str) -> str:
    """Seconds since a time stamp; 0 there stands for never."""
    return f"(time() - ({q.most(name)} > 0)) or ({q.most(name)} == 0) + {NEVER}"


def _tiles() -> list[Panel]:
    used = q.metric("sd_gpu_memory_used_bytes")
    size = q.metric("sd_gpu_memory_total_bytes")
    never = {NEVER: Word(text="Never", color=GREEN)}
    return [
        tile(
            "GPU readings",
            "Can the figures below be trusted? BROKEN: the driver stopped answering; no driver: "
            "this machine computes on its CPU.",
            "none",
            Target(expr=q.sensor(f"{q.least('sd_gpu_collector_up')} == 1")),
            thresholds=((None, RED), (1, GREEN)),
            words={1: Word(text="OK", color=GREEN), **q.STATES},
        ),
        _sensor(
            "VRAM used",
            "Of the fullest GPU, by everything that runs there. Above 90 % the next large "
            "request may run out: lower MAX_CONCURRENT_REQUESTS, or see who else is there.",
            "percentunit",
            f"max({used} / {size})",
            thresholds=((None, GREEN), (0.85, ORANGE), (0.95, RED)),
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
            thresholds=((None, GREEN), (80, ORANGE), (88, RED)),
            decimals=0,
        ),
        _sensor(
            "Held down by",
            "Number of reasons for which clocks are held down now. At 0 the card gives what it "
            "can; else see the reasons below.",
            "none",
            f"sum({q.most('sd_gpu_throttled', by='gpu, reason')})",
            thresholds=((None, GREEN), (1, ORANGE)),
        ),
        _sensor(
            "Last XID fault",
            "Time since the driver last reported a fault of the GPU. Its number below says "
            "whether a restart cures it or the card has to be exchanged.",
            "s",
            _age("sd_gpu_xid_last_timestamp_seconds"),
            thresholds=((None, RED), (3600, ORANGE), (86400, GREEN)),
            words=never,
            decimals=0,
        ),
        tile(
            "Engine restarts, last hour",
            "The engine ended by itself and was started again. Once is an accident, three times "
            "a crash loop.",
            "none",
            Target(expr=q.grown("sd_engine_restarts_total", over="1h")),
            thresholds=((None, GREEN), (0.5, ORANGE), (2.5, RED)),
            decimals=0,
        ),
        tile(
            "Disk free",
            "Of the fuller volume, models or results. Below 10 % delete results before writing "
            "them fails.",
            "percentunit",
            Target(
                expr=f"min({q.metric('sd_disk_free_bytes')} / {q.metric('sd_disk_size_bytes')})"
            ),
            thresholds=((None, RED), (0.1, ORANGE), (0.2, GREEN)),
            decimals=0,
        ),
    ]


def _memory() -> list[Panel]:
    used = q.total("sd_gpu_memory_used_bytes")
    allocated = q.total("sd_engine_gpu_memory_bytes", 'kind="allocated"')
    reserved = q.total("sd_engine_gpu_memory_bytes", 'kind="reserved"')
    return [
        lines(
            "VRAM by owner against the limit",
            "Who fills the card. Weights and work: the model and its batch, so fewer or smaller "
            "requests help. Cache: torch gives it back when it has to. Others: other programs "
            "and about 0.3 GiB of CUDA itself; if it grows, somebody else moved in.",
            "bytes",
            Target(expr=allocated, legend="weights and work"),
            Target(expr=f"{reserved} - {allocated}", legend="cache"),
            Target(expr=f"clamp_min({used} - ({reserved} or {used} * 0), 0)", legend="others"),
            Target(expr=q.total("sd_gpu_memory_total_bytes"), legend="limit"),
            overrides=[
                *colored({"weights and work": BLUE, "cache": "light-blue", "others": ORANGE}),
                limit("limit"),
            ],
            stacked=True,
            width=12,
            no_value=NO_READING,
        ),
        lines(
            "Out of memory by stage and what was done",
            "fail lost a request; the other rungs cost time only. Always the same stage: "
            "text_encode hints at other programs, denoise at the batch, vae_decode at the size.",
            "short",
            Target(
                expr=q.grown("sd_oom_total", by="stage, rung", over="$__rate_interval"),
                legend="{{stage}}: {{rung}}",
            ),
            overrides=colored({"/: fail$/": RED}),
            stacked=True,
            bars=True,
            width=6,
        ),
        lines(
            "Peak of torch against the limit",
            "How near the largest request came. If the peak touches the line, the next larger "
            "one runs out of memory.",
            "bytes",
            Target(
                expr=q.most("sd_engine_gpu_memory_bytes", 'kind="peak"', by="instance"),
                legend="peak {{instance}}",
            ),
            Target(expr=q.most("sd_gpu_memory_total_bytes"), legend="limit"),
            overrides=[limit("limit")],
            width=6,
            no_value=NO_READING,
        ),
    ]


def _load() -> list[Panel]:
    gpu = "{{gpu}}"
    throttled = {0: Word(text="free", color=GREEN), 1: Word(text="held down", color=ORANGE)}
    return [
        lines(
            "Utilisation",
            "Share of time in which a kernel ran, and memory was busy. Low with jobs waiting: the "
            "GPU waits for the processor or for us.",
            "percentunit",
            Target(expr=q.most("sd_gpu_utilization_ratio", by="gpu"), legend=f"kernels {gpu}"),
            Target(
                expr=q.most("sd_gpu_memory_utilization_ratio", by="gpu"), legend=f"memory {gpu}"
            ),
            maximum=1,
            no_value=NO_READING,
        ),
        lines(
            "Temperature against slow-down",
            "The distance to the dashed line is what is left before the GPU slows itself down.",
            "celsius",
            Target(expr=q.most("sd_gpu_temperature_celsius", by="gpu"), legend=gpu),
            Target(expr=q.least("sd_gpu_temperature_slowdown_celsius"), legend="slows down"),
            overrides=[limit("slows down")],
            no_value=NO_READING,
        ),
        lines(
            "Power against limit",
            "At the dashed line clocks are held down: normal for a busy card, unless the limit "
            "was set lower than it should be.",
            "watt",
            Target(expr=q.most("sd_gpu_power_watts", by="gpu"), legend=gpu),
            Target(expr=q.most("sd_gpu_power_limit_watts"), legend="limit"),
            overrides=[limit("limit", ORANGE)],
            no_value=NO_READING,
        ),
        lines(
            "Clocks",
            "Steps take longer when the clock falls: compare with the reasons beside.",
            "hertz",
            Target(
                expr=q.most("sd_gpu_clock_hertz", by="gpu, domain"), legend=f"{{{{domain}}}} {gpu}"
            ),
            no_value=NO_READING,
        ),
        states(
            "Clocks held down, by reason",
            "Thermal reasons want cooling, power reasons a higher limit or a better supply.",
            throttled,
            Target(
                expr=q.most("sd_gpu_throttled", by="gpu, reason"), legend=f"{{{{reason}}}} {gpu}"
            ),
            no_value=NO_READING,
        ),
        lines(
            "Energy per picture",
            "What a picture costs, idle time included: it falls with fuller batches. A gap is a "
            "time without pictures.",
            "joule",
            Target(
                expr=f"{q.rate('sd_gpu_energy_joules_total')} / ({q.rate('sd_images_total')} > 0)",
                legend="per picture",
            ),
            no_value=NO_READING,
        ),
    ]


def _faults() -> list[Panel]:
    counts = q.total("sd_gpu_xid_errors_total", by="gpu, xid")
    known = q.most("sd_gpu_xid_last_timestamp_seconds", by="gpu")
    none = f'label_replace({known} * 0, "xid", "none", "gpu", ".*")'
    words = {0: Word(text="reading", color=GREEN), **q.STATES}
    return [
        states(
            "Which readings there are",
            "Why a graph is empty. No sensor: this hardware or driver has no such figure, which "
            "is no fault. COLLECTION BROKEN and TARGET DOWN are faults.",
            words,
            *(
                Target(expr=q.sensor(f"count({q.metric(metric)}) * 0"), legend=name)
                for name, metric in SENSORS.items()
            ),
            height=10,
        ),
        lines(
            "XID faults since the service started",
            "Counts by number, as a new number starts at 1: 13 and 31 are usually the program, "
            "48, 63, 64, 74, 79 and 95 the card. A line named none: none so far.",
            "short",
            Target(
                expr=f"{counts}\nor ({none} unless on (gpu) {counts})", legend="{{xid}} {{gpu}}"
            ),
            overrides=colored({"/^none/": GREEN}),
            height=10,
            no_value=NO_READING,
        ),
        lines(
            "ECC errors",
            "New memory errors by kind. Corrected ones are harmless when rare; one uncorrected "
            "has destroyed work and wants a reset or another card.",
            "short",
            Target(
                expr=q.grown("sd_gpu_ecc_errors_total", by="gpu, kind", over="$__rate_interval"),
                legend="{{kind}} {{gpu}}",
            ),
            bars=True,
            height=10,
            no_value=NO_READING,
        ),
        lines(
            "Engine restarts by reason",
            "Just after an XID or an out-of-memory: the GPU is the cause. Without: see the log.",
            "short",
            Target(
                expr=q.grown("sd_engine_restarts_total", by="reason", over="$__rate_interval"),
                legend="{{reason}}",
            ),
            stacked=True,
            bars=True,
        ),
        states(
            "GPU lost",
            "A GPU that was there and fell off the bus: only a reset or a reboot brings it back.",
            {0: Word(text="there", color=GREEN), 1: Word(text="LOST", color=DARK_RED)},
            Target(expr=q.most("sd_gpu_lost", by="gpu"), legend="{{gpu}}"),
            no_value=NO_READING,
        ),
        lines(
            "Collector: time and age of a reading",
            "An age that climbs means a driver that hangs: the graphs above then show the past.",
            "s",
            Target(
                expr=q.most("sd_gpu_collector_duration_seconds", by="instance"),
                legend="took {{instance}}",
            ),
            Target(
                expr="time() - "
                + q.most("sd_gpu_collector_last_success_timestamp_seconds", by="instance"),
                legend="age {{instance}}",
            ),
            no_value=NO_READING,
        ),
    ]


def _host() -> list[Panel]:
    return [
        lines(
            "Host memory",
            "Steady growth is a leak: the engine can be restarted alone. When the two reach the "
            "machine's memory, the system kills the engine.",
            "bytes",
            Target(
                expr=q.most("process_resident_memory_bytes", by="instance"),
                legend="service {{instance}}",
            ),
            Target(
                expr=q.most("sd_engine_resident_memory_bytes", by="instance"),
                legend="engine {{instance}}",
            ),
        ),
        lines(
            "Processor of the service",
            "Processors in use by the HTTP side, engine not included. Near 1 the event loop is "
            "the bottleneck.",
            "none",
            Target(expr=q.rate("process_cpu_seconds_total", by="instance"), legend="{{instance}}"),
            thresholds=((None, GREEN), (1, ORANGE)),
            marked=True,
        ),
        lines(
            "Disk free",
            "What is left for models and results; the slope says when it is used up.",
            "bytes",
            Target(
                expr=q.least("sd_disk_free_bytes", by="instance, volume"),
                legend="{{volume}} {{instance}}",
            ),
        ),
    ]


def dashboard() -> Dashboard:
    """Describe the dashboard of GPU and memory."""
    return Dashboard(
        uid="sd-gpu",
        title="Stable Diffusion API: GPU and memory",
        description="What the card gives, what it holds, and what broke it.",
        rows=[
            Row(title="", panels=_tiles()),
            Row(title="Memory: who holds it, and when it ran out", panels=_memory()),
            Row(title="Load: how hard the GPU works, and what holds it down", panels=_load()),
            Row(title="Faults: what broke, and which readings are missing", panels=_faults()),
            Row(title="Host: memory, processor, disk", panels=_host()),
        ],
    )
