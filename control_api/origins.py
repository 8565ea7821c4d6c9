"""Which page may make a browser say this: the CSRF rule, the content-type rule and CORS, all pure.

CSRF (the contract's rule, after OWASP's "fetch metadata with origin fallback"): an unsafe method passes when
`Sec-Fetch-Site` says `same-origin` or `none`; otherwise its `Origin` must be on the configured list; with neither
header it comes from no browser and passes.  A header that came twice, or says something unknown, counts against the
request.  That a request with neither passes is safe together with the content-type rule: a browser too old to send
either header can send a form across sites, but neither `application/json` nor DELETE without a preflight, which an
unlisted origin does not pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""RFC 9110 section 9.2.1, without TRACE, which is not served."""

VARY: Final = "Sec-Fetch-Site, Origin, Cookie"
"""What an answer depends on: no cache may give one caller's to another."""

PREFLIGHT_AGE: Final = 600
"""Seconds a browser may keep a preflight's answer; Chromium's own limit is 7,200."""

EXPOSED: Final = "Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"
"""Headers of answers that a listed origin's page may read, beside those that any may (Fetch, "CORS-safelisted")."""

_OWN_SITES: Final = frozenset({"same-origin", "none"})


@dataclass(frozen=True, slots=True)
class Origins:
    """The browser origins that may call across sites, as the settings list them."""

    listed: frozenset[str]

    @classmethod
    def of(cls, origins: Iterable[str]) -> Origins:
        """From settings; scheme and host are compared as browsers send them, in lower case."""
        return cls(frozenset(origin.lower() for origin in origins))

    def allow(self, origin: Sequence[str]) -> bool:
        """Whether exactly one origin was named and it is listed."""
        return len(origin) == 1 and origin[0] in self.listed

    def forged(self, method: str, fetch_site: Sequence[str], origin: Sequence[str]) -> bool:
        """Whether this may be a request that another site made the caller's browser send; takes all header values."""
        if method in SAFE_METHODS:
            return False
        if fetch_site:
            own = len(fetch_site) == 1 and fetch_site[0] in _OWN_SITES
            return not own and not self.allow(origin)
        return bool(origin) and not self.allow(origin)

    def cors_headers(self, origin: Sequence[str]) -> dict[str, str]:
        """What lets the listed origin read the answer; nothing for any other.  Never `*`: cookies are involved."""
        if not self.allow(origin):
            return {}
        return {
            "Access-Control-Allow-Origin": origin[0],
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": EXPOSED,
        }

    def preflight_headers(self, origin: Sequence[str], methods: Iterable[str]) -> dict[str, str]:
        """What lets the listed origin send what it asks to send."""
        if not self.allow(origin):
            return {}
        return {
            "Access-Control-Allow-Methods": ", ".join(methods),
            "Access-Control-Allow-Headers": "Content-Type",
            "Access-Control-Max-Age": str(PREFLIGHT_AGE),
        }


def has_body(content_length: str | None, transfer_encoding: str | None) -> bool:
    """Whether a request announces a body (RFC 9112 section 6.3); a length that is no number counts as one."""
    if transfer_encoding is not None:
        return True
    return content_length is not None and content_length.strip().strip("0") != ""


def is_json(content_type: str | None) -> bool:
    """Whether the type is `application/json`, whatever its parameters (RFC 8259 section 11 defines none)."""
    return content_type is not None and content_type.partition(";")[0].strip().lower() == "application/json"
