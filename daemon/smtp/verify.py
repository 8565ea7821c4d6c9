"""Do these credentials log in?  Asked before an account is saved, for a stranger who names the server."""

from __future__ import annotations

from typing import Final

import trio

from daemon.network import Dialer, Endpoint
from daemon.vault.secret import Secret

from .session import LOCAL_NAME, Timeouts, open_submission

GREETING: Final = 20.0
"""Seconds from the connection to the greeting: a person waits, and what is left of the deadline is for the login; no
server we know takes longer than 16."""


async def verify_login(
    dialer: Dialer,
    endpoint: Endpoint,
    username: str,
    password: Secret,
    *,
    deadline: float = 60.0,
    local_hostname: str = LOCAL_NAME,
    equal_times: bool = False,
) -> frozenset[str]:
    """Log in and out once, all within *deadline* seconds; what the server announced, in lower case.

    `equal_times` is `Dialer.dial`'s.  Raises as `open_submission` does.
    """
    ends = trio.current_time() + deadline
    timeouts = Timeouts(login=deadline, greeting=min(GREETING, deadline))
    extensions: frozenset[str] = frozenset()
    with trio.CancelScope() as farewell:
        async with open_submission(
            dialer, endpoint, username, password,
            local_hostname=local_hostname, timeouts=timeouts, equal_times=equal_times,
        ) as submission:
            extensions = submission.extensions
            farewell.deadline = ends  # QUIT has what is left, and its loss is none
    return extensions
