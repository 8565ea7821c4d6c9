"""The campaign of two nodes on one database: one is killed, the other takes all over; it comes back, and they share.

Run small by a test and large by `campaign_two_nodes.py`.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from ops.testservers.mail import message, messages
from tests.fix_daemon import DaemonProcess, MailServers, connect, eventually

T = TypeVar("T")

OWNER = "the-owner"

_FRESH = (
    "SELECT count(*) FROM accounts a JOIN claims c ON c.account_id = a.id"
    " WHERE a.state = 'watching' AND a.last_synced_at > %s AND c.owner = ANY(%s)"
)


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds, unless said otherwise."""

    accounts: int
    connected: float
    shared_first: dict[str, int]
    """Accounts of each node before the kill."""

    taken_over: float
    """From the kill until the survivor had every account synced."""

    shared_again: dict[str, int]
    sharing: float
    """From the second start until the load was shared and all accounts synced."""

    messages: int
    """Stored in the end, each once."""


class TwoNodes:
    """One run of the campaign."""

    def __init__(self, one: DaemonProcess, other: DaemonProcess, mail: MailServers, users: list[str]) -> None:
        self.one, self.other, self.mail, self.users = one, other, mail, users
        self.ids: dict[str, str] = {}
        self.sent: Counter[str] = Counter()

    def run(self, *, patience: float) -> Figures:
        """All of it; `patience` bounds each wait in seconds. AssertionError where the daemons do wrong."""
        connected = self._timed(self._connect)
        self._wait_shared(patience)
        # What comes before an inbox has been looked at is not news, and told nobody.
        eventually(lambda: self._count("accounts WHERE first_synced_at IS NOT NULL") == len(self.users), patience, 0.1)
        first = self._shares()
        self._deliver("before", self.users)
        self._wait_stored(patience)

        killed_at = self._now()
        begun = time.monotonic()
        self.one.kill()
        self._deliver("meanwhile", self.users)
        eventually(lambda: self._fresh(killed_at, [self._node(self.other)]) == len(self.users), patience, 0.1)
        taken_over = time.monotonic() - begun
        self._wait_stored(patience)
        self._all_synced()

        started_at = self._now()
        begun = time.monotonic()
        self.one.start()
        self._wait_shared(patience)
        both = [self._node(self.one), self._node(self.other)]
        eventually(lambda: self._fresh(started_at, both[:1]) >= len(self.users) // 2, patience, 0.1)
        eventually(lambda: self._count("accounts WHERE state = 'watching'") == len(self.users), patience, 0.1)
        sharing = time.monotonic() - begun
        self._deliver("after", self.users)
        self._wait_stored(patience)
        self._all_synced()
        self._nothing_twice()
        total = sum(self.sent.values())
        return Figures(len(self.users), connected, first, taken_over, self._shares(), sharing, total)

    def _connect(self) -> None:
        """Half of the accounts through each node; every mailbox has three messages already."""

        def one(pair: tuple[int, str]) -> None:
            number, user = pair
            self.mail.imap.seed(user, messages(3, seed=number))
            with (self.one if number % 2 else self.other).client(OWNER, plan="many") as http:
                self.ids[user] = connect(http, self.mail.mailbox(user))

        self._each(one, enumerate(self.users))
        self.sent.update(dict.fromkeys(self.users, 3))

    def _deliver(self, subject: str, users: Iterable[str]) -> None:
        self._each(lambda user: self.mail.imap.deliver(user, message(f"{subject} {user}")), users)
        self.sent.update(users)

    @staticmethod
    def _each(do: Callable[[T], None], items: Iterable[T]) -> None:
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(do, item) for item in items]:
                done.result()

    def _wait_shared(self, patience: float) -> None:
        half = -(-len(self.users) // 2)

        def shared() -> bool:
            counts = self._shares().values()
            return sum(counts) == len(self.users) and max(counts) <= half

        eventually(shared, patience, 0.1)

    def _wait_stored(self, patience: float) -> None:
        total = sum(self.sent.values())
        try:
            eventually(lambda: self._count("messages") >= total, patience, 0.1)
        except AssertionError:
            raise AssertionError(f"{self._count('messages')} of {total} messages are stored") from None

    def _nothing_twice(self) -> None:
        rows = self.one.query(
            "SELECT a.username, count(*), count(DISTINCT m.message_id), count(DISTINCT p.uid) FROM accounts a"
            " JOIN messages m ON m.account_id = a.id JOIN placements p ON p.message_id = m.id GROUP BY 1"
        )
        assert {row[0]: row[1:] for row in rows} == {user: (n, n, n) for user, n in self.sent.items()}
        told = self.one.query("SELECT count(*), count(DISTINCT data->>'message_id') FROM events"
                              " WHERE type = 'email.received'")  # fmt: skip
        assert told == [(3 * len(self.users), 3 * len(self.users))], f"{told} arrivals of {len(self.users)} accounts"

    def _all_synced(self) -> None:
        """As a caller sees it, asked of the node that was never stopped."""

        def statuses() -> Counter[str]:
            with self.other.client(OWNER) as http:
                return Counter(each["sync_status"] for each in http.get("/mail/accounts").json()["accounts"])

        eventually(lambda: statuses() == {"synced": len(self.users)}, 10.0)

    def _shares(self) -> dict[str, int]:
        rows = self.other.query("SELECT n.name, (SELECT count(*) FROM claims c WHERE c.owner = n.id) FROM nodes n"
                                " WHERE n.expires_at > now() ORDER BY n.started_at")  # fmt: skip
        return {str(name): count for name, count in rows}

    def _fresh(self, since: object, nodes: list[str]) -> int:
        return int(self.other.query(_FRESH, since, nodes)[0][0])

    def _count(self, what: str) -> int:
        return int(self.other.query(f"SELECT count(*) FROM {what}")[0][0])

    def _now(self) -> object:
        return self.other.query("SELECT now()")[0][0]

    @staticmethod
    def _node(daemon: DaemonProcess) -> str:
        state = daemon.home / "state"
        return (state / "node-0").read_text().strip()

    @staticmethod
    def _timed(do: Callable[[], None]) -> float:
        begun = time.monotonic()
        do()
        return time.monotonic() - begun
