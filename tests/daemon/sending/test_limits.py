"""What a provider allows: every entry of the table, hosts that only look like one, and which limit holds."""

import re

import pytest

from daemon.network import canonical_host
from daemon.sending.limits import daily_limit
from daemon.sending.providers import PROVIDERS, UNKNOWN, daily_cap, provider_of

HOSTS = [(provider, host) for provider in PROVIDERS for host in provider.hosts]


@pytest.mark.parametrize(("provider", "host"), HOSTS, ids=[f"{each.name} {host}" for each, host in HOSTS])
def test_an_entry_and_what_only_looks_like_it(provider, host):
    domain = provider.domains[0] if provider.domains else "example.test"
    for server in (host, f"smtp.{host}", f"a.b.{host}", f"SMTP.{host.upper()}"):
        assert provider_of(server, f"ann@{domain}") is provider
        assert daily_cap(f"ann@{domain}", smtp_host=server, imap_host="imap.example.test") == provider.recipients
    for server in (
        f"evil{host}", f"smtp.evil{host}", f"evil-{host}", f"{host}.example.net", f"{host}x", f"x{host}.",
        host.partition(".")[2], f"smtp.{host.replace('.', '-')}.example.net",
    ):  # fmt: skip
        assert provider_of(server, f"ann@{domain}") is None, server


@pytest.mark.parametrize(("email", "smtp", "imap", "recipients"), [
    ("ann@gmail.com", "smtp.gmail.com", "imap.gmail.com", 500),
    ("ann@googlemail.com", "smtp.gmail.com", "imap.gmail.com", 500),
    ("Ann@GMAIL.com", "SMTP.Gmail.COM", "imap.gmail.com", 500),
    ("ann@company.example", "smtp.gmail.com", "imap.gmail.com", 2000),
    ("ann@company.example", "smtp-relay.gmail.com", "imap.gmail.com", 2000),
    ("ann@gmail.com.company.example", "smtp.gmail.com", "imap.gmail.com", 2000),
    ('"a@gmail.com"@company.example', "smtp.gmail.com", "imap.gmail.com", 2000),
    ("ann@company.example", "smtp.office365.com", "outlook.office365.com", 10_000),
    ("ann@hotmail.com", "smtp.office365.com", "outlook.office365.com", 300),
    ("ann@outlook.com", "smtp-mail.outlook.com", "imap-mail.outlook.com", 300),
    ("ann@company.example", "smtp-mail.outlook.com", "imap-mail.outlook.com", 300),
    ("ann@icloud.com", "smtp.mail.me.com", "imap.mail.me.com", 1000),
    ("ann@yahoo.com", "smtp.mail.yahoo.com", "imap.mail.yahoo.com", 500),
    ("ann@aol.com", "smtp.aol.com", "imap.aol.com", 500),
    ("ann@company.example", "smtppro.zoho.eu", "imappro.zoho.eu", 500),
    ("ann@yandex.ru", "smtp.yandex.ru", "imap.yandex.ru", 500),
    ("ann@company.example", "smtpout.secureserver.net", "imap.secureserver.net", 250),
    ("ann@company.example", "secure.emailsrvr.com", "secure.emailsrvr.com", 10_000),
    # The server that sends is the one that counts; only where nobody knows it is the other asked, and the lesser holds.
    ("ann@gmail.com", "secure.emailsrvr.com", "imap.gmail.com", 10_000),
    ("ann@company.example", "mail.company.example", "imap.secureserver.net", 250),
    ("ann@company.example", "mail.company.example", "outlook.office365.com", UNKNOWN),
    ("ann@company.example", "mail.company.example", "mail.company.example", UNKNOWN),
    ("ann@company.example", "192.0.2.1", "2001:db8::1", UNKNOWN),
    ("no address", "localhost", "localhost", UNKNOWN),
    ("", "", "", UNKNOWN),
])  # fmt: skip
def test_the_cap_of_a_mailbox(email, smtp, imap, recipients):
    assert daily_cap(email, smtp_host=smtp, imap_host=imap) == recipients


def test_the_table_is_in_canonical_form_and_says_where_it_is_from():
    seen = set()
    for provider in PROVIDERS:
        assert provider.recipients > 0
        assert re.fullmatch(r"https://[a-z.]+/\S+", provider.source), provider
        assert provider.hosts
        for name in provider.hosts + provider.domains:
            assert canonical_host(name) == name
            assert "." in name, "a whole top-level domain is nobody's"
        for host in provider.hosts:
            for domain in provider.domains or ("",):
                assert (host, domain) not in seen, "an entry that another one hides"
                seen.add((host, domain))


@pytest.mark.parametrize(("own", "limit"), [(None, 2000), (0, 0), (1, 1), (1999, 1999), (2000, 2000), (5000, 2000)])
def test_the_least_limit_holds(own, limit):
    given = daily_limit(own, email="ann@company.example", smtp_host="smtp.gmail.com", imap_host="imap.gmail.com")
    assert given == limit
