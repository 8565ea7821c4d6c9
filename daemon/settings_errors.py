"""What is wrong with a setting, as one sentence that names the key and shows its value, unless that is a secret.

pydantic reports the first of what it found with a place and words of its own; here the place becomes the key as it is
written in a file, and the words become ours.  Of a value that is shown, what may be a password in a URL is masked; the
values of whole sections are never shown, for secrets are among them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

MAX_SHOWN: Final = 200
"""Characters of a value in a sentence."""

_SECRET_KEYS: Final = frozenset({("auth", "secret"), ("storage", "dsn")})
_WORD: Final = re.compile(r"""[^\s'"]+""")  # one pass, however long the value

_NOTHING: Final = "(not given)"
_NUMBER: Final = "must be a number"
_WHOLE: Final = "must be a whole number"
_SECTION: Final = "must be a section"
_LIST: Final = "must be a list"
_NETWORKS: Final = "must hold networks such as 10.0.0.0/8 or fd00::/8"
_WORDS: Final[Mapping[str, str]] = {
    "dict_type": _SECTION,
    "finite_number": _NUMBER,
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "frozen_set_type": _LIST,
    "int_from_float": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_type": _WHOLE,
    "ip_v4_network": _NETWORKS,
    "ip_v6_network": _NETWORKS,
    "model_type": _SECTION,
    "path_type": "must be a path",
    "string_pattern_mismatch": "must have small letters, digits, - and _ only, 63 at most",
    "string_type": "must be a text",
    "tuple_type": _LIST,
}


class SettingsError(Exception):
    """A setting that cannot be used: one sentence naming the key and its value (`***` where that is secret)."""


def sentence(exc: ValidationError, values: Mapping[str, Any]) -> str:
    """The first error as a sentence."""
    error = exc.errors(include_url=False, include_context=False, include_input=False)[0]
    location = _place(error["loc"])
    key = ".".join(location)
    message = _WORDS.get(error["type"]) or _ours(error["msg"])
    if error["type"] == "extra_forbidden":
        return f"the setting {key} is unknown"
    if error["type"] == "missing":
        return f"the setting {key} is missing"
    if error["type"] == "value_error" and len(location) < 2:  # a rule over several keys names the one it is about
        subject = tuple(message.split(" ", 1)[0].split("."))
        shown = _shown(subject, values)
        return f"the setting {message} {shown if shown == _NOTHING else f'(value: {shown})'}"
    if len(location) < 2:
        return f"the setting {key} is wrong: it {message}"
    return f"the setting {key} = {_shown(location, values)} is wrong: {message}"


def _place(location: tuple[int | str, ...]) -> tuple[str, ...]:
    """The key's parts; what follows an index, or names a branch of a union, says nothing to a person."""
    parts: list[str] = []
    for part in location:
        if isinstance(part, int):
            break
        if part != "[key]":
            parts.append(part)
    return tuple(parts)


def _ours(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message.replace("Input should be", "must be").replace("String should", "must").replace("Input", "it")


def _shown(location: tuple[str, ...], values: Mapping[str, Any]) -> str:
    if location[:2] in _SECRET_KEYS:
        return "***"
    value: object = values
    for part in location:
        value = value.get(part) if isinstance(value, Mapping) else value
    if value is None:
        return _NOTHING
    if isinstance(value, Mapping):
        return "(a section)"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, lists within lists
        return "(too large to show)"
    text = _WORD.sub(_masked, text)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _masked(word: re.Match[str]) -> str:
    """Up to the last @: a password may hold any sign, and in a setting that takes no password nothing is lost."""
    before, at, after = word[0].rpartition("@")
    scheme, separator, _ = before.partition("://")
    return f"{scheme}{separator}***@{after}" if separator else f"***@{after}" if at else after
