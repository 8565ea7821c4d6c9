"""The daemon's settings: one TOML file, then the environment, then systemd credentials.

Every key `[section] key` is also `ACCOUNTSD_SECTION__KEY`; the environment wins over the file.  A secret may come as
`auth.secret`, as a file, or as a systemd credential (`$CREDENTIALS_DIRECTORY/auth-secret`, `vault-keys`,
`storage-dsn`).  All values are read once, before anything starts: a wrong one is one sentence naming the key and the
value, and nothing has been started.  A secret's value is shown as `***`.
"""

from __future__ import annotations

import ipaddress
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

PREFIX = "ACCOUNTSD_"
SECONDS = 1.0
MINUTES = 60 * SECONDS

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_SECRET_KEYS = frozenset({("auth", "secret"), ("storage", "dsn")})
_CREDENTIALS = {"auth-secret": ("auth", "secret_file"), "vault-keys": ("vault", "key_file")}
_MAX_FILE = 1 << 20  # bytes; systemd allows credentials of 1 MiB, and no sensible settings file is larger


class SettingsError(Exception):
    """A setting that cannot be used: one sentence naming the key and its value (`***` where that is secret)."""


def _items(value: object) -> object:
    """A list may be written as TOML or JSON, or comma-separated in the environment."""
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            return json.loads(text)
        return [item.strip() for item in text.split(",") if item.strip()]
    return value


