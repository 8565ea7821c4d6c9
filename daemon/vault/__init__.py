"""Credentials sealed at rest: `secret` never prints, `keyring` reads the keys, `vault` seals and opens."""

from .keyring import KeyFileError, KeyRing, generate_key_file
from .secret import Secret
from .vault import Sealed, Tampered, UnknownKey, Vault, VaultError

__all__ = [
    "KeyFileError",
    "KeyRing",
    "Sealed",
    "Secret",
    "Tampered",
    "UnknownKey",
    "Vault",
    "VaultError",
    "generate_key_file",
]
