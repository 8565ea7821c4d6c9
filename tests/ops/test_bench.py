"""The benchmarks: what is judged and printed is right, and each of them runs, small, against real servers."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from ops.bench.__main__ import BENCHES, chosen
from ops.bench.child import ChildFailed, ask, environment
from ops.bench.result import Row, machine, median, percentile, rounded

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("value", "yardstick", "goal", "on", "met"),
    [
        (3.0, 1.0, (">=", 3.0), "ratio", True),
        (2.9, 1.0, (">=", 3.0), "ratio", False),
        (64.0, 38.0, ("<=", 64.0), "value", True),
        (65.0, 38.0, ("<=", 64.0), "value", False),
        (5.0, None, ("<=", 1.5), "ratio", None),
        (5.0, None, None, "value", None),
    ],
)
def test_a_goal_is_met_or_not(value, yardstick, goal, on, met):
    row = Row("b", "n", value, "s", yardstick, "y", goal, on)
    assert row.met is met
    assert row.as_json()["met"] is met


def test_goals_are_readable():
    assert Row("b", "n", 1, "KiB", goal=("<=", 64.0)).goal_text == "<= 64 KiB"
    assert Row("b", "n", 1, "s", 1.0, goal=("<=", 1.5), goal_on="ratio").goal_text == "<= 1.5x"
    assert Row("b", "n", 1, "s").goal_text == ""


def test_figures():
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([4.0, 1.0]) == 1.0
    hundred = [float(n) for n in range(1, 101)]
    assert percentile(hundred, 0.5) == 51.0
    assert percentile(hundred, 0.95) == 96.0
    assert percentile([7.0], 0.95) == 7.0
    assert rounded(5594.7) == 5595
    assert rounded(0.012345) == 0.0123
    assert rounded(None) is None


def test_machine_facts_can_be_written():
    facts = json.loads(json.dumps(machine()))
    assert facts["cores"] >= 1
    assert math.isfinite(facts["memory_gib"])
    assert facts["trio"]


def test_neighbours_are_measured_together():
    assert list(chosen([])) == ["first_sync", "fleet", "api", "resident", "idle_actors"]
    assert chosen([])["fleet"] == ("idle_memory", "start", "push")
    assert chosen(["push", "first_sync"]) == {"first_sync": (), "fleet": ("push",)}


async def test_a_failing_child_is_told_with_its_last_words():
    with pytest.raises(ChildFailed, match="KeyError: 'kind'"):
        await ask("ops.bench.fleet_child", {})


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "ops.bench", *arguments],
        capture_output=True, text=True, timeout=150, check=False, cwd=ROOT, env=environment(),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("names", [("first_sync",), ("idle_memory", "start", "push"), ("api", "resident")], ids=str)
def test_each_runs_and_says_what_it_saw(names, tmp_path):
    file = tmp_path / "result.json"
    done = bench(*names, "--quick", "--json", str(file))
    assert done.returncode == 0, done.stderr
    document = json.loads(file.read_text())
    assert document["failed"] == {}
    assert {row["bench"] for row in document["rows"]} == set(names)
    for row in document["rows"]:
        assert row["value"] > 0, row
        assert row["name"][:20] in done.stdout
        assert row["yardstick"] is None or row["ratio"] > 0


def test_unknown_names_are_refused():
    done = bench("no_such_thing")
    assert done.returncode == 2
    assert all(name in done.stderr for name in ("no_such_thing",))
    assert len(BENCHES) == 7
