"""Has a daemon of its own, with the settings below, run out of what it has: rates, places, time, its database."""

import http.client
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import httpx
import psycopg
from psycopg import sql

from tests.contract.witness import Witness
from tests.fix_daemon import COOKIE, DaemonProcess, connect, eventually, make_token

STRICT_RATES: dict[str, Any] = {"connects": 1, "changes": 1, "invitations": 1}
"""One of each, so that the second is one too many."""

STRICT_API: dict[str, Any] = {"max_requests": 3, "handler_timeout": 8}
"""A few places; and longer than a request waits for the database (5 s), so that both are told apart."""

DECLINE = "/mail/invitations/decline"


class HalfAsked:
    """A request whose body never comes; its connection is held until it is answered or closed."""

    def __init__(self, daemon: DaemonProcess, user: str) -> None:
        self._url = f"{daemon.api}{DECLINE}"
        host, _, port = daemon.api.removeprefix("http://").rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=30)
        head = (
            f"POST {DECLINE} HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: {COOKIE}={make_token(user)}\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        self._socket.sendall(head.encode())

    def answer(self) -> httpx.Response:
        """What it is answered in the end."""
        with closing(http.client.HTTPResponse(self._socket)) as heard:
            heard.begin()
            body = heard.read()
        request = httpx.Request("POST", self._url)
        return httpx.Response(heard.status, headers=heard.getheaders(), content=body, request=request)

    def close(self) -> None:
        self._socket.close()


def run_out(
    daemon: DaemonProcess, witness: Witness, user: str, mailbox: Callable[[str], dict[str, Any]]
) -> None:
    """Ask until nothing is left; the daemon's database is not to be had afterwards."""
    with daemon.client(user, email=user) as plain:
        caller = witness.watch(plain)
        account_id = connect(caller, mailbox("strict"))
        caller.post("/mail/accounts", json=mailbox("strict-2"))
        item = f"/mail/accounts/{account_id}"
        for name in ("One", "Two"):
            caller.patch(item, json={"name": name})
        caller.put("/mail/campaign-registry/c1", json={"account_id": account_id, "status": "active"})
        for name in ("one", "two"):
            caller.post(f"{item}/invitations", json={"email": f"{name}-{user}"})
        with closing(HalfAsked(daemon, user)) as held:  # has a place, even if the last answer is still on its way
            with ExitStack() as stack:

                def one_more_is_busy() -> bool:
                    stack.enter_context(closing(HalfAsked(daemon, user)))  # may be refused itself, just as well
                    return caller.get("/mail/sync").status_code == 503

                eventually(one_more_is_busy)
            eventually(lambda: caller.get("/mail/sync").status_code == 200)
            with psycopg.connect(daemon.dsn, autocommit=True) as conn:
                conn.execute("ALTER TABLE invitations RENAME TO elsewhere")
            caller.get("/mail/invitations/pending")
            _close_database(daemon)
            caller.get("/mail/invitations/pending")
            witness.judge(held.answer())


def _close_database(daemon: DaemonProcess) -> None:
    """Let nobody into the daemon's database, and put out who is there."""
    name = psycopg.conninfo.conninfo_to_dict(daemon.dsn)["dbname"]
    with psycopg.connect(daemon.dsn, autocommit=True, dbname="postgres") as conn:
        conn.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false").format(sql.Identifier(str(name))))
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))


def crowd(daemon: DaemonProcess, witness: Witness, user: str, places: int) -> None:
    """One caller takes all the places that one may have, and asks once more."""
    with ExitStack() as stack:
        for _ in range(places):
            stack.enter_context(closing(HalfAsked(daemon, user)))
        http = witness.watch(stack.enter_context(daemon.client(user)))
        eventually(lambda: http.get("/mail/sync").status_code == 429)


def no_path(daemon: DaemonProcess, witness: Witness) -> None:
    """Ask for what is no path."""
    with daemon.client(None) as http:
        witness.watch(http).get(f"{daemon.api}//mail/sync")
