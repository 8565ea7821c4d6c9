"""Scenarios for supervisors: a table of how children behave, and the exact times at which they started and ended.

`run_scenario` runs a tree under the autojump clock; all times are relative to its start. Children behave as written:
one `Run` for each time they are started, the last one for ever after.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from supervisor import Backoff, ChildSpec, Context, Report, Supervisor

STEADY = Backoff(base=1.0, cap=8.0, factor=2.0, jitter=0.0, stable_uptime=100.0)


class Boom(Exception):
    """A child's own bug."""


@dataclass(frozen=True)
class Run:
    """One run of a child: ready after so many seconds, ending so many seconds after its start."""

    ends: float = math.inf
    how: str = "crash"
    ready: float = 0.0
    cleanup: float = 0.0
    """Seconds, shielded, that it takes to end once it is cancelled."""

    polite: float | None = None
    """Seconds from `stop()` to its end; None: it has no `stop`."""

    exc: Exception | None = None


FOREVER = Run()


@dataclass
class Story:
    """What happened, in the scenario's time."""

    starts: dict[str, list[float]] = field(default_factory=dict)
    ends: dict[str, list[float]] = field(default_factory=dict)
    readies: dict[str, list[float]] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)
    began: float = 0.0

    def now(self) -> float:
        return trio.current_time() - self.began

    def note(self, book: dict[str, list[float]], child_id: str) -> None:
        book.setdefault(child_id, []).append(self.now())

    def observe(self, report: Report) -> None:
        self.reports.append(report)

    def contexts(self, child_id: str) -> list[Context]:
        return [report.context for report in self.reports if report.child_id == child_id]

    def child(self, child_id: str, *runs: Run, **fields: object) -> ChildSpec:
        """The spec of a child that behaves like this."""
        stop_asked: list[trio.Event] = []
        count = 0

        async def start(*, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
            nonlocal count
            run = runs[min(count, len(runs) - 1)]
            count += 1
            stop_asked[:] = [trio.Event()]
            self.note(self.starts, child_id)
            try:
                await _behave(self, child_id, run, stop_asked[0], task_status)
            finally:
                if run.cleanup:
                    with trio.CancelScope(shield=True):
                        await trio.sleep(run.cleanup)
                self.note(self.ends, child_id)

        if any(run.polite is not None for run in runs):
            fields.setdefault("stop", lambda: stop_asked[0].set())
        fields.setdefault("backoff", STEADY)
        return ChildSpec(child_id, start, **fields)


async def _behave(
    story: Story, child_id: str, run: Run, stop_asked: trio.Event, task_status: trio.TaskStatus[str]
) -> None:
    await trio.sleep(min(run.ready, run.ends))
    if run.ready <= run.ends and run.ready < math.inf:
        story.note(story.readies, child_id)
        task_status.started(f"{child_id} is up")
    with trio.move_on_after(run.ends - run.ready):
        await stop_asked.wait()
        assert run.polite is not None
        await trio.sleep(run.polite)
        return
    if run.how == "crash":
        raise run.exc or Boom(child_id)
    assert run.how == "return"


Script = Callable[[Supervisor], object]


async def run_scenario(
    story: Story, tree: Supervisor, script: dict[float, Script] | None = None, *, until: float, cancel: bool = False
) -> float:
    """Run a tree; at the times of `script` call its functions; at `until` stop or cancel it. Returns when it ended.

    `story.began` is set to the start, so every time in the story is relative to it.
    """
    story.began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_play, story, tree, script or {}, until, cancel, nursery.cancel_scope)
        await tree.run()
        ended = story.now()
        nursery.cancel_scope.cancel()
    return ended if not cancel else story.now()


async def _play(
    story: Story,
    tree: Supervisor,
    script: dict[float, Script],
    until: float,
    cancel: bool,
    scope: trio.CancelScope,
) -> None:
    for at, act in sorted(script.items(), key=lambda item: item[0]):
        await trio.sleep_until(story.began + at)
        result = act(tree)
        if hasattr(result, "__await__"):
            await result
    await trio.sleep_until(story.began + until)
    if cancel:
        scope.cancel()
    else:
        tree.request_stop()
