"""Schemathesis as a program of its own, which asks for a while in somebody's name.

Its command line, its configuration and its reports are what it promises to keep.  Left to itself it draws identifiers
that nobody has, and sees 404; so it is given dictionaries: of the ids that there are, of mailboxes that can be
connected, and who knows those asks with one of them most of the time, with a generated value for the rest.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from .campaign import Report
from .http_daemon import COOKIE, token
from .schema_world import ADMIN, MEMBER, Invitation, World, address

CHECKS: Final = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "missing_required_header", "unsupported_method", "allow_header_conformance",
    "ignored_auth",
)  # fmt: skip
"""Those that an API can fail which connects to servers that are not there: what is refused as data is our business."""

UNTENDED: Final = "use_after_free"
"""A check for a world in which nobody brings back what was taken away."""

LEFT_OUT: Final = "startSync"
QUICK: Final = ("--phases", "fuzzing", "--max-examples", "8", "--exclude-operation-id", LEFT_OUT)
"""A fixed number of cases, for within a few seconds a machine that is busy may not even have read the document; and
not the one operation that waits, up to 10 s, for what it asks for."""

CASES: Final = 200
"""Generated requests an operation and round; more rounds until the time is over."""

ENDS_WITHIN: Final = 120.0
"""Seconds beyond its time that one run of Schemathesis may take: it ends what it has begun, and shrinks."""

MAX_OUTPUT: Final = 900
"""Characters of its words kept where it fails: a problem of a report has not many more."""

WORKERS: Final = "1"
"""Threads: in two, Python 3.11 may end a parse of its own with a SystemError (CPython issue 106905)."""

OFTEN: Final = 0.85
"""How often a value is one that there is, and not a generated one."""

_WRONG: Final = re.compile(r"^=+ (FAILURES|ERRORS) =+$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Asked:
    """One run of it."""

    user: str
    api: int
    """The port."""
    seed: int
    seconds: int
    quick: bool
    """A fixed number of cases, whatever the time."""
    configuration: str
    """Its own, in TOML."""
    untended: bool
    """Whether nobody brings back what it takes away."""
    sure: bool = False
    """Whether it sends only what should be served: so a few cases show that everything is."""
    only: Sequence[str] = ()
    """Names of operations; all where there are none."""


def configured(world: World, user: str, often: float = OFTEN) -> str:
    """Schemathesis's configuration of somebody who knows the ids, and takes them so often."""
    accounts = [str(account.id) for account in [*world.accounts, world.strangers]]
    first, second = ([each for each, (of, *_) in world.invitations.items() if of == account.id]
                     for account in world.shared[:2])  # fmt: skip
    connected = [f"connected{number}@example.test" for number in range(20)]
    mailboxes = world.mailboxes
    values: dict[str, list[str] | list[int]] = {
        "accounts": accounts,
        "expendable": [str(account.id) for account in world.expendable],
        "inviting": [*[accounts[0]] * 3, accounts[1], accounts[-1]],
        "invitations": [*first, second[0]],  # most of these belong to most of those
        "accepted": _mostly(world.accepted, user),
        "declined": _mostly(world.declined, user),
        "people": [ADMIN, MEMBER],
        "guests": [f"guest{number}@x.test" for number in range(20)],
        "campaigns": world.campaigns,
        "tls": ["tls"],
        "imap_host": [mailboxes.imap.host],
        "imap_port": [mailboxes.imap.port],
        "smtp_host": [mailboxes.smtp.host],
        "smtp_port": [mailboxes.smtp.port],
        "mailboxes": connected,
        "usernames": [*connected, *(account.username for account in world.shared)],
        "password": [mailboxes.password],
    }
    text = "".join(f"[dictionaries.{name}]\nvalues = {json.dumps(some)}\n" for name, some in values.items())
    known = {
        "path.account_id": "accounts", "path.invitation_id": "invitations", "path.user_id": "people",
        "path.campaign_id": "campaigns", "body.account_id": "accounts",
        "body.email": "guests",
    }  # fmt: skip
    mailbox = {
        "body.email": "mailboxes",
        "body.imap_host": "imap_host", "body.imap_port": "imap_port", "body.imap_security": "tls",
        "body.smtp_host": "smtp_host", "body.smtp_port": "smtp_port", "body.smtp_security": "tls",
        "body.username": "usernames", "body.password": "password",
    }  # fmt: skip
    text += "[parameters]\n" + _bound(known, often)
    for name, also in (
        ("disconnectAccount", {"path.account_id": "expendable"}), ("connectAccount", mailbox),
        ("changeAccount", mailbox), ("revokeInvitation", {"path.account_id": "inviting"}),
        ("acceptInvitation", {"body.invitation_id": "accepted"}),
        ("declineInvitation", {"body.invitation_id": "declined"}),
    ):  # fmt: skip
        text += f'[[operations]]\ninclude-operation-id = "{name}"\n[operations.parameters]\n'
        text += _bound(also, 1.0 if also is mailbox else often)
    return text


