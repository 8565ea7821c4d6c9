"""structlog without the libraries that it takes up wherever they are installed.

It draws tracebacks with rich and follows greenlets as soon as it finds them: 4 MiB in a process that does neither, for
`logs` writes plain lines, and greenback brings greenlet when a rare IMAP command wants it.  Both are here
for `accountsctl` and for that, so they are hidden while structlog is imported, and only then: `None` in `sys.modules`
is how the import system is told that there is no such module (language reference, 5.3.1).
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

UNWANTED: Final = {"structlog": ("rich", "greenlet")}
"""What each of the named libraries is imported without.  What somebody has imported before is left as it is."""


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
