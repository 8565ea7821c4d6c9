"""The kinds of values that settings have: each a type that refuses, in words for a person, what cannot be used."""

from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_ORIGIN: Final = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
"""What a browser says of itself (RFC 6454 section 6.2): scheme, host in ASCII, perhaps a port, and nothing else."""


def is_port(text: str, *, least: int = 1) -> bool:
    """Whether a text is the number of a TCP or UDP port; 0, where allowed, is any free one."""
    return 1 <= len(text) <= 5 and text.isascii() and text.isdigit() and least <= int(text) <= 65535


def is_http_url(text: str) -> bool:
    """Whether something could be fetched from there: http(s), a host, and a port that is one if any."""
    if not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket too many
        return False


def is_origin(text: str) -> bool:
    """Whether a browser could call itself so."""
    match = _ORIGIN.fullmatch(text)
    return match is not None and (match["port"] is None or is_port(match["port"]))


def split_bind(bind: str) -> tuple[str, int]:
    """The address without its brackets, and the port, of what `Bind` let pass."""
    host, port = _parts(bind)
    return host, int(port)


def _parts(text: str) -> tuple[str, str]:
    """What may be an address, without its brackets, and what may be a port."""
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port


def _items(value: object) -> object:
    """A list may be written as TOML or JSON, or comma-separated in the environment."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text.startswith("["):
        return [item.strip() for item in text.split(",") if item.strip()]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("must be a list, comma-separated or as JSON has it") from None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _bind(value: str) -> str:
    host, port = _parts(value)
    if not is_port(port, least=0) or not _is_address(host):
        raise ValueError("must be address:port, such as 127.0.0.1:8025 or [::1]:8025")
    return value


def _nameserver(value: str) -> str:
    host, port = _parts(value)
    if not _is_address(value) and not (is_port(port) and _is_address(host)):
        raise ValueError("must hold addresses such as 192.0.2.1, 192.0.2.1:53 or [2001:db8::1]:53")
    return value


def _file(value: Path) -> Path:
    text = str(value)
    if "\0" in text:
        raise ValueError("must not hold NUL")
    if text == ".":  # what an empty text becomes
        raise ValueError("must name a place, and is empty")
    try:
        return value.expanduser()
    except RuntimeError:
        raise ValueError("must begin with ~ only where that user has a home") from None


Bind = Annotated[str, AfterValidator(_bind)]
FilePath = Annotated[Path, AfterValidator(_file)]
Networks = Annotated[tuple[IPNetwork, ...], BeforeValidator(_items)]
Ports = Annotated[frozenset[Annotated[int, Field(ge=1, le=65535)]], BeforeValidator(_items)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Texts = Annotated[tuple[str, ...], BeforeValidator(_items)]
NameServers = Annotated[tuple[Annotated[str, AfterValidator(_nameserver)], ...], BeforeValidator(_items)]
