"""Imports that cost no more than they must: in memory, and in pauses of the collector.

structlog is imported without the libraries that it takes up wherever they are installed.

It draws tracebacks with rich and follows greenlets as soon as it finds them: 4 MiB in a process that does neither, for
`logs` writes plain lines, and greenback brings greenlet when a rare IMAP command wants it.  Both are here
for `accountsctl` and for that, so they are hidden while structlog is imported, and only then: `None` in `sys.modules`
is how the import system is told that there is no such module (language reference, 5.3.1).

What is imported stays for ever, a hundred thousand objects.  The cyclic garbage collector looks at them again each time
that it looks at all there are, 50 ms in which no account has its turn; `set_aside` takes them out of its sight.  And
accounts stay for weeks: of 1,000 a look at all takes 0.1 s, and while they start there was one for each quarter that
was added, an eighth of a start's processor time; so those are made rare.  Young garbage is found as often as before.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import Final

UNWANTED: Final = {"structlog": ("rich", "greenlet")}
"""What each of the named libraries is imported without.  What somebody has imported before is left as it is."""

FULL_EVERY: Final = 100
"""Collections of the middle generation between two looks at all there is, each of 7,000 objects more than there were:
at 300 objects an account, one look in 2,300 accounts that start.  Python's default is 10.  What such a look would free
is the garbage of 700,000 objects at most, some 100 MB, and far less where most of it dies young."""


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
    """Let the collector look at nothing that is here now, and rarely at all there is.

    Called once, when all is imported and nothing runs yet.
    """
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, FULL_EVERY)
