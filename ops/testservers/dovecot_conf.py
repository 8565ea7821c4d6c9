"""What a private Dovecot 2.3 is told: options in, configuration text out. Pure.

The traps it avoids, each met before: every user must be one user and nothing may be chrooted (no root); a failed
login costs 2 s and more unless the penalty is off; `nopassword` would let any password in; one process per IDLE
connection would exhaust inotify instances; LMTP refuses users the static database cannot vouch for; thousands of TLS
connections in one login process do not fit the usual 256 MB.
"""

from dataclasses import dataclass
from pathlib import Path

CAPABILITIES = frozenset({
    "IMAP4rev1", "SASL-IR", "LOGIN-REFERRALS", "ID", "ENABLE", "IDLE", "SORT", "SORT=DISPLAY", "THREAD=REFERENCES",
    "THREAD=REFS", "THREAD=ORDEREDSUBJECT", "MULTIAPPEND", "URL-PARTIAL", "CATENATE", "UNSELECT", "CHILDREN",
    "NAMESPACE", "UIDPLUS", "LIST-EXTENDED", "I18NLEVEL=1", "CONDSTORE", "QRESYNC", "ESEARCH", "ESORT", "SEARCHRES",
    "WITHIN", "CONTEXT=SEARCH", "LIST-STATUS", "BINARY", "MOVE", "SNIPPET=FUZZY", "PREVIEW=FUZZY", "PREVIEW",
    "STATUS=SIZE", "SAVEDATE", "LITERAL+", "NOTIFY", "SPECIAL-USE",
})
"""What Dovecot 2.3.19 announces after login."""


@dataclass(frozen=True, slots=True)
class DovecotOptions:
    """How this Dovecot differs from the usual one.

    `without`: capabilities that are not announced. Dovecot would still obey the commands: this makes an old server
    for clients that keep to what is announced, and they must.
    `hibernate`: IDLE connections move to imap-hibernate after a second; it tells of new mail in milliseconds, the
    usual way takes a fixed half second.
    `mechanisms`: SASL mechanisms offered; XOAUTH2 and OAUTHBEARER take tokens of `oauth2_token`.
    `plaintext`: whether LOGIN and PLAIN are allowed without TLS. Where not, LOGINDISABLED is announced before STARTTLS,
    but only to who connects to `Dovecot.strict_host`: on a connection whose ends have one address all is secure to it.
    `relay`: loopback port of the SMTP server that the submission service hands mail to; without it, none runs.
    `extra`: further configuration, put last.
    """

    without: frozenset[str] = frozenset()
    hibernate: bool = False
    mechanisms: tuple[str, ...] = ("plain", "login", "xoauth2", "oauthbearer")
    plaintext: bool = False
    password: str = "pw"  # noqa: S105  # the one password of a server that ends with the test
    relay: int | None = None
    extra: str = ""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a Dovecot listens on 127.0.0.1 and 127.0.0.2."""

    imap: int
    imaps: int
    lmtp: int
    submission: int
    submissions: int


def configuration(base: Path, user: str, group: str, ports: Ports, options: DovecotOptions) -> str:
    """The configuration file of a Dovecot that lives in `base` and runs as `user` alone."""
    parts = [_COMMON.format(
        base=base, user=user, group=group, ports=ports, password=options.password,
        mechanisms=" ".join(options.mechanisms), plaintext="no" if options.plaintext else "yes",
        protocols="imap lmtp submission" if options.relay else "imap lmtp",
    )]
    if options.without:
        unknown = options.without - CAPABILITIES
        if unknown:
            raise ValueError(f"Dovecot does not announce {', '.join(sorted(unknown))}: nothing to leave out")
        parts.append(f"imap_capability = {' '.join(sorted(CAPABILITIES - options.without))}")
    parts.append(_HIBERNATING.format(user=user) if options.hibernate else _SHARED_PROCESSES)
    if options.relay:
        parts.append(_SUBMISSION.format(relay=options.relay, ports=ports))
    parts.append(options.extra)
    return "\n".join(parts) + "\n"


_COMMON = """\
base_dir = {base}/run
state_dir = {base}/state
log_path = {base}/dovecot.log
protocols = {protocols}
listen = 127.0.0.1, 127.0.0.2
ssl = yes
ssl_cert = <{base}/server.crt
ssl_key = <{base}/server.key
ssl_min_protocol = TLSv1.2
disable_plaintext_auth = {plaintext}
auth_mechanisms = {mechanisms}
auth_failure_delay = 0
auth_username_chars =

default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
mail_uid = {user}
mail_gid = {group}
first_valid_uid = 1
first_valid_gid = 1
mail_fsync = never
default_client_limit = 20000
default_vsz_limit = 2G
mail_max_userip_connections = 0

service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
service imap-login {{
  chroot =
  service_count = 0
  client_limit = 8000
  process_limit = 4
  inet_listener imap {{
    port = {ports.imap}
  }}
  inet_listener imaps {{
    port = {ports.imaps}
    ssl = yes
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {ports.lmtp}
  }}
}}

# who is listed here is refused whatever the password
passdb {{
  driver = dict
  deny = yes
  args = {base}/denied.conf
}}
passdb {{
  driver = static
  mechanisms = plain login
  args = password={password}
}}
# whoever comes so far had a wrong password: refused without the half second of waiting
passdb {{
  driver = static
  mechanisms = plain login
  deny = yes
  args = nopassword=yes nodelay=yes
}}
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {base}/oauth2.conf
}}
userdb {{
  driver = static
  args = uid={user} gid={group} home={base}/home/%u allow_all_users=yes
}}
mail_location = sdbox:~/mail
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Drafts {{
    auto = subscribe
    special_use = \\Drafts
  }}
  mailbox Junk {{
    auto = subscribe
    special_use = \\Junk
  }}
  mailbox Sent {{
    auto = subscribe
    special_use = \\Sent
  }}
  mailbox Trash {{
    auto = subscribe
    special_use = \\Trash
  }}
}}
"""

# Thousands of IDLE connections: many clients in one process (they wait for each other only while one works).
_SHARED_PROCESSES = """\
service imap {
  client_limit = 1000
  process_limit = 32
  service_count = 0
}
"""

_HIBERNATING = """\
imap_hibernate_timeout = 1s
service imap {{
  process_limit = 2000
  unix_listener imap-master {{
    user = {user}
  }}
}}
service imap-hibernate {{
  chroot =
}}
"""

_SUBMISSION = """\
hostname = submission.example.test
submission_relay_host = 127.0.0.1
submission_relay_port = {relay}
submission_relay_trusted = no
service submission-login {{
  chroot =
  inet_listener submission {{
    port = {ports.submission}
  }}
  inet_listener submissions {{
    port = {ports.submissions}
    ssl = yes
  }}
}}
"""
