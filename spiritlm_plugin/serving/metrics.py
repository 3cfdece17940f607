"""What a server counts, for Prometheus."""

from __future__ import annotations

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

# In which the client library adds up what several processes count.
SHARED_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 20, 60, 120)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Counts, durations and states of a server.

    Example
    -------
    >>> metrics = Metrics()
    >>> metrics.tokens.labels("expressive", "out").inc(3)
    >>> b'spiritlm_tokens_total{direction="out"' in metrics.text()
    True
    """

    def __init__(self) -> None:
        own = CollectorRegistry()
        self.registry = own
        self.requests = Counter(
            "spiritlm_requests",
            "By route and status",
            ["route", "status"],
            registry=own,
        )
        self.seconds = Histogram(
            "spiritlm_request_seconds",
            "From request to end of answer",
            ["route"],
            buckets=_SECONDS,
            registry=own,
        )
        self.first_audio = Histogram(
            "spiritlm_first_audio_seconds",
            "From request to first audio",
            ["model"],
            buckets=_SECONDS,
            registry=own,
        )
        self.tokens = Counter(
            "spiritlm_tokens",
            "Read and made",
            ["model", "direction"],
            registry=own,
        )
        self.audio = Counter(
            "spiritlm_audio_seconds",
            "Heard and spoken",
            ["model", "direction"],
            registry=own,
        )
        self.waiting = Gauge(
            "spiritlm_waiting",
            "Requests that wait",
            ["model"],
            registry=own,
            multiprocess_mode="livesum",
        )
        self.running = Gauge(
            "spiritlm_running",
            "Outputs that are made",
            ["model"],
            registry=own,
            multiprocess_mode="livesum",
        )
        self.connections = Gauge(
            "spiritlm_connections",
            "Conversations",
            registry=own,
            multiprocess_mode="livesum",
        )

    def text(self) -> bytes:
        """Return all of it, as Prometheus reads it."""
        registry = self.registry
        if os.environ.get(SHARED_VARIABLE):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry)
