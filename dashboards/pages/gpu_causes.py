"""The lower half of the GPU's dashboard: load, faults, host."""

from typing import Final

from dashboards import queries as q
from dashboards.kinds import lines, states, table, tile
from dashboards.pages.shared import restarts
from dashboards.panel import (
    DARK_RED,
    GREEN,
    ORANGE,
    RED,
    Panel,
    Target,
    Word,
    Words,
    colored,
    limit,
    override,
)

NOT_LOADED: Final = -1
NO_READING: Final = "No reading: see 'Available GPU readings'"
"""In place of an empty graph, which cannot tell a missing sensor from a broken collection."""

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


def load() -> list[Panel]:
    """Show how hard the GPU works and what holds it down."""
    gpu = "{{gpu}}"
    throttled: Words = {0: Word(text="free", color=GREEN), 1: Word(text="throttled", color=ORANGE)}
    return [
        lines(
            "GPU utilisation",
            "Share of time in which a kernel ran, and memory was busy. Low with jobs waiting: the "
            "GPU waits for the CPU or for the service.",
            "percentunit",
            Target(
                expr=q.short_gpu(q.most("sd_gpu_utilization_ratio", by="gpu")),
                legend=f"kernels {gpu}",
            ),
            Target(
                expr=q.short_gpu(q.most("sd_gpu_memory_utilization_ratio", by="gpu")),
                legend=f"memory {gpu}",
            ),
            maximum=1,
            no_value=NO_READING,
        ),
        lines(
            "GPU temperature and slowdown limit",
            "The distance to the dashed line is what is left before the GPU slows itself down.",
            "celsius",
            Target(expr=q.short_gpu(q.most("sd_gpu_temperature_celsius", by="gpu")), legend=gpu),
            Target(expr=q.least("sd_gpu_temperature_slowdown_celsius"), legend="slows down"),
            overrides=[limit("slows down")],
            no_value=NO_READING,
        ),
        lines(
            "GPU power and limit",
            "At the dashed line the GPU lowers its clocks: normal for a busy card, unless the "
            "limit was set lower than it should be.",
            "watt",
            Target(expr=q.short_gpu(q.most("sd_gpu_power_watts", by="gpu")), legend=gpu),
            Target(expr=q.most("sd_gpu_power_limit_watts"), legend="limit"),
            overrides=[limit("limit", ORANGE)],
            no_value=NO_READING,
        ),
        lines(
            "GPU clocks",
            "Steps take longer when the clock falls: compare with the reasons next to this panel.",
            "hertz",
            Target(
                expr=q.short_gpu(q.most("sd_gpu_clock_hertz", by="gpu, domain")),
                legend=f"{{{{domain}}}} {gpu}",
            ),
            no_value=NO_READING,
        ),
        states(
            "Clock throttling by reason",
            "Thermal reasons want cooling, power reasons a higher limit or a better supply.",
            throttled,
            Target(
                expr=q.short_gpu(q.most("sd_gpu_throttled", by="gpu, reason")),
                legend=f"{{{{reason}}}} {gpu}",
            ),
            no_value=NO_READING,
        ),
        lines(
            "Energy per image",
            "What an image costs, idle time included: it falls with fuller batches. A gap is a "
            "time without images. Of instances whose GPU gives its energy; a GPU that several "
            "share counts once.",
            "joule",
            Target(expr=_energy_per_image(), legend="per image"),
            no_value=NO_READING,
        ),
    ]


def _energy_per_image() -> str:
    energy, images = (
        f"rate({q.metric(name)}[$__rate_interval])"
        for name in ("sd_gpu_energy_joules_total", "sd_images_total")
    )
    # Two services on one GPU both report all of it; one without a reading has only images.
    measured = f"{images} and on (job, instance) {energy}"
    return f"sum(max by (gpu) ({energy}))\n/ (sum({measured}) > 0)"


