"""Shapes: what the copy of the contract says that a document is, and how one differs from it.

    "uuid"  "rfc3339?"  "a | b"  "= true"  "@account"      a value; one that may be null; words; a constant; a document
    ["@account"]  {"*": "string"}                          a list; an object with any names
    {"id": "uuid", "+access": "owner | member"}            an object with exactly these names; + marks what is ours

Types are strict: true is no number, an empty text no name.  A field that is missing, one that is too many and one of
another type are each told in a line, with its path in the document.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Shape = Any
"""A text, a list of one shape, or an object of shapes: JSON as it is read."""

Documents = Mapping[str, Shape]
"""The named objects that `@` speaks of."""


def _matches(expression: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(expression, value) is not None


def _whole(least: int, most: int | None = None) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        return type(value) is int and value >= least and (most is None or value <= most)

    return check


TYPES: Mapping[str, tuple[Callable[[Any], bool], Mapping[str, str]]] = {
    # RFC 9562 section 4, in lower case as it is to be written; RFC 3339 in UTC to the second (contract, section 0).
    "uuid": (_matches(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), {"type": "string", "format": "uuid"}),
    "rfc3339": (
        _matches(r"\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\dZ"),
        {"type": "string", "format": "date-time"},
    ),
    "email": (_matches(r"[^@\s]+@[^@\s]+"), {"type": "string"}),
    "host": (_matches(r"[\w.:-]+"), {"type": "string"}),
    "string": (_matches(r"(?s).+"), {"type": "string"}),
    "sentence": (_matches(r"\S[^\r\n]*[.!?]"), {"type": "string"}),
    "code": (_matches(r"[a-z][a-z0-9_]*"), {"type": "string"}),
    "invitation": (_matches(r"inv_[0-9A-Za-z]{8,}"), {"type": "string"}),
    "boolean": (lambda value: isinstance(value, bool), {"type": "boolean"}),
    "count": (_whole(0), {"type": "integer"}),
    "seconds": (_whole(1), {"type": "integer"}),
    "port": (_whole(1, 65535), {"type": "integer"}),
    "score": (_whole(0, 100), {"type": "integer"}),
    "anything": (lambda _: True, {}),
}
"""By name: whether a value is one, and what a JSON schema says of it."""

CONSTANTS: Mapping[str, object] = {"true": True, "false": False}
"""What `=` may be followed by besides a word."""


class NoShape(Exception):
    """The copy says something that this cannot read."""


def split(text: str) -> tuple[str, bool]:
    """What a text says without its last sign, and whether null may stand there."""
    return text.removesuffix("?"), text.endswith("?")


def words(text: str) -> list[str]:
    """The words of a choice."""
    return [word.strip() for word in text.split("|")]


def constant(text: str) -> object:
    """What stands behind a `=`."""
    named = text.removeprefix("=").strip()
    return CONSTANTS.get(named, named)


def field(name: str) -> str:
    """A field's name without its marks."""
    return name.removeprefix("+").removesuffix("*")


def resolve(text: str, documents: Documents) -> Shape:
    """The document of a name.

    Raises:
        NoShape: there is none.
    """
    try:
        return documents[text.removeprefix("@")]
    except KeyError:
        raise NoShape(f"there is no document {text}") from None


def differences(shape: Shape, value: Any, documents: Documents, at: str = "it") -> list[str]:
    """How a value differs from what it should be, a line each; empty when it does not.

    Raises:
        NoShape: the shape is none.
    """
    return list(_differences(shape, value, documents, at))


def _differences(shape: Shape, value: Any, documents: Documents, at: str) -> Iterator[str]:
    match shape:
        case str():
            yield from _of_text(shape, value, documents, at)
        case [inner]:
            if not isinstance(value, list):
                yield f"{at} is {value!r}, and should be a list"
                return
            for number, member in enumerate(value):
                yield from _differences(inner, member, documents, f"{at}[{number}]")
        case {"*": inner} if len(shape) == 1:
            if not isinstance(value, dict):
                yield f"{at} is {value!r}, and should be an object"
                return
            for name, member in value.items():
                yield from _differences(inner, member, documents, f"{at}.{name}")
        case dict():
            yield from _of_object(shape, value, documents, at)
        case _:
            raise NoShape(f"{shape!r} is no shape")


def _of_text(text: str, value: Any, documents: Documents, at: str) -> Iterator[str]:
    named, nullable = split(text)
    if value is None and nullable:
        return
    if named.startswith("@"):
        yield from _differences(resolve(named, documents), value, documents, at)
    elif named.startswith("="):
        wanted = constant(named)
        if type(value) is not type(wanted) or value != wanted:
            yield f"{at} is {value!r}, and should be {wanted!r}"
    elif "|" in named:
        if value not in words(named):
            yield f"{at} is {value!r}, and should be one of {named}"
    elif named not in TYPES:
        raise NoShape(f"there is no type {named!r}")
    elif not TYPES[named][0](value):
        yield f"{at} is {value!r}, and should be {text}"


def _of_object(shape: Mapping[str, Shape], value: Any, documents: Documents, at: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{at} is {value!r}, and should be an object"
        return
    fields = {field(name): inner for name, inner in shape.items()}
    for name in fields.keys() - value.keys():
        yield f"{at}.{name} is missing"
    for name in value.keys() - fields.keys():
        yield f"{at}.{name} is {value[name]!r}, and nobody said that it would be there"
    for name in fields.keys() & value.keys():
        yield from _differences(fields[name], value[name], documents, f"{at}.{name}")
