"""psycopg 3 on Trio, natively: an AsyncConnection whose waiting is done by Trio.

psycopg keeps its wire protocol in generators that yield "wait until the socket is readable / writable".
AsyncConnection is a thin driver for them, and only the driver knows asyncio: this module replaces exactly that driver,
so that a cancel scope reaches the server without a thread or a second event loop.

Trio's cancellation is level-triggered: in a cancelled scope every await raises again.  psycopg's clean-up (ROLLBACK,
CopyFail, leaving pipeline mode) awaits, so exits run under a shield, for at most GRACE seconds; what cannot be cleaned
up in that time is closed, which is a rollback as well.

Private names of psycopg are used here (listed in `PRIVATE_NAMES`), so psycopg is pinned exactly and
tests/daemon/storage/test_psycopg_contract.py fails when either moves.  Do not use `notifies(timeout=...)`: put a cancel
scope around `notifies()` instead, with `contextlib.aclosing`.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeAlias, TypeVar, cast

import structlog
import trio
from psycopg import AsyncConnection, AsyncCursor, adapters, pq
from psycopg import errors as e
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.conninfo import conninfo_attempts, make_conninfo, timeout_from_conninfo
from psycopg.errors import _WaitTimeout
from psycopg.rows import Row, TupleRow, tuple_row

from .waiting import drive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from psycopg import AsyncCopy, AsyncPipeline, AsyncTransaction
    from psycopg.abc import AdaptContext, ConnParam, Params, PQGen, Query
    from psycopg.copy import AsyncWriter
    from psycopg.pq.abc import PGconn
    from psycopg.rows import AsyncRowFactory

log = structlog.get_logger(__name__)

PSYCOPG: Final = "3.3.9"
"""The version whose private names this module was proved against."""

PRIVATE_NAMES: Final = (
    "_adapters", "_autocommit", "_cancel_gen", "_closed", "_connect_gen", "_get_connection_params", "_pipeline",
    "_should_cancel",
)  # fmt: skip
"""What is used of AsyncConnection beside its public names; and `psycopg.errors._WaitTimeout`."""

GRACE: Final = 5.0
"""Seconds that clean-up may outlive a cancellation: psycopg's own bound for the same wait."""

ACTIVE: Final = pq.TransactionStatus.ACTIVE
IDLE: Final = pq.TransactionStatus.IDLE
_TUPLES: Final[Any] = tuple_row
T = TypeVar("T")
Conn: TypeAlias = "TrioConnection[TupleRow]"
"""What the rest of the daemon works with: rows are tuples unless a cursor's row_factory says otherwise."""


class Field(bytes):
    """A value that is in PostgreSQL's binary format already; its type is what the statement makes of it."""

    __slots__ = ()


class _FieldDumper(Dumper):
    format = pq.Format.BINARY

    def dump(self, obj: Field) -> Field:
        return obj


adapters.register_dumper(Field, _FieldDumper)  # before any connection is made: each has a copy


class ServerSilent(e.OperationalError):
    """The server did not answer within the connection's `answer_within`; the connection was closed."""


# -- leaving -----------------------------------------------------------------------------------------------------------


class _ShieldedExit(Generic[T]):
    """Enter as usual; leave under a shield, for at most GRACE seconds, else close the connection."""

    __slots__ = ("_conn", "_manager")

    def __init__(self, manager: AbstractAsyncContextManager[T], conn: AsyncConnection[Any]) -> None:
        self._manager = manager
        self._conn = conn

    async def __aenter__(self) -> T:
        try:
            return await self._manager.__aenter__()
        except BaseException:
            # Interrupted between COPY and its data, the connection would stay ACTIVE for ever.
            if self._conn.pgconn.transaction_status == ACTIVE:
                await self._conn.close()
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        with trio.move_on_after(GRACE, shield=True):
            return await self._manager.__aexit__(exc_type, exc, traceback)
        await self._conn.close()
        if exc is None:
            raise ServerSilent("the server did not answer in time: connection closed")
        return None


# -- connection --------------------------------------------------------------------------------------------------------


class TrioCursor(AsyncCursor[Row]):
    """An AsyncCursor whose COPY ends cleanly in a cancelled scope."""

    @asynccontextmanager
    async def copy(
        self, statement: Query, params: Params | None = None, *, writer: AsyncWriter | None = None
    ) -> AsyncIterator[AsyncCopy]:
        """As psycopg's; cancelled, the COPY is ended on the server as well."""
        async with _ShieldedExit(super().copy(statement, params, writer=writer), self._conn) as copy:
            yield copy


