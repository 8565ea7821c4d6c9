"""Who starts, goes down and comes back with whom."""

from __future__ import annotations

import pytest
import trio

from supervisor import (
    CANCEL_GRACE,
    ChildExists,
    ChildState,
    Context,
    NoGroup,
    NoSuchChild,
    NotRunning,
    Restart,
    Ruling,
    Shutdown,
    Strategy,
    Supervisor,
    Verdict,
)

from .scenario import FOREVER, Run, Story, run_scenario

BOTH = pytest.mark.parametrize("strategy", list(Strategy))
REST = Strategy.REST_FOR_ONE


@BOTH
async def test_starts_left_to_right_and_stops_right_to_left(autojump_clock, strategy):
    story = Story()
    children = [story.child(name, Run(ready=ready, polite=1.0)) for name, ready in [("a", 2), ("b", 0), ("c", 3)]]
    ended = await run_scenario(story, Supervisor("tree", children, strategy=strategy), until=20)
    assert story.starts == {"a": [0], "b": [2], "c": [2]}
    assert story.readies["c"] == [5]
    assert story.ends == {"c": [21], "b": [22], "a": [23]}
    assert ended == 23


@pytest.mark.parametrize(
    ("crasher", "starts"),
    [
        ("a", {"a": [0, 11], "b": [0, 11], "c": [0, 11]}),
        ("b", {"a": [0], "b": [0, 11], "c": [0, 11]}),
        ("c", {"a": [0], "b": [0], "c": [0, 11]}),
    ],
)
async def test_rest_for_one_takes_along_what_is_right(autojump_clock, crasher, starts):
    story = Story()
    children = [story.child(name, *([Run(10)] if name == crasher else []), FOREVER) for name in "abc"]
    await run_scenario(story, Supervisor("tree", children, strategy=REST), until=50)
    assert story.starts == starts


async def test_one_for_one_restarts_alone(autojump_clock):
    story = Story()
    children = [story.child("a", Run(10), FOREVER), story.child("b", FOREVER)]
    await run_scenario(story, Supervisor("tree", children), until=50)
    assert story.starts == {"a": [0, 11], "b": [0]}


@pytest.mark.parametrize(
    ("crasher", "restarted"),
    [("actor", "actor sync submission tail"), ("sync", "sync tail"), ("submission", "submission tail"),
     ("tail", "tail")],
)
async def test_a_member_of_a_group_takes_along_only_what_is_right_of_the_group(autojump_clock, crasher, restarted):
    story = Story()

    def child(name):
        return story.child(name, *([Run(10)] if name == crasher else []), FOREVER)

    tree = Supervisor("tree", [child("actor"), (child("sync"), child("submission")), child("tail")], strategy=REST)
    await run_scenario(story, tree, until=50)
    assert {name for name, times in story.starts.items() if times == [0, 11]} == set(restarted.split())


async def test_what_goes_down_with_a_child_goes_right_to_left_while_the_pause_runs(autojump_clock):
    story = Story()
    tree = Supervisor(
        "tree",
        [story.child("a", Run(10), Run(ready=2)), story.child("b", Run(polite=3.0)), story.child("c", Run(polite=4.0))],
        strategy=REST, observers=[story.observe],
    )
    await run_scenario(story, tree, until=50)
    assert story.ends["c"][0] == 14
    assert story.ends["b"][0] == 17
    assert story.starts["a"] == [0, 17]  # the pause of 1 s was over long before
    assert story.starts["b"] == story.starts["c"] == [0, 19]
    stopped = [report for report in story.reports if report.context is Context.STOPPED and report.at < 20]
    assert all(report.exit == Shutdown("restart of a") for report in stopped)


async def test_a_left_neighbour_may_crash_while_a_right_one_pauses(autojump_clock):
    story = Story()
    children = [story.child("a", Run(10), FOREVER), story.child("b", Run(9.5), FOREVER), story.child("c", FOREVER)]
    await run_scenario(story, Supervisor("tree", children, strategy=REST), until=50)
    assert story.starts == {"a": [0, 11], "b": [0, 11], "c": [0, 11]}


