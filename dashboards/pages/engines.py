"""Each engine by itself: rows of the dashboard of the service for several GPUs and a cluster."""

from typing import Final

from dashboards import queries as q
from dashboards.kinds import lines, states, table, tile
from dashboards.pages.shared import restarts
from dashboards.panel import (
    BLUE,
    DARK_RED,
    GREEN,
    GREY,
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

BY: Final = "instance, engine"
ENGINE: Final = "{{instance}} engine {{engine}}"
NO_CLUSTER: Final = -1
STATUS_COLORS: Final = {"answering": GREEN, "late": ORANGE, "lost": DARK_RED, "leaving": GREY}


def _state() -> Panel:
    words: Words = {
        5: Word(text="ready", color=GREEN),
        4: Word(text="loading", color=BLUE),
        3: Word(text="restarting", color=ORANGE),
        2: Word(text="circuit_open", color=DARK_RED),
        1: Word(text="failed", color=RED),
        0: Word(text="stopped", color=GREY),
        -1: Word(text="DOWN", color=DARK_RED),
    }
    state = " + ".join(
        f"""{value} * {q.most("sd_engine_state", f'state="{word.text}"', by=BY)}"""
        for value, word in words.items()
        if isinstance(value, int) and value > 0
    )
    down = f"(sum by (instance) ({q.metric('up')}) * 0 - 1)"
    down = f'label_replace({down}, "engine", "unknown", "", "")'
    return states(
        "Engine state",
        "State of each engine. Repeated restarting is a crash loop; an engine in the state "
        "circuit_open gets no new work. An engine that left its service is shown as stopped.",
        words,
        Target(expr=f"({state})\nor on (instance) {down}", legend=ENGINE),
        width=10,
    )


def engines() -> list[Panel]:
    """Show each engine: its state, what it does, and what it holds."""
    seconds = q.rate("sd_gpu_seconds_total", by=BY)
    memory = q.total("sd_engine_gpu_memory_bytes", 'kind="reserved"', by=BY)
    known = 'state!="stopped"'
    return [
        tile(
            "Engines ready",
            "Share of the engines that are ready. Below 100 % the others do the work of the rest; "
            "the panel next to this says which and why.",
            "percentunit",
            Target(
                expr=f"""{q.total("sd_engine_state", 'state="ready"')}"""
                f""" / {q.total("sd_engine_state", known)}"""
            ),
            thresholds=((None, RED), (0.5, ORANGE), (1, GREEN)),
            decimals=0,
            width=4,
            height=8,
        ),
        _state(),
        table(
            "Engines, models and GPUs",
            "Which engine works on which GPU, with which model: what to look for in 'nvidia-smi' "
            "and in the panels of the GPU. Without a row: on a CPU, or its model is not loaded.",
            {"engine": "Engine", "model_id": "Model", "gpu": "GPU", "instance": "Instance"},
            Target(
                expr=f"max by ({BY}, gpu, model_id) (\n  {q.metric('sd_engine_gpu_info')}\n"
                f"  * on (job, instance, engine) group_left (model_id)"
                f" {q.metric('sd_model_info')}\n)\n"
                f"or max by ({BY}, model_id) ({q.metric('sd_model_info')}"
                f" unless on (job, instance, engine) {q.metric('sd_engine_gpu_info')})"
            ),
            overrides=[
                override(name, custom_width=width)
                for name, width in {"Engine": 60, "Model": 90, "Instance": 130}.items()
            ],
            width=10,
        ),
        lines(
            "Jobs by engine",
            "Jobs in work. Engines take what waits as soon as they have room: one at 0 with a "
            "queue is not ready, or what waits does not fit it.",
            "none",
            Target(expr=q.total("sd_jobs_running", by=BY), legend=ENGINE),
            stacked=True,
        ),
        lines(
            "Busy share by engine",
            "Share of the time in which an engine computed. With a queue all should be near "
            "100 %; one far below has nothing that fits it, or loads models: SDEnginesUnbalanced.",
            "percentunit",
            Target(expr=seconds, legend=ENGINE),
            top=1,
        ),
        lines(
            "Batch occupancy by engine",
            "Mean share of the places in its batch. One engine lower than the others: its memory "
            "allows less, or it gets sizes that cannot share a batch.",
            "percentunit",
            Target(expr=q.mean("sd_batch_occupancy_ratio", by=BY), legend=ENGINE),
            top=1,
        ),
        lines(
            "VRAM by engine",
            "What torch has reserved, its cache included, and the memory of the GPU. Nothing is "
            "shown for engines on a CPU.",
            "bytes",
            Target(expr=memory, legend=ENGINE),
            Target(
                expr="max(\n"
                f"  {q.metric('sd_gpu_memory_total_bytes')}\n"
                f"  * on (job, instance, gpu) group_right () {q.metric('sd_engine_gpu_info')}\n)",
                legend="largest GPU",
            ),
            overrides=[limit("largest GPU")],
        ),
        lines(
            "Time since the last engine heartbeat",
            "While it loads or has work the engine says at every stage and step that it lives. A "
            "line that climbs by a second per second is a hang: first the engine gets no new work, "
            "then it is killed and started again.",
            "s",
            Target(expr=q.most("sd_engine_heartbeat_age_seconds", by=BY), legend=ENGINE),
            top=1,
        ),
        restarts(
            "Each takes down the images in flight, which are then made again. stalled: a kernel "
            "hung; killed: the system, often for memory; crashed: a CUDA error; garbage: it said "
            "what cannot be true; load_failed: the model could not be loaded again; lost: its "
            "machine did not answer.",
        ),
    ]


def cluster() -> list[Panel]:
    """Show the machines of ``ENGINE=ray``; empty where engines are processes of the service."""
    restarted = q.grown("sd_cluster_driver_restarts_total", over="$__rate_interval", by="instance")
    batches = q.rate("sd_cluster_event_batches_total")
    return [
        tile(
            "Driver of the cluster",
            "The child process that speaks to the engines. DOWN: no engine gets work; what they "
            "have goes on for ten seconds. No cluster: engines are processes of the service.",
            "none",
            Target(expr=f"{q.least('sd_cluster_driver_up')}\nor vector({NO_CLUSTER})"),
            thresholds=((None, RED), (1, GREEN)),
            words={
                1: Word(text="UP", color=GREEN),
                0: Word(text="DOWN", color=DARK_RED),
                NO_CLUSTER: Word(text="No cluster", color=GREY),
            },
            width=4,
            height=8,
        ),
        lines(
            "Engines of the cluster",
            "By how they answer, the machines, and the engines that these offer: more than there "
            "are is a GPU that makes nothing. late: no answer for 3 s, and no new jobs; lost: "
            "10 s, and its jobs run elsewhere; leaving: it ends its jobs and goes.",
            "none",
            Target(expr=q.total("sd_cluster_engines", by="status"), legend="{{status}}"),
            Target(expr=q.total("sd_cluster_nodes"), legend="machines"),
            Target(expr=q.total("sd_cluster_places"), legend="offered"),
            overrides=[*colored(STATUS_COLORS), limit("machines", BLUE), limit("offered", RED)],
            stacked=True,
            width=10,
        ),
        lines(
            "Time since engines answered",
            "Each is asked once a second. At the dashed line an engine gets no new jobs, at 10 s "
            "its jobs run elsewhere.",
            "s",
            Target(expr=q.most("sd_cluster_lease_age_seconds", by=BY), legend=ENGINE),
            thresholds=((None, GREEN), (3, RED)),
            marked=True,
            top=4,
            width=10,
        ),
        lines(
            "Time since the cluster was seen",
            "The driver looks every 2 s, and the head answers. At the dashed line it is away: no "
            "engine joins, and after 5 minutes all of them end.",
            "s",
            Target(
                expr=q.most("sd_cluster_seen_age_seconds", by="instance"), legend="{{instance}}"
            ),
            thresholds=((None, GREEN), (30, RED)),
            marked=True,
            top=40,
            width=8,
        ),
        lines(
            "Driver restarts, lost engines and adopted jobs",
            "A machine that goes without ending its jobs takes its engines with it. A driver that "
            "ends is started again, and what the engines went on with meanwhile is taken up again. "
            "Restarts without adopted jobs had nothing to take up, or took too long.",
            "short",
            Target(expr=restarted, legend="restarts {{instance}}"),
            Target(
                expr=q.grown("sd_cluster_jobs_adopted_total", over="$__rate_interval"),
                legend="jobs adopted",
            ),
            Target(
                expr=q.grown("sd_cluster_engines_lost_total", over="$__rate_interval"),
                legend="engines lost",
            ),
            overrides=colored(
                {"/^restarts/": RED, "engines lost": DARK_RED, "jobs adopted": GREEN}
            ),
            bars=True,
            top=1,
            width=8,
        ),
        lines(
            "Messages from engines",
            "What the cluster costs the service: messages per second, and events in each. Few "
            "events in many messages: somebody watches many jobs.",
            "none",
            Target(expr=batches, legend="messages per second"),
            Target(
                expr=f"{q.rate('sd_cluster_events_total')} / ({batches} > 0)",
                legend="events in a message",
            ),
            width=8,
        ),
    ]
