"""The metrics for Prometheus: `counters` that code counts up, and the `collector` of the rest."""