def _mostly(received: Mapping[str, Invitation], user: str) -> list[str]:
    """Invitations, among which one's own come oftener than the others'."""
    own = [each for each, (*_, email) in received.items() if email == address(user)]
    return [*own * 4, *(each for each in received if each not in own)]


def _bound(names: Mapping[str, str], probability: float) -> str:
    return "".join(
        f'"{name}" = {{ dictionary = "{values}", probability = {probability} }}\n' for name, values in names.items()
    )


async def ask(report: Report, directory: Path, asked: Asked, name: str) -> dict[str, Any]:
    """Run it in a directory of its own; what it says it did.  What went wrong goes to the report, under this name."""
    config, summary = directory / "schemathesis.toml", directory / "report.json"
    config.write_text(asked.configuration, "utf-8")
    size = QUICK if asked.quick else ("--max-time", str(asked.seconds), "--max-examples", str(CASES))
    mode = "positive" if asked.sure else "all"
    only = [part for operation in asked.only for part in ("--include-operation-id", operation)]
    checks = (*CHECKS, UNTENDED) if asked.untended else CHECKS
    command = [
        sys.executable, "-P", "-m", "schemathesis.cli", "--config-file", str(config), "--no-color", "run",
        f"http://127.0.0.1:{asked.api}/mail/openapi.json", "--header", f"Cookie:{COOKIE}={token(asked.user)}",
        "--checks", ",".join(checks), *size, *only, "--mode", mode, "--seed", str(asked.seed),
        "--request-timeout", "90", "--continue-on-failure", "--report", "json,ndjson",
        "--report-json-path", str(summary), "--report-ndjson-path", str(lines_of(directory)),
        "--workers", WORKERS, "--warnings", "off",
    ]  # fmt: skip
    with trio.move_on_after(asked.seconds + ENDS_WITHIN) as scope:
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, cwd=directory)
        if done.returncode:
            words = (done.stdout + done.stderr).decode(errors="replace")
            report.problem(f"Schemathesis, seed {asked.seed}, {name}: {worst(words)}")
    if scope.cancelled_caught:
        report.problem(f"Schemathesis, {name}, did not end within {asked.seconds + ENDS_WITHIN:g} s")
    return _summary(report, summary)


def lines_of(directory: Path) -> Path:
    """The report of all that was asked and answered."""
    return directory / "lines.ndjson"


def worst(words: str) -> str:
    """Of what it says the part that tells what is wrong."""
    found = _WRONG.search(words)
    return words[found.start() :][:MAX_OUTPUT] if found else words[-MAX_OUTPUT:]


def _summary(report: Report, file: Path) -> dict[str, Any]:
    """What it did, by its own report; nothing tried is no success."""
    try:
        told = json.loads(file.read_bytes())
        figures = {name: told[name] for name in ("seed", "running_time", "stop_reason", "test_cases")}
        figures["phases"] = {name: phase["status"] for name, phase in told["phases"].items()}
        figures["tested"] = told["operations"]["tested"]
        tried = int(told["test_cases"]["generated"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        report.problem(f"Schemathesis left no report: {exc!r}")
        return {}
    if not tried:
        report.problem(f"Schemathesis tried nothing: {figures}")
    return figures
