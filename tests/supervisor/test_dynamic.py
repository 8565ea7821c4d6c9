"""The dynamic supervisor: children that come and go."""

from __future__ import annotations

import gc

import pytest
import trio

from supervisor import (
    CANCEL_GRACE,
    ChildExists,
    ChildSpec,
    Context,
    DynamicSupervisor,
    NoSuchChild,
    NotRunning,
    Restart,
    RestartBudgetSpent,
    Strategy,
    Supervisor,
    TooManyChildren,
)

from .scenario import FOREVER, STEADY, Run, Story, run_scenario

ONCE = Restart.TEMPORARY


async def test_a_child_that_ends_is_forgotten(autojump_clock):
    story = Story()
    fleet = DynamicSupervisor("fleet", max_children=10, observers=[story.observe])
    seen = []

    def begin(fleet):
        fleet.start_child(story.child("returns", Run(3, "return"), restart=ONCE))
        fleet.start_child(story.child("crashes", Run(4), restart=ONCE))
        fleet.start_child(story.child("stays", FOREVER, restart=ONCE))
        with pytest.raises(ChildExists):
            fleet.start_child(story.child("stays", FOREVER))
        seen.append(fleet.statistics().active)

    await run_scenario(story, fleet, {10: begin, 20: lambda f: seen.append(list(f.children()))}, until=30)
    assert seen == [3, ["stays"]]
    assert story.contexts("crashes") == story.contexts("returns") == [Context.CHILD_TERMINATED]
    assert fleet.statistics().specs == 0


async def test_children_that_are_to_be_restarted_share_one_budget(autojump_clock):
    story = Story()
    fleet = DynamicSupervisor("fleet", max_children=10, intensity=3, period=100)

    def begin(fleet):
        for name in "ab":
            fleet.start_child(story.child(name, Run(1)))
        fleet.start_child(story.child("steady", Run(polite=2.0)))

    with pytest.RaisesGroup(RestartBudgetSpent):
        await run_scenario(story, fleet, {0: begin}, until=100)
    # both crash at 1 and at 3: the second crash at 3 is the fourth restart asked for
    assert story.starts["a"] == story.starts["b"] == [0, 2]
    assert story.ends["steady"] == [5]


async def test_bounded(autojump_clock):
    story = Story()
    fleet = DynamicSupervisor("fleet", max_children=2)
    with pytest.raises(NotRunning):
        fleet.start_child(story.child("a", FOREVER))

    def begin(fleet):
        fleet.start_child(story.child("a", FOREVER))
        fleet.start_child(story.child("b", Run(cleanup=100.0)))
        with pytest.raises(TooManyChildren):
            fleet.start_child(story.child("c", FOREVER))

    async def replace(fleet):
        await fleet.stop_child("b")
        assert story.now() == 10 + CANCEL_GRACE
        with pytest.raises(TooManyChildren):  # the abandoned one still holds what it holds
            fleet.start_child(story.child("b", FOREVER))

    def then(fleet):
        fleet.start_child(story.child("b", FOREVER))

    await run_scenario(story, fleet, {5: begin, 10: replace, 120: then}, until=130)
    assert story.starts["b"] == [5, 120]


async def test_stop_child_and_unknown_ids(autojump_clock):
    story = Story()
    fleet = DynamicSupervisor("fleet", max_children=5, observers=[story.observe])

    async def stop(fleet):
        fleet.start_child(story.child("a", Run(polite=2.0), restart=ONCE))
        await trio.sleep(1)
        await fleet.stop_child("a")
        assert story.now() == 8
        assert fleet.child("a") is None
        with pytest.raises(NoSuchChild):
            await fleet.stop_child("a")

    await run_scenario(story, fleet, {5: stop}, until=20)
    assert story.contexts("a") == [Context.STOPPED]


@pytest.mark.parametrize("cancel", [False, True])
async def test_all_are_asked_at_once_and_each_has_its_own_time(autojump_clock, cancel):
    story = Story()
    fleet = DynamicSupervisor("fleet", max_children=50, observers=[story.observe])

    def begin(fleet):
        for seconds in range(1, 11):
            fleet.start_child(story.child(f"polite-{seconds}", Run(polite=float(seconds)), shutdown=20))
            fleet.start_child(story.child(f"slow-{seconds}", Run(polite=500.0), shutdown=float(seconds)))
        fleet.start_child(story.child("deaf", Run(cleanup=60.0, polite=500.0), shutdown=2.0))

    ended = await run_scenario(story, fleet, {0: begin}, until=10, cancel=cancel)
    for seconds in range(1, 11):
        assert story.ends[f"polite-{seconds}"] == [10 + seconds]
        assert story.ends[f"slow-{seconds}"] == [10 + seconds]
    (overrun,) = [report for report in story.reports if report.context is Context.SHUTDOWN_OVERRUN]
    assert (overrun.child_id, overrun.at) == ("deaf", 10 + 2 + CANCEL_GRACE)
    assert ended == 72


async def test_an_account_whose_budget_is_spent_does_not_touch_the_others(autojump_clock):
    story = Story()
    fleet = DynamicSupervisor("fleet", max_children=5, intensity=0, observers=[story.observe])

    def account(name, *runs):
        tree = Supervisor(
            name, [story.child(f"{name}.actor", *runs), (story.child(f"{name}.sync", FOREVER),)],
            strategy=Strategy.REST_FOR_ONE, intensity=1,
        )
        return ChildSpec(name, tree.run, restart=ONCE, stop=tree.request_stop, backoff=STEADY)

    def begin(fleet):
        fleet.start_child(account("good", FOREVER))
        fleet.start_child(account("bad", Run(1)))

    await run_scenario(story, fleet, {0: begin, 10: lambda f: f.start_child(account("bad", FOREVER))}, until=50)
    assert isinstance(story.reports[0].exit.exc, RestartBudgetSpent)
    assert story.starts["good.actor"] == [0]
    assert story.starts["bad.actor"] == [0, 2, 10]
    assert story.ends["good.sync"] == [50]


async def test_nothing_grows_with_the_children_that_ever_ran(autojump_clock):
    fleet = DynamicSupervisor("fleet", max_children=10)

    async def brief(*, task_status):
        task_status.started()

    async with trio.open_nursery() as nursery:
        await nursery.start(fleet.run)
        for number in range(100):
            fleet.start_child(ChildSpec(str(number), brief, restart=ONCE))
            await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        lives = [thing for thing in gc.get_objects() if type(thing).__name__ in ("Child", "Life", "ChildSpec")]
        assert len([thing for thing in lives if type(thing).__module__.startswith("supervisor")]) < 10
        assert fleet.statistics().specs == 0
        fleet.request_stop()


async def test_a_child_woken_from_its_pause(autojump_clock):
    story = Story()
    fleet = DynamicSupervisor("fleet", max_children=5)
    script = {0: lambda f: f.start_child(story.child("a", Run(1), Run(1), FOREVER)), 1.25: lambda f: f.wake("a")}
    await run_scenario(story, fleet, script, until=20)
    assert story.starts["a"] == [0, 1.25, 4.25]
