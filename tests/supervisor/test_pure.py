"""The pure parts: backoff, budget, truth table, validation."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import supervisor as sup
from supervisor import Backoff, ChildSpec, Crash, Normal, Restart, Ruling, Shutdown, Verdict
from supervisor.budget import RestartBudget
from supervisor.judging import Court


class Never:
    """No jitter."""

    def random(self):
        return 0.0


class Always:
    """As much jitter as there is."""

    def random(self):
        return math.nextafter(1.0, 0.0)


async def nothing(*, task_status):
    task_status.started()


def test_pauses_grow_to_the_cap():
    backoff = Backoff(base=1, cap=10, factor=2, jitter=0.2)
    assert [backoff.delay(streak, Never()) for streak in range(1, 7)] == [1, 2, 4, 8, 10, 10]


def test_jitter_only_shortens():
    backoff = Backoff(base=10, cap=10, jitter=0.2)
    assert backoff.delay(5, Always()) == pytest.approx(8.0)


@given(
    base=st.floats(0, 1e6), more=st.floats(0, 1e6), factor=st.floats(1, 1e3), streak=st.integers(1, 10**9),
    jitter=st.floats(0, 1), seed=st.integers(),
)
def test_a_pause_is_never_longer_than_the_cap_whatever_the_streak(base, more, factor, streak, jitter, seed):
    backoff = Backoff(base=base, cap=base + more, factor=factor, jitter=jitter)
    assert 0.0 <= backoff.delay(streak, random.Random(seed)) <= base + more


def test_streak_is_forgotten_only_after_stable_uptime():
    backoff = Backoff(stable_uptime=60)
    assert backoff.next_streak(4, 59.999) == 5
    assert backoff.next_streak(4, 60.0) == 1


@pytest.mark.parametrize(
    "numbers",
    [{"base": -1}, {"base": 5, "cap": 4}, {"cap": math.inf}, {"base": math.nan}, {"factor": 0.5}, {"factor": math.nan},
     {"jitter": 1.5}, {"jitter": math.nan}, {"stable_uptime": -1}, {"stable_uptime": math.inf}],
)
def test_a_backoff_that_makes_no_pause_is_refused(numbers):
    with pytest.raises(sup.InvalidBackoff):
        Backoff(**numbers)


@given(
    intensity=st.integers(0, 5),
    period=st.integers(1, 20),
    steps=st.lists(st.integers(0, 10), max_size=60),
)
def test_budget_agrees_with_a_naive_model(intensity, period, steps):
    budget = RestartBudget(intensity, float(period))
    everything: list[float] = []
    now = 0.0
    for step in steps:
        now += step
        everything.append(now)
        in_window = [time for time in everything if now - time <= period]
        assert budget.spend(now) == (len(in_window) <= intensity)
        # It remembers one restart more than it bears, so beyond that it cannot tell how many.
        assert budget.spent(now) == min(len(in_window), intensity + 1)


def test_the_court_lets_go_of_exits_that_left_the_window():
    court = Court(2, 10.0, Never())
    spec = ChildSpec("a", nothing)
    crashes = [Crash(ValueError(str(number))) for number in range(4)]
    for crash, now in zip(crashes, [0.0, 5.0, 12.0, 30.0], strict=True):
        assert court.decide(spec, crash, 1, now).delay is not None
    assert court.counted == (crashes[3],)
    court.renew()
    assert court.counted == ()
    assert court.restarts(30.0) == 0


@pytest.mark.parametrize(("intensity", "period"), [(-1, 1.0), (1, 0.0), (1, math.inf), (1, math.nan)])
def test_numbers_that_make_no_budget_are_refused(intensity, period):
    with pytest.raises(sup.InvalidBudget):
        RestartBudget(intensity, period)


@pytest.mark.parametrize(
    ("restart", "normal", "crash"),
    [(Restart.PERMANENT, True, True), (Restart.TRANSIENT, False, True), (Restart.TEMPORARY, False, False)],
)
def test_truth_table(restart, normal, crash):
    assert restart.wants(Normal()) is normal
    assert restart.wants(Crash(ValueError())) is crash
    assert restart.wants(Shutdown("asked")) is False


@pytest.mark.parametrize("not_before", [-1.0, math.inf, math.nan])
def test_a_ruling_that_never_comes_due_is_refused(not_before):
    with pytest.raises(sup.InvalidRuling):
        Ruling(Verdict.EXCUSED, not_before)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"id": ""}, sup.InvalidChildId),
        ({"start": None}, sup.InvalidStart),
        ({"restart": "permanent"}, sup.InvalidRestart),
        ({"shutdown": -0.1}, sup.InvalidShutdown),
        ({"shutdown": math.nan}, sup.InvalidShutdown),
        ({"stop": 5}, sup.InvalidStop),
        ({"backoff": 1.0}, sup.InvalidBackoff),
        ({"judge": "guilty"}, sup.InvalidJudge),
        ({"start_timeout": 0.0}, sup.InvalidStartTimeout),
        ({"start_timeout": math.nan}, sup.InvalidStartTimeout),
    ],
)
def test_each_field_of_a_spec_has_its_named_error(fields, error):
    with pytest.raises(error):
        ChildSpec(**{"id": "a", "start": nothing, **fields})
    assert issubclass(error, sup.SpecError)


def test_an_id_borne_twice_is_refused_also_across_groups():
    spec = ChildSpec("a", nothing)
    with pytest.raises(sup.DuplicateChildId):
        sup.Supervisor("tree", [spec, (ChildSpec("b", nothing), spec)])


def test_trees_that_cannot_be_right_are_refused():
    with pytest.raises(sup.SpecError):
        sup.Supervisor("", [])
    with pytest.raises(sup.SpecError):
        sup.Supervisor("tree", ["a"])
    with pytest.raises(sup.SpecError):
        sup.Supervisor("tree", [], strategy="one_for_one")
    with pytest.raises(sup.InvalidCapacity):
        sup.DynamicSupervisor("fleet", max_children=0)
