"""Reads the metrics that Prometheus scrapes."""

import re

from tests.support.client import JsonClient


def sample(client: JsonClient, name: str, **labels: str) -> float:
    """Return the value of one series; 0 where there is none yet."""
    for line in client.get("/metrics").text.splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found and found[1] == name:
            present = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[2] or ""))
            if labels.items() <= present.items():
                return float(found[3])
    return 0.0
