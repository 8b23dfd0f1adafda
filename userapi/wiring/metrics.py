"""The metrics that code counts up."""

from dataclasses import dataclass

from userapi.metrics.counters import Metrics


@dataclass(frozen=True, kw_only=True)
class MetricServices:
    """The metrics of this process."""

    metrics: Metrics


def build_metrics() -> MetricServices:
    """Build the metrics."""
    return MetricServices(metrics=Metrics())
