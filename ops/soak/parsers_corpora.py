"""Real inputs, to begin from: what a Dovecot says, mail as the generator makes it, and examples of everything else."""

from __future__ import annotations

import base64
import json
import random
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Final

from ops.testservers.dovecot import Dovecot
from ops.testservers.mail import messages, seeds

from .http_cases import Material
from .http_daemon import COOKIE, claims, token
from .http_framing import FRAMING
from .http_targets import TARGETS
from .parsers_inputs import Corpus

USER: Final = "parsers@example.test"
OWNER: Final = "parsers"
MESSAGES: Final = 12

_COMMANDS: Final = (
    b"CAPABILITY", b"ENABLE QRESYNC CONDSTORE", b'LIST "" "*" RETURN (SPECIAL-USE)', b'LIST "" "*"', b"NAMESPACE",
    b'ID ("name" "x")', b"STATUS INBOX (MESSAGES UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ)", b"CREATE Entw&APw-rfe",
    b"SUBSCRIBE Entw&APw-rfe", b"EXAMINE INBOX (QRESYNC (1 1))", b"SELECT INBOX (CONDSTORE)",
    b"UID SEARCH RETURN (ALL) ALL", b"UID SEARCH ALL", b"UID SEARCH RETURN (ALL COUNT) MODSEQ 1",
    b"UID FETCH 1:* (UID FLAGS MODSEQ INTERNALDATE RFC822.SIZE ENVELOPE)", b"UID FETCH 1:* (UID BODYSTRUCTURE)",
    b"UID FETCH 1:4 (UID BODY.PEEK[])", b"UID FETCH 1:4 (UID BODY.PEEK[]<0.300>)",
    b"UID FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (SUBJECT FROM)])", b"UID STORE 2 +FLAGS (\\Deleted $Junk)",
    b"UID EXPUNGE 2", b"UID FETCH 1:* (UID FLAGS) (CHANGEDSINCE 1 VANISHED)", b"SELECT nowhere", b"NOOP", b"NONSENSE",
    b"UID FETCH x (FLAGS)", b"LOGOUT",
)  # fmt: skip


