"""LIST (RFC 9051 section 6.3.9) with SPECIAL-USE (RFC 6154), bounded, one folder's nonsense at a time.

Not through the bridge: there one name that is no modified UTF-7 loses the whole list, and a short list is what makes a
sync forget folders.  Here it costs that folder, and is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from daemon.errors import Fault, FaultKind

from .news import folder_name
from .parse import Malformed, values

if TYPE_CHECKING:
    from .responses import Response
    from .session import Session

MAX_FOLDERS: Final = 20_000
"""Folders of one account; Gmail stops at 10,000 labels."""


@dataclass(frozen=True, slots=True)
class ListedFolder:
    """A folder as LIST tells it."""

    name: str
    delimiter: str | None
    """Between the levels of names; None for a flat name."""
    attributes: frozenset[bytes]
    """As sent: `\\Noselect`, `\\Sent`, ..."""

    @property
    def selectable(self) -> bool:
        """Whether it can hold messages at all."""
        return not {attribute.lower() for attribute in self.attributes} & {b"\\noselect", b"\\nonexistent"}


@dataclass(frozen=True, slots=True)
class FolderList:
    """All folders of an account, as far as they can be used."""

    folders: tuple[ListedFolder, ...]
    unusable: int
    """Responses that named no folder we could select: unreadable, or no modified UTF-7."""


async def list_folders(session: Session) -> FolderList:
    """List all folders; raises Refused, and Fault(PROTOCOL) beyond `MAX_FOLDERS`."""
    found: dict[str, ListedFolder] = {}
    unusable = 0

    def sink(response: Response) -> bool:
        nonlocal unusable
        if response.kind != b"LIST":
            return False
        try:
            folder = _listed(response)
        except (Malformed, ValueError):
            unusable += 1
        else:
            found[folder.name] = folder
        if len(found) + unusable > MAX_FOLDERS:
            raise Fault(FaultKind.PROTOCOL, f"The account has more than {MAX_FOLDERS} folders.")
        return True

    capabilities = session.capabilities
    # RETURN needs LIST-EXTENDED in RFC 6154's words; a few servers send special uses only when asked like this.
    extended = b"SPECIAL-USE" in capabilities and bool(capabilities & {b"LIST-EXTENDED", b"IMAP4REV2"})
    options = (b"RETURN", b"(SPECIAL-USE)") if extended else ()
    await session.command(b"LIST", b'""', b'"*"', *options, sink=sink)
    return FolderList(tuple(found.values()), unusable)


def _listed(response: Response) -> ListedFolder:
    said = values(response.parts)
    if len(said) < 3 or type(said[0]) is not tuple:
        raise ValueError("not a LIST response")
    attributes = frozenset(word for word in said[0][:32] if type(word) is bytes and len(word) <= 64)
    delimiter = said[1]
    if delimiter is not None and (type(delimiter) is not bytes or len(delimiter) != 1):
        raise ValueError("not a delimiter")
    return ListedFolder(folder_name(said[2]), delimiter.decode("latin-1") if delimiter else None, attributes)
