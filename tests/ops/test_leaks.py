"""The guards against leaks and blocking calls must see what they are there to see."""

import os
import socket
import subprocess
import sys
import threading
import time

import pytest
import trio

from tests.fix_leaks import STEP_LIMIT, StepWatch, holdings, watched_run


def test_an_open_socket_is_seen():
    before = holdings()
    with socket.socket():
        [left] = holdings().beyond(before)
    assert left.startswith("socket ")
    assert holdings().beyond(before) == []


def test_a_child_process_is_seen():
    before = holdings()
    child = subprocess.Popen(["sleep", "60"])
    try:
        [left] = holdings().beyond(before)
    finally:
        child.kill()
        child.wait()
    assert left.startswith(f"process {child.pid}:")
    assert holdings().beyond(before) == []


def test_an_orphan_is_seen_and_its_remains_are_buried():
    before = holdings()
    script = "import subprocess; print(subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL).pid)"
    orphan = int(subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True).stdout)
    try:
        [left] = holdings().beyond(before)
        assert left.startswith(f"process {orphan}:")
    finally:
        os.kill(orphan, 9)
    while holdings().beyond(before):
        time.sleep(0.01)


def test_a_thread_is_seen_but_not_a_resting_worker():
    before = holdings()
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="left-behind")
    thread.start()
    try:
        [left] = holdings().beyond(before)
    finally:
        done.set()
        thread.join()
    assert "left-behind" in left

    async def use_a_worker():
        await trio.to_thread.run_sync(time.sleep, 0)

    trio.run(use_a_worker)
    assert holdings().beyond(before) == []


def test_a_step_that_blocks_trips_the_wire():
    async def blocks():
        await trio.lowlevel.checkpoint()
        time.sleep(STEP_LIMIT + 0.2)  # noqa: ASYNC251  # the very thing
        await trio.lowlevel.checkpoint()

    with pytest.raises(pytest.fail.Exception, match="blocks"):
        watched_run(blocks)


def test_time_without_a_core_is_nobodys_fault():
    now, queued = 0.0, 0.0
    watch = StepWatch(queued=lambda: queued, clock=lambda: now)
    task = type("Task", (), {"name": "busy"})()
    watch.before_task_step(task)
    now, queued = 5.0, 4.5
    watch.after_task_step(task)
    assert watch.longest == pytest.approx(0.5)
    watch.before_task_step(task)
    now = 8.0
    watch.after_task_step(task)
    assert watch.longest == pytest.approx(3.0)
    assert watch.culprit == "busy"


async def test_every_trio_test_is_watched(request):
    assert request.node.get_closest_marker("trio").kwargs["run"] is watched_run


@pytest.mark.blocking("shows that the mark lifts the wire")
async def test_a_marked_test_may_block():
    time.sleep(STEP_LIMIT + 0.2)  # noqa: ASYNC251  # the very thing