def faults() -> list[Panel]:
    """Show what broke, and which readings are missing and why."""
    counts = f"({q.total('sd_gpu_xid_errors_total', by='gpu, xid')} > 0)"
    known = q.most("sd_gpu_xid_last_timestamp_seconds", by="gpu")
    none = f'label_replace({known} * 0, "xid", "none", "gpu", ".*")'
    words: Words = {0: Word(text="reading", color=GREEN), **q.STATES}
    return [
        states(
            "Available GPU readings",
            "Why a graph is empty. No sensor: this hardware or driver has no such figure, which "
            "is no fault. COLLECTION BROKEN and TARGET DOWN are faults.",
            words,
            *(
                Target(expr=q.sensor(f"{q.present(metric)} * 0"), legend=name)
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
                expr=q.short_gpu(f"{counts}\nor ({none} unless on (gpu) {counts})"),
                legend="{{xid}} {{gpu}}",
            ),
            overrides=colored({"/^none/": GREEN}),
            top=1,
            height=10,
            no_value=NO_READING,
        ),
        lines(
            "ECC errors",
            "New memory errors by kind. Corrected ones are harmless when rare; one uncorrected "
            "has destroyed work: reset the GPU or replace the card.",
            "short",
            Target(
                expr=q.short_gpu(
                    q.grown("sd_gpu_ecc_errors_total", by="gpu, kind", over="$__rate_interval")
                ),
                legend="{{kind}} {{gpu}}",
            ),
            bars=True,
            top=1,
            height=10,
            no_value=NO_READING,
        ),
        restarts(
            "Just after an XID or an out-of-memory: the GPU is the cause. Without: see the log.",
        ),
        states(
            "GPU lost",
            "A GPU that was there and fell off the bus: only a reset or a reboot brings it back.",
            {0: Word(text="there", color=GREEN), 1: Word(text="LOST", color=DARK_RED)},
            Target(expr=q.short_gpu(q.most("sd_gpu_lost", by="gpu")), legend="{{gpu}}"),
            no_value=NO_READING,
        ),
        lines(
            "GPU reading duration and age",
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


def _load_time() -> str:
    """Take the longest; an instance without one hides the others'."""
    name = "sd_model_load_duration_seconds"
    lacking = f"({q.metric('up')} == 1) unless on (job, instance) {q.metric(name)}"
    return f"count({lacking}) * 0 + {NOT_LOADED}\nor {q.most(name)}"


def host() -> list[Panel]:
    """Show the machine around the GPU."""
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
                expr=q.most("sd_engine_resident_memory_bytes", by="instance, engine"),
                legend="engine {{engine}} {{instance}}",
            ),
        ),
        lines(
            "CPU use of the service",
            "Processors in use by the HTTP side, engine not included. Near 1 the event loop is "
            "the bottleneck.",
            "none",
            Target(expr=q.rate("process_cpu_seconds_total", by="instance"), legend="{{instance}}"),
            thresholds=((None, GREEN), (1, ORANGE)),
            marked=True,
        ),
        lines(
            "Disk free",
            "What is left for models, and for results where the service stores jobs; the slope "
            "says when it is used up. Both on one disk: twice the same line.",
            "bytes",
            Target(
                expr=q.least("sd_disk_free_bytes", by="instance, volume"),
                legend="{{volume}} {{instance}}",
            ),
        ),
        table(
            "Model and release",
            "What runs: compare it with what was meant to be released.",
            {
                "model_id": "Model",
                "version": "Version",
                "device": "Device",
                "dtype": "Numbers",
                "instance": "Instance",
                "engine": "Engine",
            },
            Target(
                expr=q.most(
                    "sd_model_info", by="model_id, version, device, dtype, instance, engine"
                )
            ),
            overrides=[
                override(name, custom_width=80)
                for name in ("Version", "Device", "Numbers", "Engine")
            ],
            width=10,
            height=5,
        ),
        table(
            "GPU and driver",
            "Which card and which driver: both belong into a report of a fault. Empty on a "
            "machine without a GPU.",
            {"name": "GPU", "driver": "Driver", "gpu": "Id", "instance": "Instance"},
            Target(expr=q.most("sd_gpu_info", by="name, driver, gpu, instance")),
            width=10,
            height=5,
            no_value=NO_READING,
        ),
        tile(
            "Model load duration",
            "How long a restart of the engine keeps the service from working. Much longer than "
            "before: the disk is slow, or the model came from the network. Not loaded: an instance "
            "that answers has not loaded its model since it started, so nothing is known.",
            "s",
            Target(expr=_load_time()),
            thresholds=((None, GREEN), (60, ORANGE), (180, RED)),
            words={NOT_LOADED: Word(text="NOT LOADED", color=ORANGE)},
            width=4,
            height=5,
            decimals=1,
        ),
    ]
