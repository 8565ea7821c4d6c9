"""The alert rules and the board speak of metrics, labels and values that a running daemon really has."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from daemon.account.states import State
from daemon.errors import FaultKind
from tests.fix_daemon import MailServers, StartDaemon, connect

OPS = Path(__file__).parent.parent.parent / "ops"
RULES = yaml.safe_load((OPS / "prometheus/alerts.yml").read_text())
BOARD = json.loads((OPS / "grafana/accountsd.json").read_text())

METRIC = re.compile(r"\b((?:accountsd|process)_[a-z_]+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
OF_THE_SCRAPE = {"instance", "job"}
"""Labels that Prometheus adds."""


def rules() -> list[dict[str, Any]]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def board_expressions() -> Iterator[str]:
    for panel in BOARD["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]


def expressions() -> list[str]:
    return [rule["expr"] for rule in rules()] + list(board_expressions())


def mentioned() -> Iterator[tuple[str, str]]:
    for expression in expressions():
        yield from METRIC.findall(expression)


def family_of(name: str, families: dict[str, Metric]) -> Metric | None:
    """The family a sample's name belongs to, even where it has no sample yet."""
    for suffix in ("", "_total", "_bucket", "_count", "_sum"):
        family = families.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
        kinds = {"": {"gauge"}, "_total": {"counter"}}.get(suffix, {"histogram"})
        if family is not None and family.type in kinds:
            return family
    return None


def test_every_metric_is_one_that_a_daemon_with_a_mailbox_exposes(
    start_daemon: StartDaemon, mail: MailServers, new_user: str
) -> None:
    daemon = start_daemon(*mail.ports)
    with daemon.client(new_user) as http:
        daemon.wait_synced(http, connect(http, mail.mailbox(new_user)))
    families = {family.name: family for family in text_string_to_metric_families(daemon.metrics())}
    unknown, labels_wrong = set(), set()
    for name, matchers in mentioned():
        family = family_of(name, families)
        if family is None:
            unknown.add(name)
            continue
        labels = {label for sample in family.samples for label in sample.labels}
        used = {label for label, _ in MATCHER.findall(matchers)} - OF_THE_SCRAPE
        if family.samples and not used <= labels:
            labels_wrong.add((name, matchers))
    assert unknown == set()
    assert labels_wrong == set()
    assert daemon.stop() == 0


def test_the_metrics_of_the_daemon_are_all_looked_at() -> None:
    names = {name for name, _ in mentioned() if name.startswith("accountsd_")}
    assert len(names) > 15
    declared = re.findall(r'"(accountsd_\w+)"', "".join(
        (OPS.parent / "daemon" / file).read_text() for file in ("telemetry/metrics.py", "fleet/gauges.py")
    ))
    unseen = {name for name in declared if not any(seen.startswith(name) for seen in names)}
    assert unseen == set(), "nobody looks at these"


@pytest.mark.parametrize(("label", "known"), [
    ("state", {state.value for state in State}), ("kind", {*map(str, FaultKind), "internal_error"}),
])
def test_values_of_labels_exist(label: str, known: set[str]) -> None:
    used = {
        value for _, matchers in mentioned() for name, values in MATCHER.findall(matchers) if name == label
        for value in values.split("|")
    }
    assert used
    assert used <= known


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_says_whom_it_calls_and_what_they_do(rule: dict[str, Any]) -> None:
    assert re.fullmatch(r"Accountsd[A-Z][A-Za-z]+", rule["alert"])
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert len(rule["annotations"]["summary"]) > 30
    assert len(rule["annotations"]["runbook"]) > 40
    assert rule["labels"]["severity"] != "page" or rule.get("for"), "nobody is woken by a moment"
    assert rule["expr"].count("(") == rule["expr"].count(")")


def test_symptoms_come_first() -> None:
    assert [group["name"] for group in RULES["groups"]] == ["accountsd-symptoms", "accountsd-causes"]
    assert len({rule["alert"] for rule in rules()}) == len(rules())


def test_the_board_imports_anywhere() -> None:
    assert BOARD["id"] is None
    assert BOARD["uid"] == "accountsd"
    sources = {json.dumps(panel["datasource"]) for panel in BOARD["panels"] if panel["type"] != "row"}
    assert sources == {'{"type": "prometheus", "uid": "${datasource}"}'}, "a board of one installation only"
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies over {taken[x, y]}"
                taken[x, y] = panel["title"]
