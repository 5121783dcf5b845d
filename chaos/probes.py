"""What is asked of the regions: the independent judge's verdict on everything written so far."""

import logging
from collections.abc import Sequence

from chaos.controls import running

logger = logging.getLogger("chaostoolkit")


def faults(names: Sequence[str]) -> str:
    """These counts of the verdict, as ``lost 0, looped 0``: one text, so that the journal has all numbers of a failure.

    ``names`` are those of `replicator.dev.checker.FAULTS`. The producers pause meanwhile. While a region is lost the
    verdict counts what it lacks as lost, after a wait of at most a minute. The log has the rest of the verdict.
    """
    verdict = running().call(lambda scene: scene.verdict())
    logger.info("%d events are written; replicas by region: %s", verdict.written, dict(verdict.delivered))
    for fault, examples in verdict.examples.items():
        logger.warning("%s, for example: %s", fault, ", ".join(examples))
    found = verdict.faults()
    return ", ".join(f"{name} {found[name]}" for name in names)
