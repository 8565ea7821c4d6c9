"""How much may be under way at once: the whole listener's requests, and one caller's.

Both refuse at once instead of queueing: a queue would only hold more of what is already too much.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from .errors import Busy, BusyCaller

MAX_PER_CALLER: Final = 32
"""Requests one user may have under way: browsers open 6 connections a host, so five busy ones fit."""


class Gate:
    """Counts requests under way and refuses those beyond the bounds."""

    def __init__(self, limit: int, per_caller: int = MAX_PER_CALLER) -> None:
        self._limit = limit
        self._per_caller = per_caller
        self._under_way = 0
        self._most = 0
        self._refused = 0
        self._callers: Counter[str] = Counter()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Hold a place for one request.

        Raises:
            Busy: none is free.
        """
        if self._under_way >= self._limit:
            self._refused += 1
            raise Busy
        self._under_way += 1
        self._most = max(self._most, self._under_way)
        try:
            yield
        finally:
            self._under_way -= 1

    @contextmanager
    def caller(self, user_id: str) -> Iterator[None]:
        """Hold one of a caller's places.

        Raises:
            BusyCaller: the caller has none left.
        """
        if self._callers[user_id] >= self._per_caller:
            self._refused += 1
            raise BusyCaller
        self._callers[user_id] += 1
        try:
            yield
        finally:
            self._callers[user_id] -= 1
            if not self._callers[user_id]:
                del self._callers[user_id]  # callers come and go: what is kept is bounded by what is under way

    def statistics(self) -> dict[str, int]:
        """Requests under way, the most there ever were, callers under way, and requests refused."""
        return {
            "under_way": self._under_way,
            "most_under_way": self._most,
            "callers": len(self._callers),
            "refused": self._refused,
        }
