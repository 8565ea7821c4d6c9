"""Session tokens: from the text in the cookie to the verified user, or a refusal.

The settings choose one mode, and the mode is the object that finds keys: `SharedSecret` knows HS256 and nothing else,
`PublishedKeys` ES256 and RS256 and nothing else.  There is no path from one to the other, so a public key can never be
used as an HMAC secret, and `none` is no algorithm at all (RFC 8725 sections 2.1 and 3.1).  The header's `alg` is only
compared with the key's own, never used to choose.

The header is read here, strictly, before any key is looked for; PyJWT verifies the signature; `claims` judges what the
signature vouches for.  Both documents are UTF-8, name every member once and hold no NaN: what two readers could read in
two ways is refused (RFC 7515 section 4, RFC 7519 section 4, RFC 8725 section 2.6).  A key or an address that a header
brings (`jwk`, `jku`, `x5c`, `x5u`) is not looked at.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import jwt

from daemon.identity import User
from daemon.settings import Settings
from daemon.vault.secret import Secret

from .claims import TokenRefused, check_times, user_from_claims
from .jwks import PublishedKeys, fetcher
from .keys import MAX_KID, VerifyingKey

MAX_TOKEN: Final = 8 * 1024
"""Characters of a token: Supabase's have about 1,000, and a cookie more than 4,096 bytes is cut by browsers."""

MAX_HEADER: Final = 2 * 1024
"""Characters of the encoded header; `alg`, `kid` and `typ` need about 150."""

MIN_SECRET: Final = 32
"""Bytes of an HS256 secret (RFC 7518 section 3.2)."""

LOCAL_ISSUER: Final = "accountsd"
"""`iss` of the tokens of a local set-up, which has a shared secret and names no issuer."""

REMEMBERED: Final = 2048
"""Tokens remembered as verified: about 1 KiB each, and more callers than one node is likely to see in a minute."""

_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class Keys(Protocol):
    """Where verification keys come from in one mode."""

    @property
    def algorithms(self) -> frozenset[str]:
        """The algorithms of this mode."""
        ...

    async def find(self, kid: str | None, /) -> VerifyingKey | None:
        """The key a token naming `kid` must verify with, if any.

        Raises:
            KeysUnavailable: that cannot be said now.
        """
        ...


class SharedSecret:
    """HS256 with one secret, shared with the issuer; `kid` means nothing here."""

    algorithms = frozenset({"HS256"})

    def __init__(self, secret: Secret) -> None:
        key = secret.reveal().encode()
        if len(key) < MIN_SECRET:
            raise ValueError(f"the session secret must have at least {MIN_SECRET} bytes (RFC 7518 section 3.2)")
        self._key = VerifyingKey("HS256", key)

    async def find(self, _kid: str | None, /) -> VerifyingKey:
        """The secret."""
        return self._key


@dataclass(frozen=True, slots=True)
class _Verified:
    """What a signature vouched for; the key is compared by identity, for a reloaded set has keys of its own."""

    kid: str | None
    key: VerifyingKey
    claims: Mapping[str, object]
    """Those that time is judged by."""
    user: User


class TokenVerifier:
    """Verifies session tokens of one issuer in one mode."""

    def __init__(self, keys: Keys, issuer: str, default_plan: str, now: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._issuer = issuer
        self._default_plan = default_plan
        self._now = now
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()

    async def verify(self, token: str) -> User:
        """The user the token names.

        Raises:
            TokenRefused: it is no session of ours.
            KeysUnavailable: the issuer's keys cannot be had now.
        """
        if len(token) > MAX_TOKEN:
            raise TokenRefused("too_long")
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._verified.get(digest)
        if known is not None and await self._keys.find(known.kid) is known.key:
            check_times(known.claims, self._now())
            if digest in self._verified:
                self._verified.move_to_end(digest)
            return known.user
        verified = await self._verify(token)
        self._verified[digest] = verified
        self._verified.move_to_end(digest)
        while len(self._verified) > REMEMBERED:
            self._verified.popitem(last=False)
        return verified.user

    async def _verify(self, token: str) -> _Verified:
        algorithm, kid = _read_header(token)
        if algorithm not in self._keys.algorithms:
            raise TokenRefused("algorithm")
        key = await self._keys.find(kid)
        if key is None:
            raise TokenRefused("unknown_key")
        if key.algorithm != algorithm:
            raise TokenRefused("algorithm_of_key")
        claims = _verified_claims(token, key)
        user = user_from_claims(claims, issuer=self._issuer, now=self._now(), default_plan=self._default_plan)
        times: dict[str, object] = {name: claims[name] for name in ("exp", "nbf") if name in claims}
        return _Verified(kid, key, times, user)


def _read_header(token: str) -> tuple[str, str | None]:
    """The token's `alg` and `kid`."""
    if not _SHAPE.fullmatch(token):
        raise TokenRefused("malformed")
    encoded = token.partition(".")[0]
    if len(encoded) > MAX_HEADER:
        raise TokenRefused("header_too_long")
    try:
        header = _read_json(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (ValueError, RecursionError):
        raise TokenRefused("malformed") from None
    # `crit` names extensions that must be understood (RFC 7515 section 4.1.11), and `b64` is one; we know none.
    if not isinstance(header, dict) or "crit" in header or "b64" in header:
        raise TokenRefused("header")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or (kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID)):
        raise TokenRefused("header")
    return algorithm, kid


def _verified_claims(token: str, key: VerifyingKey) -> dict[str, object]:
    try:
        payload = jwt.PyJWS().decode(token, key.key, algorithms=[key.algorithm])
    except jwt.PyJWTError:
        raise TokenRefused("signature") from None
    try:
        claims = _read_json(payload)
    except (ValueError, RecursionError):
        raise TokenRefused("claims") from None
    if not isinstance(claims, dict):
        raise TokenRefused("claims")
    return claims


def _read_json(data: bytes) -> object:
    """A document that has one reading.  Raises ValueError or RecursionError for any other."""
    return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)


def _unique(members: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(members)
    if len(found) != len(members):
        raise ValueError("a member is named twice")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def verifier_from(settings: Settings, session_secret: Secret | None) -> TokenVerifier:
    """The verifier the settings ask for.

    Raises:
        ValueError: mode `hs256` without a secret, or with one that is too short.
        OSError: `[network] ca_file` cannot be read.
    """
    auth = settings.auth
    if auth.mode == "jwks":
        url = auth.jwks_url or auth.issuer.removesuffix("/") + "/.well-known/jwks.json"
        keys: Keys = PublishedKeys(fetcher(url, settings.network.ca_file))
    else:
        if session_secret is None:
            raise ValueError("auth.mode hs256 needs a session secret")
        keys = SharedSecret(session_secret)
    return TokenVerifier(keys, auth.issuer or LOCAL_ISSUER, auth.default_plan)
