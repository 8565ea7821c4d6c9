"""The daemon's settings: one TOML file, then the environment, then systemd credentials.

Every key `[section] key` is also `ACCOUNTSD_SECTION__KEY`; the environment wins over the file.  A secret may come as
`auth.secret`, as a file, or as a systemd credential (`$CREDENTIALS_DIRECTORY/auth-secret`, `vault-keys`,
`storage-dsn`).  All values are read once, before anything starts: a wrong one is one sentence naming the key and the
value, and nothing has been started.  A secret's value is shown as `***`.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from .settings_errors import SettingsError, sentence
from .settings_values import (
    Bind,
    FilePath,
    IPNetwork,
    NameServers,
    Networks,
    Ports,
    Slug,
    Texts,
    is_http_url,
    is_origin,
)

__all__ = ["PREFIX", "IPNetwork", "PlanSettings", "Settings", "SettingsError", "load", "state_directory"]

PREFIX = "ACCOUNTSD_"
SECONDS = 1.0
MINUTES = 60 * SECONDS

_CREDENTIALS = {"auth-secret": ("auth", "secret_file"), "vault-keys": ("vault", "key_file")}
_MAX_FILE = 1 << 20  # bytes; systemd allows credentials of 1 MiB, and no sensible settings file is larger


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)


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
    directory: FilePath | None = None
    """The state directory: embedded database, generated keys."""
    connections: int = Field(default=8, ge=2, le=200)
    """Pool size of one node."""


class AuthSettings(_Section):
    """How session tokens are verified: one mode, never a fallback between them."""

    mode: Literal["hs256", "jwks"] = "hs256"
    secret: SecretStr | None = None
    secret_file: FilePath | None = None
    issuer: str = Field(default="", max_length=2048)
    """The exact `iss` of a token; required with `jwks`; `accountsd` for a local set-up."""
    jwks_url: str = Field(default="", max_length=2048)
    """Default: the issuer + `/.well-known/jwks.json`."""
    origins: Texts = ()
    """Browser origins that may call us across sites."""
    default_plan: Slug = "free"
    """The plan of a token that names none, or one that is not configured."""

    @model_validator(mode="after")
    def _whole(self) -> AuthSettings:
        if self.mode == "jwks" and not self.issuer:
            raise ValueError("auth.issuer is required when auth.mode is jwks")
        if self.jwks_url and not is_http_url(self.jwks_url):
            raise ValueError("auth.jwks_url must be an http(s) URL")
        found_by_issuer = self.mode == "jwks" and not self.jwks_url
        if found_by_issuer and (not is_http_url(self.issuer) or {"?", "#"} & set(self.issuer)):
            raise ValueError("auth.issuer must be an http(s) URL without a query where auth.jwks_url is not given")
        if not all(map(is_origin, self.origins)):
            raise ValueError("auth.origins must hold origins such as https://app.example.com, and nothing after them")
        if self.secret is not None and self.secret_file is not None:
            raise ValueError("auth.secret is given together with auth.secret_file: drop auth.secret to use the file")
        if self.secret is not None and len(self.secret.get_secret_value().encode()) < 32:
            raise ValueError("auth.secret must have at least 32 bytes (RFC 7518 section 3.2)")
        return self


class VaultSettings(_Section):
    """The key ring that seals credentials."""

    key_file: FilePath | None = None
    """Default: `vault-keys` in the state directory, made at the first start."""


class NetworkSettings(_Section):
    """What outbound connections to mail servers may reach."""

    allow: Networks = ()
    """Networks beyond the public internet."""
    ports: Ports = frozenset({25, 143, 465, 587, 993, 2525})
    ca_file: FilePath | None = None
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

    @model_validator(mode="after")
    def _whole(self) -> SyncSettings:
        if self.retry_first > self.retry_longest:
            raise ValueError(f"sync.retry_first must not be longer than sync.retry_longest, {self.retry_longest:g} s")
        return self


class PlanSettings(_Section):
    """What a plan allows."""

    accounts: int = Field(ge=0, le=1_000_000)


class RateSettings(_Section):
    """How often callers may try what others feel, too."""

    connects: int = Field(default=30, ge=1, le=1_000_000)
    """Mailboxes, or new credentials of one, that a caller may try in an hour."""
    connects_per_host: int = Field(default=600, ge=1, le=1_000_000)
    """Those that all callers may try at one host in an hour: below what providers begin to throttle at."""
    connects_per_mailbox: int = Field(default=10, ge=1, le=1_000_000)
    """Those that a caller may try with one user name at one host in an hour: no passwords are guessed through us."""
    connects_per_mailbox_of_all: int = Field(default=60, ge=1, le=1_000_000)
    """Those that all callers together may: more, so that a stranger alone keeps nobody from their own mailbox."""
    changes: int = Field(default=240, ge=1, le=1_000_000)
    """Changes of accounts and of campaigns that a caller may make in an hour."""
    invitations: int = Field(default=50, ge=1, le=1_000_000)
    """Invitations that a caller may send in a day."""


class AuditSettings(_Section):
    """Who did what to which account."""

    keep_days: int = Field(default=400, ge=1, le=36_500)
    """Days that an entry is kept: a year, and the month in which somebody asks about it."""


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
    rates: RateSettings = RateSettings()
    audit: AuditSettings = AuditSettings()
    logs: LogSettings = LogSettings()
    plans: dict[Slug, PlanSettings] = {}

    @model_validator(mode="after")
    def _whole(self) -> Settings:
        """Where plans limit, the default one must: a token that names none would have no limit at all."""
        plan = self.auth.default_plan
        if self.plans and plan not in self.plans:
            raise ValueError(f"auth.default_plan must be one of the plans, and there is no [plans.{plan}]")
        return self


def load(path: Path | None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check all settings.

    Raises:
        SettingsError: a file that cannot be read, or a wrong, unknown or missing setting.
    """
    environ = os.environ if environ is None else environ
    values = _from_file(path) if path is not None else {}
    _overlay_environment(values, environ)
    _overlay_credentials(values, environ)
    try:
        return Settings.model_validate(values)
    except ValidationError as exc:
        raise SettingsError(sentence(exc, values)) from None


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_read(path, "settings file"))
    except RecursionError:
        raise SettingsError(f"the settings file {path} is not TOML: it is nested too deeply") from None
    except ValueError as exc:  # also an integer of too many digits, which tomllib leaves to Python
        raise SettingsError(f"the settings file {path} is not TOML: {exc}") from None


