"""What a server counts of itself, in Prometheus' text form, in a registry of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from fangcun.generation import Engine

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SPEEDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """Counters and histograms; what the engine counts is read from it when it is asked for."""

    def __init__(self, engine: Engine | None) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "fangcun_requests", "Requests by route and status.", ("route", "method", "status"), registry=self.registry
        )
        self.first_token = Histogram(
            "fangcun_time_to_first_token_seconds",
            "From a request to its first text.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.duration = Histogram(
            "fangcun_generation_seconds", "From a request to its last token.", buckets=_SECONDS, registry=self.registry
        )
        self.speed = Histogram(
            "fangcun_generation_tokens_per_second",
            "Tokens of a request over its time after the first text.",
            buckets=_SPEEDS,
            registry=self.registry,
        )
        self.abandoned = Counter(
            "fangcun_abandoned", "Requests whose client went away or stopped reading.", registry=self.registry
        )
        if engine is not None:
            self.registry.register(_EngineCounts(engine))

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self.registry)


class _EngineCounts(Collector):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self):
        """What the engine counts, now."""
        yield GaugeMetricFamily("fangcun_samples_running", "Samples being written.", self._engine.running)
        yield GaugeMetricFamily("fangcun_samples_waiting", "Samples that wait for a place.", self._engine.waiting)
        totals = self._engine.totals
        for name, text in (
            ("prompt_tokens", "Tokens of prompts that were begun."),
            ("cached_tokens", "Tokens of prompts that had been read before."),
            ("generated_tokens", "Tokens written."),
            ("steps", "Forward passes of the batch."),
        ):
            yield CounterMetricFamily(f"fangcun_{name}", text, getattr(totals, name))
