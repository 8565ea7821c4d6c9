"""The Date field (RFC 5322 section 3.3) as a moment in UTC.

The standard library reads every date that was ever written, in 15 µs.  The one form that the RFC gives, and nearly
everybody writes, is read here by one expression; all others go there.  The tests hold the two against each other.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

_NAMES: Final = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_MONTHS: Final = {name: number for number, name in enumerate(_NAMES.split("|"), 1)}
_RFC_5322: Final = re.compile(
    rf"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), )?(\d{{1,2}}) ({_NAMES}) ([1-9]\d{{3}})"
    r" (\d\d):(\d\d):(\d\d) (?:([+-])([01]\d|2[0-3])([0-5]\d)|GMT)",
    re.ASCII,
)


def date_of(text: str) -> datetime | None:
    """The moment that *text* names, if it is a date that PostgreSQL and Python both can hold in every time zone."""
    if not text:
        return None
    match = _RFC_5322.fullmatch(text)
    if match is None:
        return by_library(text)
    day, month, year, hour, minute, second, sign, off_hours, off_minutes = match.groups()
    try:
        date = datetime(int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second), tzinfo=UTC)
        if sign is not None and (offset := int(off_hours) * 60 + int(off_minutes)):
            date += timedelta(minutes=offset if sign == "-" else -offset)
    except (ValueError, OverflowError):
        return None
    return _plausible(date)


def by_library(text: str) -> datetime | None:
    """What the standard library makes of *text*; it decides."""
    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:  # "-0000": the time is UTC, where it was is not told (RFC 5322 section 3.3)
            date = date.replace(tzinfo=UTC)
        date = date.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return _plausible(date)


def _plausible(date: datetime) -> datetime | None:
    return date if 1970 <= date.year <= 9000 else None
