"""What operators are given asks only for metrics there are, counts each once, and says what to do."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from jobs.counters import COUNTERS, HISTOGRAMS
from worker.cli import app
from worker.web.metrics import HELP

FOLDER = Path(__file__).parents[2] / "docs" / "operations"
ALERTS = (FOLDER / "alerts.yml").read_text(encoding="utf-8")
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text(encoding="utf-8"))
README = (FOLDER / "README.md").read_text(encoding="utf-8")

PREFIX = "onysoft_worker_"
GAUGES = {
    "jobs_now": {"kind", "status"},
    "queue_oldest_seconds": {"queue"},
    "webhooks": {"state"},
    "workers": set[str](),
    "held": {"reason"},
    "webhook_destinations_failing": set[str](),
    "redis_memory_ratio": set[str](),
}
METRICS = {name: set(labels) for name, labels in (*COUNTERS.items(), *HISTOGRAMS.items())} | GAUGES
SCRAPED = {"job", "instance"}  # what Prometheus itself puts on every series
GROUPS = get_command(app).commands  # type: ignore[attr-defined]
COMMANDS = {*GROUPS, *(f"webhooks {name}" for name in GROUPS["webhooks"].commands)}

SERIES = {name: labels for name, labels in METRICS.items() if name not in HISTOGRAMS}
for histogram in HISTOGRAMS:
    SERIES |= {f"{histogram}_sum": METRICS[histogram], f"{histogram}_count": METRICS[histogram]}
    SERIES[f"{histogram}_bucket"] = METRICS[histogram] | {"le"}

MENTION = re.compile(PREFIX + r"(?P<name>\w+)(?:\{(?P<matchers>[^}]*)\})?")
MATCHER = re.compile(r'(?P<label>\w+)\s*(?P<operator>=~|!~|!=|=)\s*"[^"]*"')
GROUPING = re.compile(r"\b(?P<operator>max|min|sum|avg|count|absent)\s*(?:by\s*\((?P<labels>[^)]*)\)\s*)?\(")


def read_rules(text: str) -> dict[str, dict[str, str]]:
    """Read the alerts of a rules file written in our layout: name -> its fields, nested ones included."""
    rules = {}
    for block in re.split(r"^ {6}- alert: ", text, flags=re.MULTILINE)[1:]:
        name, _, body = block.partition("\n")
        fields = re.findall(r"^ {8,10}(\w+):[ ]?(.*(?:\n {10,}(?!\w+: ).*)*)", body, flags=re.MULTILINE)
        rules[name] = {key: re.sub(r"^(?:\||>-)\n", "", value).strip() for key, value in fields}
    return rules


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a JSON document."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(item)


RULES = read_rules(ALERTS)
PANELS = [node for node in nodes(DASHBOARD["panels"]) if "gridPos" in node]
CHARTS = [panel for panel in PANELS if panel["type"] != "row"]
QUERIES = {f"alert {name}": rule["expr"] for name, rule in RULES.items()} | {
    f"panel {panel['title']} {target['refId']}": target["expr"] for panel in CHARTS for target in panel["targets"]
}


def inside(expr: str, start: int) -> str:
    """Take what the parenthesis opened just before ``start`` encloses."""
    depth, end = 1, start
    while depth:
        depth += {"(": 1, ")": -1}.get(expr[end], 0)
        end += 1
    return expr[start : end - 1]


def labels_in(words: str | None) -> set[str]:
    """Split a list of labels."""
    return set(re.findall(r"\w+", words or ""))


def groupings(expr: str) -> Iterator[tuple[int, int, str, set[str]]]:
    """Yield each aggregation of an expression: start and end of what it is over, operator, labels kept."""
    for found in GROUPING.finditer(expr):
        yield found.end(), found.end() + len(inside(expr, found.end())), found["operator"], labels_in(found["labels"])


@pytest.mark.parametrize("expr", QUERIES.values(), ids=QUERIES)
def test_every_metric_and_label_asked_for_exists(expr: str) -> None:
    """Each series is one of the contract's, matched and grouped by labels it has."""
    mentions = list(MENTION.finditer(expr))
    assert mentions
    for mention in mentions:
        assert mention["name"] in SERIES
        has = SERIES[mention["name"]]
        assert {found["label"] for found in MATCHER.finditer(mention["matchers"] or "")} <= has | SCRAPED
        for start, end, _, labels in groupings(expr):
            if start <= mention.start() < end:
                assert labels <= has


