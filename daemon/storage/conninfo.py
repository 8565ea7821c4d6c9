"""What every connection string of the daemon gets unless the operator's says otherwise."""

from __future__ import annotations

from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

DEFAULTS: Final = {
    "connect_timeout": "5",  # seconds for each address
    "client_encoding": "UTF8",
    "gssencmode": "disable",  # 'prefer' costs a round trip, and warns
    "keepalives_idle": "30", "keepalives_interval": "5", "keepalives_count": "3",  # a dead peer is known in 45 s,
    "tcp_user_timeout": "20000",  # and unanswered data in 20 s (milliseconds)
}  # fmt: skip
"""Parameters that libpq keeps to itself, or that poolers know: PgBouncer refuses any other at start-up."""


def complete(conninfo: str, *, application_name: str = "accountsd") -> str:
    """The conninfo with our defaults beneath it.

    Raises:
        psycopg.ProgrammingError: it cannot be parsed.
    """
    return make_conninfo("", **{**DEFAULTS, "application_name": application_name, **conninfo_to_dict(conninfo)})
