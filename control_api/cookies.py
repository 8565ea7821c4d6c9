"""Where the session token is found in a request: exactly one cookie `sb-access-token` holding a bare JWT.

Cookies are read from the raw header rather than from a framework's mapping, for a mapping hides the one thing that
matters here: a second cookie of the same name, which a sibling subdomain can set ("cookie tossing", RFC 6265 section
8.6).  Two are refused, whatever they hold, since nobody can say which is the site's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

SESSION_COOKIE: Final = "sb-access-token"


class DuplicateCookie(Exception):
    """More than one session cookie came with the request."""


def session_token(cookie_headers: Iterable[str]) -> str | None:
    """The value of the session cookie, or None where there is none or it is empty.

    Raises:
        DuplicateCookie: the cookie came twice, in one header or in several.
    """
    found: list[str] = []
    for header in cookie_headers:
        for pair in header.split(";"):
            name, equals, value = pair.partition("=")
            if equals and name.strip(" \t") == SESSION_COOKIE:
                found.append(value.strip(" \t"))
    if len(found) > 1:
        raise DuplicateCookie
    return found[0] if found and found[0] else None
