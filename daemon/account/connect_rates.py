"""How often credentials may be tried: through us nobody is to guess passwords, or to make a provider angry with all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from daemon.identity import User, rates_store
from daemon.identity.rates import Allowance, Rate, subject
from daemon.network import Endpoint
from daemon.storage.requests import Requests

HOUR: Final = 3600.0
"""Seconds of a window in which attempts are counted."""


@dataclass(frozen=True, slots=True)
class ConnectRates:
    """How often mailboxes may be tried, and people be invited."""

    user: Rate
    """Attempts of one caller, wherever to."""
    host: Rate
    """Attempts at one host, of all callers together: who throttles us throttles every account there."""
    mailbox: Rate
    """Attempts with one user name at one host, of all callers together: nobody guesses passwords through us."""
    invitations: Rate
    """Invitations of one caller."""

    @classmethod
    def of(cls, *, connects: int, connects_per_host: int, connects_per_mailbox: int, invitations: int) -> ConnectRates:
        """From attempts in an hour, and invitations in a day."""
        return cls(
            user=Rate("connect.user", connects, HOUR),
            host=Rate("connect.host", connects_per_host, HOUR),
            mailbox=Rate("connect.mailbox", connects_per_mailbox, HOUR),
            invitations=Rate("invite.user", invitations, 24 * HOUR),
        )

    async def count(self, requests: Requests, user: User, servers: Iterable[Endpoint], username: str) -> Allowance:
        """Count one attempt with a user name at these servers, IMAP and SMTP alike; how the caller stands then.

        Raises:
            RateExceeded: it is one too many.
        """
        wanted = [(self.user, subject(user.id))]
        for host in dict.fromkeys(server.host for server in servers):
            wanted += [(self.host, subject(host)), (self.mailbox, subject(host, username))]
        return (await requests.run(partial(rates_store.take, wanted=wanted)))[0]