@pytest.mark.parametrize("expr", QUERIES.values(), ids=QUERIES)
def test_every_series_is_counted_once_however_many_web_processes_are_scraped(expr: str) -> None:
    """The innermost aggregation is a maximum (or minimum) over the web processes that merges nothing else."""
    for mention in MENTION.finditer(expr):
        around = [grouping for grouping in groupings(expr) if grouping[0] <= mention.start() < grouping[1]]
        assert around, f"{mention[0]} is not aggregated over the web processes"
        _, _, operator, labels = max(around, key=lambda grouping: grouping[0])
        assert operator in {"max", "min", "absent"}
        assert labels == SERIES[mention["name"]]


def test_every_query_of_the_dashboard_is_seen() -> None:
    """No query hides outside the panels, but for the variable's, which asks for a metric there is."""
    assert len([node for node in nodes(DASHBOARD) if "expr" in node]) == len(QUERIES) - len(RULES)
    for variable in DASHBOARD["templating"]["list"]:
        asked = MENTION.findall(json.dumps(variable))
        assert {name for name, _ in asked} <= SERIES.keys()


def test_every_metric_has_a_panel_and_a_line() -> None:
    """Nothing is measured that the dashboard does not show and the table does not explain."""
    shown = {mention["name"] for panel in CHARTS for t in panel["targets"] for mention in MENTION.finditer(t["expr"])}
    assert {name.removesuffix("_bucket") for name in shown} == set(METRICS)
    rows = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \| ([^|]*)\|", README, flags=re.MULTILINE)
    assert {name: labels_in(labels) for name, _, labels in rows} == METRICS
    for name, kind, _ in rows:
        assert (kind == "counter") == name.endswith("_total")
        assert (kind == "histogram") == (name in HISTOGRAMS)


@pytest.mark.parametrize("name", RULES)
def test_every_alert_says_what_to_do(name: str) -> None:
    """An alert has a delay, a severity, a summary, a description with a command of ours, a test and a line."""
    rule = RULES[name]
    assert re.fullmatch(r"\d+[smh]", rule["for"])
    assert rule["severity"] in {"critical", "warning"}
    assert rule["summary"]
    said = re.findall(r"onysoft-worker ((?:webhooks )?[a-z]+)", rule["description"])
    assert said
    assert set(said) <= COMMANDS
    assert f'alertname="{name}"' in (FOLDER / "alerts.test.yml").read_text(encoding="utf-8")
    assert f"| `{name}` |" in README


def test_no_alert_escapes_these_tests() -> None:
    """As many alerts are read as the file and the table name."""
    assert (
        len(RULES)
        == len(re.findall(r"\balert:", ALERTS))
        == len(re.findall(r"^\| `OnysoftWorker", README, re.MULTILINE))
    )


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """It names no data source but the one chosen on import, and no panel twice."""
    assert [v["type"] for v in DASHBOARD["templating"]["list"] if v["name"] == "datasource"] == ["datasource"]
    sources = [node["datasource"] for node in nodes(DASHBOARD) if "datasource" in node]
    assert len(sources) >= 2 * len(CHARTS)
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("panel", CHARTS, ids=lambda panel: panel["title"])
def test_every_panel_explains_itself(panel: dict[str, Any]) -> None:
    """A panel has a title, a unit, a description, targets told apart, and legends of labels that are there."""
    assert panel["title"]
    assert panel["description"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    targets = panel["targets"]
    assert len({target["refId"] for target in targets}) == len({t["legendFormat"] for t in targets}) == len(targets)
    for target in targets:
        kept = set().union(*(labels for *_, labels in groupings(target["expr"])))
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept


def test_panels_do_not_overlap() -> None:
    """Each field of the grid is one panel's, and none lies outside its 24 columns."""
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        x, y, w, h = (panel["gridPos"][side] for side in "xywh")
        fields = {(column, line) for column in range(x, x + w) for line in range(y, y + h)}
        assert x + w <= 24
        assert not taken & fields
        taken |= fields


def test_the_gauges_here_are_those_exposed() -> None:
    """Counters, histograms and gauges of these tests are all that the metrics page has."""
    assert METRICS.keys() == HELP.keys()
