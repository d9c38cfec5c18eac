"""What the server counts, in Prometheus' words; each server counts for itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from camelbell_plugins.frontend_serve.reply import Ending

_SECONDS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144)


class Metrics:
    """Counters of requests, replies, tokens and waits."""

    def __init__(self, waiting: Callable[[], int], running: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "camelbell_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.replies = Counter(
            "camelbell_replies", "Replies by how they ended.", ("character", "ended"), registry=self.registry
        )
        self.tokens = Counter(
            "camelbell_tokens", "Tokens read and said.", ("character", "kind"), registry=self.registry
        )
        self.held_back = Counter(
            "camelbell_held_back", "Replies that the guard held back.", ("character", "filter"), registry=self.registry
        )
        self.first = Histogram(
            "camelbell_first_piece_seconds",
            "From a request's arrival to the first text of its reply, the wait in the line included.",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.took = Histogram(
            "camelbell_reply_seconds", "How long a worker made a reply.", registry=self.registry, buckets=_SECONDS
        )
        Gauge("camelbell_waiting", "Requests in the line.", registry=self.registry).set_function(waiting)
        Gauge("camelbell_running", "Replies being made.", registry=self.registry).set_function(running)

    def ended(self, character: str, ending: Ending | None, gone: bool) -> None:
        """Count a reply."""
        if ending is None:
            self.replies.labels(character, "failed").inc()
            return
        self.replies.labels(character, "left" if gone else ending.finish).inc()
        self.tokens.labels(character, "read").inc(ending.usage.prompt_tokens)
        self.tokens.labels(character, "said").inc(ending.usage.completion_tokens)
        for held in ending.extension.held_back:
            self.held_back.labels(character, held.filter).inc()
        self.took.observe(ending.took)
        if ending.first:
            self.first.observe(ending.first)

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return bytes(generate_latest(self.registry))
