"""How every campaign begins and ends a daemon, and that it tells when that was not in order."""

import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import trio

from ops.bench.child import until
from ops.soak.actions import Run, act
from ops.soak.campaign import Options, Report
from ops.soak.daemon_process import DaemonProcess
from ops.soak.faults import held
from ops.soak.life import ended, serving
from ops.soak.plan import Action, Kind
from ops.soak.samples import Sample


async def test_a_real_end_is_in_order_and_one_by_itself_is_told(monkeypatch):
    monkeypatch.setenv("ACCOUNTSD_NONSENSE", "1")  # what is ours must not reach it
    async with DaemonProcess(port=993, ca=None) as daemon:
        async with serving(daemon) as database:
            assert database.ready
        orderly = Report()
        assert await ended(daemon, orderly, during="here") > 0
        assert orderly.problems == []
        assert daemon.starts == 1
        await trio.to_thread.run_sync(daemon.start)
        assert daemon.pid is not None
        os.kill(daemon.pid, signal.SIGKILL)
        with trio.fail_after(10):
            await until(lambda: not daemon.running)
        report = Report()
        await ended(daemon, report)
        [problem] = report.problems
        assert problem.startswith("the daemon ended by itself")
        assert daemon.pid is None
    assert not daemon.directory.exists()


def stand_in(**changes):
    usual = {"running": True, "last_words": lambda: "bye", "stop": lambda: 0, "remains": list, "bugs": list}
    return SimpleNamespace(**(usual | changes))


@pytest.mark.parametrize(("changes", "told"), [
    ({}, []),
    ({"running": False, "stop": lambda: None}, ["the daemon ended by itself: bye"]),
    ({"running": False, "stop": lambda: 0}, ["the daemon ended by itself: bye"]),
    ({"stop": lambda: None}, ["x: the daemon ended with None after SIGTERM"]),
    ({"stop": lambda: 1}, ["x: the daemon ended with 1 after SIGTERM"]),
    ({"remains": lambda: ["7 postgres"]}, ["x: processes remain: ['7 postgres']"]),
    ({"stop": lambda: 1, "bugs": lambda: ["a", "b"]},
     ["bug: a", "bug: b", "x: the daemon ended with 1 after SIGTERM"]),
])  # fmt: skip
async def test_what_is_no_orderly_end_is_told_and_causes_first(changes, told):
    report = Report()
    await ended(stand_in(**changes), report, during="x", told=lambda daemon: daemon.bugs())
    assert report.problems == told


async def test_a_daemon_that_had_ended_before_it_was_to_be_killed_is_told():
    started = []
    daemon = stand_in(running=False, kill=lambda: None, start=lambda: started.append(1))
    options = Options(seed=0, minutes=0, accounts=1, points=0, quick=True)
    run = Run(options, lambda _: None, None, daemon, None, [])
    await act(run, Action(0.0, Kind.KILL_DAEMON, 0, 0.5, 1, 0.0), None)
    assert run.report.problems == ["the daemon ended by itself: bye"]
    assert started == [1]


SAMPLE = Sample(at=1.0, pid=7, rss_mib=80, descriptors=20, threads=4, connections=4, tasks=30)


@pytest.mark.parametrize(("sample", "connections", "found"), [
    (SAMPLE, 4, 0),
    (SAMPLE, 5, 1),
    (SAMPLE, 3, 1),
    (replace(SAMPLE, descriptors=69), 4, 1),
    (replace(SAMPLE, tasks=73), 4, 1),
    (replace(SAMPLE, tasks=0), 4, 1),
    (None, 4, 1),
])  # fmt: skip
def test_what_a_quiet_daemon_holds_too_much_is_told(sample, connections, found):
    assert len(held(sample, connections, 4)) == found
