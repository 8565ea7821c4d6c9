"""One ordered log of what happened, written in the transaction it tells of.

`events_store` writes and reads it; webhooks, streams and the API read from it.  The order is (transaction, sequence),
and readers stay below the oldest running transaction: a transaction that commits late is never skipped.
"""

from .events_store import Event, EventType, append, append_each, append_many, read_after

__all__ = ["Event", "EventType", "append", "append_each", "append_many", "read_after"]
