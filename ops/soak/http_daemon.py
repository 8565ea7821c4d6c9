"""The daemon as a target of requests: where it listens, a session for it, and what its log must not say."""

from __future__ import annotations

import json
import re
import time
from typing import Any, Final

import httpx
import jwt
import trio

from .daemon_process import DaemonProcess, short

READY_WITHIN: Final = 60.0
"""Seconds from the start until it serves; a first start makes a database."""

SECRET: Final = "a session secret of a campaign, which ends with it"  # noqa: S105  # nobody else's
COOKIE: Final = "sb-access-token"
LIFETIME: Final = 24 * 3600
"""Seconds of a session: longer than any campaign."""

_BEGAN: Final = int(time.time())  # one for all tokens, so that the same seed makes the same cases

_ANNOUNCED: Final = re.compile(r"API +http://127\.0\.0\.1:(\d+)/mail/docs\s+operations +http://127\.0\.0\.1:(\d+)/")
_BUGS: Final = frozenset({"api.unhandled", "api.request_failed", "api.connection_failed"})
"""What the API says of itself when something came that it did not foresee, whatever the level."""
_OF_THE_END: Final = "terminating connection due to administrator command"
"""What the database says where it is shut down before it has heard that a session was closed."""


def claims(user: str, **changes: object) -> dict[str, Any]:
    """What a session token of *user* says."""
    return {
        "iss": "accountsd", "sub": user, "aud": "authenticated", "role": "authenticated",
        "email": f"{user}@example.test", "iat": _BEGAN, "exp": _BEGAN + LIFETIME,
    } | changes  # fmt: skip


def token(user: str, **changes: object) -> str:
    """A session token that the daemon of a campaign takes."""
    return jwt.encode(claims(user, **changes), SECRET, algorithm="HS256")


def give_secret(daemon: DaemonProcess) -> None:
    """Put the secret of our tokens in the daemon's state, before its first start."""
    file = daemon.state / "session-secret"
    file.touch(mode=0o600)
    file.write_text(SECRET, "ascii")


async def listening(daemon: DaemonProcess) -> tuple[int, int]:
    """The ports of the API and of the operator's listener, as soon as they are known.

    Raises:
        trio.TooSlowError: they were not announced within READY_WITHIN.
    """
    with trio.fail_after(READY_WITHIN):
        while True:
            text = daemon.log.read_text(errors="replace") if daemon.log.exists() else ""
            if found := _ANNOUNCED.findall(text):
                return int(found[-1][0]), int(found[-1][1])
            await trio.sleep(0.05)


async def ready(operations: int) -> None:
    """Until the daemon says that it serves.

    Raises:
        trio.TooSlowError: it did not within READY_WITHIN.
    """
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{operations}", timeout=10.0) as client:
        with trio.fail_after(READY_WITHIN):
            while (await client.get("/health/ready")).status_code != httpx.codes.OK:  # noqa: ASYNC110  # another process
                await trio.sleep(0.05)


def complaints(daemon: DaemonProcess) -> list[str]:
    """Lines of its log that tell of an error, at most twenty; ours to mend, for nothing outside has failed."""
    found = []
    with daemon.log.open(errors="replace") as lines:
        for line in lines:
            if _OF_THE_END in line:
                continue
            try:
                said = json.loads(line)
            except ValueError:
                if line.startswith(("Traceback", "accountsd: ")):
                    found.append(line.strip())
                continue
            if isinstance(said, dict) and (said.get("level") in {"error", "critical"} or said.get("event") in _BUGS):
                found.append(short(line))
    return found[:20]
