"""When children are started again, to the second."""

from __future__ import annotations

import math

import pytest
import trio

from supervisor import (
    Backoff,
    ChildState,
    Context,
    Crash,
    Normal,
    Restart,
    RestartBudgetSpent,
    Ruling,
    StartTimeout,
    Strategy,
    Supervisor,
    Verdict,
)

from .scenario import FOREVER, STEADY, Boom, Run, Story, run_scenario

BOTH = pytest.mark.parametrize("strategy", list(Strategy))


@pytest.mark.parametrize(
    ("restart", "run", "starts"),
    [
        (Restart.PERMANENT, Run(10), [0, 11, 23, 37]),
        (Restart.PERMANENT, Run(10, "return"), [0, 11, 23, 37]),
        (Restart.TRANSIENT, Run(10), [0, 11, 23, 37]),
        (Restart.TRANSIENT, Run(10, "return"), [0]),
        (Restart.TEMPORARY, Run(10), [0]),
        (Restart.TEMPORARY, Run(10, "return"), [0]),
        # never ready: start failures are paced alike
        (Restart.PERMANENT, Run(10, ready=20), [0, 11, 23, 37]),
        # up for the stable time: every pause is the first
        (Restart.PERMANENT, Run(100), [0, 101, 202, 303]),
        (Restart.PERMANENT, Run(100, ready=1), [0, 101, 203, 307]),
    ],
)
@BOTH
async def test_restart_pacing(autojump_clock, strategy, restart, run, starts):
    story = Story()
    child = story.child("a", run, run, run, FOREVER, restart=restart)
    tree = Supervisor("tree", [child], strategy=strategy, intensity=9, observers=[story.observe])
    await run_scenario(story, tree, until=500)
    assert story.starts["a"] == starts


async def test_a_group_of_exceptions_is_one_crash(autojump_clock):
    story = Story()
    group = ExceptionGroup("both", [Boom(), ExceptionGroup("deeper", [OSError()])])
    child = story.child("a", Run(1, exc=group), FOREVER)
    await run_scenario(story, Supervisor("tree", [child], observers=[story.observe]), until=10)
    assert story.starts["a"] == [0, 2]
    assert story.reports[0].exit == Crash(group)


async def test_intensity_spent_stops_everybody_and_raises(autojump_clock):
    story = Story()
    tree = Supervisor(
        "tree",
        [story.child("left", Run(polite=2.0)), story.child("bad", Run(1)), story.child("right", Run(polite=3.0))],
        intensity=2, period=60, observers=[story.observe],
    )
    with pytest.RaisesGroup(pytest.RaisesExc(RestartBudgetSpent, match="bad")) as caught:
        await run_scenario(story, tree, until=500)
    spent = caught.value.exceptions[0]
    assert story.starts["bad"] == [0, 2, 5]
    assert spent.child_id == "bad"
    assert [type(ended.exc) for ended in spent.exits] == [Boom, Boom, Boom]
    assert spent.__cause__ is spent.exits[-1].exc
    # right to left, each given its time
    assert story.ends["right"] == [6 + 3]
    assert story.ends["left"] == [6 + 3 + 2]
    assert story.contexts("bad") == [Context.CHILD_TERMINATED, Context.CHILD_TERMINATED, Context.BUDGET_SPENT]
    assert [report.restarts_in_period for report in story.reports if report.child_id == "bad"] == [1, 2, 3]


async def test_restarts_older_than_the_period_are_forgotten(autojump_clock):
    story = Story()
    child = story.child("a", Run(100))
    tree = Supervisor("tree", [child], intensity=1, period=100.9)
    await run_scenario(story, tree, until=1000)
    assert story.starts["a"] == [0, 101, 202, 303, 404, 505, 606, 707, 808, 909]


async def test_restarts_before_the_root_gives_up_are_the_product(autojump_clock):
    story = Story()
    inner = Supervisor("inner", [story.child("a", Run(1))], intensity=1, period=1000)
    outer_child = story.child("unused", FOREVER)
    outer = Supervisor(
        "outer",
        [type(outer_child)("inner", inner.run, stop=inner.request_stop, backoff=STEADY)],
        intensity=2, period=1000, observers=[story.observe],
    )
    with pytest.RaisesGroup(RestartBudgetSpent) as caught:
        await run_scenario(story, outer, until=500)
    # inner: starts at t and t+2, gives up at t+3; outer pauses 1, then 2, then gives up
    assert story.starts["a"] == [0, 2, 4, 6, 9, 11]
    assert isinstance(caught.value.exceptions[0].__cause__, RestartBudgetSpent)


async def test_excused_crashes_are_restarted_for_ever_and_spend_nothing(autojump_clock):
    story = Story()
    child = story.child("a", Run(0), judge=lambda exc: Ruling(Verdict.EXCUSED), backoff=STEADY)
    tree = Supervisor("tree", [child], intensity=0, observers=[story.observe])
    await run_scenario(story, tree, until=100)
    assert story.starts["a"] == [0, 1, 3, 7, *range(15, 100, 8)]
    assert {report.restarts_in_period for report in story.reports} == {0}


async def test_a_ruling_may_ask_for_a_longer_pause_but_not_a_shorter(autojump_clock):
    story = Story()
    rulings = iter([Ruling(Verdict.EXCUSED, 30.0), Ruling(Verdict.EXCUSED, 0.5)])
    child = story.child("a", Run(1), Run(1), FOREVER, judge=lambda exc: next(rulings))
    await run_scenario(story, Supervisor("tree", [child], observers=[story.observe]), until=100)
    assert story.starts["a"] == [0, 31, 34]
    assert [report.next_delay for report in story.reports[:2]] == [30.0, 2.0]


