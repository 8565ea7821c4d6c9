"""Hostile inputs for parsers, by a seed: pieces of real ones changed, and a grammar's sentences.

A corpus is a list of real inputs and the words of their language.  Most cases are a real input with a few changes; some
are words strung together; some are one word thousands of times, which is what finds work that is not linear.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MOST: Final = 1 << 16
"""Bytes of an ordinary case."""

_NUMBERS: Final = (
    b"0", b"-1", b"00", b"1", b"255", b"4294967295", b"4294967296", b"9223372036854775807", b"9223372036854775808",
        b"1e9",
    b"9" * 19, b"9" * 20, b"9" * 5000, "٣".encode(), b"1.5", b"0x10",
)  # fmt: skip
_ANYWHERE: Final = (
    b"\0", b"\r\n", b"\n", b"\r", b" ", b"\t", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", "\u202e".encode(),
        "\U0001f4ec".encode(), b'"', b"\\",
    b"(", b")", b"[", b"]", b"{", b"}", b"<", b">", b",", b";", b":", b"=", b"%", b"*", b"\x7f", b"\x1b[0m", b"\x80",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Corpus:
    """What a language's cases are made of."""

    real: Sequence[bytes]
    words: Sequence[bytes]


def case(rng: random.Random, corpus: Corpus, most: int = MOST) -> bytes:
    """One input, at most *most* bytes."""
    kind = rng.random()
    if kind < 0.70:
        data = _changed(rng, corpus, rng.choice(corpus.real))
    elif kind < 0.90:
        data = sentence(rng, corpus, rng.randint(1, 60))
    elif kind < 0.97:
        data = repeated(rng, corpus, rng.choice((64, 512, 4096, 32_768)))
    else:
        data = rng.randbytes(rng.randint(0, 400))
    return data[:most]


def sentence(rng: random.Random, corpus: Corpus, count: int) -> bytes:
    """Words of the language in any order, most parted by nothing."""
    return b"".join(word(rng, corpus) for _ in range(count))


def word(rng: random.Random, corpus: Corpus) -> bytes:
    """One word of the language, a number, or a byte that is special somewhere."""
    return rng.choice(rng.choice((corpus.words, corpus.words, corpus.words, _ANYWHERE, _NUMBERS)))


def repeated(rng: random.Random, corpus: Corpus, size: int) -> bytes:
    """A beginning, then a few words again and again for about *size* bytes, then an end."""
    begin, unit, end = pattern(rng, corpus)
    return begin + unit * (size // len(unit)) + end


def pattern(rng: random.Random, corpus: Corpus) -> tuple[bytes, bytes, bytes]:
    """What `repeated` repeats, and what stands before and behind it."""
    real = rng.choice(corpus.real)
    begin = real[: rng.randint(0, min(len(real), 200))] if rng.random() < 0.7 else b""
    if rng.random() < 0.3 and real:
        at = rng.randrange(len(real))
        unit = real[at : at + rng.randint(1, 12)]
    else:
        unit = b"".join(word(rng, corpus)[:40] for _ in range(rng.randint(1, 3)))
    end = b"" if rng.random() < 0.5 else word(rng, corpus)[:40]
    return begin, unit or b" ", end


def _changed(rng: random.Random, corpus: Corpus, data: bytes) -> bytes:
    for _ in range(rng.randint(1, 4)):
        data = _change(rng, corpus, data)
    return data


def _change(rng: random.Random, corpus: Corpus, data: bytes) -> bytes:
    """One change somewhere."""
    at = rng.randrange(len(data) + 1)
    behind = at + rng.choice((1, 1, 2, 4, 16, 100, 1000))
    match rng.randrange(8):
        case 0:  # another byte
            return data[:at] + bytes((rng.randrange(256),)) + data[at + 1 :]
        case 1:  # a word too many
            return data[:at] + word(rng, corpus) + data[at:]
        case 2:  # something missing
            return data[:at] + data[behind:]
        case 3:  # something twice, or often
            return data[:behind] + data[at:behind] * rng.choice((1, 1, 2, 30)) + data[behind:]
        case 4:  # cut off
            return data[:at]
        case 5:  # another number
            return _renumbered(rng, data, at)
        case 6:  # the end of another
            other = rng.choice(corpus.real)
            return data[:at] + other[rng.randrange(len(other) + 1) :]
        case _:  # a line twice, or elsewhere
            lines = data.split(b"\n")
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
            return b"\n".join(lines)


def _renumbered(rng: random.Random, data: bytes, at: int) -> bytes:
    """The next number behind a place, changed."""
    start = next((i for i in range(at, min(len(data), at + 400)) if 48 <= data[i] <= 57), None)
    if start is None:
        return data
    end = start
    while end < len(data) and 48 <= data[end] <= 57:
        end += 1
    number = int(data[start:end][:18])
    near = b"%d" % max(0, number + rng.choice((-1, 1, 2, -5, 1000)))
    return data[:start] + rng.choice((near, rng.choice(_NUMBERS))) + data[end:]
