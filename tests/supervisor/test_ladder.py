"""How children are ended: the rungs, each at its time, and what becomes of those that do not end."""

from __future__ import annotations

import pytest
import trio

from supervisor import (
    CANCEL_GRACE,
    AlreadyRunning,
    ChildSpec,
    ChildState,
    Context,
    ShutdownOverrun,
    Strategy,
    Supervisor,
)

from .scenario import FOREVER, Boom, Run, Story, run_scenario

BOTH = pytest.mark.parametrize("strategy", list(Strategy))
REST = Strategy.REST_FOR_ONE
NEVER = 1e6


@pytest.mark.parametrize(
    ("run", "fields", "ended"),
    [
        (Run(polite=2.0), {"shutdown": 5}, 2),  # heard it
        (Run(polite=9.0), {"shutdown": 5}, 5),  # too slow: cancelled
        (Run(polite=9.0, cleanup=3.0), {"shutdown": 5}, 8),  # and cleaned up
        (Run(polite=1.0), {"shutdown": 0}, 0),  # brutal
        (FOREVER, {"shutdown": 5}, 0),  # without stop, cancelling is the asking
        (Run(cleanup=4.0), {"shutdown": 0}, 4),
        (Run(cleanup=20.0), {"shutdown": 30}, 20),
    ],
)
@BOTH
async def test_rungs_in_their_time(autojump_clock, strategy, run, fields, ended):
    story = Story()
    tree = Supervisor("tree", [story.child("a", run, **fields)], strategy=strategy, observers=[story.observe])
    assert await run_scenario(story, tree, until=10) == 10 + ended
    assert story.contexts("a") == [Context.STOPPED]


@pytest.mark.parametrize(
    ("run", "fields", "abandoned"),
    [
        (Run(polite=NEVER, cleanup=100.0), {"shutdown": 5}, 5 + CANCEL_GRACE),
        (Run(cleanup=100.0), {"shutdown": 5}, CANCEL_GRACE),
        (Run(cleanup=100.0), {"shutdown": 30}, 30),
    ],
)
@BOTH
async def test_a_child_that_shields_is_abandoned_and_reported(autojump_clock, strategy, run, fields, abandoned):
    story = Story()
    seen = []
    tree = Supervisor(
        "tree", [story.child("a", FOREVER), story.child("b", run, **fields)], strategy=strategy,
        observers=[story.observe],
    )

    async def stop(tree):
        await tree.stop_child("b")
        seen.append((story.now(), tree.child("b").state, tree.statistics().abandoned))
        await trio.sleep(100)
        seen.append((tree.child("b").state, tree.statistics().abandoned))

    await run_scenario(story, tree, {10: stop}, until=500)
    assert seen == [(10 + abandoned, ChildState.DOWN, 1), (ChildState.DOWN, 0)]
    assert story.contexts("b") == [Context.SHUTDOWN_OVERRUN, Context.ABANDONED_ENDED]
    overrun = story.reports[0].exit.exc
    assert isinstance(overrun, ShutdownOverrun)
    assert overrun.seconds == abandoned
    assert story.reports[0].uptime == 10 + abandoned


async def test_restarts_and_siblings_do_not_wait_for_the_abandoned(autojump_clock):
    story = Story()
    tree = Supervisor(
        "tree",
        [story.child("a", Run(10), FOREVER), story.child("b", Run(cleanup=100.0, ends=NEVER), FOREVER)],
        strategy=REST, observers=[story.observe],
    )
    await run_scenario(story, tree, until=50)
    assert story.starts["a"] == [0, 16]
    assert story.starts["b"] == [0, 16]  # two of it now; the old one counts as abandoned
    assert story.ends["a"] == [10, 50]
    assert sorted(story.ends["b"]) == [50, 110]


async def test_an_abandoned_first_child_is_replaced_in_another_task(autojump_clock):
    story = Story()
    tree = Supervisor("tree", [story.child("a", Run(cleanup=100.0), FOREVER), story.child("b", FOREVER)], strategy=REST)
    await run_scenario(story, tree, {10: lambda t: t.restart_child("a")}, until=50)
    assert story.starts == {"a": [0, 16], "b": [0, 16]}
    assert sorted(story.ends["a"]) == [50, 110]


@BOTH
async def test_the_abandoned_keep_run_from_returning(autojump_clock, strategy):
    story = Story()
    tree = Supervisor(
        "tree", [story.child("a", Run(polite=1.0)), story.child("b", Run(cleanup=70.0))], strategy=strategy
    )
    assert await run_scenario(story, tree, until=10) == 80
    assert story.ends["a"] == [10 + CANCEL_GRACE + 1]


async def test_a_late_started_of_an_abandoned_child_is_not_heard(autojump_clock):
    async def start(*, task_status):
        with trio.CancelScope(shield=True):
            await trio.sleep(50)
        task_status.started("ghost")

    story = Story()
    tree = Supervisor("tree", [ChildSpec("a", start), story.child("b", FOREVER)])
    states = []
    await run_scenario(
        story, tree, {5: lambda t: t.stop_child("a"), 60: lambda t: states.append(t.child("a"))}, until=70
    )
    assert states[0].state is ChildState.DOWN
    assert states[0].value is None
    assert story.starts["b"] == [11]  # a child that is down holds up nobody


@BOTH
async def test_a_stop_that_raises_is_reported_and_the_child_cancelled_at_once(autojump_clock, strategy):
    story = Story()

    def stop():
        raise Boom("stop")

    tree = Supervisor("tree", [story.child("a", FOREVER, stop=stop, shutdown=50)], strategy=strategy,
                      observers=[story.observe])
    assert await run_scenario(story, tree, until=10) == 10
    assert story.contexts("a") == [Context.STOP_FAILED, Context.STOPPED]


