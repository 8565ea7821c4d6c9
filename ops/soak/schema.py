"""`schema`: Schemathesis reads /mail/openapi.json of a real daemon and looks for an answer that it does not promise.

With the session of an owner who has accounts, at a real Dovecot.  Names are looked up at a name server of ours that
knows none, so that no generated host is ever asked for.  What must hold: no 5xx, no status that is not documented,
every answer as its schema says, and in the end the same process without an error in its log.

Schemathesis runs as a program of its own: its command line is what it promises to keep.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import trio

from daemon.network import Endpoint, Security
from ops.bench import accounts
from ops.testservers.dovecot import Dovecot

from .campaign import Options, Report, Say
from .daemon_process import DaemonProcess
from .http_daemon import COOKIE, complaints, give_secret, listening, ready, token
from .life import connect, ended, fill, opened

OWNER: Final = "schema-owner"
CHECKS: Final = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "missing_required_header", "unsupported_method", "allow_header_conformance",
    "use_after_free", "ignored_auth",
)  # fmt: skip
"""Those that an API can fail which connects to servers that are not there: what is refused as data is our business."""

QUICK: Final = ("--phases", "fuzzing", "--max-examples", "8", "--exclude-operation-id", "startSync")
"""A fixed number of cases, for within a few seconds a machine that is busy may not even have read the document; and
not the one operation that waits, up to 10 s, for what it asks for."""

CASES: Final = 200
"""Generated requests an operation and round; more rounds until the time is over."""

ENDS_WITHIN: Final = 120.0
"""Seconds beyond its time that one run of Schemathesis may take: it ends what it has begun, and shrinks."""

MAX_OUTPUT: Final = 4000
"""Characters of its words kept where it fails."""


async def no_names(*, task_status: trio.TaskStatus[int]) -> None:
    """A name server that knows no name; its port."""
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        task_status.started(sock.getsockname()[1])
        while True:
            query, peer = await sock.recvfrom(4096)
            if len(query) >= 12:  # RFC 1035 section 4.1.1: the same header, QR and RA set, and NXDOMAIN
                await sock.sendto(query[:2] + b"\x81\x83" + query[4:6] + b"\0" * 6 + _question(query), peer)


def _question(query: bytes) -> bytes:
    """The question of a query, without what may follow it (EDNS)."""
    end = query.find(b"\0", 12)
    return query[12 : end + 5] if end >= 0 else b""


async def campaign(options: Options, say: Say) -> Report:
    """Run it."""
    report = Report()
    with Dovecot() as dovecot:
        async with trio.open_nursery() as nursery:
            names = await nursery.start(no_names)
            async with DaemonProcess(
                port=dovecot.imaps_port, ca=dovecot.ca_pem, nameservers=(f"127.0.0.1:{names}",)
            ) as daemon:
                give_secret(daemon)
                await trio.to_thread.run_sync(daemon.start)
                api, operations = await listening(daemon)
                await ready(operations)
                ids = await _accounts(daemon, dovecot, say)
                await _rounds(report, options, say, api, daemon, ids)
                await ended(daemon, report, told=complaints)
            nursery.cancel_scope.cancel()
    return report


async def _accounts(daemon: DaemonProcess, dovecot: Dovecot, say: Say) -> list[UUID]:
    """The owner's accounts: two with mail, one that nobody can log in to."""
    users = [f"schema{number}@example.test" for number in range(2)]
    await fill(dovecot, dict.fromkeys(users, 20), 0, say)
    nobodys = Endpoint(dovecot.host, daemon.port, Security.TLS)
    async with opened(daemon.conninfo) as database:
        ids = await connect(database, daemon, dovecot, users, owner=OWNER)
        ids += await accounts.connect(database, daemon.vault, ["a@b.test"], nobodys, "wrong", owner=OWNER)
    return ids


async def _rounds(
    report: Report, options: Options, say: Say, api: int, daemon: DaemonProcess, ids: list[UUID]
) -> None:
    """First with any identifier, then with those of accounts that there are, one after the other."""
    rounds = ids[:1] if options.quick else [None, *ids]
    seconds = max(1, round(60 * options.minutes / len(rounds)))
    size = QUICK if options.quick else ("--max-time", str(seconds), "--max-examples", str(CASES))
    figures: list[dict[str, Any]] = []
    for number, account_id in enumerate(rounds):
        say(f"{seconds} s with {f'the account {account_id}' if account_id else 'any identifier'}")
        directory = daemon.directory / f"schemathesis-{number}"
        directory.mkdir()
        figures.append(await _one(report, directory, api, options.seed + number, seconds, size, account_id))
    report.figures = {"minutes": options.minutes, "rounds": figures}


async def _one(
    report: Report, directory: Path, api: int, seed: int, seconds: int, size: Sequence[str], account_id: UUID | None
) -> dict[str, Any]:
    """One run of Schemathesis; what it says it did."""
    settings = f'parameters = {{ "account_id" = "{account_id}" }}\n' if account_id is not None else ""
    config, summary = directory / "schemathesis.toml", directory / "report.json"
    config.write_text(settings, "utf-8")
    command = [
        sys.executable, "-P", "-m", "schemathesis.cli", "--config-file", str(config), "--no-color", "run",
        f"http://127.0.0.1:{api}/mail/openapi.json", "--header", f"Cookie:{COOKIE}={token(OWNER)}",
        "--checks", ",".join(CHECKS), *size, "--seed", str(seed),
        "--request-timeout", "90", "--continue-on-failure", "--report", "json", "--report-json-path", str(summary),
        "--workers", "2", "--warnings", "off",
    ]  # fmt: skip
    with trio.move_on_after(seconds + ENDS_WITHIN) as scope:
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, cwd=directory)
        if done.returncode:
            words = (done.stdout + done.stderr).decode(errors="replace")
            report.problem(f"Schemathesis, seed {seed}, account {account_id}: {words[-MAX_OUTPUT:]}")
    if scope.cancelled_caught:
        report.problem(f"Schemathesis did not end within {seconds + ENDS_WITHIN:g} s")
    return _summary(report, summary)


def _summary(report: Report, file: Path) -> dict[str, Any]:
    """What it did, by its own report; nothing tried is no success."""
    try:
        told = json.loads(file.read_bytes())
        figures = {name: told[name] for name in ("seed", "running_time", "stop_reason", "test_cases")}
        figures["phases"] = {name: phase["status"] for name, phase in told["phases"].items()}
        figures["operations"] = told["operations"]["tested"]
        tried = int(told["test_cases"]["generated"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        report.problem(f"Schemathesis left no report: {exc!r}")
        return {}
    if not tried:
        report.problem(f"Schemathesis tried nothing: {figures}")
    return figures
