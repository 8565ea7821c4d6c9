"""How many accounts each node should run: everything is run, nobody beyond its room, evenly."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.fleet.share import RELEASE_AT_ONCE, fair_share, surplus

CAPACITIES = st.lists(st.integers(1, 300), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("accounts", "capacities", "shares"),
    [
        (0, [10], [0]),
        (5, [10], [5]),
        (200, [1000, 1000], [100, 100]),
        (7, [10, 10], [4, 4]),
        (100, [10, 1000], [10, 90]),
        (100, [10, 20, 1000], [10, 20, 70]),
        (100, [30, 30, 30], [30, 30, 30]),
        (3, [1, 1, 1], [1, 1, 1]),
    ],
)
def test_known_shares(accounts: int, capacities: list[int], shares: list[int]) -> None:
    assert [fair_share(accounts, capacities, mine) for mine in capacities] == shares


def test_before_the_first_heartbeat_a_node_counts_itself() -> None:
    assert fair_share(7, [], 5) == 5
    assert fair_share(3, [], 5) == 3


@given(st.integers(0, 3000), CAPACITIES)
def test_shares_cover_all_accounts_and_are_even(accounts: int, capacities: list[int]) -> None:
    shares = [fair_share(accounts, capacities, mine) for mine in capacities]
    assert all(0 <= share <= mine for share, mine in zip(shares, capacities, strict=True))
    assert sum(shares) >= min(accounts, sum(capacities))
    # Rounding up is all that is shared out too much: less than one account a node.
    assert sum(shares) - min(accounts, sum(capacities)) < len(capacities)
    uncapped = [share for share, mine in zip(shares, capacities, strict=True) if share < mine]
    assert max(uncapped, default=0) - min(uncapped, default=0) <= 1
    capped = [share for share, mine in zip(shares, capacities, strict=True) if share == mine]
    if uncapped and capped:
        assert max(capped) <= max(uncapped) + 1


@given(st.integers(0, 3000), CAPACITIES, st.randoms())
def test_the_order_of_the_nodes_does_not_matter(accounts: int, capacities: list[int], rng: object) -> None:
    shuffled = list(capacities)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]  # Hypothesis' Random
    for mine in capacities:
        assert fair_share(accounts, capacities, mine) == fair_share(accounts, shuffled, mine)


@given(st.integers(0, 20_000), st.integers(0, 20_000))
def test_a_surplus_is_given_back_in_steps_until_the_share_is_reached(running: int, share: int) -> None:
    steps = [running]
    while extra := surplus(steps[-1], share):
        steps.append(steps[-1] - extra)
    assert steps[-1] == min(running, share)
    assert all(before - after <= RELEASE_AT_ONCE for before, after in pairwise(steps))
