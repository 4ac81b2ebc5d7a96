"""Rules, dashboard, runbook and documentation speak of metrics that there are, and Prometheus understands them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from pipeline.cli import app
from pipeline.metrics.catalogue import CATALOGUE, LABELS, Source, labels_in_use
from pipeline.metrics.documentation import page

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "tenant-billing.json"
OTHERS = {"up", "ALERTS", "process_resident_memory_bytes"}  # Prometheus's and Python's own
TARGET_LABELS = {"instance", "job", "le"}
_WORDS = {
    "by",
    "on",
    "and",
    "or",
    "unless",
    "offset",
    "ignoring",
    "group_left",
    "max",
    "min",
    "sum",
    "abs",
    "time",
}


@cache
def rules() -> list[dict[str, Any]]:
    groups = [yaml.safe_load(file.read_text())["groups"] for file in sorted(PROMETHEUS.glob("rules/*.yml"))]
    return [rule for file in groups for group in file for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


@cache
def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_bytes())["panels"]
    return found


def shown() -> list[tuple[str, str, str]]:
    """Panel, expression and legend of everything on the dashboard."""
    return [
        (panel["title"], target["expr"], target["legendFormat"])
        for panel in panels()
        for target in panel.get("targets", ())
    ]


def expressions() -> list[tuple[str, str]]:
    named = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
    return named + [(title, expression) for title, expression, _ in shown()]


@cache
def labels_of() -> dict[str, set[str]]:
    """The labels of each time series there is, recorded ones included."""
    known = {name: set(metric.labels) | TARGET_LABELS for metric in CATALOGUE for name in metric.series}
    known |= {name: TARGET_LABELS | {"alertstate"} for name in OTHERS}
    for rule in rules():
        if "record" in rule:
            grouped = re.search(r"by \(([^)]*)\)", rule["expr"])
            known[rule["record"]] = set(re.findall(r"\w+", grouped[1])) if grouped else set()
    return known


def series_in(expression: str) -> set[str]:
    bare = re.sub(r"(by|on) \([^)]*\)|\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"", " ", expression)
    return {
        name
        for name in re.findall(r"[a-zA-Z_:][\w:]*(?!\w*\()", bare)
        if (name not in _WORDS and "_" in name) or name == "up"
    }


def labels_in(expression: str) -> set[str]:
    grouped = " ".join(re.findall(r"by \(([^)]*)\)", expression))
    matched = " ".join(re.findall(r"(\w+)\s*=~?\"", expression))
    return set(re.findall(r"\w+", f"{grouped} {matched}"))


@pytest.mark.parametrize(("name", "expression"), expressions())
def test_an_expression_asks_for_series_that_there_are_by_labels_that_they_have(
    name: str, expression: str
) -> None:
    known = labels_of()
    asked = series_in(expression) - {"histogram_quantile"}
    assert asked, name
    assert asked <= known.keys(), f"{name}: {asked - known.keys()}"
    assert labels_in(expression) <= set().union(*(known[series] for series in asked)), name


@pytest.mark.parametrize(("name", "expression"), expressions())
def test_what_several_processes_tell_of_the_installation_is_never_added_up(
    name: str, expression: str
) -> None:
    installation = {Source.BY_WORKER, Source.BY_INVOICER, Source.SERVICE}
    for metric in CATALOGUE:
        if metric.source not in installation or metric.full_name not in series_in(expression):
            continue
        bare = re.escape(metric.full_name)
        once = rf"max(?: by \([^)]*\))? ?\((?:abs\(|rate\()?{bare}"
        assert len(re.findall(once, expression)) == len(re.findall(rf"{bare}\b", expression)), name


def test_every_metric_is_looked_at_by_a_rule_or_on_the_dashboard() -> None:
    asked = set().union(*(series_in(expression) for _, expression in expressions()))
    assert [metric.name for metric in CATALOGUE if not asked & set(metric.series)] == []


def test_a_legend_names_labels_that_its_expression_keeps() -> None:
    for title, expression, legend in shown():
        named = set(re.findall(r"\{\{(\w+)\}\}", legend))
        kept = labels_in(expression) | set().union(
            *(labels_of()[series] for series in series_in(expression) - {"histogram_quantile"})
        )
        assert named <= kept, title


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("check", "rules", "rules/alerts.yml", "rules/recording.yml")],
)
def test_prometheus_takes_what_it_is_given(promtool: Path, arguments: tuple[str, ...]) -> None:
    run(promtool, *arguments)


def test_the_alerts_fire_when_they_should_and_not_before(promtool: Path) -> None:
    run(promtool, "test", "rules", *(str(file) for file in sorted(PROMETHEUS.glob("tests/*.yml"))))


def test_each_alert_is_tried_both_ways() -> None:
    tried: dict[str, set[bool]] = {name: set() for name in alerts()}
    for file in PROMETHEUS.glob("tests/*.yml"):
        for test in yaml.safe_load(file.read_text())["tests"]:
            for case in test["alert_rule_test"]:
                tried[case["alertname"]].add(bool(case["exp_alerts"]))
    assert [name for name, ways in tried.items() if ways != {True, False}] == []


def test_prometheus_understands_every_expression_on_the_dashboard(promtool: Path, tmp_path: Path) -> None:
    made = [
        {"record": f"panel:{index}", "expr": expression.replace("$__rate_interval", "1m")}
        for index, (_, expression, _) in enumerate(shown())
    ]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": made}]}))
    run(promtool, "check", "rules", str(file))


def test_the_dashboard_is_one_that_grafana_can_lay_out() -> None:
    dashboard = json.loads(DASHBOARD.read_bytes())
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/tenant-billing.yml").read_text())
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    assert dashboard["templating"]["list"][0]["current"]["value"] == source["datasources"][0]["uid"]
    assert provider["providers"][0]["type"] == "file"
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["title"]
            assert panel["description"]
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_the_wall_shows_flow_conservation_lag_close_and_invoicing() -> None:
    rows = [panel["title"] for panel in panels() if panel["type"] == "row"]
    assert rows[:5] == ["Flow", "Conservation", "Lag", "Months and events", "Invoicing"]


def sections() -> dict[str, str]:
    head, *rest = re.split(r"^## ", (DEPLOY / "runbook.md").read_text(), flags=re.MULTILINE)
    assert head.startswith("# Runbook")
    return {name: body for name, _, body in (section.partition("\n") for section in rest)}


def test_each_alert_has_its_section_in_the_runbook_and_each_section_its_alert() -> None:
    assert list(sections()) == list(alerts())
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook"] == f"deploy/runbook.md#{name.lower()}"
        assert rule["labels"]["severity"] in {"critical", "warning"}


@pytest.mark.parametrize(("name", "body"), sections().items())
def test_a_section_says_what_it_means_where_to_look_and_how_to_mend_it(name: str, body: str) -> None:
    assert re.findall(r"^\*\*(.+?)\.\*\* ", body, flags=re.MULTILINE) == ["Meaning", "First look", "Fix"]
    for link in re.findall(r"\]\(#(\w+)\)", body):
        assert link in {section.lower() for section in sections()}, f"{name} links to {link}"
    shown_titles = {panel["title"] for panel in panels()}
    for said in re.findall(r"panels? \*([^*]+)\*", body):
        assert said in shown_titles, f"{name} speaks of the panel {said}"


def commands(group: typer.core.TyperGroup, *path: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, typer.core.TyperGroup):
            yield from commands(command, *path, name)


def test_every_command_in_the_runbook_is_one_that_there_is() -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    known = set(commands(root))
    written = re.findall(r"`tenant-billing\s([^`]+)`", (DEPLOY / "runbook.md").read_text())
    assert len(written) > 10
    for line in written:
        words = tuple(
            word for word in line.split() if re.fullmatch(r"[a-z-]+", word) and not word.startswith("--")
        )
        assert words[:1] in known, line
        assert words[:1] not in {path[:1] for path in known if len(path) == 2} or words[:2] in known, line


def test_the_documentation_is_that_of_the_catalogue() -> None:
    assert (DEPLOY / "metrics.md").read_text() == page(), "run `make metrics`"


def test_names_kinds_and_labels_are_as_prometheus_asks_for() -> None:
    names = [metric.name for metric in CATALOGUE]
    assert len(names) == len(set(names))
    assert set(labels_in_use()) == LABELS.keys()
    for metric in CATALOGUE:
        assert re.fullmatch(r"[a-z][a-z_]*", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert bool(metric.buckets) == (metric.kind == "histogram"), metric.name


def run(promtool: Path, *arguments: str) -> None:
    done = subprocess.run([promtool, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
