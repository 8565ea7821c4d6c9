"""A value that never prints: not in a log, a traceback, a repr or a JSON document."""

from __future__ import annotations

import hmac
from typing import Final, NoReturn


class Secret:
    """Holds a password or key; only `reveal()` gives it out, at the one place that needs it."""

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value: Final = value

    def reveal(self) -> str:
        """The secret itself."""
        return self.__value

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "<secret>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self.__value.encode(), other.reveal().encode())

    __hash__ = None  # type: ignore[assignment]  # unhashable on purpose: a hash of a short secret tells it

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")
