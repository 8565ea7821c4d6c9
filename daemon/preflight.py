"""Looking before leaping: what the settings name is tried before anything is started, and said in one sentence."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

from psycopg.conninfo import conninfo_to_dict

from .network import client_context
from .settings import Settings, SettingsError
from .settings_values import is_port, split_bind
from .storage.conninfo import complete

_WHOLE_NUMBERS: Final = (
    "connect_timeout",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "tcp_user_timeout",
)
"""Parameters that libpq takes as they are and finds wrong at every connection."""


def check(settings: Settings) -> None:
    """Try the listeners' addresses, the authorities' file and the connection string.

    Raises:
        SettingsError: one of them cannot be used.
    """
    _check_binds(settings)
    _check_authorities(settings)
    _check_dsn(settings)


def _check_binds(settings: Settings) -> None:
    """Find out about an address in use, by others or by ourselves, before anything is started."""
    api, operations = settings.api.bind, settings.operations.bind
    if collide(api, operations):
        raise SettingsError(f"the settings api.bind = {api!r} and operations.bind = {operations!r} are one address")
    for key, bind in (("api.bind", api), ("operations.bind", operations)):
        host, port = split_bind(bind)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            # As the listener itself will: connections of a former daemon do not count, and IPv6 is only that.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((host, port))
            except OSError as exc:
                raise SettingsError(f"the setting {key} = {bind!r} cannot be used: {exc.strerror}") from None


def collide(one: str, other: str) -> bool:
    """Whether two listeners cannot both have their addresses; port 0 is a free one for each.  Pure."""
    (host, port), (other_host, other_port) = split_bind(one), split_bind(other)
    first, second = ipaddress.ip_address(host), ipaddress.ip_address(other_host)
    if port != other_port or port == 0 or first.version != second.version:
        return False
    return first == second or first.is_unspecified or second.is_unspecified


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
    dsn = settings.storage.dsn.get_secret_value()
    if not dsn:
        return
    try:
        complete(dsn)
        given = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    except Exception:  # noqa: BLE001 - whatever is wrong with it: the sentence is the same
        raise SettingsError("the setting storage.dsn = *** is wrong: it is no connection string") from None
    if (problem := dsn_problem(dsn, given)) is not None:
        raise SettingsError(f"the setting storage.dsn = *** is wrong: {problem}")


def dsn_problem(dsn: str, given: dict[str, str]) -> str | None:
    """What libpq parses and then never connects with, without the value: which part is wrong may be misread.  Pure."""
    if "\0" in dsn:
        return "it holds NUL"
    ports = given.get("port", "").split(",")
    hosts = (given.get("host") or given.get("hostaddr") or "").split(",")
    if not all(port == "" or is_port(port.strip()) for port in ports):
        return "its port is no number from 1 to 65535"
    if len(ports) > 1 and len(ports) != len(hosts):
        return "it has another number of ports than of hosts"
    for name in _WHOLE_NUMBERS:
        if not given.get(name, "0").strip().removeprefix("-").isdecimal():
            return f"its {name} is no whole number"
    return None