def dovecot_says() -> list[bytes]:
    """What a real server answers to the commands of a synchronisation, each answer for itself."""
    with Dovecot() as dovecot:
        dovecot.seed(USER, seeds(MESSAGES, seed=7))
        context = dovecot.authority.client_context()
        with (
            socket.create_connection(("127.0.0.1", dovecot.imaps_port), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            said = [_until(tls, b"\r\n")]
            login = base64.b64encode(f"\0{USER}\0{dovecot.password}".encode())
            for number, command in enumerate((b"AUTHENTICATE PLAIN " + login, *_COMMANDS)):
                tag = b"A%d" % number
                tls.sendall(tag + b" " + command + b"\r\n")
                said.append(_until(tls, b"\r\n" + tag + b" ", tag + b" "))
    return said


def _until(tls: ssl.SSLSocket, mark: bytes, begin: bytes = b"") -> bytes:
    """What comes up to a line that begins with a mark, that line included."""
    data = b"\r\n"
    while not ((at := data.find(mark)) >= 0 and data.find(b"\n", at + len(mark) if begin else at) >= 0):
        more = tls.recv(1 << 16)
        if not more:
            break
        data += more
    return data[2:]


def corpora(captured: Sequence[bytes]) -> dict[str, Corpus]:
    """Every language's; *captured* is what `dovecot_says` gave, whole answers and their lines."""
    lines = [line + b"\r\n" for answer in captured for line in answer.split(b"\r\n")[:20] if line]
    mail = list(messages(40, seed=11))
    rng = random.Random(5)  # noqa: S311  # repeatable, not secret
    material = Material(rng, token(OWNER))
    made = [make(material) for make in (*FRAMING.values(), *TARGETS.values()) for _ in range(2)]
    heads = [each for each in made if isinstance(each, bytes) and len(each) < 20_000]
    sessions = [token(OWNER), token(OWNER, aud=["authenticated"], **_OPTIONAL)]
    return {
        "imap": Corpus([*captured, *lines, *_IMAP], _IMAP_WORDS),
        "smtp": Corpus(_SMTP, _SMTP_WORDS),
        "mail": Corpus([*mail, *(each[: each.find(b"\r\n\r\n") + 4] for each in mail), *_MAIL], _MAIL_WORDS),
        "address": Corpus(_ADDRESSES, _ADDRESS_WORDS),
        "head": Corpus([*heads, *(material.good() for _ in range(9))], _HEAD_WORDS),
        "cookie": Corpus([f"{COOKIE}={value}; a=b".encode() for value in sessions], _COOKIE_WORDS),
        "token": Corpus([value.encode() for value in sessions], _TOKEN_WORDS),
        "claims": Corpus([json.dumps(claims(OWNER, **_OPTIONAL)).encode()], _CLAIM_WORDS),
        "keys": Corpus([json.dumps(_KEYS).encode()], _KEY_WORDS),
        "json": Corpus([json.dumps(_BODY).encode(), _SYNC_BODY], _BODY_WORDS),
        "toml": Corpus([_TOML], _TOML_WORDS),
        "host": Corpus(_HOSTS, _HOST_WORDS),
        "dns": Corpus(_DNS, _DNS_WORDS),
    }


_IMAP: Final = (
    (
        b"* 5 FETCH (UID 7 FLAGS (\\Seen $Junk) MODSEQ (12345678901) RFC822.SIZE 44 INTERNALDATE "
        b'"17-Jul-1996 02:44:25 -0700")\r\n'
    ),
    (
        b"* 9 FETCH (UID 3 BODY[] {5}\r\n"
        b'hello BODY[TEXT] NIL X-GM-MSGID 1278455344230334865 X-GM-LABELS (\\Inbox "a b"))\r\n'
    ),
    (
        b'* 1 FETCH (UID 1 ENVELOPE ("Wed, 17 Jul 1996 02:23:25 -0700" "s" (("Ann" NIL "a" "b")) '
        b'NIL NIL ((NIL NIL "g" NIL)(NIL NIL NIL NIL)) NIL NIL NIL "<m>"))\r\n'
    ),
    (
        b'* 1 FETCH (UID 1 BODYSTRUCTURE (("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 '
        b'1)("text" "html" NIL NIL NIL "8bit" 3 1) "mixed" ("boundary" "x")))\r\n'
    ),
    b"* VANISHED (EARLIER) 1:5,7,9:4294967295\r\n* VANISHED 41,43:116\r\n* 4 EXPUNGE\r\n* 23 EXISTS\r\n",
    (
        b"* SEARCH 2 84 882 (MODSEQ 917162500)\r\n"
        b'* ESEARCH (TAG "A282") UID MIN 2 COUNT 3 ALL 2,10:15,99 MODSEQ 5\r\n'
    ),
    (
        b'* LIST (\\HasNoChildren \\Sent) "/" "Sent Mail"\r\n* LIST (\\Noselect) NIL {3}\r\nfoo\r\n'
        b'* LIST () "." &ZeVnLIqe-\r\n'
    ),
    b"* STATUS blurdybloop (MESSAGES 231 UIDNEXT 44292 UIDVALIDITY 3 UNSEEN 1 HIGHESTMODSEQ 9)\r\n",
    (
        b"* OK [UIDVALIDITY 3857529045] UIDs valid\r\n* OK [HIGHESTMODSEQ 715194045007]\r\n"
        b"* OK [PERMANENTFLAGS (\\Deleted \\*)] Limited\r\n* OK [MAILBOXID (F22)]\r\n"
    ),
    b"* BYE [UNAVAILABLE] Suggested Backoff Time: 17000 milliseconds\r\n", b"+ eyJzdGF0dXMiOiI0MDAifQ==\r\n",
    b"A1 NO [AUTHENTICATIONFAILED] wrong\r\n",
)  # fmt: skip
_IMAP_WORDS: Final = (
    b"* ", b"+ ", b"A1 ", b"OK ", b"NO ", b"BAD ", b"BYE ", b"FETCH ", b"(", b")", b"UID ", b"FLAGS ", b"MODSEQ ",
    b"BODY[] ", b"BODY[]<0> ", b"BODYSTRUCTURE ", b"ENVELOPE ", b"INTERNALDATE ", b"RFC822.SIZE ", b"NIL", b'"',
    b"{0}\r\n", b"{3}\r\nabc", b"{99999999999}\r\n", b"~{3}\r\nabc", b"{3+}\r\n", b"[", b"] ", b"\\Seen ", b"$Junk ",
    b"EXISTS", b"EXPUNGE", b"VANISHED ", b"(EARLIER) ", b"1:*", b"1:5,7", b"4294967295", b"SEARCH ", b"ESEARCH ",
    b"ALL ", b'(TAG "A1") ', b"LIST ", b'"/" ', b"&AAA-", b"&-", b"&", b"STATUS ", b"UIDNEXT ", b"UIDVALIDITY ",
    b"HIGHESTMODSEQ ", b"[CAPABILITY ", b"CAPABILITY ", b"ENABLED ", b"\r\n", b" ", b"  ",
    b'"17-Jul-1996 02:44:25 -0700"', b'"35-Foo-0000 99:99:99 +9999"', b"PREAUTH ", b"[ALERT] ", b"[CLOSED] ",
    b"[NOMODSEQ] ", b"\\", b'\\"', b"%", b"BINARY[1] ",
)  # fmt: skip
_SMTP: Final = (
    b"220 mx.example.test ESMTP ready\r\n",
    (
        b"250-mx.example.test\r\n250-SIZE 52428800\r\n250-AUTH PLAIN LOGIN CRAM-MD5\r\n250-8BITMIME\r\n"
        b"250-SMTPUTF8\r\n250 STARTTLS\r\n"
    ),
    b"235 2.7.0 Accepted\r\n", b"334 VXNlcm5hbWU6\r\n", b"354 go ahead\r\n",
    b"535-5.7.8 Username and Password not accepted.\r\n535 5.7.8  https://support.example\r\n",
    b"550 5.7.30 Basic authentication is not supported\r\n", b"421 4.3.0 closing\r\n",
    b"454 4.7.0 Temporary authentication failure\r\n", b"250 2.1.5 ok\r\n", b"452 4.5.3 Too many recipients\r\n",
    b"552 5.3.4 too big\r\n", b"250 2.0.0 queued as 1\r\n", b"221 bye\r\n",
)  # fmt: skip
_SMTP_WORDS: Final = (
    b"220", b"250", b"250-", b"334 ", b"354 ", b"421 ", b"535 ", b"550-", b"5.7.8 ", b"2.0.0 ", b"9.9.9 ",
    b"AUTH PLAIN", b"AUTH=LOGIN", b"SIZE 0", b"SIZE ", b"STARTTLS", b"SMTPUTF8", b"\r\n", b"\n", b" ", b"-", b"199 ",
    b"600 ", b"PIPELINING", b"EHLO", b"throttled", b"=", b"VXNl",
)  # fmt: skip
_MAIL: Final = (
    (
        b'Subject: =?utf-8?q?a?= =?x-unknown?b?Zm9v?=\r\nFrom: "A\\"B" <a@b.test>, c@d.test (C)\r\n'
        b"To: g: a@b.test, c@d.test;\r\nDate: Wed, 17 Jul 1996 02:23:25 -0700\r\nMessage-ID: <a@b>\r\n"
        b"References: <a@b> <c@d>\r\n <e@f>\r\nContent-Type: multipart/mixed\r\n\r\n"
        b"Content-Disposition: attachment\r\n"
    ),
    b"Date: Thu, 01 Jan 9999 99:99:99 +9999\r\nSubject: \xff\xfe\xe9\r\nIn-Reply-To: x\r\n\r\n", b"\r\n\r\n", b"",
)  # fmt: skip
_MAIL_WORDS: Final = (
    b"Subject:", b"From: ", b"To:", b"Cc: ", b"Bcc: ", b"Reply-To: ", b"Date: ", b"Message-ID: ", b"References: ",
    b"In-Reply-To: ", b"Content-Type: multipart/", b"\r\n", b"\n ", b"\r\n\t", b"=?", b"?=", b"?q?", b"?b?",
    b"=?utf-8?q?", b"=?iso-2022-jp?b?", b"=?utf-16?b?", b"=?rot13?q?a?=", b"=?hex?b?AA==?=",
    b"=?unicode_escape?q?=5CN?=", b"=?idna?q?a?=", b"=?punycode?q?a-?=", b"=?zlib?b?AAAA?=", b"=?utf-8*en?q?a?=",
    b"<a@b.test>", b"a@b.test", b",", b";", b"(", b")", b'"', b"\\", b"<", b">", b"@", b":", b"+9999", b"-0000",
    b"31 Feb 2024", b"99:99:99", b"Mon, ", b"Jan", b"1970", b"99999", b"Content-Disposition: attachment", b" ", b"\t",
    b"=", b"?", b"=FF", b"=00",
)  # fmt: skip
_ADDRESSES: Final = (
    b'"Archer, Ann" <ann@example.org>, bob@example.net (Bob), undisclosed-recipients:;',
    b"=?utf-8?q?Bj=C3=B8rn?= <bjorn@example.net>; root", b'"a\\"b"@c.test, <@relay.test:a@b.test>, a@[192.0.2.1], <>',
    b"Team: a@b.test, C <c@d.test>;, (x (y) z) e@f.test",
    b"Zo\xc3\xab \xf0\x9f\x93\xac <zo\xc3\xab@\xe4\xbe\x8b\xe3\x81\x88.jp>",
)  # fmt: skip
_ADDRESS_WORDS: Final = (
    b'"', b"<", b">", b"(", b")", b"[", b"]", b",", b";", b":", b"@", b"\\", b".", b"a", b"b.test", b" ", b"a@b.test",
    b"=?utf-8?q?a?=", b"\r\n ",
)  # fmt: skip
_HEAD_WORDS: Final = (
    b"GET ", b"POST ", b"PRI * ", b"/", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Host: a\r\n", b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Connection: Upgrade\r\n",
    b"Upgrade: websocket\r\n", b"Sec-WebSocket-Key: a\r\n", b"Sec-WebSocket-Version: 13\r\n", b"\r\n", b"\r\n\r\n",
    b": ", b"0\r\n\r\n", b"5\r\nhello\r\n", b"http://", b"?", b"#", b";", b"Expect: 100-continue\r\n", b"X: ", b" ",
    b"\n",
)  # fmt: skip
_JSON_WORDS: Final = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b'"a"', b"null", b"true", b"1", b"-1", b"1e999", b'"\\ud800"',
    b'"\\u0000"', b"NaN", b"[[", b'{"a":', b"\\",
)  # fmt: skip
_CLAIM_WORDS: Final = (*_JSON_WORDS, b'"sub"', b'"aud"', b'"role"', b'"exp"', b'"nbf"', b'"authenticated"')
_KEY_WORDS: Final = (*_JSON_WORDS, b'"kty"', b'"RSA"', b'"EC"', b'"kid"', b'"alg"', b'"n"', b'"e"', b'"crv"', b'"AQAB"')
_BODY_WORDS: Final = (
    *_JSON_WORDS, b'"email"', b'"imap_host"', b'"imap_port"', b'"password"', b'"account_id"', b'"a@b.test"'
)  # fmt: skip
_SYNC_BODY: Final = b'{"account_id": "0189f7ea-0000-7000-8000-000000000000"}'
_OPTIONAL: Final[dict[str, Any]] = {"nbf": 1, "app_metadata": {"plan": "pro"}, "user_metadata": {"name": "Ann"}}
_KEYS: Final = {"keys": [
    {"kty": "RSA", "alg": "RS256", "kid": "a", "use": "sig", "key_ops": ["verify"], "e": "AQAB",
        "n": "u" + "1" * 340 + "w"},
    {"kty": "EC", "alg": "ES256", "kid": "b", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
    {"kty": "oct", "k": "AAAA", "kid": "c"},
]}  # fmt: skip
_BODY: Final = {"email": "ann@example.test", "name": "Ann", "imap_host": "imap.example.test", "imap_port": 993,
    "imap_security": "tls", "smtp_host": "smtp.example.test",
    "smtp_port": 587, "smtp_security": "starttls", "username": "ann", "password": "secret"}  # fmt: skip
_TOML: Final = b"""\
[api]
bind = "127.0.0.1:8025"
trusted_proxies = ["10.0.0.0/8", "::1"]
[auth]
mode = "jwks"
issuer = "https://id.example.com/auth"
origins = ["https://app.example.com"]
[network]
nameservers = ["192.0.2.1", "[2001:db8::1]:53"]
ports = [993, 587]
[sync]
window = 500
retry_first = 2.0
[plans.free]
accounts = 3
[logs]
level = "info"
"""
_TOML_WORDS: Final = (
    b"[", b"]", b"[[", b"=", b'"', b"'''", b'"""', b"\n", b"[api]\n", b"[plans.", b"accounts", b"{", b"}", b"inf",
    b"nan", b"1979-05-27T07:32:00Z", b"0x", b"_", b"bind = ", b"a.b.c = 1\n", b"#", b"\\u0000", b"\\uD800",
    b"max_body", b"true", b"[network]\nallow = ", b'"0.0.0.0/0"', b"[auth]\n", b"secret = ",
)  # fmt: skip
_HEADER: Final = b"\0\0\x81\x80\0\x01\0\x02\0\0\0\0"
_DNS: Final = (
    _HEADER + b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x02",
    _HEADER + b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01a\xc0\x11"
    b"\x01a\xc0\x11\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01",
    _HEADER + b"\xc0\x0c\0\x1c\0\x01\0\0\0\x3c\0\x10" + bytes(15) + b"\x01\xc0\x0c\0\x2e\0\x01\0\0\0\x3c\0\x00",
)  # fmt: skip

_COOKIE_WORDS: Final = (
    b"sb-access-token", b"=", b";", b"a=b", b"; ", b'"',
)  # fmt: skip
_TOKEN_WORDS: Final = (
    b".", b"eyJhbGciOiJIUzI1NiJ9", b"e30", b"A", b"-_", b"W10", b"bnVsbA",
)  # fmt: skip
_HOSTS: Final = (
    b"mail.example.com", b"b\xc3\xbccher.example", b"192.0.2.1", b"[2001:db8::1]", b"xn--bcher-kva.example",
    b"fe80::1%eth0",
)  # fmt: skip
_HOST_WORDS: Final = (
    b".", b"-", b"xn--", b"a", b"\xc3\xbc", b"[", b"]", b"::", b":", b"%", b"\xe3\x80\x82", b"\xc3\x9f", b"0x7f",
    b"127", b"\xe2\x80\x8d",
)  # fmt: skip
_DNS_WORDS: Final = (
    b"\0\x01\0\x01", b"\0\x1c\0\x01", b"\0\x05\0\x01", b"\xc0\x0c", b"\xc0\0", b"\xc0\xff", b"?", b"@", b"\0\0\0<",
    b"\0\x04\x7f\0\0\x01", b"\0\x10", b"\0)", b"\0", b"\0\x02\0\x01", b"\0\x06\0\x01", b"\nexample",
)  # fmt: skip
