"""What Prometheus reads of the proxy."""

from typing import Any

from ..extras import require

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)  # seconds


class Counts:
    """Requests, latency, texts, and queries that lie far from the pairs of the plan."""

    def __init__(self) -> None:
        prometheus = require("prometheus_client")
        self._latest = prometheus.generate_latest
        self.content_type: str = prometheus.CONTENT_TYPE_LATEST
        self.registry: Any = prometheus.CollectorRegistry()
        own = {"registry": self.registry}
        self.requests = prometheus.Counter("compatlearn_requests", "Requests answered.", ["model", "status"], **own)
        self.seconds = prometheus.Histogram(
            "compatlearn_request_seconds", "From the first byte of a request to its answer.", ["model"], buckets=BUCKETS, **own
        )
        self.upstream = prometheus.Histogram(
            "compatlearn_upstream_seconds", "Of this, spent waiting for the models.", ["model"], buckets=BUCKETS, **own
        )
        self.texts = prometheus.Counter("compatlearn_texts", "Texts embedded.", ["model"], **own)
        self.far = prometheus.Counter(
            "compatlearn_far_queries", "Queries that lie farther from all pairs of the plan than 99 % of the pairs do.", **own
        )
        self.open = prometheus.Gauge("compatlearn_open_requests", "Requests being answered.", **own)

    def page(self) -> bytes:
        """All figures in Prometheus' text format."""
        return bytes(self._latest(self.registry))
