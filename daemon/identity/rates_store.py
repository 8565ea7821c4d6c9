"""The SQL of rates: a deed is counted by one statement, and refused by the same."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from daemon.storage.connection import Conn
from daemon.storage.requests import Requests
from daemon.telemetry import metrics

from .rates import Allowance, Rate, RateExceeded, Told, stands, subject
from .users import User

# No deed moves it further ahead than the window.  What is two windows ahead was written by a clock that was wrong, and
# says nothing: a refusal stores nothing, so nobody would ever set it right.  What is nearer is waited for, a window at
# most: a clock that steps back a little gives nobody a second burst.
_RESTS = (
    "(CASE WHEN r.rest_at > clock_timestamp() + 2 * make_interval(secs => %(window)s) THEN clock_timestamp()"
    " ELSE greatest(r.rest_at, clock_timestamp()) END)"
)
_TAKE = (
    "INSERT INTO rates AS r (name, subject, rest_at) VALUES (%(name)s, %(subject)s,"  # noqa: S608 - this module's words
    " clock_timestamp() + make_interval(secs => %(share)s)) ON CONFLICT (name, subject) DO UPDATE SET"
    f" rest_at = {_RESTS} + make_interval(secs => %(share)s)"
    f" WHERE {_RESTS} + make_interval(secs => %(share)s)"
    " <= clock_timestamp() + make_interval(secs => %(window)s)"
    " RETURNING extract(epoch FROM rest_at - clock_timestamp())::float8, extract(epoch FROM clock_timestamp())::float8"
)
_LOOK = (
    f"SELECT extract(epoch FROM {_RESTS} - clock_timestamp())::float8,"  # noqa: S608 - this module's words
    " extract(epoch FROM clock_timestamp())::float8 FROM rates r WHERE name = %(name)s AND subject = %(subject)s"
)


async def take(conn: Conn, wanted: Sequence[tuple[Rate, bytes]]) -> list[Allowance]:
    """Count one deed against each of several rates, and how its subject stands to each then; all of them or none.

    Raises:
        RateExceeded: it is one too many for one of them; roll the transaction back.
    """
    stood: dict[int, Allowance] = {}
    # In one order everywhere, so that two transactions never wait for each other.
    for at, (rate, counted) in sorted(enumerate(wanted), key=lambda each: (each[1][0].name, each[1][1])):
        values = {"name": rate.name, "subject": counted, "share": rate.share, "window": rate.window}
        row = await (await conn.execute(_TAKE, values)).fetchone()
        if row is None:
            rest_in, now = await (await conn.execute(_LOOK, values)).fetchone() or (rate.window, 0.0)
            metrics.rates_exceeded.labels(rate.name).inc()
            raise RateExceeded(stands(rate, rest_in, now, refused=True))
        stood[at] = stands(rate, row[0], row[1], refused=False)
    return [stood[at] for at in range(len(wanted))]


async def count(requests: Requests, rate: Rate, user: User, told: Told) -> None:
    """Count one deed of a caller, by itself and whatever comes of it; *told* how they stand then.

    Raises:
        RateExceeded: it is one too many.
    """
    (allowance,) = await requests.run(partial(take, wanted=[(rate, subject(user.id))]))
    told(allowance)


async def forget_rested(conn: Conn) -> None:
    """Remove the rows that say nothing any more."""
    await conn.execute("DELETE FROM rates WHERE rest_at < now()")