def _read(path: Path, what: str) -> str:
    """A small regular file; a device or a pipe, which might never end, is not even waited for."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SettingsError(f"the {what} {path} cannot be read: it is not a regular file")
            data = file.read(_MAX_FILE + 1)
    except OSError as exc:
        raise SettingsError(f"the {what} {path} cannot be read: {exc.strerror}") from None
    except ValueError:
        raise SettingsError(f"the {what} {str(path)!r} cannot be read: there is NUL in its name") from None
    if len(data) > _MAX_FILE:
        raise SettingsError(f"the {what} {path} is larger than {_MAX_FILE} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise SettingsError(f"the {what} {path} is not UTF-8") from None


def _overlay_credentials(values: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Credentials of the unit fill what file and environment leave open; all but one are named, not copied."""
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return
    for name, (section, key) in _CREDENTIALS.items():
        file = Path(directory, name)
        if file.is_file():
            inner = _section(values, section, str(file))
            if not (key == "secret_file" and "secret" in inner):
                inner.setdefault(key, str(file))
    dsn = Path(directory, "storage-dsn")
    if dsn.is_file():
        _section(values, "storage", str(dsn)).setdefault("dsn", _read(dsn, "credential").strip())


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


def state_directory(settings: Settings, environ: Mapping[str, str] | None = None) -> Path:
    """Where state lives: the setting, else `$STATE_DIRECTORY` (systemd), else the place for this user.

    Raises:
        SettingsError: there is no such place.
    """
    environ = os.environ if environ is None else environ
    if settings.storage.directory is not None:
        return settings.storage.directory.absolute()
    if given := environ.get("STATE_DIRECTORY"):
        return Path(given.split(":", 1)[0])
    if os.geteuid() == 0:
        return Path("/var/lib/accountsd")
    try:
        base = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    except RuntimeError:
        raise SettingsError("the setting storage.directory is missing, and this user has no home") from None
    return Path(base, "accountsd")
