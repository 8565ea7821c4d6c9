"""What providers allow one mailbox to send, in recipients of a rolling 24 hours.  Pure: a table and how it is read.

Providers count in different units and windows (messages or recipients, a calendar day or the last 24 hours, an hour).
A number here is one that crosses none of those its provider publishes for a day: a message has one recipient at least,
so a limit of messages holds when as many recipients do, and a rolling window holds when a calendar day is meant.  They
are what was published in August 2026; providers change them without notice, and give new or suspected mailboxes less:
what their replies teach comes on top.

The SMTP server is the one that counts.  Where nobody knows it (often the provider's under a customer's own name), the
IMAP server says who the provider may be, and the lesser of its cap and `UNKNOWN` holds.  Hosts are compared by whole
labels from the right: `smtp.gmail.com` is below `gmail.com`, `evilgmail.com` and `gmail.com.example.net` are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

UNKNOWN: Final = 500
"""Recipients in 24 hours where the provider is not known.  It is what most providers publish for a mailbox that nobody
vouches for (Gmail, Yahoo, Yandex, a trial of Google Workspace), and what hosters with hourly limits let out in one of
their hours.  Whoever writes letters by hand does not come near."""


@dataclass(frozen=True, slots=True)
class Provider:
    """What one provider allows one mailbox."""

    name: str
    hosts: tuple[str, ...]
    """Domains that its mail servers are in."""
    recipients: int
    """In 24 hours."""
    source: str
    """Where the number is from."""
    domains: tuple[str, ...] = ()
    """Domains of the only addresses that it is for; empty: all others."""


PROVIDERS: Final = (
    Provider(
        "Google Workspace",
        ("gmail.com", "googlemail.com"),
        2000,  # of 2,000 messages, 2,000 unique external and 10,000 recipients in all; rolling
        "https://support.google.com/a/answer/166852",
    ),
    Provider(
        "Gmail",
        ("gmail.com", "googlemail.com"),
        500,  # messages, and recipients of one
        "https://support.google.com/mail/answer/22839",
        domains=("gmail.com", "googlemail.com"),
    ),
    Provider(
        "Microsoft 365",
        ("office365.com",),
        10_000,  # recipients, internal ones too; rolling
        "https://learn.microsoft.com/office365/servicedescriptions/exchange-online-service-description/"
        "exchange-online-limits",
    ),
    Provider(
        "Outlook.com",
        ("outlook.com", "hotmail.com", "live.com", "office365.com"),
        # 5,000 recipients for subscribers, of whom 1,000 may be new, "lower for non-subscribers", which is not
        # published; 300 is what msoutlook.info/question/235 and Microsoft's own forum give for those.
        300,
        "https://support.microsoft.com/office/279ee200-594c-40f0-9ec8-bb6af7735c2e",
        domains=("outlook.com", "hotmail.com", "live.com", "msn.com"),
    ),
    Provider(
        "Outlook.com with an address elsewhere",
        ("outlook.com", "hotmail.com", "live.com"),
        300,  # as above: accounts have aliases of other domains
        "https://support.microsoft.com/office/279ee200-594c-40f0-9ec8-bb6af7735c2e",
    ),
    Provider(
        "iCloud Mail",
        ("me.com", "icloud.com", "mac.com"),
        1000,  # messages, and recipients
        "https://support.apple.com/102198",
    ),
    Provider(
        "Yahoo Mail, AOL Mail",
        ("yahoo.com", "aol.com"),
        500,  # "each recipient of a message counts as one"; published for business mail, the consumers' is not
        "https://help.yahoo.com/kb/SLN17518.html",
    ),
    Provider(
        "Zoho Mail",
        ("zoho.com", "zoho.eu", "zoho.in", "zoho.com.au", "zoho.jp", "zoho.sa", "zohocloud.ca", "zoho.com.cn"),
        500,  # 50 to 500 an hour by reputation: a day of the largest hour crosses that in no hour
        "https://www.zoho.com/mail/help/adminconsole/rates-and-limits.html",
    ),
    Provider(
        "Yandex Mail",
        ("yandex.ru", "yandex.com", "yandex.by", "yandex.kz", "yandex.com.tr"),
        500,  # recipients of all messages in 24 hours
        "https://yandex.com/support/mail/web/letter/create/send-many-letters.html",
    ),
    Provider(
        "GoDaddy Workspace",
        ("secureserver.net",),
        250,  # "SMTP relays", one for each recipient; more can be bought, which nobody can see from outside
        "https://help.secureserver.net/article/3552",
    ),
    Provider(
        "Rackspace Email",
        ("emailsrvr.com",),
        10_000,  # recipients; rolling; as a reseller of it says
        "https://www.thexyz.com/account/knowledgebase/3/How-many-messages-can-I-send-out.html",
    ),
)
"""Every provider whose number for a day is published, and of whom people have accounts."""


def provider_of(host: str, email: str) -> Provider | None:
    """Who runs a mail server, and for addresses like this one; None: nobody known.

    `host` is in canonical form but for its letters' case (`daemon.network.canonical_host`), `email` an address.
    """
    domain = email.rpartition("@")[2].lower()
    for suffix in _suffixes(host.lower()):
        if provider := _ONLY.get((suffix, domain)) or _ALL.get(suffix):
            return provider
    return None


def daily_cap(email: str, *, smtp_host: str, imap_host: str) -> int:
    """How many recipients in 24 hours the provider of a mailbox allows."""
    if (provider := provider_of(smtp_host, email)) is not None:
        return provider.recipients
    provider = provider_of(imap_host, email)
    return UNKNOWN if provider is None else min(UNKNOWN, provider.recipients)


def _suffixes(host: str) -> Iterator[str]:
    """The host itself and the domains it is in, longest first."""
    while host:
        yield host
        host = host.partition(".")[2]


_ALL: Final[Mapping[str, Provider]] = {
    host: provider for provider in PROVIDERS if not provider.domains for host in provider.hosts
}
_ONLY: Final[Mapping[tuple[str, str], Provider]] = {
    (host, domain): provider for provider in PROVIDERS for host in provider.hosts for domain in provider.domains
}
