"""Sealing credentials at rest: AES-256-GCM, a data key for each account, wrapped by the key ring.

    key ring ──wraps──► data key of the account ──seals──► field

Everything is bound to where it belongs by the additional data: the wrapped data key to its account and the key that
wraps it, a sealed field to its account and name.  So a ciphertext copied to another row or column does not open.
Nonces are random, 96 bits (NIST SP 800-38D section 8.2.2); a data key seals a handful of fields in its life, far below
the 2^32 that such nonces allow, for new credentials come with a new data key.

Formats, versioned by the first byte:
    wrapped data key   1 | length of key id | key id | nonce 12 | ciphertext and tag 48
    sealed field       1 | nonce 12 | ciphertext and tag
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .keyring import KEY_BYTES, KeyRing
from .secret import Secret

_VERSION: Final = 1
_NONCE: Final = 12
_TAG: Final = 16

MAX_FIELD: Final = 64 << 10
"""Bytes of one sealed field: OAuth tokens may have some kilobytes."""


class VaultError(Exception):
    """Something sealed cannot be opened; the message never holds any of it."""


class UnknownKey(VaultError):
    """The data key is wrapped by a key that is not on the ring."""


class Tampered(VaultError):
    """The bytes are not what was sealed for this account and field."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is stored."""

    data_key: bytes
    """Wrapped."""

    fields: Mapping[str, bytes]


class Vault:
    """Seals and opens."""

    __slots__ = ("_ring",)

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def seal(self, account_id: UUID, fields: Mapping[str, Secret]) -> Sealed:
        """Seal fields under a new data key of the account.

        Raises:
            ValueError: a field is longer than MAX_FIELD.
        """
        key = secrets.token_bytes(KEY_BYTES)
        sealed = {}
        for name, secret in fields.items():
            plain = secret.reveal().encode()
            if len(plain) > MAX_FIELD:
                raise ValueError(f"the field {name} is too long to be sealed")
            nonce = secrets.token_bytes(_NONCE)
            text = AESGCM(key).encrypt(nonce, plain, _field_data(account_id, name))
            sealed[name] = bytes([_VERSION]) + nonce + text
        return Sealed(self._wrap(account_id, key), sealed)

    def open(self, account_id: UUID, field: str, data_key: bytes, sealed: bytes) -> Secret:
        """Open one field of an account.

        Raises:
            UnknownKey: the ring lacks the key that wraps it.
            Tampered: it was not sealed for this account and field, or has been changed.
        """
        key = self._unwrap(account_id, data_key)
        if len(sealed) < 1 + _NONCE + _TAG or sealed[0] != _VERSION:
            raise Tampered(f"the field {field} is not in a form that this version knows")
        try:
            plain = AESGCM(key).decrypt(sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :], _field_data(account_id, field))
        except InvalidTag:
            raise Tampered(f"the field {field} does not belong to this account, or was changed") from None
        return Secret(plain.decode())

    def rewrap(self, account_id: UUID, data_key: bytes) -> bytes | None:
        """The data key under the ring's current key; None when it is already.

        Raises:
            UnknownKey, Tampered: as `open`.
        """
        if _key_id(data_key)[0] == self._ring.current:
            return None
        return self._wrap(account_id, self._unwrap(account_id, data_key))

    def _wrap(self, account_id: UUID, key: bytes) -> bytes:
        key_id = self._ring.current
        wrapping = self._ring.key(key_id)
        assert wrapping is not None, "the ring has its current key"
        nonce = secrets.token_bytes(_NONCE)
        text = AESGCM(wrapping).encrypt(nonce, key, _wrap_data(account_id, key_id))
        return bytes([_VERSION, len(key_id)]) + key_id.encode("ascii") + nonce + text

    def _unwrap(self, account_id: UUID, data_key: bytes) -> bytes:
        key_id, rest = _key_id(data_key)
        wrapping = self._ring.key(key_id)
        if wrapping is None:
            raise UnknownKey(f"the key {key_id!r} is not on the key ring")
        try:
            return AESGCM(wrapping).decrypt(rest[:_NONCE], rest[_NONCE:], _wrap_data(account_id, key_id))
        except InvalidTag:
            raise Tampered("the data key does not belong to this account, or was changed") from None


def _key_id(data_key: bytes) -> tuple[str, bytes]:
    """The id of the wrapping key, and nonce and ciphertext."""
    if len(data_key) < 2 or data_key[0] != _VERSION or len(data_key) != 2 + data_key[1] + _NONCE + KEY_BYTES + _TAG:
        raise Tampered("the data key is not in a form that this version knows")
    end = 2 + data_key[1]
    try:
        return data_key[2:end].decode("ascii"), data_key[end:]
    except UnicodeDecodeError:
        raise Tampered("the data key is not in a form that this version knows") from None


def _field_data(account_id: UUID, field: str) -> bytes:
    return b"accountsd field 1\0" + account_id.bytes + field.encode()


def _wrap_data(account_id: UUID, key_id: str) -> bytes:
    return b"accountsd data key 1\0" + account_id.bytes + key_id.encode()
