"""What observers are told, what they may do, and what they cannot break."""

from __future__ import annotations

import pytest
import trio

from supervisor import ChildState, Context, Crash, Restart, Strategy, Supervisor

from .scenario import FOREVER, Boom, Run, Story, run_scenario

BOTH = pytest.mark.parametrize("strategy", list(Strategy))
REST = Strategy.REST_FOR_ONE



async def test_observers_that_raise_break_nothing_and_are_reported_to_the_others(autojump_clock):
    story = Story()

    def broken(report):
        raise Boom("observer")

    tree = Supervisor(
        "tree", [story.child("a", Run(1), FOREVER)], observers=[broken, story.observe, broken, story.observe]
    )
    await run_scenario(story, tree, until=10)
    assert story.starts["a"] == [0, 2]
    faults = [report for report in story.reports if report.context is Context.OBSERVER_FAILED]
    assert all(isinstance(report.exit.exc, Boom) for report in faults)
    # 2 reports (crash, stop) to 2 broken observers, each told to the 2 others that listen
    assert len(faults) == 8
    assert len(story.reports) == 8 + 4
    assert tree.statistics().observer_failures == 4


async def test_an_observer_finds_the_state_it_is_told_of_and_may_act_on_it(autojump_clock):
    story = Story()
    seen = []

    def observer(report):
        seen.append((report.context, tree.child("a").state))
        if tree.child("a").state is ChildState.DOWN and report.context is not Context.STOPPED:
            tree.restart_child("a")
        elif tree.child("a").state is ChildState.RESTARTING:
            tree.wake("a")

    child = story.child("a", Run(1), Run(1, exc=Boom()), FOREVER)
    tree = Supervisor("tree", [child], strategy=REST, observers=[observer])
    await run_scenario(story, tree, until=10)
    assert story.starts["a"] == [0, 1, 2]
    assert seen == [
        (Context.CHILD_TERMINATED, ChildState.RESTARTING),
        (Context.CHILD_TERMINATED, ChildState.RESTARTING),
        (Context.STOPPED, ChildState.DOWN),
    ]


async def test_an_observer_may_bring_back_what_just_went_down(autojump_clock):
    story = Story()

    def observer(report):
        if report.context is Context.CHILD_TERMINATED:
            tree.restart_child("a")

    child = story.child("a", Run(1), Run(2), FOREVER, restart=Restart.TEMPORARY)
    tree = Supervisor("tree", [child, story.child("b", FOREVER)], strategy=REST, observers=[observer])
    await run_scenario(story, tree, until=10)
    assert story.starts["a"] == [0, 1, 3]
    assert story.starts["b"] == [0, 1, 3]


@BOTH
async def test_an_observer_may_stop_the_supervisor(autojump_clock, strategy):
    story = Story()
    tree = Supervisor(
        "tree", [story.child("a", Run(3)), story.child("b", FOREVER)], strategy=strategy,
        observers=[lambda report: tree.request_stop()],
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(tree.run)
    assert trio.current_time() == 3
    assert tree.child("a").state is ChildState.DOWN


async def test_crash_is_reported_in_full(autojump_clock):
    story = Story()
    boom = Boom()
    tree = Supervisor("tree", [story.child("a", Run(5, ready=2, exc=boom), FOREVER)], observers=[story.observe])
    await run_scenario(story, tree, until=10)
    report = story.reports[0]
    assert (report.supervisor, report.child_id, report.exit, report.at) == ("tree", "a", Crash(boom), 5)
    assert (report.uptime, report.streak, report.restarts_in_period, report.next_delay) == (3, 1, 1, 1)
