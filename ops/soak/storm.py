"""A storm: mail arrives, is flagged, moved and expunged without a pause, until it is told to stop."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Final

import trio

from ops.testservers.dovecot import Dovecot
from ops.testservers.mail import messages

KINDS: Final = {"deliver": 70, "flag": 16, "unflag": 5, "expunge": 4, "move": 2, "burst": 3}
"""How often each is chosen, relative to its fellows."""

BURST: Final = 20
MOST: Final = 10
"""Messages delivered at once, and flagged, moved or expunged at once."""

KEEP: Final = 30
"""Messages below which none are taken from a mailbox."""

FLAGS: Final = ("\\Seen", "\\Flagged", "\\Answered", "\\Deleted", "$Important", "Work")


class Storm:
    """What other mail clients and senders do.

    Args:
        dovecot: the server.
        users: whose mail comes and goes.
        growing: users from whom nothing is ever taken.
        seed: where all choices come from.
        every: seconds between actions.
    """

    def __init__(
        self, dovecot: Dovecot, users: Sequence[str], growing: Sequence[str], *, seed: int, every: float
    ) -> None:
        self.done: Counter[str] = Counter()
        self.delivered = 0
        self._dovecot = dovecot
        self._users = [*users, *growing]
        self._growing = frozenset(growing)
        self._every = every
        self._rng = random.Random(f"{seed} storm")  # noqa: S311  # repeatable, not secret
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def run(self) -> None:
        """Rage until `end`, a step a thread at a time."""
        with self._scope:
            while True:
                await trio.to_thread.run_sync(self._step)
                await trio.sleep(self._every)
        self._ended.set()

    async def end(self) -> None:
        """Stop; what was begun is done."""
        self._scope.cancel()
        await self._ended.wait()

    def _step(self) -> None:
        rng = self._rng
        user = rng.choice(self._users)
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        if user in self._growing and kind in {"expunge", "move"}:
            kind = "deliver"
        if kind in {"deliver", "burst"}:
            count = BURST if kind == "burst" else 1
            for content in messages(count, seed=rng.getrandbits(32)):
                self._dovecot.deliver(user, content)
            self.delivered += count
        else:
            self._meddle(kind, user)
        self.done[kind] += 1

    def _meddle(self, kind: str, user: str) -> None:
        rng, dovecot = self._rng, self._dovecot
        uids = dovecot.uids(user)
        chosen = rng.sample(uids, min(len(uids), rng.randint(1, MOST)))
        if kind in {"flag", "unflag"}:
            dovecot.flag(user, chosen, rng.choice(FLAGS), remove=kind == "unflag")
        elif len(uids) - len(chosen) >= KEEP:
            if kind == "move":
                dovecot.move(user, chosen, "Archive")
            else:
                dovecot.expunge(user, chosen)