async def test_a_left_neighbour_may_crash_while_a_right_one_takes_others_down(autojump_clock):
    story = Story()
    children = [
        story.child("a", Run(10), FOREVER),
        story.child("b", Run(9.5), FOREVER),
        story.child("c", Run(polite=4.0)),
    ]
    tree = Supervisor("tree", children, strategy=REST, observers=[story.observe])
    await run_scenario(story, tree, until=50)
    assert story.ends["c"][0] == 13.5
    assert story.starts == {"a": [0, 13.5], "b": [0, 13.5], "c": [0, 13.5]}
    assert Context.SHUTDOWN_OVERRUN not in story.contexts("b")


async def test_a_restart_brings_back_what_ran_not_what_was_down(autojump_clock):
    story = Story()
    tree = Supervisor(
        "tree",
        [story.child("a", Run(10), FOREVER),
         (story.child("final", Run(1), judge=lambda exc: Ruling(Verdict.FINAL)),
          story.child("done", Run(2, "return"), restart=Restart.TRANSIENT),
          story.child("temporary", FOREVER, restart=Restart.TEMPORARY),
          story.child("steady", FOREVER))],
        strategy=REST,
    )
    await run_scenario(story, tree, until=50)
    assert story.starts == {"a": [0, 11], "final": [0], "done": [0], "temporary": [0], "steady": [0, 11]}


async def test_a_member_in_trouble_does_not_keep_its_group_from_starting_but_what_is_right_of_it(autojump_clock):
    story = Story()
    tree = Supervisor(
        "tree",
        [story.child("actor", FOREVER),
         (story.child("sync", Run(1, ready=2), Run(1, ready=2), FOREVER), story.child("submission", FOREVER)),
         story.child("tail", FOREVER)],
        strategy=REST,
    )
    await run_scenario(story, tree, until=50)
    assert story.starts["sync"] == [0, 2, 5]
    assert story.starts["submission"] == [1]
    assert story.starts["tail"] == [5]


@BOTH
async def test_what_is_right_of_a_failing_start_waits(autojump_clock, strategy):
    story = Story()
    children = [story.child("a", Run(1, ready=2), FOREVER), story.child("b", FOREVER)]
    tree = Supervisor("tree", children, strategy=strategy)
    await run_scenario(story, tree, until=50)
    assert story.starts == {"a": [0, 2], "b": [2]}


async def test_a_pair_costs_two_tasks(autojump_clock):
    story = Story()
    tree = Supervisor("tree", [story.child("actor", FOREVER), story.child("worker", FOREVER)], strategy=REST)
    async with trio.open_nursery() as nursery:
        before = trio.lowlevel.current_statistics().tasks_living
        nursery.start_soon(tree.run)
        await trio.testing.wait_all_tasks_blocked()
        assert tree.statistics().active == 2
        assert trio.lowlevel.current_statistics().tasks_living - before == 2
        tree.request_stop()


@BOTH
async def test_stop_child_keeps_it_down_and_leaves_its_neighbours(autojump_clock, strategy):
    story = Story()
    tree = Supervisor(
        "tree", [story.child(name, Run(polite=1.0)) for name in "abc"], strategy=strategy, observers=[story.observe]
    )
    done = []

    async def stop(tree):
        await tree.stop_child("b")
        done.append((story.now(), tree.child("b").state))

    await run_scenario(story, tree, {10: stop}, until=50)
    assert done == [(11, ChildState.DOWN)]
    assert story.starts == {"a": [0], "b": [0], "c": [0]}
    assert story.reports[0].exit == Shutdown("stop_child")


@BOTH
async def test_stop_child_during_a_pause_and_before_its_turn(autojump_clock, strategy):
    story = Story()
    tree = Supervisor(
        "tree",
        [story.child("a", Run(1), FOREVER), story.child("slow", Run(ready=10)), story.child("late", FOREVER)],
        strategy=strategy,
    )
    await run_scenario(story, tree, {1.5: lambda t: t.stop_child("a"), 2: lambda t: t.stop_child("late")}, until=50)
    assert story.starts["a"] == [0]
    assert "late" not in story.starts


@BOTH
async def test_the_first_child_can_be_stopped_and_brought_back(autojump_clock, strategy):
    story = Story()
    tree = Supervisor("tree", [story.child("a", FOREVER), story.child("b", FOREVER)], strategy=strategy)
    await run_scenario(
        story, tree, {5: lambda t: t.stop_child("a"), 10: lambda t: t.restart_child("a")}, until=50
    )
    assert story.starts["a"] == [0, 10]
    assert story.ends["a"] == [5, 50]
    assert story.starts["b"] == ([0] if strategy is Strategy.ONE_FOR_ONE else [0, 10])


