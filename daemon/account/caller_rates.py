"""How often callers may do what others feel: guess passwords, make a provider angry with all, fill others' lists.

A caller's own rates are counted first, whatever comes of the request.  Those that callers share, of a host and of a
mailbox, are counted only once a server is really about to be asked, so nobody uses them up with requests that are
refused here; and not where an owner gives a new password for a mailbox that they have connected, so nobody keeps them
from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from daemon.identity import User, rates_store
from daemon.identity.rates import Rate, subject
from daemon.network import Endpoint
from daemon.storage.requests import Requests

HOUR: Final = 3600.0
"""Seconds of a window in which attempts are counted."""


@dataclass(frozen=True, slots=True)
class CallerRates:
    """Each counts deeds of one caller, or of all callers together."""

    connects: Rate
    """Attempts of one caller to log in somewhere, wherever."""
    host: Rate
    """Attempts at one host, of all callers together: who throttles us throttles every account there."""
    own_mailbox: Rate
    """Attempts of one caller with one user name at one host."""
    mailbox: Rate
    """The same of all callers together: many callers are not to guess what one may not.  It is larger than one
    caller's, so that a stranger alone keeps nobody from their own mailbox."""
    changes: Rate
    """Changes of accounts, and of what campaigns do, of one caller: each may be an entry of the audit."""
    invitations: Rate
    """Invitations of one caller."""

    @classmethod
    def of(
        cls,
        *,
        connects: int,
        connects_per_host: int,
        connects_per_mailbox: int,
        connects_per_mailbox_of_all: int,
        changes: int,
        invitations: int,
    ) -> CallerRates:
        """From attempts and changes in an hour, and invitations in a day."""
        return cls(
            connects=Rate("connect.user", connects, HOUR),
            host=Rate("connect.host", connects_per_host, HOUR),
            own_mailbox=Rate("connect.own_mailbox", connects_per_mailbox, HOUR),
            mailbox=Rate("connect.mailbox", connects_per_mailbox_of_all, HOUR),
            changes=Rate("change.user", changes, HOUR),
            invitations=Rate("invite.user", invitations, 24 * HOUR),
        )

    async def count_target(
        self, requests: Requests, user: User, servers: Iterable[Endpoint], username: str, *, proven: bool = False
    ) -> None:
        """Count what is about to be tried, with a user name at these servers, IMAP and SMTP alike.

        *proven*: the mailbox is the caller's, who has shown a password of it.  Then what all callers do together is not
        counted, or strangers could keep an owner from mending theirs.

        Raises:
            RateExceeded: it is one too many at one of the hosts, or with this user name.
        """
        wanted: list[tuple[Rate, bytes]] = []
        for host in dict.fromkeys(server.host.casefold() for server in servers):
            named = username.casefold()
            wanted.append((self.own_mailbox, subject(user.id, host, named)))
            if not proven:
                wanted += [(self.host, subject(host)), (self.mailbox, subject(host, named))]
        await requests.run(partial(rates_store.take, wanted=wanted))
