"""The issuer's published keys, fetched when needed and kept within bounds.

A set is used for `LIFETIME` at most; then it is fetched anew before it is used again.  A token whose `kid` is not in a
fresh set asks for one refetch, for the issuer may have rotated; strangers' tokens cannot make us ask more often than
once in `REFETCH_PAUSE`.  When the issuer does not answer, the last good set serves on for `LAST_GOOD`: an outage of the
identity provider is not to sign everybody out, while a key revoked during it is not to live for ever.

One fetch runs at a time (`_flight`); who comes meanwhile waits for it, at most `FETCH_TIMEOUT`, and takes its result;
during an outage who names a key that is held does not wait.  There is no background task: the caller whose turn it is
fetches for all, and a fetch that was begun is finished, shielded and bounded by `FETCH_TIMEOUT`, whether its caller is
still there or not.  Otherwise strangers who send a token with a `kid` of their own and hang up could either make us ask
as often as they like or, were that counted as an attempt, keep a new key from ever being fetched.

A set in which no key can be used is a set all the same: an issuer who withdraws all keys means it.

What fetches is `published`, which brings an HTTP client of 4 MiB: imported only where there is something to fetch.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog
import trio

from .keys import BadKeySet, VerifyingKey, read_key_set

log = structlog.get_logger(__name__)

LIFETIME: Final = 600.0
"""Seconds a set is used for: the issuer's own edge caches 10 minutes and asks that nobody cache longer."""

LAST_GOOD: Final = 24 * 3600.0
"""Seconds the last good set serves while the issuer does not answer."""

REFETCH_PAUSE: Final = 30.0
"""Seconds between two fetches made for the sake of an unknown `kid`, or after one that failed while a set is held."""

RETRY_PAUSE: Final = 2.0
"""Seconds between two fetches while there is no set at all: nobody can sign in until one succeeds."""

FETCH_TIMEOUT: Final = 5.0
"""Seconds for one fetch as a whole."""

MAX_DOCUMENT: Final = 256 * 1024
"""Bytes of the document; 64 RSA keys of 8192 bits need about 100 KiB."""


class KeysUnavailable(Exception):
    """The issuer's keys cannot be had now, so that nothing can be said about the token."""


class PublishedKeys:
    """The keys behind one JWKS URL; `find()` is all the rest of the API knows."""

    algorithms = frozenset({"ES256", "RS256"})

    def __init__(self, fetch: Callable[[], Awaitable[bytes]], clock: Callable[[], float] = trio.current_time) -> None:
        self._fetch = fetch
        self._clock = clock
        self._flight = trio.Lock()
        self._keys: dict[str, VerifyingKey] = {}
        self._fetched_at: float | None = None
        self._attempted_at: float | None = None
        self._failed = False
        self._fetches = 0
        self._failures = 0

    async def find(self, kid: str | None) -> VerifyingKey | None:
        """The key of that name, or None where the issuer has none.

        Raises:
            KeysUnavailable: it is not known whether the issuer has it.
        """
        if kid is None:
            return None
        # During an outage one caller finds out whether it is over, and the others go on with what is held.
        outage = self._failed and kid in self._keys and self._flight.locked()
        if not outage and self._wanted(kid):
            async with self._flight:
                if self._wanted(kid):  # the one before us may have brought it
                    with trio.CancelScope(shield=True):
                        await self._refresh()
        if self._fetched_at is None or self._clock() - self._fetched_at > LAST_GOOD:
            raise KeysUnavailable("no key set")
        key = self._keys.get(kid)
        if key is None and self._failed:
            raise KeysUnavailable("the key may be newer than the last good set")
        return key

    def statistics(self) -> dict[str, float | int | None]:
        """Keys held, seconds since they were fetched, fetches and how many of them failed."""
        age = None if self._fetched_at is None else self._clock() - self._fetched_at
        return {"keys": len(self._keys), "age": age, "fetches": self._fetches, "failures": self._failures}

    def _wanted(self, kid: str) -> bool:
        """Whether this look-up calls for a fetch, and one is allowed now."""
        now = self._clock()
        if self._fetched_at is None:
            return self._attempted_at is None or now - self._attempted_at >= RETRY_PAUSE
        if now - self._fetched_at < LIFETIME and kid in self._keys:
            return False
        if not self._failed and now - self._fetched_at >= LIFETIME:
            return True
        return self._attempted_at is None or now - self._attempted_at >= REFETCH_PAUSE

    async def _refresh(self) -> None:
        self._fetches += 1
        try:
            keys = read_key_set(await self._fetch())
        except (KeysUnavailable, BadKeySet) as exc:
            self._failed = True
            self._failures += 1
            log.warning("jwks.fetch_failed", reason=str(exc), keys_held=len(self._keys))
        else:
            self._keys, self._failed, self._fetched_at = keys, False, self._clock()
            log.info("jwks.fetched", keys=len(keys))
        # Stamped at the end: the pause is counted from when the issuer last failed to answer.
        self._attempted_at = self._clock()


def fetcher(url: str, ca_file: Path | None) -> Callable[[], Awaitable[bytes]]:
    """A function that fetches the document at `url` once, within `FETCH_TIMEOUT` and `MAX_DOCUMENT`.

    The URL is the operator's, so the address guard does not judge it; redirects and proxies from the environment are
    not followed, so that it is also the place that answers.

    Raises:
        OSError, ssl.SSLError: `ca_file` cannot be used.
    """
    from .published import Unfetched, get

    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)

    async def fetch() -> bytes:
        try:
            with trio.fail_after(FETCH_TIMEOUT):
                return await get(url, context, timeout=FETCH_TIMEOUT, most=MAX_DOCUMENT)
        except trio.TooSlowError:
            raise KeysUnavailable("timed_out") from None
        except Unfetched as exc:
            raise KeysUnavailable(exc.code) from None

    return fetch