@BOTH
async def test_restart_child_restarts_a_running_child_at_once(autojump_clock, strategy):
    story = Story()
    tree = Supervisor(
        "tree", [story.child("a", Run(polite=1.0)), story.child("b", Run(polite=2.0))], strategy=strategy, intensity=0
    )
    await run_scenario(story, tree, {10: lambda t: t.restart_child("a")}, until=50)
    if strategy is Strategy.ONE_FOR_ONE:
        assert story.starts == {"a": [0, 11], "b": [0]}
    else:
        assert story.starts == {"a": [0, 13], "b": [0, 13]}
        assert story.ends["b"][0] == 12


@BOTH
async def test_restart_child_during_a_pause_forgets_the_streak(autojump_clock, strategy):
    story = Story()
    tree = Supervisor("tree", [story.child("a", Run(1), Run(1), Run(1), FOREVER)], strategy=strategy)
    await run_scenario(story, tree, {3.5: lambda t: t.restart_child("a")}, until=50)
    assert story.starts["a"] == [0, 2, 3.5, 5.5]


async def test_two_restarts_at_once_are_one(autojump_clock):
    story = Story()
    tree = Supervisor("tree", [story.child("a", Run(polite=1.0)), story.child("b", FOREVER)], strategy=REST)

    def twice(tree):
        tree.restart_child("a")
        tree.restart_child("a")

    await run_scenario(story, tree, {10: twice}, until=50)
    assert story.starts == {"a": [0, 11], "b": [0, 11]}


async def test_start_child_under_one_for_one_and_again_when_it_is_down(autojump_clock):
    story = Story()
    tree = Supervisor("tree", [story.child("a", FOREVER)])
    late = story.child("late", Run(5, "return"), restart=Restart.TRANSIENT)

    def refused(tree):
        with pytest.raises(ChildExists):
            tree.start_child(late)

    script = {10: lambda t: t.start_child(late), 11: refused, 20: lambda t: t.start_child(late)}
    await run_scenario(story, tree, script, until=50)
    assert story.starts["late"] == [10, 20]
    assert story.ends["late"] == [15, 25]


async def test_start_child_joins_the_last_group_which_may_be_empty(autojump_clock):
    story = Story()
    tree = Supervisor("tree", [story.child("actor", Run(20), FOREVER), ()], strategy=REST)
    late = story.child("late", FOREVER)
    await run_scenario(story, tree, {10: lambda t: t.start_child(late)}, until=50)
    assert story.starts == {"actor": [0, 21], "late": [10, 21]}


async def test_start_child_while_its_left_is_not_ready_waits(autojump_clock):
    story = Story()
    tree = Supervisor("tree", [story.child("actor", Run(ready=20)), ()], strategy=REST)
    await run_scenario(story, tree, {10: lambda t: t.start_child(story.child("late", FOREVER))}, until=50)
    assert story.starts["late"] == [20]


async def test_start_child_without_a_group_is_refused(autojump_clock):
    story = Story()
    tree = Supervisor("tree", [story.child("actor", FOREVER)], strategy=REST)
    with pytest.raises(NotRunning):
        tree.start_child(story.child("late", FOREVER))

    def refused(tree):
        with pytest.raises(NoGroup):
            tree.start_child(story.child("late", FOREVER))

    await run_scenario(story, tree, {10: refused}, until=50)


async def test_unknown_ids_have_their_error(autojump_clock):
    tree = Supervisor("tree")
    for method in (tree.wake, tree.restart_child):
        with pytest.raises(NoSuchChild):
            method("nobody")
    with pytest.raises(NoSuchChild):
        await tree.stop_child("nobody")
    assert tree.child("nobody") is None


async def test_each_run_begins_anew(autojump_clock):
    story = Story()
    tree = Supervisor("tree", [story.child("a", Run(1), FOREVER, FOREVER)], intensity=1)
    await run_scenario(story, tree, {5: lambda t: t.start_child(story.child("b", FOREVER))}, until=10)
    await run_scenario(story, tree, until=10)
    assert story.starts == {"a": [0, 2, 0], "b": [5]}
    assert tree.statistics().restarts_in_period == 0
    assert CANCEL_GRACE > 5.0
