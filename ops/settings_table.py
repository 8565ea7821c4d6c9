"""The table of all settings, made from their declarations: keys, defaults, and the words that stand below them."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from daemon import settings as declarations
from daemon.settings import PREFIX, PlanSettings, Settings

_WORDS: Final[Mapping[str, str]] = {
    "api.bind": "Where the API listens; put your TLS proxy in front of it.",
    "operations.bind": "Where metrics and health are; whoever reaches it may read them.",
    "auth.mode": "`hs256`: one secret, shared with the issuer. `jwks`: the issuer's published keys.",
    "auth.secret": "The HS256 secret itself, 32 bytes or more.",
    "auth.secret_file": "A file with it. By default `session-secret` in the state directory, made at the first start.",
    "network.ports": "Ports of mail servers that may be connected.",
    "fleet.max_accounts": "Accounts this node runs at most.",
    "sync.retry_longest": "The longest pause between attempts.",
    "plans.<slug>.accounts": "Accounts a user of this plan may connect; without any plan there is no limit.",
    "logs.level": "`debug`, `info`, `warning` or `error`.",
    "logs.format": "`json`, `text`, or `auto`: text on a terminal, JSON otherwise.",
}
"""What the key's name and its section say already in the code, and a reader of the table wants said."""


def table() -> str:
    """All settings as a Markdown table."""
    lines = ["| setting | default | |", "| --- | --- | --- |"]
    lines += [f"| `{key}` | {_default(value)} | {words} |" for key, value, words in rows()]
    lines += ["", f"In the environment `section.key` is `{PREFIX}SECTION__KEY`, and lists are separated by commas."]
    return "\n".join(lines) + "\n"


def rows() -> Iterator[tuple[str, Any, str]]:
    """Key, default and words of every setting.

    Raises:
        KeyError: a setting that is explained nowhere.
    """
    docs = _docs()
    for section, field in Settings.model_fields.items():
        if section == "plans":
            for name in PlanSettings.model_fields:
                yield f"plans.<slug>.{name}", None, _WORDS[f"plans.<slug>.{name}"]
            continue
        model = field.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        for name, inner in model.model_fields.items():
            key = f"{section}.{name}"
            yield key, inner.get_default(call_default_factory=False), _WORDS.get(key) or docs[model.__name__, name]


def _docs() -> dict[tuple[str, str], str]:
    """The docstrings of the fields, which only the source knows."""
    found: dict[tuple[str, str], str] = {}
    for node in ast.parse(Path(declarations.__file__).read_text("utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for field, text in itertools.pairwise(node.body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[node.name, field.target.id] = " ".join(str(text.value.value).split())
    return found


def _default(value: object) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value in (None, "", (), frozenset()):
        return ""
    if isinstance(value, frozenset | tuple):
        return "`" + ", ".join(str(item) for item in sorted(value)) + "`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
