"""Metrics of a cluster: all that are defined, with what is known at the scrape."""

from prometheus_client import CollectorRegistry, generate_latest

from service.engine.ray.metrics import ClusterMetrics, EngineLease
from service.telemetry.definitions import CLUSTER
from service.telemetry.metrics import Metrics


def exposed(metrics: ClusterMetrics) -> dict[str, float]:
    """Return the values by series, as in a scrape."""
    registry = CollectorRegistry()
    registry.register(metrics)
    lines = generate_latest(registry).decode().splitlines()
    found = (line.rsplit(" ", maxsplit=1) for line in lines if not line.startswith("#"))
    return {series: float(value) for series, value in found}


def test_a_cluster_that_was_not_seen_yet_counts_from_0():
    """An ``increase()`` over a series that is born with its first event never sees it."""
    expected = {
        "sd_cluster_driver_up": 0,
        "sd_cluster_driver_restarts_total": 0,
        "sd_cluster_seen_age_seconds": 0,
        "sd_cluster_nodes": 0,
        "sd_cluster_places": 0,
        "sd_cluster_engines_lost_total": 0,
        **{
            f'sd_cluster_engines{{status="{status}"}}': 0
            for status in ("answering", "late", "lost", "leaving")
        },
        "sd_cluster_jobs_adopted_total": 0,
        "sd_cluster_event_batches_total": 0,
        "sd_cluster_events_total": 0,
    }
    assert expected == exposed(ClusterMetrics(list, clock=lambda: 7.0))


def test_engines_are_counted_by_how_they_answer():
    """Those that have gone are in no series; the figures are those of the scrape."""
    leases = [
        EngineLease(slot="0", status="answering", age=0.5),
        EngineLease(slot="1", status="late", age=4.25),
        EngineLease(slot="2", status="answering", age=0.0),
    ]
    metrics = ClusterMetrics(lambda: leases)
    metrics.driver_up, metrics.driver_restarts = True, 1
    metrics.saw(nodes=2, places=3)
    metrics.jobs_adopted, metrics.batches, metrics.events = 3, 40, 500
    shown = exposed(metrics)
    assert shown['sd_cluster_engines{status="answering"}'] == 2
    assert shown['sd_cluster_engines{status="late"}'] == 1
    assert shown['sd_cluster_lease_age_seconds{engine="1"}'] == 4.25
    assert (shown["sd_cluster_driver_up"], shown["sd_cluster_nodes"]) == (1, 2)
    assert shown["sd_cluster_events_total"] / shown["sd_cluster_event_batches_total"] == 12.5
    del leases[1]
    assert 'sd_cluster_lease_age_seconds{engine="1"}' not in exposed(metrics)


def test_the_time_since_the_cluster_was_seen_grows_until_it_is_seen_again():
    """From the start on, when it never was."""
    now = [100.0]
    metrics = ClusterMetrics(list, clock=lambda: now[0])
    now[0] = 140.0
    assert exposed(metrics)["sd_cluster_seen_age_seconds"] == 40
    metrics.saw(nodes=2, places=3)
    now[0] = 142.5
    shown = exposed(metrics)
    assert shown["sd_cluster_seen_age_seconds"] == 2.5
    assert (shown["sd_cluster_nodes"], shown["sd_cluster_places"]) == (2, 3)


def test_every_family_is_as_it_is_defined():
    """Its name, kind, help and labels are those of the documents."""
    metrics = ClusterMetrics(lambda: [EngineLease(slot="0", status="lost", age=11.0)])
    shown = {
        (family.name + ("_total" if family.type == "counter" else ""), family.type): (
            family.documentation,
            {tuple(sample.labels) for sample in family.samples},
        )
        for family in metrics.collect()
    }
    assert {(d.name, d.kind): (d.help, {d.labels}) for d in CLUSTER} == shown


def test_a_service_without_a_cluster_has_no_such_series():
    """Its engines are processes of its own machine; 0 nodes would be a figure."""
    assert "sd_cluster" not in generate_latest(Metrics().registry).decode()
