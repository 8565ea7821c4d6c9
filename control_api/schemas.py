"""What callers may send: strict models, whose errors never repeat a value.

Strict means that JSON types are meant as written: a port is a number, not "993" and not true.  Unknown members are
ignored where the product's own clients call, for they send more than we need; they are refused (`OwnBodyModel`) where
what is misspelt would silently not be changed.  Every text is bounded, and none may hold a control character: they have
no place in a name, and in a user name or password they could end a line of a mail protocol.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Final, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from daemon.account.views import ConnectRequest
from daemon.identity.users import MAX_EMAIL
from daemon.network import Endpoint, InvalidHost, Security, canonical_host, default_security
from daemon.network.endpoint import MAX_HOST
from daemon.vault.secret import Secret

from .errors import InvalidBody
from .messages import plain

BodyT = TypeVar("BodyT", bound=BaseModel)

MAX_NAME: Final = 200
"""Characters of an account's name."""

MAX_USERNAME: Final = 320
"""Characters of a user name: an address at its longest by RFC 3696's often quoted 64 + 1 + 255."""

MAX_PASSWORD: Final = 1024
"""Characters of a password; RFC 4954 section 4 lets a SASL response be 12,288 octets, and no provider nears this."""

MAX_ERRORS: Final = 20
"""Validation errors reported of one body; our models have at most a dozen fields."""

_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_MAX_LOCAL = 64  # RFC 5321 section 4.5.3.1.1


def wrong(message: str) -> PydanticCustomError:
    """The error of a validator, with a sentence for the caller."""
    return PydanticCustomError("wrong", "{message}", {"message": message})


def _email(text: str) -> str:
    """A dot-atom at a domain (RFC 5322 section 3.4.1); the quoted and bracketed forms no mailbox in use has."""
    local, at, domain = text.rpartition("@")
    if not at or len(local) > _MAX_LOCAL or not _LOCAL_PART.fullmatch(local):
        raise wrong("This is not an email address.")
    try:
        canonical_host(domain)
    except InvalidHost:
        raise wrong("This is not an email address: its domain is not valid.") from None
    return text


def _host(text: str) -> str:
    try:
        return canonical_host(text)
    except InvalidHost as exc:
        raise wrong(str(exc)) from None


def no_controls(text: str) -> str:
    """*text*, if it has no place where a line could end."""
    # Cc: controls, C1 included.  Cs: lone surrogates.  Zl, Zp: line and paragraph separators.
    if any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} for char in text):
        raise wrong("This must not hold control characters.")
    return text


def _one_line(secret: SecretStr) -> SecretStr:
    if any(char in "\0\r\n" or "\ud800" <= char <= "\udfff" for char in secret.get_secret_value()):
        raise wrong("This must not hold line breaks or NUL.")
    return secret


Email = Annotated[
    str,
    Field(min_length=3, max_length=MAX_EMAIL, examples=["you@example.com"]),
    AfterValidator(_email),
]
Name = Annotated[str, Field(max_length=MAX_NAME), AfterValidator(no_controls)]
Host = Annotated[str, Field(min_length=1, max_length=MAX_HOST, examples=["imap.example.com"]), AfterValidator(_host)]
Port = Annotated[int, Field(ge=1, le=65535)]
Username = Annotated[str, Field(min_length=1, max_length=MAX_USERNAME), AfterValidator(no_controls)]
Password = Annotated[
    SecretStr,
    Field(min_length=1, max_length=MAX_PASSWORD),
    AfterValidator(_one_line),
    WithJsonSchema(
        {"type": "string", "format": "password", "writeOnly": True, "minLength": 1, "maxLength": MAX_PASSWORD}
    ),
]


class BodyModel(BaseModel):
    """What all bodies have in common."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", hide_input_in_errors=True)


class OwnBodyModel(BodyModel):
    """Bodies of operations that are ours alone: what is not known is misspelt."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True)


class ConnectBody(BodyModel):
    """A mailbox to connect. Both servers are asked to accept the credentials before anything is saved."""

    email: Email
    name: Name | None = Field(default=None, description="What to call the account; the email by default.")
    imap_host: Host
    imap_port: Port = Field(examples=[993], description="993 (TLS) or 143 (STARTTLS).")
    imap_security: Security | None = Field(default=None, description="By default what the port implies.")
    smtp_host: Host
    smtp_port: Port = Field(examples=[587], description="587 (STARTTLS) or 465 (TLS).")
    smtp_security: Security | None = Field(default=None, description="By default what the port implies.")
    username: Username
    password: Password

    def to_request(self) -> ConnectRequest:
        """The same in the daemon's words."""
        return ConnectRequest(
            email=self.email,
            name=(self.name or "").strip() or None,
            imap=_endpoint(self.imap_host, self.imap_port, self.imap_security),
            smtp=_endpoint(self.smtp_host, self.smtp_port, self.smtp_security),
            username=self.username,
            password=Secret(self.password.get_secret_value()),
        )


class SyncBody(BodyModel):
    """Which account to synchronise."""

    account_id: UUID | None = Field(default=None, description="The default account when omitted.")


def _endpoint(host: str, port: int, security: Security | None) -> Endpoint:
    return Endpoint(host, port, security or default_security(port))


def parse_body(model: type[BodyT], data: bytes) -> BodyT:
    """The body as the model says.

    Raises:
        InvalidBody: not UTF-8, not JSON, or not what the model asks for.
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as exc:
        fields: dict[str, list[str]] = {}
        form: list[str] = []
        for error in exc.errors(include_url=False, include_input=False)[:MAX_ERRORS]:
            if error["type"] == "extra_forbidden":  # its name is the caller's own word, and not repeated
                if not form:
                    form.append(f"There are unknown fields; known are {', '.join(model.model_fields)}.")
            elif error["loc"]:  # its first part is a field of ours
                sentence = plain(error["type"], error["msg"], error.get("ctx", {}))
                fields.setdefault(str(error["loc"][0]), []).append(sentence)
            elif error["type"] == "wrong":  # of the body as a whole
                form.append(error["msg"])
            elif error["type"] == "json_invalid":
                form.append("The body is not valid JSON.")  # pydantic's own message would quote from it
            else:
                form.append("The body must be a JSON object.")
        raise InvalidBody(fields, form) from None
