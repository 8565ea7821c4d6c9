"""The demonstration behind `make demo`: a mailbox is connected, synced, and gets mail, all on this machine.

    python -m ops.demo [--messages N]

Every part is real: the daemon runs as its own process on an embedded PostgreSQL, IMAP and LMTP are Dovecot's, requests
go over HTTP.  On a terminal mail keeps coming until Ctrl-C; otherwise the demo ends after the first arrival.  However
it ends, it disconnects the account, stops what it started and removes what it wrote.

Exit code: 0 when mail was seen arriving, 1 after a failure, 130 when it was interrupted before.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

import click
import httpx
import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from daemon.settings import load
from daemon.state import prepare
from daemon.storage.connection import TrioConnection

from .cli_token import cookie, make_token
from .demo_client import Api, api_client, deliver_and_watch, look_into, stored
from .demo_servers import START_WITHIN, DaemonProcess, DemoFailed, MailServers, adopt_orphans, end_leftovers
from .testservers.mail import message, seeds

MAILBOX: Final = "you@example.test"
OWNER: Final = "you@example.com"

WINDOW: Final = 50
"""Messages a transaction of the demo's daemon; with the usual 500 the inbox would be there in one step."""

EVERY: Final = 5.0
"""Seconds between deliveries on a terminal; Dovecot needs one of silence until it hibernates a connection again."""

SETTLE: Final = 2.0
"""Seconds from the end of the sync to the first delivery: by then Dovecot has hibernated the connection."""

SYNC_WITHIN: Final = 600.0
"""Seconds for the first sync; 400 messages take less than one."""


_MEASURED: Final = """\
Mail arrives. Measured from LMTP's 250 to the committed row as another database connection sees it, looking every 2 ms;
accountsd's part, from the line on the IMAP connection to the commit, by its own metric. This Dovecot hibernates waiting
connections, which it tells of new mail at once; without that Dovecot itself waits for half a second."""


