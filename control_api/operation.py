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
from daemon.identity.rates import Told, untold
from daemon.sharing.rules import Act, Reply
from daemon.sharing.views import Caller

from .schemas import BodyT

MAX_WORD = 255
"""Characters of an id that is no UUID: users', invitations' and campaigns' have at most as many."""

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

Demand = Act | Reply
"""What a caller must be allowed to do with the account, or say to the invitation, that a call names."""


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated, validated call of an operation."""

    caller: Caller
    ids: Mapping[str, UUID] = field(default_factory=dict)
    """The path's ids of accounts."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Its other parameters."""
    body: BaseModel | None = field(default=None, repr=False)
    query: Mapping[str, str] = field(default_factory=dict)
    """The query's parameters that the operation declares, as they came; the last of several."""
    told: Told = field(default=untold, repr=False)
    """Tells the caller how they stand to a rate, whatever the answer will be."""

    @property
    def user(self) -> User:
        """Who calls."""
        return self.caller.user

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
    act: Demand | None = None
    """What a caller must be allowed to do; None: what is one's own anyway, for which a session is enough."""
    also: Mapping[str, Demand] = field(default_factory=dict)
    """What it is where something else is asked for: in which case, in words, what."""
    body: type[BaseModel] | None = None
    body_required: bool = True
    query: Mapping[str, str] = field(default_factory=dict)
    """Names and meanings of parameters of the query; all are optional numbers."""
    limited: bool = False
    """Whether a rate is counted, and told in headers."""
    refusals: Mapping[int, str] = field(default_factory=dict)
    """When which status; those every operation shares are `openapi`'s to add."""
    description: str = ""

    @property
    def rule(self) -> str:
        """The path as the router reads it: an account's id that is no UUID matches nothing, and is 404.

        A user's id may hold anything, a slash too (`path`); what is longer than an id may be is nobody's.
        """
        rule = self.path.replace("{account_id}", "<uuid:account_id>").replace("{user_id}", "<path:user_id>")
        return rule.replace("{", f"<string(maxlength={MAX_WORD}):").replace("}", ">")
