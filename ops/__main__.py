"""`accountsctl`: operating a set-up from its own machine.

    accountsctl token --email you@example.com          a session cookie for a local set-up
    accountsctl doctor                                 what is wrong, in words, and what to do
    accountsctl diagram states|house|settings|access   what the README shows of the code

Exit code: 0, 1 when something is wrong or cannot be done, 2 for wrong usage or settings.  What went wrong is one
sentence on standard error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click
import trio
from rich.console import Console
from rich.markup import escape

from daemon.names import version
from daemon.settings import SettingsError, load
from daemon.state import prepare
from daemon.telemetry import logs

from .cli_token import NoToken, cookie, make_token
from .diagrams import DIAGRAMS, NoDiagram, put_into
from .doctor import examine

WRONG_USAGE: Final = 2

_CONFIG = click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="The daemon's settings file."
)
_COLOURS: Final = {"ok": "green", "note": "yellow", "wrong": "bold red"}


def _fail(sentence: str, code: int) -> None:
    click.echo(f"accountsctl: {sentence}", err=True)
    sys.exit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version(), prog_name="accountsctl")
def main() -> None:
    """Operate accountsd from its own machine."""


@main.command()
@click.option("--email", required=True, help="Whose session.")
@click.option("--plan", metavar="SLUG", help="The plan the token names; by default none, which is auth.default_plan.")
@click.option("--hours", type=float, default=24.0, show_default=True, help="How long it is good for.")
@click.option("--sub", metavar="ID", help="The user id; by default derived from the email, always the same.")
@_CONFIG
def token(email: str, plan: str | None, hours: float, sub: str | None, config: Path | None) -> None:
    """Print a session cookie for a set-up that signs its own sessions (auth.mode hs256)."""
    try:
        settings = load(config)
        secret = prepare(settings, create=False).session_secret
        made = make_token(settings, secret, email, plan=plan, hours=hours, sub=sub)
    except (SettingsError, NoToken) as exc:
        _fail(str(exc), WRONG_USAGE)
    else:
        click.echo(cookie(made))


@main.command()
@_CONFIG
def doctor(config: Path | None) -> None:
    """Check a set-up, and say in words what is wrong and what to do."""
    console = Console(highlight=False, soft_wrap=True)
    logs.set_up("error", "text")  # what the parts say to the daemon's log is said here as findings

    async def run() -> int:
        count = 0
        async for finding in examine(config):
            count += finding.mark == "wrong"
            colour = _COLOURS[finding.mark]
            console.print(f"[{colour}]{finding.mark:5}[/]  {escape(finding.what)}")
            if finding.remedy:
                console.print(f"       -> {escape(finding.remedy)}")
        return count

    wrongs = trio.run(run)
    if wrongs:
        _fail(f"{wrongs} thing{'s are' if wrongs > 1 else ' is'} wrong", 1)
    console.print("Nothing is wrong.")


@main.command()
@click.argument("name", type=click.Choice(list(DIAGRAMS)))
@click.option(
    "--into", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
    help="Put it between the markers of this document instead of printing it.",
)  # fmt: skip
def diagram(name: str, into: Path | None) -> None:
    """Print what is drawn from the code: an account's life, the packages of the house, all settings."""
    drawn = DIAGRAMS[name]()
    if into is None:
        click.echo(drawn, nl=False)
        return
    try:
        into.write_text(put_into(into.read_text("utf-8"), name, drawn), "utf-8")
    except (NoDiagram, OSError, UnicodeDecodeError) as exc:
        _fail(f"{into} cannot take the picture: {exc}", 1)


if __name__ == "__main__":
    main(prog_name="accountsctl")
