"""The kinds of panels used here, each with what Grafana needs to draw it."""

from typing import Any, Final

from dashboards.panel import BLUE, DARK_RED, GREY, Json, Panel, Target, Word, Words

NO_DATA: Final = -4
"""What a tile shows where its query finds nothing: other than a reading, not only empty."""

NOTHING: Final[Words] = {
    "nan": Word(text="No traffic", color=GREY),
    NO_DATA: Word(text="NO DATA", color=DARK_RED),
}
"""Nothing divided by nothing is neither good nor bad; nothing at all is bad."""


def tile(title: str, description: str, unit: str, *targets: Target, **more: Any) -> Panel:
    """Show a number now, on the colour that says whether it is fine.

    It asks for this instant only: over a range, the last value of a service that died
    half an hour ago would still stand there, in green. Without any series it says so, in red,
    unless the query itself names what stands in their place (``or vector(...)``).
    """
    settings: Json = {"width": 3, "height": 4, "interval": "5m", "words": {}} | more
    settings["words"] = {**NOTHING, **settings["words"]}
    return Panel(
        kind="stat",
        title=title,
        description=description,
        unit=unit,
        targets=[_instant(target, otherwise=NO_DATA) for target in targets],
        options={
            "colorMode": "background",
            "graphMode": "none",
            "justifyMode": "center",
            "orientation": "horizontal" if len(targets) > 1 else "auto",
            "reduceOptions": _reduce(),
            "showPercentChange": False,
            **({"text": {"titleSize": 15, "valueSize": 24}} if len(targets) > 1 else {}),
            "textMode": "value_and_name" if len(targets) > 1 else "value",
            "wideLayout": True,
        },
        **settings,
    )


BAR: Final = "1m"
"""What one bar stands for."""


def lines(
    title: str,
    description: str,
    unit: str,
    *targets: Target,
    stacked: bool = False,
    bars: bool = False,
    marked: bool = False,
    legend: str = "bottom",
    top: float | None = None,
    **more: Any,
) -> Panel:
    """Show series over time: lines, areas on top of each other, or bars.

    ``marked`` draws the thresholds into the image; ``legend`` is where the names stand;
    the axis reaches to ``top`` at least, so that little does not look like much.
    """
    settings: Json = {"color_mode": "palette-classic", "minimum": 0} | more
    if bars:
        # The windows of neighbouring bars meet: a shorter step would show one event several times.
        settings.setdefault("interval", BAR)
    return Panel(
        kind="timeseries",
        title=title,
        description=description,
        unit=unit,
        targets=targets,
        custom={
            "axisPlacement": "auto",
            **({} if top is None else {"axisSoftMax": top}),
            "drawStyle": "bars" if bars else "line",
            "fillOpacity": 60 if stacked or bars else 8,
            "lineInterpolation": "linear",
            "lineWidth": 1 if stacked or bars else 2,
            "showPoints": "auto",
            "spanNulls": False,
            "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
            "thresholdsStyle": {"mode": "dashed" if marked else "off"},
        },
        options={
            "legend": {
                "calcs": [],
                "displayMode": "list",
                "placement": legend,
                "showLegend": True,
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        **settings,
    )


def heatmap(title: str, description: str, unit: str, target: Target, **more: Any) -> Panel:
    """Show how a histogram's buckets fill over time."""
    return Panel(
        kind="heatmap",
        title=title,
        description=description,
        unit="short",
        targets=[Target(expr=target.expr, legend="{{le}}", format="heatmap", exemplar=True)],
        custom={"scaleDistribution": {"type": "linear"}},
        options={
            "calculate": False,
            "cellGap": 1,
            "cellValues": {"unit": "short"},
            "color": {
                "exponent": 0.5,
                "fill": "dark-orange",
                "mode": "scheme",
                "reverse": False,
                "scale": "exponential",
                "scheme": "Oranges",
                "steps": 64,
            },
            "exemplars": {"color": "rgba(80,160,255,0.8)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": True},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
        },
        **more,
    )


def bars(title: str, description: str, unit: str, *targets: Target, **more: Any) -> Panel:
    """Show one bar for each series, over the whole time that is looked at."""
    settings: Json = {"color_mode": f"fixed:{BLUE}", "minimum": 0} | more
    return Panel(
        kind="bargauge",
        title=title,
        description=description,
        unit=unit,
        targets=[_instant(target) for target in targets],
        options={
            "displayMode": "basic",
            "legend": {
                "calcs": [],
                "displayMode": "list",
                "placement": "bottom",
                "showLegend": False,
            },
            "namePlacement": "left",
            "orientation": "horizontal",
            "reduceOptions": _reduce(),
            "showUnfilled": True,
            "sizing": "auto",
            "text": {"titleSize": 13, "valueSize": 14},
            "valueMode": "text",
        },
        **settings,
    )


def states(title: str, description: str, words: Words, *targets: Target, **more: Any) -> Panel:
    """Show in which state something was, and for how long."""
    return Panel(
        kind="state-timeline",
        title=title,
        description=description,
        unit="none",
        targets=targets,
        words=words,
        custom={"fillOpacity": 85, "lineWidth": 0},
        options={
            "alignValue": "left",
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
            "mergeValues": True,
            "rowHeight": 0.85,
            "showValue": "auto",
            "tooltip": {"mode": "single", "sort": "none"},
        },
        **more,
    )


def table(
    title: str, description: str, columns: dict[str, str], target: Target, **more: Any
) -> Panel:
    """Show the labels of the series that are there now; ``columns`` names those to show."""
    return Panel(
        kind="table",
        title=title,
        description=description,
        unit="none",
        targets=[Target(expr=target.expr, instant=True, format="table")],
        custom={"align": "auto", "cellOptions": {"type": "auto"}, "filterable": False},
        options={"cellHeight": "sm", "footer": {"show": False}, "showHeader": True},
        transformations=[
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True, "Value": True},
                    "indexByName": {name: index for index, name in enumerate(columns)},
                    "renameByName": columns,
                },
            }
        ],
        **more,
    )


def text(title: str, description: str, content: str, **more: Any) -> Panel:
    """Show a text, in which variables are filled in."""
    return Panel(
        kind="text",
        title=title,
        description=description,
        unit="none",
        targets=(),
        options={"code": {"language": "plaintext"}, "content": content, "mode": "markdown"},
        **more,
    )


def _instant(target: Target, otherwise: float | None = None) -> Target:
    expr = target.expr
    if otherwise is not None and "vector(" not in expr:
        expr = f"{expr}\nor vector({otherwise})"
    return Target(expr=expr, legend=target.legend, instant=True)


def _reduce() -> Json:
    # The last value as it is: "lastNotNull" would skip NaN, the sign of no traffic.
    return {"calcs": ["last"], "fields": "", "values": False}
