"""Looking before leaping: what the settings name is tried before anything is started, and said in one sentence."""

from __future__ import annotations

import socket

from .network import client_context
from .settings import Settings, SettingsError
from .storage.conninfo import complete


def check(settings: Settings) -> None:
    """Try the listeners' addresses, the authorities' file and the connection string.

    Raises:
        SettingsError: one of them cannot be used.
    """
    _check_binds(settings)
    _check_authorities(settings)
    _check_dsn(settings)


def _check_binds(settings: Settings) -> None:
    """Find out about an address in use before anything is started."""
    for key, bind in (("api.bind", settings.api.bind), ("operations.bind", settings.operations.bind)):
        host, _, port = bind.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, int(port)))
            except OSError as exc:
                raise SettingsError(f"the setting {key} = {bind!r} cannot be used: {exc.strerror}") from None


def _check_authorities(settings: Settings) -> None:
    """Read the authorities now: what is wrong with them should be said in one sentence."""
    file = settings.network.ca_file
    if file is not None:
        try:
            client_context(file)
        except OSError as exc:  # ssl.SSLError is one
            problem = exc.strerror or "it holds no certificate"
            raise SettingsError(f"the setting network.ca_file = {str(file)!r} is wrong: {problem}") from None


def _check_dsn(settings: Settings) -> None:
    """A connection string is one, or libpq's own words about it, which may hold the password, are not repeated."""
    if dsn := settings.storage.dsn.get_secret_value():
        try:
            complete(dsn)
        except Exception:  # noqa: BLE001 - whatever is wrong with it: the sentence is the same
            raise SettingsError("the setting storage.dsn = *** is wrong: it is no connection string") from None
