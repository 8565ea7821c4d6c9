"""The fields of documents in one form, whether the copy tells them or the OpenAPI document does; and how two differ.

A form is a dictionary: `fields` and `required` of an object, `list` or `map` of what is inside, `enum`, `const`, or
`type` and `format` of a value; `null` where that may stand there, too.  Bounds and descriptions are not compared.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.contract.shapes import TYPES, Documents, NoShape, Shape, constant, field, resolve, split, words

Form = dict[str, Any]

FORMATS = frozenset({"uuid", "date-time"})
"""Those that are part of a type; others (`password`) tell a reader how to show it."""


def of_copy(shape: Shape, documents: Documents, *, body: bool = False) -> Form:
    """The form of a shape.  In a body only what has a star is required, elsewhere everything is.

    Raises:
        NoShape: it is none.
    """
    match shape:
        case str():
            return _of_text(shape, documents)
        case [inner]:
            return {"list": of_copy(inner, documents)}
        case {"*": inner} if len(shape) == 1:
            return {"map": of_copy(inner, documents)}
        case dict():
            return {
                "fields": {field(name): of_copy(inner, documents) for name, inner in shape.items()},
                "required": sorted(field(name) for name in shape if not body or name.endswith("*")),
            }
        case _:
            raise NoShape(f"{shape!r} is no shape")


def _of_text(text: str, documents: Documents) -> Form:
    named, nullable = split(text)
    if named.startswith("@"):
        form = of_copy(resolve(named, documents), documents)
    elif named.startswith("="):
        form = {"const": constant(named)}
    elif "|" in named:
        form = {"enum": sorted(words(named))}
    else:
        form = dict(TYPES[named][1])
    return {**form, "null": True} if nullable else form


def of_schema(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Form:
    """The form of a JSON schema; *schemas* are those that it may refer to."""
    if "$ref" in schema:
        return of_schema(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "anyOf" in schema:
        given = [inner for inner in schema["anyOf"] if inner != {"type": "null"}]
        (inner,) = given
        return of_schema(inner, schemas) | ({"null": True} if len(given) < len(schema["anyOf"]) else {})
    if "const" in schema:
        return {"const": schema["const"]}
    if "enum" in schema:
        return {"enum": sorted(schema["enum"])}
    match schema.get("type"):
        case "array":
            return {"list": of_schema(schema["items"], schemas)}
        case "object" if "properties" not in schema:
            inner = schema["additionalProperties"]
            return {"map": {} if inner is True else of_schema(inner, schemas)}
        case "object":
            return {
                "fields": {name: of_schema(inner, schemas) for name, inner in schema["properties"].items()},
                "required": sorted(schema.get("required", ())),
            }
    known = {"type": schema.get("type"), "format": schema.get("format")}
    return {name: value for name, value in known.items() if value and (name == "type" or value in FORMATS)}


def unlike(copy: Form, told: Form, at: str = "it") -> Iterator[str]:
    """How what is told differs from the copy, a line each."""
    for name in sorted(copy.keys() | told.keys()):
        mine, other = copy.get(name), told.get(name)
        if mine == other:
            continue
        if name == "fields" and mine is not None and other is not None:
            for key in sorted(mine.keys() | other.keys()):
                if key not in other:
                    yield f"{at}.{key} is not in the document"
                elif key not in mine:
                    yield f"{at}.{key} is in the document alone"
                else:
                    yield from unlike(mine[key], other[key], f"{at}.{key}")
        elif name in {"list", "map"} and mine is not None and other is not None:
            yield from unlike(mine, other, f"{at}[]")
        else:
            yield f"{at}: {name} is {mine!r} in the copy and {other!r} in the document"
