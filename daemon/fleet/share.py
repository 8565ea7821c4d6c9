"""How many of all accounts are this node's to run: an even share, filled up where other nodes have no room; pure."""

from __future__ import annotations

from collections.abc import Sequence


def fair_share(accounts: int, capacities: Sequence[int], mine: int) -> int:
    """The most accounts that a node should run.

    Water-filling: every node takes the same number, and what a small node cannot take is shared by the others.  The
    shares of all nodes together cover all accounts, where there is room for them.

    Args:
        accounts: that are to run on all nodes together.
        capacities: of all live nodes, this one's included.
        mine: this node's capacity.
    """
    if not capacities:
        return min(accounts, mine)
    left, nodes = accounts, len(capacities)
    for capacity in sorted(capacities):
        level = -(-left // nodes)  # rounded up: nobody is left over
        if capacity >= level:
            return min(mine, level)
        left -= capacity
        nodes -= 1
    return mine


RELEASE_AT_ONCE = 50
"""Accounts given back in one round: a node that joins gets its share within seconds, and no provider meets the logins
of a whole fleet in one."""


def surplus(running: int, share: int) -> int:
    """How many accounts to give back in this round."""
    return max(0, min(running - share, RELEASE_AT_ONCE))