@BOTH
async def test_final_stays_down_until_restart_child_and_siblings_go_on(autojump_clock, strategy):
    story = Story()
    seen = []
    tree = Supervisor(
        "tree",
        [story.child("a", FOREVER), (story.child("b", Run(5), FOREVER, judge=lambda exc: Ruling(Verdict.FINAL)),
                                     story.child("c", FOREVER)), story.child("d", FOREVER)],
        strategy=strategy, intensity=0, observers=[story.observe],
    )
    await run_scenario(
        story, tree, {50: lambda t: seen.append((t.child("b"), t.statistics())), 60: lambda t: t.restart_child("b")},
        until=100,
    )
    info, statistics = seen[0]
    assert info.state is ChildState.DOWN
    assert info.since == story.began + 5
    assert (statistics.specs, statistics.active, statistics.down) == (4, 3, 1)
    assert story.starts["b"] == [0, 60]
    assert story.starts["a"] == story.starts["c"] == [0]
    # what depends on the child that came back starts anew with it
    assert story.starts["d"] == ([0] if strategy is Strategy.ONE_FOR_ONE else [0, 60])
    assert story.reports[0].verdict is Verdict.FINAL
    assert story.reports[0].next_delay is None


async def test_a_judge_that_fails_is_reported_and_the_crash_counts(autojump_clock):
    story = Story()

    def judge(exc):
        raise LookupError("no law")

    child = story.child("a", Run(1), FOREVER, judge=judge)
    await run_scenario(story, Supervisor("tree", [child], observers=[story.observe]), until=10)
    assert story.starts["a"] == [0, 2]
    assert story.contexts("a")[:2] == [Context.JUDGE_FAILED, Context.CHILD_TERMINATED]
    assert story.reports[1].verdict is Verdict.CRASH
    assert story.reports[1].restarts_in_period == 1


async def test_a_judge_that_rules_nonsense_is_reported(autojump_clock):
    story = Story()
    child = story.child("a", Run(1), FOREVER, judge=lambda exc: None)
    await run_scenario(story, Supervisor("tree", [child], observers=[story.observe]), until=10)
    assert isinstance(story.reports[0].exit.exc, TypeError)
    assert story.starts["a"] == [0, 2]


@BOTH
async def test_wake_cuts_a_pause_short(autojump_clock, strategy):
    story = Story()
    child = story.child("a", Run(1), Run(5), FOREVER, backoff=Backoff(base=50, cap=50, jitter=0))
    tree = Supervisor("tree", [child], strategy=strategy)
    infos = []
    await run_scenario(
        story, tree, {10: lambda t: infos.append(t.child("a")), 11: lambda t: t.wake("a"), 12: lambda t: t.wake("a")},
        until=100,
    )
    assert infos[0].state is ChildState.RESTARTING
    assert infos[0].next_at == story.began + 51
    assert story.starts["a"] == [0, 11, 66]  # running at 12: the second wake did nothing


@BOTH
async def test_a_child_that_is_not_ready_in_time_has_crashed(autojump_clock, strategy):
    story = Story()
    child = story.child("a", Run(ready=math.inf), Run(ready=4), start_timeout=5)
    tree = Supervisor("tree", [child, story.child("b", FOREVER)], strategy=strategy, observers=[story.observe])
    await run_scenario(story, tree, until=100)
    assert story.starts["a"] == [0, 6]
    assert story.starts["b"] == [10]
    assert story.contexts("a")[0] is Context.START_FAILED
    assert isinstance(story.reports[0].exit.exc, StartTimeout)


async def test_start_timeout_bounds_readiness_only(autojump_clock):
    story = Story()
    await run_scenario(story, Supervisor("tree", [story.child("a", Run(ready=4), start_timeout=5)]), until=100)
    assert story.ends["a"] == [100]


async def test_a_normal_end_is_reported_as_such(autojump_clock):
    story = Story()
    child = story.child("a", Run(3, "return", ready=1), restart=Restart.TRANSIENT)
    await run_scenario(story, Supervisor("tree", [child], observers=[story.observe]), until=10)
    (report,) = story.reports
    assert (report.exit, report.context, report.uptime) == (Normal(), Context.CHILD_TERMINATED, 2.0)


async def test_a_start_that_is_no_coroutine_function_has_crashed(autojump_clock):
    story = Story()

    def start(*, task_status):
        raise Boom("before any await")

    spec = story.child("a", FOREVER)
    spec = type(spec)("a", start, restart=Restart.TEMPORARY)
    await run_scenario(story, Supervisor("tree", [spec], observers=[story.observe]), until=10)
    assert story.contexts("a") == [Context.START_FAILED]


async def test_started_twice_is_the_childs_bug(autojump_clock):
    async def start(*, task_status):
        task_status.started()
        task_status.started()

    story = Story()
    spec = story.child("a", FOREVER)
    spec = type(spec)("a", start, restart=Restart.TEMPORARY)
    await run_scenario(story, Supervisor("tree", [spec], observers=[story.observe]), until=10)
    assert isinstance(story.reports[0].exit.exc, RuntimeError)


async def test_readiness_hands_over_a_value_and_is_told_when_all_are_ready(autojump_clock):
    story = Story()
    tree = Supervisor("tree", [story.child("a", Run(ready=2)), story.child("b", Run(ready=3))])
    async with trio.open_nursery() as nursery:
        begun = trio.current_time()
        assert await nursery.start(tree.run) is tree
        assert trio.current_time() - begun == 5
        assert tree.children()["a"].value == "a is up"
        tree.request_stop()