def _bind(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not port.isascii() or not port.isdigit() or not 0 <= int(port) <= 65535 or not host:
        raise ValueError("must be address:port, such as 127.0.0.1:8025 or [::1]:8025")
    ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    return value


def _nameserver(value: str) -> str:
    host, colon, port = value.rpartition(":")
    try:
        ipaddress.ip_address(value)
    except ValueError:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        if not colon or not port.isdigit() or not 1 <= int(port) <= 65535:
            raise ValueError("must be an address, or address:port") from None
    return value


Bind = Annotated[str, AfterValidator(_bind)]
Networks = Annotated[tuple[IPNetwork, ...], BeforeValidator(_items)]
Ports = Annotated[frozenset[Annotated[int, Field(ge=1, le=65535)]], BeforeValidator(_items)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_items)]
NameServers = Annotated[tuple[Annotated[str, AfterValidator(_nameserver)], ...], BeforeValidator(_items)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ApiSettings(_Section):
    """The public listener."""

    bind: Bind = "127.0.0.1:8025"
    trusted_proxies: Networks = ()
    """Whose X-Forwarded-For is believed."""
    max_body: int = Field(default=1 << 20, ge=1024, le=64 << 20)
    """Bytes of a request's body; the largest of this version's bodies is a few hundred bytes."""
    handler_timeout: float = Field(default=75 * SECONDS, gt=0, le=600)
    """Longest a handler may run, seconds: connecting verifies IMAP and then SMTP, each with 30 s."""
    max_requests: int = Field(default=256, ge=1, le=100_000)
    """Requests under way at once; more are answered 503 at once."""


class OperationsSettings(_Section):
    """The operator's listener: metrics and health."""

    bind: Bind = "127.0.0.1:8026"


class StorageSettings(_Section):
    """Where the data is."""

    dsn: SecretStr = SecretStr("")
    """A PostgreSQL connection string; empty means the embedded server."""
    directory: Path | None = None
    """The state directory: embedded database, generated keys."""
    connections: int = Field(default=8, ge=2, le=200)
    """Pool size of one node."""


class AuthSettings(_Section):
    """How session tokens are verified: one mode, never a fallback between them."""

    mode: Literal["hs256", "jwks"] = "hs256"
    secret: SecretStr | None = None
    secret_file: Path | None = None
    issuer: str = Field(default="", max_length=2048)
    """The exact `iss` of a token; required with `jwks`; `accountsd` for a local set-up."""
    jwks_url: str = Field(default="", max_length=2048)
    """Default: the issuer + `/.well-known/jwks.json`."""
    origins: Texts = ()
    """Browser origins that may call us across sites."""
    default_plan: str = Field(default="free", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    """The plan of a token that names none, or one that is not configured."""

    @model_validator(mode="after")
    def _whole(self) -> AuthSettings:
        if self.mode == "jwks":
            if not self.issuer:
                raise ValueError("auth.issuer is required when auth.mode is jwks")
            if not (self.jwks_url or self.issuer).startswith(("https://", "http://")):
                raise ValueError("auth.jwks_url must be an http(s) URL")
        for origin in self.origins:
            scheme, separator, rest = origin.partition("://")
            if scheme not in {"http", "https"} or not separator or not rest or "/" in rest:
                raise ValueError("auth.origins must hold origins such as https://app.example.com")
        if self.secret is not None and len(self.secret.get_secret_value().encode()) < 32:
            raise ValueError("auth.secret must have at least 32 bytes (RFC 7518 section 3.2)")
        return self


class VaultSettings(_Section):
    """The key ring that seals credentials."""

    key_file: Path | None = None
    """Default: `vault-keys` in the state directory, made at the first start."""


class NetworkSettings(_Section):
    """What outbound connections to mail servers may reach."""

    allow: Networks = ()
    """Networks beyond the public internet."""
    ports: Ports = frozenset({25, 143, 465, 587, 993, 2525})
    ca_file: Path | None = None
    """Certificates trusted besides the system's."""
    nameservers: NameServers = ()
    """Empty: the system's resolver."""


class FleetSettings(_Section):
    """How many accounts this node runs, and how nodes share them."""

    claim_ttl: float = Field(default=30 * SECONDS, ge=3, le=600)
    """A node not heard for so many seconds loses its accounts."""
    max_accounts: int = Field(default=10_000, ge=1, le=100_000)
    starting: int = Field(default=40, ge=1, le=1000)
    """Accounts that may be connecting at once; 40 keeps two cores busy with TLS handshakes."""
    starting_per_host: int = Field(default=10, ge=1, le=1000)
    """Of those, at one host: below every published limit of connections (Gmail 15, Exchange 16)."""
    first_syncs: int = Field(default=4, ge=1, le=1000)
    """Accounts that fetch in bulk at once, taking turns: each may hold two batches of bodies in memory."""


class SyncSettings(_Section):
    """How a folder is brought up to date."""

    window: int = Field(default=500, ge=1, le=5000)
    """Messages a transaction; measured flat from 50 upwards on loopback, best at 500 with a round trip of 50 ms."""
    max_body: int = Field(default=50 << 20, ge=1 << 10, le=1 << 30)
    """Bytes; larger bodies are not fetched during the sync."""
    idle_renewal: float = Field(default=9 * MINUTES, ge=1, le=29 * MINUTES)
    """RFC 2177 allows 29 minutes; NAT devices forget a silent connection sooner."""
    poll: float = Field(default=2 * MINUTES, ge=1, le=60 * MINUTES)
    """How often to look where the server has no IDLE."""
    retry_first: float = Field(default=2 * SECONDS, ge=0.05, le=600)
    """First pause after a lost connection; doubles up to `retry_longest`."""
    retry_longest: float = Field(default=10 * MINUTES, ge=1, le=3600)


class PlanSettings(_Section):
    """What a plan allows."""

    accounts: int = Field(ge=0, le=1_000_000)


class LogSettings(_Section):
    """The log on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"
    """auto: text on a terminal, JSON otherwise."""


class Settings(_Section):
    """All settings; every section has usable defaults."""

    api: ApiSettings = ApiSettings()
    operations: OperationsSettings = OperationsSettings()
    storage: StorageSettings = StorageSettings()
    auth: AuthSettings = AuthSettings()
    vault: VaultSettings = VaultSettings()
    network: NetworkSettings = NetworkSettings()
    fleet: FleetSettings = FleetSettings()
    sync: SyncSettings = SyncSettings()
    logs: LogSettings = LogSettings()
    plans: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")], PlanSettings] = {}


def load(path: Path | None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check all settings.

    Raises:
        SettingsError: a file that cannot be read, or a wrong, unknown or missing setting.
    """
    environ = os.environ if environ is None else environ
    values = _from_file(path) if path is not None else {}
    _overlay_credentials(values, environ)
    _overlay_environment(values, environ)
    try:
        return Settings.model_validate(values)
    except ValidationError as exc:
        raise SettingsError(_sentence(exc, values)) from None


def _from_file(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_FILE:
            raise SettingsError(f"the settings file {path} is larger than {_MAX_FILE} bytes")
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise SettingsError(f"the settings file {path} cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"the settings file {path} is not UTF-8") from None
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError(f"the settings file {path} is not TOML: {exc}") from None


def _overlay_credentials(values: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Credentials of the unit fill what the file leaves open; they are named by their files, never copied."""
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return
    for name, (section, key) in _CREDENTIALS.items():
        if (file := Path(directory, name)).is_file():
            _section(values, section, str(file)).setdefault(key, str(file))
    dsn = Path(directory, "storage-dsn")
    if dsn.is_file():
        _section(values, "storage", str(dsn)).setdefault("dsn", dsn.read_text("utf-8").strip())


def _overlay_environment(values: dict[str, Any], environ: Mapping[str, str]) -> None:
    for name, text in environ.items():
        if not name.startswith(PREFIX):
            continue
        section, *keys = name.removeprefix(PREFIX).lower().split("__")
        if section not in Settings.model_fields or not keys or not all(keys) or len(keys) > 2:
            raise SettingsError(f"{name} is not a setting: names are {PREFIX}SECTION__KEY")
        into = _section(values, section, name)
        for key in keys[:-1]:
            into = _section(into, key, name)
        into[keys[-1]] = text


def _section(values: dict[str, Any], name: str, source: str) -> dict[str, Any]:
    inner = values.setdefault(name, {})
    if not isinstance(inner, dict):
        raise SettingsError(f"{name} must be a section, and is a value (met while reading {source})")
    return inner


def _sentence(exc: ValidationError, values: Mapping[str, Any]) -> str:
    error = exc.errors(include_url=False, include_context=False)[0]
    location = tuple(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    key = ".".join(part for part in location if part != "[key]")
    if error["type"] == "extra_forbidden":
        return f"the setting {key} is unknown"
    value: object = values
    for part in location:
        value = value.get(part) if isinstance(value, Mapping) else value
    if location[:2] in _SECRET_KEYS or (location[:1] == ("auth",) and len(location) == 1):
        shown = "***"
    else:
        shown = "(not given)" if value is None else f"{value!r:.200}"
    if len(location) == 1 and message.startswith(f"{key}."):  # a rule over a whole section names its key itself
        return f"the setting {message} (value: {_shown_in(message, values)})"
    return f"the setting {key} = {shown} is wrong: {message}"


def _shown_in(message: str, values: Mapping[str, Any]) -> str:
    section, _, key = message.split(" ", 1)[0].partition(".")
    if (section, key) in _SECRET_KEYS:
        return "***"
    inner = values.get(section)
    value = inner.get(key) if isinstance(inner, Mapping) else None
    return "(not given)" if value is None else f"{value!r:.200}"


def state_directory(settings: Settings, environ: Mapping[str, str] | None = None) -> Path:
    """Where state lives: the setting, else `$STATE_DIRECTORY` (systemd), else the place for this user."""
    environ = os.environ if environ is None else environ
    if settings.storage.directory is not None:
        return settings.storage.directory.expanduser().absolute()
    if given := environ.get("STATE_DIRECTORY"):
        return Path(given.split(":", 1)[0])
    if os.geteuid() == 0:
        return Path("/var/lib/accountsd")
    base = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base, "accountsd")
