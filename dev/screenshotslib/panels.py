"""The panels of the chart's dashboards, and whether each shows something."""
import json
import math
import re
from collections import namedtuple

from bedlib import tools

Panel = namedtuple("Panel", "dashboard title unit legend expression")

# What shows nothing while nothing is wrong, by its metric.
QUIET = ("orders_api_requests_abandoned_total",)


def panels():
    """Every query of every panel, with all that its variables may be."""
    for file in sorted((tools.DEV.parent / "charts/orders-operator/files").glob("dashboard-*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", []):
                expression = target["expr"].replace("$__rate_interval", "1m")
                # A variable that may be anything is none.
                expression = re.sub(r'\w+=~"\$\w+",?', "", expression).replace("{}", "")
                yield Panel(file.stem.removeprefix("dashboard-"), panel["title"], panel["fieldConfig"]["defaults"].get("unit", ""),
                            target["legendFormat"], expression)


def look(prometheus):
    """Prints what each shows; gives those that show nothing."""
    empty = []
    for panel in panels():
        series = [(labels, [value for value in values if not math.isnan(value)]) for labels, values in prometheus.series(panel.expression)]
        values = [value for _, some in series for value in some]
        told = f"{min(values):.4g} to {max(values):.4g} {panel.unit}" if values else "nothing"
        print(f"{panel.dashboard:<11}{panel.title:<34}{len(series):>3} series  {told}  {panel.legend}")
        lacking = [label for label in re.findall(r"{{(\w+)}}", panel.legend) if any(label not in labels for labels, _ in series)]
        if not values and not any(name in panel.expression for name in QUIET):
            empty.append(f"{panel.dashboard}: {panel.title}: {panel.expression}: nothing")
        if lacking:
            empty.append(f"{panel.dashboard}: {panel.title}: {panel.expression}: no label {', '.join(lacking)}")
    return empty
