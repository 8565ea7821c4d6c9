"""Every campaign in its short form finds no problem; the long forms are `make soak`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ops.bench.child import environment
from ops.soak.__main__ import CAMPAIGNS
from ops.soak.plan import FAULTS

ROOT = Path(__file__).parents[2]

Figures = dict[str, Any]

SAID: dict[str, Callable[[Figures], object]] = {
    "bulkheads": lambda said: (
        len(said["phases"]) == 4
        and all(each["push_ms"]["delivered"] > 0 for each in said["phases"])
        and sum(said["connections_of_the_bad"].values()) > 0
    ),
    "faults": lambda said: said["delivered"] > 0 and said["done"].keys() & FAULTS and said["last_sample"]["tasks"] > 0,
    "kills": lambda said: said["looks"] > 0 and said["nothing_to_kill"] < sum(said["kills"].values()),
    "stops": lambda said: all("stop_idle" in said[part] for part in ("embedded", "own_server")),
    "throttling": lambda said: said["attempts"] >= said["accounts"] > 0 and said["turned_away"] > 0,
    "sharing": lambda said: said["steps"] > 0 and sum(said["faults"].values()) > 0,
    "schema": lambda said: (
        [each["turn"] for each in said["rounds"]]
        == ["schema-owner, known ids", "schema-stranger, known ids, untended"]
        and all(each["test_cases"]["generated"] > 0 < len(each["operations"]) for each in said["rounds"])
    ),
    "http": lambda said: (
        said["good_requests"] > 20 and sum(sum(each.values()) for each in said["classes"].values()) >= said["cases"] > 0
    ),
    "parsers": lambda said: said["cases"] >= 2000 and all(each["cases"] > 0 for each in said["parsers"].values()),
}
"""What a report must say for the campaign to have been one."""


@pytest.mark.slow
@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_a_short_campaign_finds_no_problem(campaign: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "ops.soak", campaign, "--quick", "--seed", "1", "--json", str(file)],
        capture_output=True, text=True, timeout=170, check=False, cwd=ROOT, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert done.stdout.endswith("no problem\n")
    said = json.loads(file.read_text())
    assert said["problems"] == []
    assert (said["campaign"], said["seed"]) == (campaign, 1)
    assert SAID.get(campaign, bool)(said)