class TrioConnection(AsyncConnection[Row]):
    """psycopg's AsyncConnection under Trio: the same interface, cancellable everywhere.

    One task at a time is served; others wait at `lock`.  `autocommit` is off unless asked for, as in psycopg.
    """

    answer_within: float | None = None
    """Seconds that the server may leave one request without an answer, or None for no bound (LISTEN waits so)."""

    begun_at: float = -math.inf
    """When the server's answer to BEGIN was here, Trio's time: the transaction's now() is that or earlier."""

    def __init__(self, pgconn: PGconn, row_factory: AsyncRowFactory[Row] = _TUPLES) -> None:
        super().__init__(pgconn, row_factory)
        # Not trio.Lock: that may be released by its owner only, and a half-read notifies() or stream() that the
        # garbage collector finalises runs in another task.
        self.lock = cast("Any", trio.Semaphore(1, max_value=1))
        self.cursor_factory = TrioCursor

    @classmethod
    async def connect(
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        row_factory: AsyncRowFactory[Row] | None = None,
        cursor_factory: type[AsyncCursor[Row]] | None = None,
        **kwargs: ConnParam,
    ) -> Self:
        """Connect to the first server of the conninfo that answers; each attempt has `connect_timeout` seconds.

        Raises:
            psycopg.OperationalError: none answered, or the name does not resolve.
            psycopg.ProgrammingError: the conninfo cannot be parsed.
        """
        params = await cls._get_connection_params(conninfo, **kwargs)
        timeout = timeout_from_conninfo(params)
        attempts = await trio.to_thread.run_sync(conninfo_attempts, params, abandon_on_cancel=True)
        failures: list[e.Error] = []
        for attempt in attempts:
            try:
                with trio.fail_after(timeout or math.inf):
                    self = await drive(cls._connect_gen(make_conninfo("", **attempt)))
                break
            except trio.TooSlowError:
                failures.append(e.ConnectionTimeout("connection timeout expired"))
            except e.Error as exc:
                failures.append(exc)
        else:
            if len(failures) == 1:
                raise failures[0]
            raise type(failures[-1])("\n".join(map(str, failures)))
        self._autocommit = bool(autocommit)
        self.prepare_threshold = prepare_threshold
        self.row_factory = row_factory or self.row_factory
        self.cursor_factory = cursor_factory or self.cursor_factory
        if context:
            self._adapters = AdaptersMap(context.adapters)
        return self

    @property
    def reusable(self) -> bool:
        """Whether another task may have it: open, in no transaction, in no pipeline."""
        return not self.closed and self.pgconn.transaction_status == IDLE and not self._pipeline

    async def wait(  # the signature is psycopg's
        self,
        gen: PQGen[T],
        interval: float = 0.0,  # noqa: ARG002 - psycopg polls for signals so often; Trio need not
        timeout: float | None = None,  # noqa: ASYNC109 - psycopg's parameter
    ) -> T:
        """Drive a generator of this connection; cancelled, stop the query on the server and then go.

        Raises:
            ServerSilent: no answer within `answer_within`.
        """
        fd = self.pgconn.socket
        limit = self.answer_within if timeout is None else max(timeout, 0.0)
        try:
            if limit is None:
                return await drive(gen, fd)
            with trio.move_on_after(limit):
                return await drive(gen, fd, eager=timeout is not None)
        except (trio.Cancelled, KeyboardInterrupt):
            if self.pgconn.transaction_status == ACTIVE:
                with trio.CancelScope(shield=True):
                    await self._interrupt(gen, fd)
            raise
        if timeout is None:
            await self.close()
            raise ServerSilent(f"the server gave no answer for {limit:g} s: connection closed")
        raise _WaitTimeout("wait timeout expired")

    async def _interrupt(self, gen: PQGen[T], fd: int) -> None:
        """Have the server stop the query and read what it still says, or give the connection up."""
        try:
            with trio.fail_after(GRACE):
                await self.cancel_safe(timeout=GRACE)
                await drive(gen, fd)
        except e.QueryCanceled:
            pass
        except BaseException as exc:
            log.warning("connection.query_not_stopped", error=type(exc).__name__)
            await self.close()
            if not isinstance(exc, Exception):
                raise

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:  # noqa: ASYNC109 - psycopg's parameter
        """Ask the server to stop the running query, within `timeout` seconds.

        Raises:
            psycopg.errors.CancellationTimeout: the request was not taken in time.
        """
        if not self._should_cancel():
            return
        try:
            with trio.fail_after(timeout):
                await drive(self._cancel_gen())
        except trio.TooSlowError:
            raise e.CancellationTimeout("cancellation timeout expired") from None

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[AsyncTransaction]:
        """As psycopg's, with COMMIT and ROLLBACK done even in a cancelled scope."""
        async with _ShieldedExit(super().transaction(savepoint_name, force_rollback), self) as transaction:
            yield transaction

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[AsyncPipeline]:
        """As psycopg's, left cleanly even in a cancelled scope."""
        async with _ShieldedExit(super().pipeline(), self) as pipeline:
            yield pipeline

    @asynccontextmanager
    async def at_once(self) -> AsyncIterator[None]:
        """Send the statements of the block in one go, and wait for their answers at its end; none may be a COPY.

        Raises:
            psycopg.Error: of the first statement that failed; none of those behind it was run.
        """
        async with self.pipeline() as pipeline:
            yield
            await pipeline.sync()  # here, where the usual limits hold: an exit has GRACE seconds only

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with trio.move_on_after(GRACE, shield=True):
            await super().__aexit__(exc_type, exc, traceback)
            return
        await self.close()

    async def close(self) -> None:
        """Close at once, without a word to the server; an open transaction is rolled back by it."""
        if not self.closed:
            self._closed = True
            # Or a task that waits in another task's query would sleep for ever on a dead descriptor.
            trio.lowlevel.notify_closing(self.pgconn.socket)
            self.pgconn.finish()
