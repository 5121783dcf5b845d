"""The regions live as long as the experiment: made before it, ended after it, whatever happens in between."""

import logging
import signal
from collections.abc import Mapping
from typing import Any

from chaoslib.exceptions import InterruptExecution  # type: ignore[import-untyped]  # chaoslib ships no types

from chaos.drill import Drill
from chaos.scene import DrillError, Load
from replicator.errors import ReplicatorError

logger = logging.getLogger("chaostoolkit")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WARM_UP = 0.05
"""The share of the load that is written before the hypothesis is looked at for the first time."""
_drills: list[Drill] = []
"""The drill under way, if any: Chaos Toolkit calls functions and hands nothing from one to the next."""


def running() -> Drill:
    """The drill of the experiment that is under way."""
    if not _drills:
        raise DrillError("no drill is running: list chaos.controls under `controls` of the experiment")
    return _drills[-1]


def before_experiment_control(configuration: Mapping[str, Any], **_: object) -> None:
    """Start the regions and the load."""
    # Chaos Toolkit's handler of SIGTERM raises an error that it takes for a failure of the activity under way.
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    load = Load(events=configuration["events"], seconds=configuration["seconds"])
    drill = Drill(load, workers=configuration["workers"])
    _drills.append(drill)
    logger.info("Starting the regions and the load")
    try:
        drill.start()
        drill.call(lambda scene: scene.until_written(WARM_UP))
    except (ReplicatorError, TimeoutError) as exc:
        # Any other error of a control is logged for debugging only, and the experiment would go on.
        raise InterruptExecution(f"the regions did not start: {exc}") from exc


def after_activity_control(context: Mapping[str, Any], state: Mapping[str, Any] | None = None, **_: object) -> None:
    """End an experiment whose action failed: a disaster that did not happen proves nothing."""
    if context["type"] == "action" and state is not None and state["status"] == "failed":
        raise InterruptExecution(f"the action {context['name']!r} failed: {state['exception'][-1].strip()}")


def after_experiment_control(**_: object) -> None:
    """End the regions."""
    cleanup_control()


def cleanup_control() -> None:
    """End the regions. Chaos Toolkit calls this even where it skips `after_experiment_control`."""
    # One signal is enough: another one must not interrupt the cleaning up.
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        while _drills:
            _drills[-1].stop()
            _drills.pop()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
