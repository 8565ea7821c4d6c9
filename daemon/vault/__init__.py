"""Credentials at rest: sealed under a key of each account, which a key ring outside the database wraps.

`secret` is a value that never prints, `keyring` reads and makes the key file, `vault` seals, opens and rewraps.
"""

from .keyring import KeyFile, KeyFileError, KeyRing, UnknownKey, generate_key_file, new_line
from .secret import Secret
from .vault import Sealed, Tampered, Vault, VaultStatistics, wrapped_under

__all__ = [
    "KeyFile",
    "KeyFileError",
    "KeyRing",
    "Sealed",
    "Secret",
    "Tampered",
    "UnknownKey",
    "Vault",
    "VaultStatistics",
    "generate_key_file",
    "new_line",
    "wrapped_under",
]
