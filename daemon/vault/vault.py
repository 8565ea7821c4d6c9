"""Seal and open an account's credentials.

    key ring ── wraps ──► data key of one account ── seals ──► each field of that account

Every account has a random data key of its own, made anew whenever its credentials are sealed; each field is sealed
under it, and it is wrapped under the ring's current key.  All of it is AES-256-GCM with a random 96-bit nonce (NIST
SP 800-38D section 8.2.2).  A data key seals a handful of fields once, a ring's key wraps one data key an account and
change, both far below the 2^32 uses that random nonces bear.

What is sealed is bound to its place by additional data: the version, the account's id, the field's name, and for a
wrapped data key the wrapping key's id.  A row's ciphertext moved to another row or another column does not open.

    wrapped data key:  version (1 byte) | length of the key's id (1) | id | nonce (12) | ciphertext and tag (32 + 16)
    sealed field:      version (1 byte) | nonce (12) | ciphertext and tag (n + 16)

The version byte is the first, so that another cipher can come beside this one.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .keyring import KEY_SIZE, MAX_ID, KeyFile, KeyRing, UnknownKey
from .secret import Secret

VERSION: Final = 1
"""AES-256-GCM as described above."""

NONCE: Final = 12
"""Bytes: the size for which GCM is specified without a detour (SP 800-38D section 5.2.1.1)."""

TAG: Final = 16
"""Bytes: GCM's full tag."""

MAX_SECRET: Final = 1 << 16
"""Bytes of a secret; passwords have tens, OAuth tokens up to 4 KiB, certificates' keys a few."""

MAX_FIELD: Final = 64
"""Characters of a field's name."""


class Tampered(Exception):
    """What was stored does not open: altered, cut, or in another's place.  Says which field, nothing of its content."""


@dataclass(frozen=True, slots=True, repr=False)
class Sealed:
    """What to store for one account; all of it may be read by whoever reads the database."""

    data_key: bytes
    """The wrapped data key."""
    fields: Mapping[str, bytes]

    def __repr__(self) -> str:
        return f"Sealed({', '.join(self.fields)})"


@dataclass(frozen=True, slots=True)
class VaultStatistics:
    """What was done, since the vault was made."""

    sealed: int
    opened: int
    rewrapped: int
    failed: int
    """Openings that ended in UnknownKey or Tampered."""


class Vault:
    """Seals and opens under a key ring, or under the ring that a key file holds at the time."""

    def __init__(self, keys: KeyRing | KeyFile) -> None:
        self._keys = keys
        self._sealed = self._opened = self._rewrapped = self._failed = 0

    @property
    def ring(self) -> KeyRing:
        """The ring in use."""
        return self._keys.ring if isinstance(self._keys, KeyFile) else self._keys

    def seal(self, account_id: UUID, fields: Mapping[str, Secret]) -> Sealed:
        """Seal all fields of an account under a fresh data key.

        Raises ValueError for a field's name that is empty or too long, or a secret that is too large or no text.
        """
        data_key = secrets.token_bytes(KEY_SIZE)
        sealed = {}
        for field, secret in fields.items():
            plain = _encoded(secret)
            if len(plain) > MAX_SECRET:
                raise ValueError(f"a secret of more than {MAX_SECRET} bytes is not sealed")
            sealed[field] = _encrypt(data_key, plain, _field_context(account_id, field))
        self._sealed += 1
        return Sealed(self._wrap(account_id, data_key), sealed)

    def open(self, account_id: UUID, field: str, data_key: bytes, sealed: bytes) -> Secret:
        """One field of an account.  Raises UnknownKey, Tampered."""
        try:
            plain = _decrypt(self._unwrap(account_id, data_key), sealed, _field_context(account_id, field), field)
            secret = Secret(plain.decode("utf-8"))
        except UnicodeDecodeError:  # sealed by no code of ours, though under our key
            self._failed += 1
            raise Tampered(f"the field {field!r:.70} does not open") from None
        except (UnknownKey, Tampered):
            self._failed += 1
            raise
        self._opened += 1
        return secret

    def rewrap(self, account_id: UUID, data_key: bytes) -> bytes | None:
        """The data key wrapped under the current key; None when it is already.  Its fields stay as they are.

        Raises UnknownKey, Tampered.
        """
        try:
            if wrapped_under(data_key) == self.ring.current:
                return None
            plain = self._unwrap(account_id, data_key)
        except (UnknownKey, Tampered):
            self._failed += 1
            raise
        self._rewrapped += 1
        return self._wrap(account_id, plain)

    def statistics(self) -> VaultStatistics:
        """What was done so far."""
        return VaultStatistics(self._sealed, self._opened, self._rewrapped, self._failed)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Vault is not pickled")

    def _wrap(self, account_id: UUID, data_key: bytes) -> bytes:
        ring = self.ring
        key_id = ring.current
        box = _encrypt(ring.key(key_id), data_key, _wrap_context(account_id, key_id))
        return bytes([VERSION, len(key_id)]) + key_id.encode("ascii") + box[1:]

    def _unwrap(self, account_id: UUID, wrapped: bytes) -> bytes:
        key_id, box = _parts(wrapped)
        return _decrypt(self.ring.key(key_id), bytes([VERSION]) + box, _wrap_context(account_id, key_id), "data key")


def wrapped_under(data_key: bytes) -> str:
    """The id of the key that wraps a data key; for showing how far a rotation has come.  Raises Tampered."""
    return _parts(data_key)[0]


def _parts(wrapped: bytes) -> tuple[str, bytes]:
    """The id of the wrapping key, and nonce and ciphertext.  Nothing is believed yet: the id is part of the context."""
    size = wrapped[1] if len(wrapped) > 1 else 0
    key_id = wrapped[2 : 2 + size]
    box = wrapped[2 + size :]
    well_formed = 1 <= size <= MAX_ID and len(box) == NONCE + KEY_SIZE + TAG and key_id.isascii()
    if not well_formed or wrapped[0] != VERSION:
        raise Tampered("the data key is not one of ours")
    return key_id.decode("ascii"), box


def _encoded(secret: Secret) -> bytes:
    try:
        return secret.reveal().encode("utf-8")
    except UnicodeEncodeError:  # whose arguments hold the whole secret
        raise ValueError("a secret must be Unicode text, without lone surrogates") from None


def _encrypt(key: bytes, plain: bytes, context: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE)
    return bytes([VERSION]) + nonce + AESGCM(key).encrypt(nonce, plain, context)


def _decrypt(key: bytes, sealed: bytes, context: bytes, name: str) -> bytes:
    if not 1 + NONCE + TAG <= len(sealed) <= 1 + NONCE + MAX_SECRET + TAG or sealed[0] != VERSION:
        raise Tampered(f"the field {name!r:.70} does not open")
    try:
        return AESGCM(key).decrypt(sealed[1 : 1 + NONCE], sealed[1 + NONCE :], context)
    except InvalidTag:
        raise Tampered(f"the field {name!r:.70} does not open") from None


def _field_context(account_id: UUID, field: str) -> bytes:
    if not 1 <= len(field) <= MAX_FIELD:
        raise ValueError(f"a field's name has 1 to {MAX_FIELD} characters")
    return _context(b"field", account_id, field)


def _wrap_context(account_id: UUID, key_id: str) -> bytes:
    return _context(b"data-key", account_id, key_id)


def _context(purpose: bytes, account_id: UUID, name: str) -> bytes:
    """Purpose and version of fixed meaning, the id of fixed size, the name last: no two places share a context."""
    return b"accountsd/" + purpose + b"/" + bytes([VERSION]) + account_id.bytes + name.encode("utf-8")
