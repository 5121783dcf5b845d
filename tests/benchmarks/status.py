"""What a worker serves on its status port."""

import urllib.request

from prometheus_client.parser import text_string_to_metric_families


def fetched(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}") as reply:
        content: bytes = reply.read()
        return content


def metric(port: int, name: str) -> float:
    """The sum of a metric over all its labels; 0 for one that is not there."""
    families = text_string_to_metric_families(fetched(port, "metrics").decode())
    return sum(sample.value for family in families for sample in family.samples if sample.name == f"replicator_{name}")
