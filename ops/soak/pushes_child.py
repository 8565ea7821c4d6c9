"""The program of `pushes`: delivers at a steady rate, and looks when each message can be read in the database.

    python -P -m ops.soak.pushes_child < request.json

A process of its own, for the campaign's own work (metrics, descriptors, states of hundreds of accounts) would hold up
what is measured.  Tells each moment as a line: "taken" or "seen", the subject, and `time.monotonic()`, which is one
clock for all processes of a machine.  Ends when its standard input does.
"""

from __future__ import annotations

import json
import smtplib
import sys
import threading
import time
from typing import Any, Final

import psycopg

from ops.testservers.mail import message

LOOK_EVERY: Final = 0.005
"""Seconds between looks into the database, so the error of one measurement."""

_LAP: Final = 500
"""Events looked at again each time: transactions do not commit in the order of their numbers."""


def main() -> None:
    """Deliver and look until told to end."""
    wanted: dict[str, Any] = json.loads(sys.stdin.readline())
    stop = threading.Event()
    threading.Thread(target=_until_told, args=(stop,), daemon=True).start()
    looking = threading.Thread(target=_look, args=(wanted["conninfo"], stop))
    looking.start()
    _deliver(wanted, stop)
    looking.join()


def _until_told(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def _tell(what: str, subject: str, at: float) -> None:
    sys.stdout.write(json.dumps([what, subject, at]) + "\n")
    sys.stdout.flush()


def _deliver(wanted: dict[str, Any], stop: threading.Event) -> None:
    users, every = wanted["users"], 1.0 / wanted["rate"]
    with smtplib.LMTP("127.0.0.1", wanted["lmtp"], local_hostname="localhost", timeout=60) as lmtp:
        number, due = 0, time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            subject = f"push {number}"
            lmtp.sendmail("sender@example.test", [users[number % len(users)]], message(subject))
            _tell("taken", subject, time.monotonic())
            number += 1
            due = max(due + every, time.monotonic() - 1.0)


def _look(conninfo: str, stop: threading.Event) -> None:
    seen: set[str] = set()
    with psycopg.connect(conninfo, autocommit=True) as conn:
        newest = conn.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
        last = int(newest[0]) if newest else 0
        while not stop.wait(LOOK_EVERY):
            rows = conn.execute(
                "SELECT id, data->>'subject' FROM events WHERE id > %s AND type = 'email.received'"
                " AND data->>'subject' LIKE 'push %%'",
                (last - _LAP,),
            ).fetchall()
            now = time.monotonic()
            for number, subject in rows:
                last = max(last, number)
                if subject not in seen:
                    seen.add(subject)
                    _tell("seen", subject, now)


if __name__ == "__main__":
    main()
