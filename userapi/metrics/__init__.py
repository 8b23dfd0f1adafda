"""The metrics for Prometheus: those that code counts up, and those read from the database."""

from userapi.metrics.collector import DatabaseCollector
from userapi.metrics.counters import Metrics

__all__ = ["DatabaseCollector", "Metrics"]
