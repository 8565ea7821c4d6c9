"""Asking both servers of a mailbox whether they accept its credentials, before anything is saved."""

from __future__ import annotations

from typing import Final

import trio

from daemon.errors import Fault
from daemon.imap.open import Timeouts
from daemon.imap.open import verify_login as verify_imap
from daemon.network import Dialer, Endpoint
from daemon.smtp.verify import verify_login as verify_smtp
from daemon.vault.secret import Secret

from .views import Service, VerificationFailed

VERIFY: Final = 30.0
"""Seconds for the verification of one server, from the name to the last reply."""


async def verify(dialer: Dialer, imap: Endpoint, smtp: Endpoint, username: str, password: Secret) -> None:
    """Log in at both servers at once.

    Raises:
        VerificationFailed: a server said no, or could not be reached as asked; of two failures the IMAP server's.
    """
    failures: dict[Service, Fault] = {}

    async def ask_imap() -> None:
        try:
            await verify_imap(dialer, imap, username, password, timeouts=Timeouts(login=VERIFY), equal_times=True)
        except Fault as fault:
            failures[Service.IMAP] = fault

    async def ask_smtp() -> None:
        try:
            await verify_smtp(dialer, smtp, username, password, deadline=VERIFY, equal_times=True)
        except Fault as fault:
            failures[Service.SMTP] = fault

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_imap)
        nursery.start_soon(ask_smtp)
    for service in Service:
        if service in failures:
            raise VerificationFailed(service, failures[service])