@BOTH
async def test_a_child_that_raises_when_asked_to_stop_is_reported_and_not_restarted(autojump_clock, strategy):
    story = Story()
    boom = Boom("while ending")

    async def start(*, task_status):
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            raise boom

    tree = Supervisor("tree", [ChildSpec("a", start)], strategy=strategy, observers=[story.observe])
    await run_scenario(story, tree, until=10)
    assert story.contexts("a") == [Context.SHUTDOWN_FAILED]
    (leaf,) = story.reports[0].exit.exc.exceptions if isinstance(story.reports[0].exit.exc, ExceptionGroup) else (
        story.reports[0].exit.exc,
    )
    assert leaf is boom


async def test_cancelled_from_outside_it_runs_the_ladder(autojump_clock):
    story = Story()
    children = [story.child(name, Run(polite=2.0)) for name in "abc"]
    assert await run_scenario(story, Supervisor("tree", children), until=10, cancel=True) == 16
    assert story.ends == {"c": [12], "b": [14], "a": [16]}


async def test_cancelled_from_outside_under_rest_for_one_the_first_child_hears_it_at_once(autojump_clock):
    story = Story()
    children = [story.child(name, Run(polite=2.0)) for name in "abc"]
    assert await run_scenario(story, Supervisor("tree", children, strategy=REST), until=10, cancel=True) == 14
    assert story.ends == {"a": [10], "c": [12], "b": [14]}


@BOTH
async def test_cancelled_while_pausing_and_while_starting(autojump_clock, strategy):
    story = Story()
    tree = Supervisor(
        "tree", [story.child("a", Run(9.5)), story.child("b", Run(ready=100, polite=1.0))], strategy=strategy
    )
    assert await run_scenario(story, tree, until=10, cancel=True) <= 16
    assert story.starts["a"] == [0]


@BOTH
async def test_cancelled_after_request_stop_it_skips_the_asking(autojump_clock, strategy):
    story = Story()
    children = [story.child(name, Run(polite=NEVER), shutdown=100) for name in "abc"]
    tree = Supervisor("tree", children, strategy=strategy)
    ended = await run_scenario(story, tree, {10: lambda t: t.request_stop()}, until=15, cancel=True)
    assert ended == 15
    assert story.ends == {"a": [15], "b": [15], "c": [15]}


async def test_nested_ladders_end_in_the_time_of_the_outer(autojump_clock):
    story = Story()
    inner = Supervisor(
        "inner", [story.child("a", Run(polite=NEVER), shutdown=100), story.child("b", FOREVER)], strategy=REST
    )
    outer = Supervisor(
        "outer", [ChildSpec("inner", inner.run, stop=inner.request_stop, shutdown=8.0)], observers=[story.observe]
    )
    assert await run_scenario(story, outer, until=10) == 18
    assert story.contexts("inner") == [Context.STOPPED]


@BOTH
async def test_nothing_restarts_while_it_stops(autojump_clock, strategy):
    story = Story()
    tree = Supervisor(
        "tree",
        [story.child("a", Run(12)), story.child("b", Run(9.5)), story.child("c", Run(polite=4.0))],
        strategy=strategy, observers=[story.observe],
    )
    ended = await run_scenario(story, tree, until=10)
    assert ended == (14 if strategy is Strategy.ONE_FOR_ONE else 13.5)
    assert story.starts["a"] == story.starts["b"] == [0]


@BOTH
async def test_asked_to_stop_before_it_runs_it_returns_at_once(autojump_clock, strategy):
    story = Story()
    tree = Supervisor("tree", [story.child("a", FOREVER)], strategy=strategy)
    tree.request_stop()
    async with trio.open_nursery() as nursery:
        await nursery.start(tree.run)
    assert story.starts == {}
    await run_scenario(story, tree, until=10)
    assert story.starts == {"a": [0]}


@BOTH
async def test_asked_to_stop_while_it_starts_nursery_start_still_returns(autojump_clock, strategy):
    story = Story()
    tree = Supervisor("tree", [story.child("a", Run(ready=NEVER))], strategy=strategy)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_later, tree)
        await nursery.start(tree.run)
    assert story.ends == {"a": [5]}


async def _stop_later(tree):
    await trio.sleep(5)
    tree.request_stop()


async def test_it_runs_once_at_a_time(autojump_clock):
    story = Story()

    async def again(tree):
        with pytest.raises(AlreadyRunning):
            await tree.run()

    await run_scenario(story, Supervisor("tree", [story.child("a", FOREVER)]), {5: again}, until=10)
    assert story.ends == {"a": [10]}


async def test_a_caller_of_stop_child_that_gives_up_does_not_stop_the_ladder(autojump_clock):
    story = Story()

    async def impatient(tree):
        with trio.move_on_after(1):
            await tree.stop_child("a")

    tree = Supervisor("tree", [story.child("a", Run(polite=NEVER), shutdown=5)], observers=[story.observe])
    await run_scenario(story, tree, {10: impatient}, until=50)
    assert story.ends == {"a": [15]}


async def test_a_failing_task_beside_children_ends_them_by_the_ladder(autojump_clock):
    """What is nobody's to judge (here a KeyboardInterrupt in a child) still ends the others in order."""
    story = Story()

    async def interrupted(*, task_status):
        task_status.started()
        await trio.sleep(10)
        raise KeyboardInterrupt

    tree = Supervisor("tree", [story.child("a", Run(polite=2.0)), ChildSpec("b", interrupted)])
    with pytest.RaisesGroup(pytest.RaisesGroup(KeyboardInterrupt)):
        await run_scenario(story, tree, until=50)
    assert story.ends == {"a": [12]}
