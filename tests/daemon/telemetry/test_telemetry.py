"""What the operator sees: an exposition that parses, with bounded labels; a log without secrets; systemd's protocol."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from daemon.account.caller_rates import CallerRates
from daemon.errors import FaultKind
from daemon.settings import RateSettings
from daemon.telemetry import loop, metrics
from daemon.telemetry.metrics import Gauge, Gauges
from daemon.telemetry.systemd import Notifier

LABELS = {
    *("arrival", "kind", "le", "method", "outcome", "rate", "status", "state", "to", "generation"),
    *("implementation", "major", "minor", "patchlevel", "version"),  # of python_info
}
"""Every label there may be: each has a handful of values, and none is an account, an address or a host."""


def exposition() -> dict[str, list[tuple[dict[str, str], float]]]:
    text, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    families = text_string_to_metric_families(text.decode())
    return {
        sample.name: [(s.labels, s.value) for s in family.samples if s.name == sample.name]
        for family in families
        for sample in family.samples
    }


def test_the_exposition_parses_and_its_labels_are_bounded() -> None:
    samples = exposition()
    assert {name for labelled in samples.values() for labels, _ in labelled for name in labels} <= LABELS
    assert all(name.startswith(("accountsd_", "python_", "process_")) for name in samples)
    assert not [name for name in samples if name.endswith("_created")]


def test_every_kind_of_fault_has_its_series_from_the_start() -> None:
    kinds = {labels["kind"] for labels, _ in exposition()["accountsd_faults_total"]}
    assert kinds == {*map(str, FaultKind), "internal_error"}


def test_every_rate_has_its_series_from_the_start() -> None:
    ones = dict.fromkeys(RateSettings.model_fields, 1)
    names = {getattr(CallerRates.of(**ones), field.name).name for field in fields(CallerRates)}
    assert names <= {labels["rate"] for labels, _ in exposition()["accountsd_rates_exceeded_total"]}


def test_counting_shows() -> None:
    before = dict(_arrivals())
    metrics.messages_stored.labels("new").inc(3)
    assert dict(_arrivals())["new"] == before["new"] + 3


def _arrivals() -> list[tuple[str, float]]:
    return [(labels["arrival"], value) for labels, value in exposition()["accountsd_messages_stored_total"]]


def test_gauges_are_asked_at_each_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    value = 1.0
    gauges = Gauges.__new__(Gauges)  # not registered: the process has one
    monkeypatch.setattr(gauges, "_sources", [], raising=False)
    gauges.add(lambda: [Gauge("accountsd_x", "X.", n, {"state": state}) for state, n in (("a", value), ("b", 7))])

    def seen() -> dict[str, float]:
        (family,) = gauges.collect()
        return {sample.labels["state"]: sample.value for sample in family.samples}

    assert seen() == {"a": 1.0, "b": 7.0}
    value = 2.0
    assert seen() == {"a": 2.0, "b": 7.0}


LOGGING = """
import structlog
from daemon.telemetry import logs
from daemon.vault.secret import Secret

logs.set_up({level!r}, {style!r})
log = structlog.get_logger("test")
log.debug("quiet")
log.info("said", password="hunter2", token="hunter2", dsn="hunter2", secret=Secret("hunter2"), text="x" * 5000)

def fails(password):
    raise ValueError("broken")

try:
    fails("hunter2")
except ValueError:
    log.exception("failed")
"""


def logged(level: str, style: str) -> str:
    code = LOGGING.format(level=level, style=style)
    root = Path(__file__).parents[3]
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert run.stdout == ""
    return run.stderr


@pytest.mark.parametrize("style", ["json", "text", "auto"])
def test_no_secret_gets_into_the_log_whatever_way(style: str) -> None:
    text = logged("info", style)
    assert "hunter2" not in text
    assert "broken" in text
    assert "quiet" not in text
    assert "x" * 2001 not in text


def test_json_is_one_event_a_line() -> None:
    said, failed = [json.loads(line) for line in logged("info", "json").splitlines()]
    assert (said["event"], said["level"], said["password"], said["secret"]) == ("said", "info", "***", "***")
    assert failed["exception"][0]["exc_value"] == "broken"


@pytest.mark.parametrize("abstract", [False, True])
async def test_systemd_hears_us(tmp_path: Path, abstract: bool) -> None:
    name = f"\0accountsd-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name)
        systemd.setblocking(False)
        environ = {"NOTIFY_SOCKET": name.replace("\0", "@"), "WATCHDOG_USEC": "100000"}
        notifier = Notifier(environ)
        assert notifier.watchdog == 0.1
        notifier.tell(READY=1, STATUS="up")
        assert systemd.recv(1000) == b"READY=1\nSTATUS=up"
        healthy = True
        async with trio.open_nursery() as nursery:
            await nursery.start(notifier.run, lambda: healthy, str)
            with trio.fail_after(10):
                for _ in range(3):
                    await trio.lowlevel.wait_readable(systemd)
                    assert systemd.recv(1000) == b"WATCHDOG=1"
            healthy = False
            await trio.sleep(0.2)
            while True:  # what was sent before it fell ill
                try:
                    systemd.recv(1000)
                except BlockingIOError:
                    break
            await trio.sleep(0.2)
            with pytest.raises(BlockingIOError):
                systemd.recv(1000)
            nursery.cancel_scope.cancel()


async def test_what_is_waited_for_is_told_once_and_in_one_line(tmp_path: Path, autojump_clock) -> None:
    words = "Waiting for the database:\n  refused " + "x" * 1000
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        async with trio.open_nursery() as nursery:
            await nursery.start(Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}).run, bool, lambda: words)
            await trio.sleep(5)
            told = systemd.recv(2000)
            assert told.startswith(b"STATUS=Waiting for the database: refused xxx")
            assert len(told) == len("STATUS=") + 300
            with pytest.raises(BlockingIOError):
                systemd.recv(2000)
            words = "3 accounts"
            await trio.sleep(5)
            assert systemd.recv(2000) == b"STATUS=3 accounts"
            nursery.cancel_scope.cancel()


def test_the_watchdog_of_another_process_is_not_ours() -> None:
    environ = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid() + 1)}
    assert Notifier(environ).watchdog is None
    assert Notifier({}).watchdog is None


def test_a_socket_that_is_gone_is_nobodys_concern(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell(READY=1)


async def test_a_held_loop_is_measured() -> None:
    def late() -> float:
        [(_, total)] = exposition()["accountsd_loop_lag_seconds_sum"]
        return total

    before = late()
    async with trio.open_nursery() as nursery:
        await nursery.start(loop.watch_lag)
        await trio.sleep(0.01)
        time.sleep(loop.EVERY + 0.2)  # noqa: ASYNC251  # it shall be held
        await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert late() - before > 0.15


async def test_tasks_are_counted() -> None:
    [before] = loop.gauges()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(trio.sleep_forever)
        [during] = loop.gauges()
        nursery.cancel_scope.cancel()
    assert during.value == before.value + 5


MAIN_WITHOUT_A_DAEMON = """
import gc
from unittest.mock import MagicMock
import daemon.__main__ as main
main.load = main.check = main.prepare = main.node_identity = main.logs = MagicMock()
main.trio.run = lambda *_: print(gc.get_freeze_count())
main.main()
"""


def test_the_collector_looks_at_no_imports() -> None:
    command = [sys.executable, "-c", MAIN_WITHOUT_A_DAEMON]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True)
    assert int(done.stdout) > 50_000
