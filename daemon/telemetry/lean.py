"""Imports that cost no more than they must: in memory, and in pauses of the collector.

structlog is imported without the libraries that it takes up wherever they are installed.

It draws tracebacks with rich and follows greenlets as soon as it finds them: 4 MiB in a process that does neither, for
`logs` writes plain lines, and greenback brings greenlet when a rare IMAP command wants it.  Both are here
for `accountsctl` and for that, so they are hidden while structlog is imported, and only then: `None` in `sys.modules`
is how the import system is told that there is no such module (language reference, 5.3.1).

The cyclic garbage collector looks at all objects again each time that they have grown by a quarter, and nobody has
its turn meanwhile: 1.8 s with 10,000 accounts, a tenth of that with 1,000.  But next to all of them stay for weeks, and
what goes leaves it nothing to find: sessions that end have no cycles, as tests hold them to.  So what has grown old is
looked at once more, for requests do leave cycles, and then, if it is much, taken out of the collector's sight
(`gc.freeze`), where it is freed as ever when the last reference goes.  Only if what is out of sight should have doubled
is it all looked at, so that garbage that we do not know of is bounded, too.  Young garbage is found as often as by
default.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import Final

UNWANTED: Final = {"structlog": ("rich", "greenlet")}
"""What each of the named libraries is imported without.  What somebody has imported before is left as it is."""

OLD_AFTER: Final = 30
"""Collections of the middle generation, each of 7,000 objects more than there were, after which what is there is looked
at: 0.1 s if all of it stays, as where hundreds of accounts start; idle accounts make so many in ten minutes."""

MUCH: Final = 100_000
"""Objects that stayed from which they are set aside, those of 300 accounts: fewer cost the next look 60 ms.  What is
under way in a server of requests is less, and is not to be set aside, for it leaves garbage behind."""

ROOM: Final = 300_000
"""Objects set aside beyond the double of what the last look found, before there is another: those that come with one
setting aside, some 45 MB."""

_NEVER: Final = (1 << 31) - 1
_looked_at = 0


def import_lean() -> None:
    """Import the libraries of UNWANTED; those that are there already stay as they are."""
    for library, extras in UNWANTED.items():
        hidden = [name for name in extras if name not in sys.modules]
        sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # the stub knows nothing of None
        try:
            import_module(library)
        finally:
            for name in hidden:
                del sys.modules[name]


def set_aside() -> None:
    """Let the collector look at nothing that is here now, and from now on at old objects only when `tidy` wants it.

    Called once, when all is imported and nothing runs yet.
    """
    global _looked_at
    gc.freeze()
    _looked_at = gc.get_freeze_count()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)


def tidy() -> None:
    """Look at what has grown old, and set it aside if it is much; look at all if that has doubled.

    To be called often: 0.1 us.
    """
    global _looked_at
    if gc.get_count()[2] < OLD_AFTER:
        return
    gc.collect()
    if len(gc.get_objects(generation=2)) < MUCH:
        return
    gc.freeze()
    if gc.get_freeze_count() <= 2 * _looked_at + ROOM:
        return
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    _looked_at = gc.get_freeze_count()
