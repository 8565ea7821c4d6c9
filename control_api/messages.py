"""What is wrong with a member of a body, as a plain sentence: pydantic's words are for programmers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_SENTENCES: Final[Mapping[str, str]] = {
    "missing": "This is required.",
    "string_type": "This must be a text.",
    "string_unicode": "This must be a text.",
    "int_type": "This must be a whole number.",
    "int_from_float": "This must be a whole number.",
    "int_parsing": "This must be a whole number.",
    "int_parsing_size": "This must be a whole number.",
    "greater_than_equal": "This must be at least {ge}.",
    "less_than_equal": "This must be at most {le}.",
    "string_too_long": "This must have at most {max_length} characters.",
    "too_long": "This must have at most {max_length} characters.",
    "enum": "This must be {expected}.",
    "literal_error": "This must be {expected}.",
    "bool_type": "This must be true or false.",
    "uuid_type": "This must be a UUID.",
    "uuid_parsing": "This must be a UUID.",
}
_SHORT: Final = frozenset({"string_too_short", "too_short"})


def plain(kind: str, message: str, context: Mapping[str, Any]) -> str:
    """The sentence for an error of pydantic's.

    Args:
        kind: its type; `wrong` is our own validators', whose message is a sentence already.
        message: its message.
        context: its limits, which are the model's; of what was sent nothing is repeated.
    """
    if kind == "wrong":
        return message
    if kind in _SHORT:
        least = context.get("min_length")
        return "This must not be empty." if least == 1 else f"This must have at least {least} characters."
    return _SENTENCES.get(kind, "This is not valid.").format_map(context)
