"""Pictures of the project, drawn from the project itself: an account's life from its transition table, the house from
the packages' docstrings and imports, the settings and who may do what from their declarations.  Mermaid and Markdown,
which source hosts and most editors render.

What the README shows stands between `<!-- diagram NAME -->` and `<!-- /diagram -->`; a test compares it with what is
drawn here, and `accountsctl diagram NAME --into README.md` brings it up to date.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Final

from daemon.account.states import TRANSITIONS, Event, State

from . import access_table, settings_table

ROOT: Final = Path(__file__).resolve().parent.parent
HOUSE: Final = ("ops", "control_api", "daemon", "supervisor")
_COMPOSER: Final = "daemon/__main__"
_GROUND: Final = frozenset({"daemon", "daemon/settings", "daemon/errors"})
"""Nodes left out of the house: everybody imports them, and a picture of all those arrows shows nothing."""

Graph = dict[str, set[str]]


class NoDiagram(Exception):
    """A file has no place for the picture."""


def states() -> str:
    """The life of an account."""
    everywhere = dict(_everywhere())
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {State.NEW.value}"]
    edges: dict[tuple[State, State], list[str]] = defaultdict(list)
    for (source, event), target in TRANSITIONS.items():
        if event not in everywhere:
            edges[source, target].append(event.value)
    lines += [f"    {a.value} --> {b.value}: {', '.join(events)}" for (a, b), events in edges.items()]
    gathered: dict[tuple[State, frozenset[State]], list[str]] = defaultdict(list)
    for event, (target, missing) in everywhere.items():
        gathered[target, missing].append(event.value)
    for missing in dict.fromkeys(missing for _, missing in gathered):
        words = " but ".join(["any state", *sorted(state.value for state in missing)])
        lines.append(f'    state "{words}" as {words.replace(" ", "_")}')
    for (target, missing), events in gathered.items():
        anywhere = "_".join(["any_state", *(f"but_{state.value}" for state in missing)])
        lines.append(f"    {anywhere} --> {target.value}: {', '.join(events)}")
    lines.append("```")
    for kind in (State, Event):
        docs = _member_docs(kind)
        lines += ["", f"| {kind.__name__.lower()} | |", "| --- | --- |"]
        lines += [f"| `{member.value}` | {docs[member.name]} |" for member in kind]
    return "\n".join(lines) + "\n"


def _everywhere() -> Iterator[tuple[Event, tuple[State, frozenset[State]]]]:
    """Events that lead to one state from all states but one at most: one arrow says it better than six."""
    for event in Event:
        sources = {source: target for (source, of), target in TRANSITIONS.items() if of is event}
        missing = frozenset(State) - frozenset(sources)
        if len(missing) <= 1 and len(set(sources.values())) == 1:
            yield event, (next(iter(sources.values())), missing)


def _member_docs(kind: type[Enum]) -> Mapping[str, str]:
    """The docstrings of an enumeration's members, which only its source knows."""
    tree = ast.parse((ROOT / "daemon/account/states.py").read_text("utf-8"))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    docs: dict[str, str] = {}
    for member, text in itertools.pairwise(body):
        if isinstance(member, ast.Assign) and isinstance(name := member.targets[0], ast.Name):
            assert isinstance(text, ast.Expr)
            assert isinstance(text.value, ast.Constant)
            docs[name.id] = _joined(str(text.value.value))
    return docs


def house() -> str:
    """The packages: who imports whom (shortened: what follows from other arrows is left out), and what each is for."""
    graph = reduced(_imports())
    inner = sorted(node for node in graph if node.startswith("daemon/"))
    lines = ["```mermaid", "flowchart TD", "    subgraph daemon"]
    shown = ((_id(node), node.removeprefix("daemon/").replace("__main__", "__main__.py")) for node in inner)
    lines += [f'        {name}["{label}"]' for name, label in shown]
    lines.append("    end")
    for source in sorted(graph):
        lines += [f"    {_id(source)} --> {_id(target)}" for target in sorted(graph[source])]
    lines += ["```", "", "| package | |", "| --- | --- |"]
    for package in _packages():
        docstring = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text("utf-8"))) or ""
        lines.append(f"| `{package}/` | {_first_sentence(docstring)} |")
    return "\n".join(lines) + "\n"


def reduced(graph: Graph) -> Graph:
    """The same graph without the arrows that follow from others (its transitive reduction); it has no cycles."""

    def reach(node: str, seen: set[str]) -> set[str]:
        for target in graph.get(node, ()):
            if target not in seen:
                seen.add(target)
                reach(target, seen)
        return seen

    behind = {node: reach(node, set()) for node in graph}
    return {
        node: {target for target in targets if not any(target in behind.get(other, ()) for other in targets - {target})}
        for node, targets in graph.items()
    }


def _packages() -> list[str]:
    inner = sorted(f"daemon/{path.parent.name}" for path in (ROOT / "daemon").glob("*/__init__.py"))
    return ["ops", "control_api", "daemon", *inner, "supervisor"]


def _imports() -> Graph:
    """Who imports whom, by packages; files that lie in `daemon` itself are left out but for the composition root."""
    nodes = {*_packages(), _COMPOSER} - _GROUND
    graph: Graph = {node: set() for node in nodes}
    for top in HOUSE:
        for path in sorted((ROOT / top).rglob("*.py")):
            source = _node(path.relative_to(ROOT).with_suffix("").parts)
            if source in nodes:
                graph[source] |= {target for name in _imported(path) if (target := _node(name)) in nodes} - {source}
    return graph


def _imported(path: Path) -> Iterator[tuple[str, ...]]:
    """The modules a file imports, absolute, as parts of their names."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module or "").split(".")) if node.module else base
            yield from ((*module, alias.name) for alias in node.names)


def _node(parts: tuple[str, ...]) -> str:
    """The node of the picture that a module belongs to."""
    return "/".join(parts[:2]) if parts[0] == "daemon" and len(parts) > 1 else parts[0]


def _id(node: str) -> str:
    return node.replace("/", "_").replace("__", "_").strip("_")


def _first_sentence(text: str) -> str:
    paragraph = _joined(text.partition("\n\n")[0])
    return re.split(r"(?<=\.)\s", paragraph, maxsplit=1)[0]


def _joined(text: str) -> str:
    return " ".join(text.split())


DIAGRAMS: Final = {"states": states, "house": house, "settings": settings_table.table, "access": access_table.table}
"""Whatever the README shows that is made from the code."""


def put_into(text: str, name: str, drawn: str) -> str:
    """A document with what is drawn between its markers.

    Raises:
        NoDiagram: it has no such markers.
    """
    replaced, count = _place(name).subn(lambda found: found[1] + drawn + found[3], text)
    if not count:
        raise NoDiagram(_missing(name))
    return replaced


def shown_in(text: str, name: str) -> str:
    """What a document shows between its markers.

    Raises:
        NoDiagram: it has no such markers.
    """
    found = _place(name).search(text)
    if found is None:
        raise NoDiagram(_missing(name))
    return found[2]


def _missing(name: str) -> str:
    return f"it has no place for the picture: a line <!-- diagram {name} --> and a line <!-- /diagram -->"


def _place(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- diagram {re.escape(name)} -->\n)(.*?)(<!-- /diagram -->)", re.DOTALL)