class Demo:
    """One demonstration, told on a console."""

    def __init__(self, messages: int, console: Console, *, interactive: bool) -> None:
        self._messages = messages
        self._console = console
        self._interactive = interactive
        self._servers: MailServers | None = None
        self._daemon: DaemonProcess | None = None
        self._account: UUID | None = None
        self._token = ""
        self.arrived = 0

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(text, highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, doing: str) -> Iterator[None]:
        """One line that ends in the time it took."""
        began = time.monotonic()
        self._console.print(f"{doing} ... ", end="", highlight=False, soft_wrap=True)
        try:
            yield
        except BaseException:
            self.say("")
            raise
        self.say(f"[green]{time.monotonic() - began:.2f} s[/]")

    async def show(self) -> None:
        """The whole story, until there is nothing more to show."""
        servers = self._servers = MailServers()
        with self.step(f"Starting Dovecot, with {self._messages} messages for {MAILBOX}, and an SMTP server"):
            await trio.to_thread.run_sync(servers.start)
            await trio.to_thread.run_sync(servers.dovecot.seed, MAILBOX, list(seeds(self._messages, to=MAILBOX)))
        daemon = self._daemon = DaemonProcess(ports=servers.ports, ca=servers.dovecot.ca_pem, window=WINDOW)
        async with api_client() as client:
            with self.step("Starting accountsd on an empty database of its own"):
                daemon.start()
                api = await self._ready(daemon, client)
            self.say(f"  API      http://{daemon.api}/mail/docs")
            self.say(f"  metrics  http://{daemon.operations}/metrics")
            with self.step("POST /mail/accounts (it logs in to both servers before it saves anything)"):
                account = self._account = await api.connect(self._request(servers))
            await self._sync(api, account)
            async with look_into(daemon.state) as database:
                count, size = await stored(database, account)
                self.say(f"  in PostgreSQL: {count} messages, {size / 1e6:.1f} MB of bodies")
                await self._deliveries(api, database, account, servers)

    async def _ready(self, daemon: DaemonProcess, client: httpx.AsyncClient) -> Api:
        with trio.move_on_after(START_WITHIN):
            await _until(daemon.announced)
            settings = load(daemon.config, environ={})
            secret = prepare(settings, create=False).session_secret
            self._token = make_token(settings, secret, OWNER)
            api = Api(client, daemon.api, daemon.operations, self._token)
            while not await api.ready():
                daemon.check()
                await trio.sleep(0.05)
            return api
        raise DemoFailed(f"the daemon was not ready within {START_WITHIN:g} s: {daemon.last_words()}")

    def _request(self, servers: MailServers) -> dict[str, object]:
        return {
            "email": MAILBOX, "username": MAILBOX, "password": servers.dovecot.password,
            "imap_host": "localhost", "imap_port": servers.dovecot.imaps_port, "imap_security": "tls",
            "smtp_host": "localhost", "smtp_port": servers.smtp.starttls_port, "smtp_security": "starttls",
        }  # fmt: skip

    async def _sync(self, api: Api, account: UUID) -> None:
        """Follow the first sync by what the API says of it."""
        began, told = time.monotonic(), 0
        bar = Progress(
            TextColumn("Syncing INBOX"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[size]:.1f} MB"),
            console=self._console, disable=not self._console.is_terminal,
        )  # fmt: skip
        with bar, trio.move_on_after(SYNC_WITHIN):
            task = bar.add_task("", total=self._messages, size=0.0)
            while True:
                now = await api.progress(account)
                if now.status == "error":
                    raise DemoFailed(f"the account does not sync: {now.reason}")
                bar.update(task, completed=now.done, total=now.total or self._messages, size=now.size / 1e6)
                if not self._console.is_terminal and now.done > told:
                    told = now.done
                    self.say(f"Syncing INBOX: {now.done} of {now.total} messages, {now.size / 1e6:.1f} MB")
                if now.status == "synced":
                    break
                await trio.sleep(0.05)
        if now.status != "synced":
            raise DemoFailed(f"the account was not synced within {SYNC_WITHIN:g} s")
        self.say(f"[green]synced[/] {time.monotonic() - began:.2f} s after it was connected")

    async def _deliveries(
        self, api: Api, database: TrioConnection[Any], account: UUID, servers: MailServers
    ) -> None:
        self.say(_MEASURED)
        await trio.sleep(SETTLE)
        async for number in self._occasions():
            mark = secrets.token_hex(4)
            message_id = f"demo.{number}.{mark}@example.org"
            arrival = await deliver_and_watch(
                database, api, account, lmtp_port=servers.dovecot.ports.lmtp, to=MAILBOX, message_id=message_id,
                message=message(
                    f"Hello {number}", to=MAILBOX, body="It is here.\r\n", date=time.time(),
                    message_id=f"<{message_id}>"),
            )  # fmt: skip
            self.arrived += 1
            took = f"[bold green]{arrival.took * 1e3:.0f} ms[/]"
            self.say(f"  {took}  {arrival.subject!r} from {arrival.sender}{_share(arrival.ours)}")

    async def _occasions(self) -> AsyncIterator[int]:
        """When to deliver: once; on a terminal every EVERY seconds, and at once when Enter is pressed."""
        yield 1
        if not self._interactive:
            return
        self.say("Enter delivers another message at once, Ctrl-C ends. The API meanwhile:")
        self.say(f"  curl -b '{cookie(self._token)}' http://{self._daemon.api if self._daemon else ''}/mail/accounts")
        number = 1
        while True:
            number += 1
            with trio.move_on_after(EVERY):
                await trio.lowlevel.wait_readable(sys.stdin.fileno())
                if not os.read(sys.stdin.fileno(), 4096):
                    return  # Ctrl-D
            yield number

    async def end(self) -> bool:
        """Undo everything; whether nothing is left."""
        well = True
        daemon, account = self._daemon, self._account
        if daemon is not None:
            if account is not None:
                with self.step(f"DELETE /mail/accounts/{account}"), trio.move_on_after(10.0):
                    async with api_client() as client:
                        try:
                            await Api(client, daemon.api, daemon.operations, self._token).disconnect(account)
                        except DemoFailed as failure:
                            self.say(str(failure))
                            well = False
            with self.step("Stopping accountsd and its database"):
                well = await trio.to_thread.run_sync(daemon.stop) and well
        if self._servers is not None:
            with self.step("Stopping Dovecot and the SMTP server"):
                await trio.to_thread.run_sync(self._servers.close)
        left = await trio.to_thread.run_sync(end_leftovers)
        if left:
            self.say(f"[red]had to kill {len(left)} processes that were left[/]")
        self.say("Nothing is left running." if well and not left else "[red]It did not end as it should.[/]")
        return well and not left


def _share(ours: float | None) -> str:
    if ours is None:
        return ""
    return f" ({ours * 1e3:.0f} ms of it accountsd's, the rest Dovecot's)"


async def _until(done: Callable[[], bool]) -> None:
    """Look every 50 ms whether something outside this process has happened; the caller has the deadline."""
    while True:
        if done():
            return
        await trio.sleep(0.05)


async def run(demo: Demo) -> int:
    """Show it and undo it; the exit code."""
    interrupted = False
    code = 0
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            story = trio.CancelScope()

            async def listen() -> None:
                nonlocal interrupted
                async for _ in signals:
                    demo.say("" if not interrupted else "It is ending already.")
                    interrupted = True
                    story.cancel()

            nursery.start_soon(listen)
            try:
                with story:
                    await demo.show()
            except* DemoFailed as failed:
                sentence = next(_sentences(failed))
                demo.say(f"[red]demo: {sentence}[/]")
                code = 1
            finally:
                with trio.CancelScope(shield=True):
                    well = await demo.end()
                nursery.cancel_scope.cancel()
    if code == 0 and interrupted and not demo.arrived:
        code = 128 + signal.SIGINT
    return code if well else 1


def _sentences(group: BaseExceptionGroup[DemoFailed]) -> Iterator[str]:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from _sentences(exc)
        else:
            yield str(exc)


@click.command()
@click.option("--messages", default=400, show_default=True, type=click.IntRange(1, 100_000), help="In the mailbox.")
def main(messages: int) -> None:
    """Connect a mailbox on a local server, watch it sync, and see mail arrive."""
    adopt_orphans()
    console = Console()
    interactive = console.is_terminal and sys.stdin.isatty()
    sys.exit(trio.run(run, Demo(messages, console, interactive=interactive)))


if __name__ == "__main__":
    main()
