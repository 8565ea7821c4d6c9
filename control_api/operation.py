"""One operation of the API, declared once: its route, its body, its answer, its refusals, its words.

`app` registers, authenticates, validates and serialises by these declarations, and `openapi` writes the document from
them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from daemon.identity import User

from .schemas import BodyT

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated, validated call of an operation."""

    user: User
    ids: Mapping[str, UUID] = field(default_factory=dict)
    """The path's parameters; all ids in paths are UUIDs."""
    body: BaseModel | None = field(default=None, repr=False)

    def body_as(self, model: type[BodyT]) -> BodyT:
        """The body, as the model the operation declares."""
        if not isinstance(self.body, model):
            raise TypeError(f"the operation declares no body {model.__name__}")
        return self.body


@dataclass(frozen=True, slots=True)
class Operation:
    """A declaration; `name` is the OpenAPI operationId."""

    method: Method
    path: str
    """As OpenAPI writes it: `/mail/accounts/{account_id}`."""
    name: str
    summary: str
    tag: str
    handle: Callable[[Call], Awaitable[BaseModel | bytes]]
    """Gives the answer, or its JSON document where that is kept made."""
    answer: type[BaseModel]
    body: type[BaseModel] | None = None
    body_required: bool = True
    refusals: Mapping[int, str] = field(default_factory=dict)
    """When which status; those every operation shares are `openapi`'s to add."""
    description: str = ""

    @property
    def rule(self) -> str:
        """The path as the router reads it: what is no UUID matches nothing, and is 404."""
        return self.path.replace("{", "<uuid:").replace("}", ">")
