"""Verification keys: one value for every algorithm, and the strict reading of a JSON Web Key Set (RFC 7517).

Only what can verify an `ES256` or `RS256` signature is taken from a set: a key must name itself (`kid`) and its
algorithm (`alg`), be public, be for signatures, and be of a sound size.  Everything else in the set is passed over, as
RFC 7517 section 5 asks; a symmetric or private key in a published set is somebody's accident, never a key of ours.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

MAX_KEYS: Final = 64
"""Keys in a set; Supabase publishes two or three (current, standby, previous)."""

MAX_KID: Final = 256
"""Characters of a key's name; Supabase's are UUIDs."""

RSA_BITS: Final = range(2048, 8193)
"""RFC 7518 section 3.3 asks for 2048 bits or more; beyond 8192 a verification costs milliseconds."""

_PRIVATE_PARTS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_MAX_PART: Final = 4096  # characters of a key's number: twice what 8192 bits need in base64


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key and the one algorithm it may be used with: a token never chooses (RFC 8725 section 3.1)."""

    algorithm: str
    key: RSAPublicKey | EllipticCurvePublicKey | bytes = field(repr=False)


class BadKeySet(Exception):
    """The document is no key set; the text is a word for the log."""


def read_key_set(document: bytes) -> dict[str, VerifyingKey]:
    """The usable keys by `kid`; a `kid` that occurs twice names none.

    Raises:
        BadKeySet: not JSON, not a key set, or more than `MAX_KEYS` keys.
    """
    try:
        parsed = json.loads(document)
    except (ValueError, RecursionError):
        raise BadKeySet("not_json") from None
    listed = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(listed, list):
        raise BadKeySet("no_keys_member")
    if len(listed) > MAX_KEYS:
        raise BadKeySet("too_many_keys")
    names = Counter(jwk["kid"] for jwk in listed if isinstance(jwk, dict) and isinstance(jwk.get("kid"), str))
    keys: dict[str, VerifyingKey] = {}
    for jwk in listed:
        if isinstance(jwk, dict) and (key := _read_key(jwk)) and names[kid := jwk["kid"]] == 1:
            keys[kid] = key
    return keys


def _read_key(jwk: Mapping[str, object]) -> VerifyingKey | None:
    kid, operations = jwk.get("kid"), jwk.get("key_ops")
    if not isinstance(kid, str) or not 1 <= len(kid) <= MAX_KID:
        return None
    if jwk.get("use", "sig") != "sig" or (isinstance(operations, list) and "verify" not in operations):
        return None
    if _PRIVATE_PARTS & jwk.keys():
        return None
    if any(not isinstance(jwk.get(part, ""), str) or len(str(jwk.get(part, ""))) > _MAX_PART for part in "nexy"):
        return None
    try:
        match jwk.get("kty"), jwk.get("alg"), jwk.get("crv"):
            case "RSA", "RS256", _:
                rsa = RSAAlgorithm.from_jwk(dict(jwk))
                if isinstance(rsa, RSAPublicKey) and rsa.key_size in RSA_BITS:
                    return VerifyingKey("RS256", rsa)
            case "EC", "ES256", "P-256":
                curve = ECAlgorithm.from_jwk(dict(jwk))
                if isinstance(curve, EllipticCurvePublicKey):
                    return VerifyingKey("ES256", curve)
    except (PyJWTError, ValueError, TypeError, KeyError, OverflowError):
        return None
    return None
