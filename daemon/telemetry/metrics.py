"""Every metric, declared once, with bounded labels: never an account, an address or a host.

Counters and histograms are module-level values that any domain may count with.  What is a state and not an event is
read at the scrape from `statistics()` of the long-lived objects: the composition root registers them with `Gauges`.
Names follow Prometheus' practices: the application's prefix, base units, `_total`, timestamps instead of ages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from daemon.errors import FaultKind

CONTENT_TYPE = CONTENT_TYPE_LATEST

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series each, of no use beside the start time

registry = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=registry)
PlatformCollector(registry=registry)
GCCollector(registry=registry)

messages_stored = Counter(
    "accountsd_messages_stored", "Messages stored, by how they were met.", ["arrival"], registry=registry
)
bytes_stored = Counter("accountsd_message_bytes_stored", "Bytes of stored message bodies.", registry=registry)
messages_skipped = Counter(
    "accountsd_messages_skipped", "Messages that could not be read and were recorded as skipped.", registry=registry
)
faults = Counter("accountsd_faults", "What ended sync children, by kind of fault.", ["kind"], registry=registry)
connection_attempts = Counter(
    "accountsd_connection_attempts",
    "Connections and logins tried: accepted; refused for their account; throttled by the host; failed without a word.",
    ["outcome"],
    registry=registry,
)
sync_seconds = Histogram(
    "accountsd_sync_seconds",
    "Duration of bringing one folder up to date.",
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120, 600, 3600),
    registry=registry,
)
push_seconds = Histogram(
    "accountsd_push_seconds",
    "From the IMAP server's line to the committed row.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 5),
    registry=registry,
)
renewals = Counter(
    "accountsd_renewals", "Renewals of IDLE that found the folder as it was.", registry=registry
)
folders_demoted = Counter(
    "accountsd_folders_demoted", "Folders taken down the sync ladder by a contradiction.", ["to"], registry=registry
)
http_requests = Counter("accountsd_http_requests", "Answers of the API.", ["method", "status"], registry=registry)
http_seconds = Histogram(
    "accountsd_http_request_seconds",
    "Duration of a request of the API.",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 75),
    registry=registry,
)
rates_exceeded = Counter(
    "accountsd_rates_exceeded", "Requests refused because something was done too often, by rate.", ["rate"],
    registry=registry,
)  # fmt: skip
loop_lag_seconds = Histogram(
    "accountsd_loop_lag_seconds",
    "How late the event loop wakes a task that is due.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
    registry=registry,
)

for _arrival in ("backfill", "new"):  # label sets start at 0, so that a rate exists from the first event on
    messages_stored.labels(_arrival)
for _outcome in ("accepted", "refused", "throttled", "failed"):
    connection_attempts.labels(_outcome)
for _rate in ("change.user", "connect.host", "connect.mailbox", "connect.own_mailbox", "connect.user", "invite.user"):
    rates_exceeded.labels(_rate)
for _kind in (*FaultKind, "internal_error"):
    faults.labels(str(_kind))


@dataclass(frozen=True, slots=True)
class Gauge:
    """One value at the scrape."""

    name: str
    help: str
    value: float
    labels: dict[str, str] = field(default_factory=dict)


Source = Callable[[], Iterable[Gauge]]


class Gauges(Collector):
    """Reads the registered sources at each scrape."""

    def __init__(self) -> None:
        self._sources: list[Source] = []
        registry.register(self)

    def add(self, source: Source) -> None:
        """Ask this source at every scrape."""
        self._sources.append(source)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Every source's values, grouped by name as the format wants it."""
        families: dict[str, GaugeMetricFamily] = {}
        for source in self._sources:
            for gauge in source():
                family = families.get(gauge.name)
                if family is None:
                    family = families[gauge.name] = GaugeMetricFamily(gauge.name, gauge.help, labels=[*gauge.labels])
                family.add_metric([*gauge.labels.values()], gauge.value)
        yield from families.values()


gauges = Gauges()


def render() -> tuple[bytes, str]:
    """The exposition and its content type."""
    return generate_latest(registry), CONTENT_TYPE
