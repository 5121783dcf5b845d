"""The regions live as long as the experiment: made before it, ended after it, whatever happened in between."""

from typing import Any

from chaos.drill import Drill

_drill: Drill | None = None


def running() -> Drill:
    """The drill of the experiment that is under way."""
    if _drill is None:
        raise RuntimeError("no drill is running; list chaos.controls under `controls` in the experiment")
    return _drill


def before_experiment_control(context: dict[str, Any], configuration: dict[str, Any], **_: Any) -> None:
    """Start three regions and write a little before the first look at the hypothesis."""
    global _drill  # noqa: PLW0603 - Chaos Toolkit knows functions only, and one experiment a process
    _drill = Drill(int(configuration["events"]), float(configuration["seconds"]))
    try:
        _drill.start()
        _drill.warm_up()
    except BaseException:
        _drill.stop()
        raise


def after_experiment_control(context: dict[str, Any], **_: Any) -> None:
    """End everything."""
    if _drill is not None:
        _drill.stop()
