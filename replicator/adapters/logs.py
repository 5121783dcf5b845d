"""Structured logs: one JSON object a line on stderr, for our own events and for those of every library alike.

No secret may get out. Libraries are heard from warning upwards only, whatever our own level is: at debug
botocore logs signed headers and session tokens. What still looks like a secret, by its key or its shape, is
masked as the last step.
"""

import logging
import re
import sys
from datetime import UTC, datetime
from typing import Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Level = Literal["debug", "info", "warning", "error"]

OURS: Final = "replicator"
MASK: Final = "***"
_SECRET_KEY: Final = re.compile(
    r"(?i)(password|passwd|secret|credential|authorization|(tag|redact)_key|token|api_?key)"
)
_SECRET_TEXT: Final = re.compile(
    r"(?<=://)[^/\s@'\"]*(?=@)"  # user and password in a URL
    r"|(?i:(?<=signature=)[0-9a-f]{64})"  # a request signature
    r"|(?i:(?<=security-token[=:])[^\s&'\",]+)"  # a session token
)


def configure_logs(level: Level, *, region: str, worker: str, stream: TextIO | None = None) -> None:
    """Route all logging of this process to ``stream`` (stderr) as JSON; safe to repeat, the last call holds.

    Every line carries timestamp (UTC, ms), level, event, region and worker, and what was bound: code of ours
    logs through ``structlog.get_logger()``, with context from ``bind`` or ``structlog.contextvars``.
    """
    level_no = logging.getLevelNamesMapping()[level.upper()]
    shared = _processors(region, worker)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level_no),
        logger_factory=lambda *_: logging.getLogger(OURS),
        cache_logger_on_first_use=False,
    )
    _route_libraries(shared, level_no, stream or sys.stderr)


def _processors(region: str, worker: str) -> list[Processor]:
    def constants(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.setdefault("region", region)
        event.setdefault("worker", worker)
        return event

    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _timestamp,
        constants,
        structlog.processors.format_exc_info,
        _mask,
    ]


def _route_libraries(shared: list[Processor], level: int, stream: TextIO) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger(OURS).setLevel(level)
    logging.captureWarnings(capture=True)


def _timestamp(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event["timestamp"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return event


def _mask(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {key: value if key.startswith("_") else _masked(key, value) for key, value in event.items()}


def _masked(key: str, value: object) -> object:
    if _SECRET_KEY.search(key):
        return MASK
    match value:
        case str():
            return _SECRET_TEXT.sub(MASK, value)
        case dict():
            return {str(inner): _masked(str(inner), item) for inner, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_masked("", item) for item in value]
        case None | bool() | int() | float():
            return value
    return _SECRET_TEXT.sub(MASK, str(value))
