"""The SQL of reputation and limits: what each account that a caller has part in has sent in the last 24 hours.

Two sources are counted, in recipients.  What went out through this engine is what `sends` says was accepted in the
window, refused and suppressed recipients left out.  What other clients sent is seen in the Sent folder, where the
account's is synchronised: messages that lie there, each Message-ID once (many servers keep a copy by themselves beside
the client's), without those that `sends` has counted already.

Those copies are dated by `received_at`, INTERNALDATE: that is the server's clock at the time that the copy was kept,
while the Date header is whatever the sender's clock said, or a script: mail that is sent now must not escape the window
by being dated to last week.  A mailbox that was imported without its dates counts too much for a day, which is the safe
side.

The moment that the window ends at is passed in; without one it is the database's now.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from psycopg.rows import dict_row

from daemon.sending.limits import daily_limit
from daemon.storage.connection import Conn

from .views import ReputationView

WINDOW: Final = timedelta(hours=24)
"""What `sent_today` counts (API contract, part 3); it holds what lies after its beginning, up to its end."""

AHEAD: Final = timedelta(hours=1)
"""By how much a mail server's clock may be ahead of the database's: as much as a zone or summer time mistaken.  A copy
that is dated later is not counted, or one of the year 2099 would count for ever."""

COPIED: Final = timedelta(hours=24)
"""How long after its acceptance a copy of a send may reach the Sent folder and still be known as one: we keep it within
minutes, and a server that is away is waited for no longer than a send is tried."""

MOST_MESSAGES: Final = 10_000
"""Messages of one account and window that are looked at, the newest: those of all folders, for only the account's are
indexed by date.  As many as the largest provider's recipients in a day; so many, beside as many sends, take the server
0.2 s, the 144 of a quiet account 1 ms (measured among 100,000)."""

# A copy without recipients went to one at least: those that were in Bcc are not shown.  Whether one lies in the Sent
# folder is asked in a form that no planner turns into a join with everybody's placements, and what we sent ourselves is
# taken out by grouping: as an anti-join it was a nested loop, all sends of two days for each copy.
_SENT: Final = r"""
SELECT a.id AS account_id, a.email, a.daily_limit, a.smtp_host, a.imap_host, (ours.count + theirs.count)::bigint AS sent
FROM accounts a JOIN account_access x ON x.account_id = a.id AND x.user_id = %(user)s
CROSS JOIN (SELECT coalesce(%(at)s::timestamptz, now()) AS ends) w
CROSS JOIN LATERAL (
    SELECT array_agg(f.id) AS ids FROM folders f WHERE f.account_id = a.id AND lower(f.special_use) = '\sent'
) sent_folders
CROSS JOIN LATERAL (
    SELECT count(*) FROM sends s JOIN send_recipients r ON r.send_id = s.id
    WHERE s.account_id = a.id AND s.accepted_at > w.ends - %(window)s AND s.accepted_at <= w.ends AND NOT s.sandbox
    AND r.state NOT IN ('queued', 'refused', 'suppressed')
) ours
CROSS JOIN LATERAL (
    SELECT coalesce(sum(counted.recipients), 0) AS count FROM (
        SELECT greatest(count(DISTINCT lower(shown.address ->> 'email')), 1) AS recipients
        FROM (
            SELECT coalesce(m.message_id, m.id::text) AS key, m.recipients, false AS ours FROM (
                SELECT m.id, m.message_id, m.recipients FROM messages m
                WHERE sent_folders.ids IS NOT NULL AND m.account_id = a.id
                AND m.received_at > w.ends - %(window)s AND m.received_at <= w.ends + %(ahead)s
                ORDER BY m.received_at DESC LIMIT %(most)s
            ) m WHERE (
                SELECT true FROM placements p
                WHERE p.message_id = m.id AND p.vanished_at IS NULL AND p.folder_id = ANY(sent_folders.ids) LIMIT 1
            )
            UNION ALL
            SELECT btrim(s.header_message_id, '<>'), '{}', true FROM sends s
            WHERE sent_folders.ids IS NOT NULL AND s.account_id = a.id
            AND s.accepted_at > w.ends - %(window)s - %(copied)s
        ) copy LEFT JOIN LATERAL (
            SELECT address FROM unnest(ARRAY['to', 'cc', 'bcc']) AS field (name),
            jsonb_array_elements(copy.recipients -> field.name) AS address
        ) shown ON true
        GROUP BY copy.key HAVING NOT bool_or(copy.ours)
    ) counted
) theirs
WHERE a.desired <> 'removed'
ORDER BY a.created_at, a.id
"""


async def reputations(conn: Conn, user_id: str, at: datetime | None = None) -> list[ReputationView]:
    """How every account stands that the user has part in, the oldest account first; the window ends at `at`."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        given = {"window": WINDOW, "ahead": AHEAD, "copied": COPIED, "most": MOST_MESSAGES}
        await cursor.execute(_SENT, given | {"user": user_id, "at": at})
        return [
            ReputationView(
                account_id=row["account_id"],
                email=row["email"],
                daily_limit=daily_limit(
                    row["daily_limit"],
                    email=row["email"],
                    smtp_host=row["smtp_host"],
                    imap_host=row["imap_host"],
                ),
                sent_today=row["sent"],
            )
            for row in await cursor.fetchall()
        ]
