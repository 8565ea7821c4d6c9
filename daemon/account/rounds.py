"""How often one account's news may be acted on: each round is a FETCH and a transaction, which others want as well.

A server that tells of something new as soon as it is heard would have both without an end.  So an account has ROUNDS at
once and one every two seconds after them (what comes meanwhile is one round with it, so a mailbox into which mail
pours is served better that way), and news with nothing behind are borne UNFOUNDED times: then the server is lying.
"""

from __future__ import annotations

from typing import Final

import trio

from daemon.errors import Fault, FaultKind
from daemon.imap.allowance import Allowance
from daemon.imap.folder_record import Tally

ROUNDS: Final = 10
ROUNDS_RATE: Final = 0.5
"""Rounds at once, and a second."""

UNFOUNDED: Final = 60
UNFOUNDED_RATE: Final = 0.1
"""Rounds at once, and a second, that find nothing: some servers repeat EXISTS every minute or two to keep NAT awake."""


class Rounds:
    """Those of one session."""

    __slots__ = ("_rounds", "_unfounded")

    def __init__(self) -> None:
        now = trio.current_time()
        self._rounds = Allowance(ROUNDS, ROUNDS_RATE, now)
        self._unfounded = Allowance(UNFOUNDED, UNFOUNDED_RATE, now)

    def due_in(self) -> float:
        """Begin a round: the seconds to wait before it."""
        return self._rounds.take(1, trio.current_time())

    def done(self, tally: Tally) -> None:
        """A round has ended.

        Raises:
            Fault: PROTOCOL, when too many found nothing.
        """
        if tally.new or tally.changed or tally.vanished:
            return
        if self._unfounded.take(1, trio.current_time()):
            raise Fault(FaultKind.PROTOCOL, "The mail server keeps telling of news that there are none of.")
