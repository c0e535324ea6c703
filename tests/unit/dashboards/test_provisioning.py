"""What Grafana reads at its start agrees with the dashboards and the stack."""

import json
from typing import Any

import yaml

from dashboards.generate import FOLDER
from dashboards.substitution import SCRAPE_SECONDS, seconds

ROOT = FOLDER.parent


def read(path: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / "provisioning" / path).read_text())
    return loaded


def source() -> dict[str, Any]:
    (found,) = read("datasources/prometheus.yml")["datasources"]
    return dict(found)


def test_the_data_source_is_the_one_that_the_dashboards_start_with() -> None:
    """Its uid is pinned, and the variable's first value."""
    dashboard = json.loads((FOLDER / "service.json").read_text())
    variable = dashboard["templating"]["list"][0]
    assert source()["uid"] == variable["current"]["value"] == "prometheus"
    assert source()["isDefault"]
    assert not source()["editable"]


def test_the_scrape_interval_is_the_one_of_prometheus() -> None:
    """Were it longer here, every rate would be too smooth; shorter, full of holes."""
    settings = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text())["global"]
    given = source()["jsonData"]["timeInterval"]
    assert given == settings["scrape_interval"]
    assert seconds(given) == SCRAPE_SECONDS


def test_queries_are_posted() -> None:
    """Some are longer than a URL may be."""
    assert source()["jsonData"]["httpMethod"] == "POST"


def test_exemplars_lead_to_what_is_there_without_a_log_store() -> None:
    """The request id goes to the text box of the service dashboard, which exists."""
    links = {
        link["name"]: link["url"] for link in source()["jsonData"]["exemplarTraceIdDestinations"]
    }
    assert set(links) == {"request_id", "trace_id"}
    # Grafana replaces $$ by $ while reading, and keeps ${...} from its own expansion.
    assert links["request_id"] == "/d/sd-service?var-request_id=$${__value.raw}"
    assert links["trace_id"].endswith("/$${__value.raw}")
    dashboard = json.loads((FOLDER / "service.json").read_text())
    assert dashboard["uid"] == "sd-service"
    boxes = [each for each in dashboard["templating"]["list"] if each["type"] == "textbox"]
    assert [box["name"] for box in boxes] == ["request_id"]
    assert any(
        "${request_id}" in panel.get("options", {}).get("content", "")
        for panel in dashboard["panels"]
    )


def test_dashboards_cannot_be_changed_or_deleted_in_the_browser() -> None:
    """What is changed there would be lost with the next start."""
    (provider,) = read("dashboards/sd-api.yml")["providers"]
    assert provider["disableDeletion"] is True
    assert provider["allowUiUpdates"] is False


def test_dashboards_are_read_from_where_the_stack_puts_them() -> None:
    """The container sees this folder there."""
    (provider,) = read("dashboards/sd-api.yml")["providers"]
    stack = yaml.safe_load((ROOT / "docker-compose.monitoring.yml").read_text())
    volumes = stack["services"]["grafana"]["volumes"]
    mounted = dict(volume.split(":")[:2] for volume in volumes)
    assert mounted["./dashboards"] == provider["options"]["path"]
    assert mounted["./dashboards/provisioning"] == "/etc/grafana/provisioning"
