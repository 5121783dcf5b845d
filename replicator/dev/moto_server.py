"""moto's server for everything but Kinesis, in threads of this process, one request at a time.

moto's backends are not safe for concurrent writers (measured: 8,000 puts acknowledged, 7,991 stored; 8,000
of 8,000 behind one lock), so the whole WSGI application, body included, runs under one lock.

Nobody may hold that lock for long, or leases run out behind it. moto's SQS reads all attributes of the queue for each
message it hands out or takes, and counting the queue's messages is among them: 170 ms for ten of 300 messages, 7 ms
with the one attribute that is asked for. Its EventBridge makes a parser of the same few paths for each event: ten took
870 ms on a loaded machine, and take 18. For every request it lists its own package and botocore's folders of services
and builds the model of the service anew; kept, a put with its client takes 3.5 ms instead of 4.7.

werkzeug closes a connection after each request, and AWS does not. A new one is a quarter to a third of what a
request costs a client, which a benchmark would take for the client's own; so connections are kept open here.
"""

import logging
import time
from collections.abc import Callable, Iterable
from functools import cache, lru_cache, partial
from io import BytesIO
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import jsonpath_ng.ext
import moto.backends
import moto.core.responses
import moto.core.utils
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.sqs.models import Message, Queue, SQSBackend
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import run_wsgi_app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

COUNTS = frozenset(name for name in Queue.BASE_ATTRIBUTES if name.startswith("ApproximateNumberOf"))
_get_queue_attributes = SQSBackend.get_queue_attributes


class Serialised:
    """A WSGI application that serves one request at a time, to the last byte of its body."""

    def __init__(self, application: "WSGIApplication") -> None:
        self._application = application
        self._lock = Lock()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        with self._lock:
            body = self._application(environ, start_response)
            try:
                return list(body)
            finally:
                close: Callable[[], None] | None = getattr(body, "close", None)
                if close is not None:
                    close()


class KeptAlive(WSGIRequestHandler):
    """Answers one request after the other on a connection. What is served must answer whole, as `Serialised` does."""

    disable_nagle_algorithm = True  # A body would wait for the acknowledgement of its headers: 40 ms.

    def run_wsgi(self) -> None:
        environ = self.make_environ()
        is_chunked = "wsgi.input_terminated" in environ
        # Read to its end, also where the application does not want it: behind it the next request begins.
        length = -1 if is_chunked else int(environ.get("CONTENT_LENGTH") or 0)
        environ["wsgi.input"] = BytesIO(environ["wsgi.input"].read(length))
        body, status, headers = run_wsgi_app(self.server.app, environ, buffered=True)
        code, _, reason = status.partition(" ")
        content = b"".join(body)
        if int(code) not in {204, 304}:
            headers.setdefault("Content-Length", str(len(content)))
        self.send_response(int(code), reason)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _is_kept(self: SQSBackend, queue_name: str, message: Message) -> bool:
    retention_s: int = getattr(self.get_queue(queue_name), "message_retention_period")  # noqa: B009 - set by name there
    sent_ms: int = message.sent_timestamp or 0
    return retention_s * 1000 + sent_ms > time.time() * 1000


def _counted(self: SQSBackend, queue_name: str, attribute_names: list[str]) -> dict[str, Any]:
    """With the numbers of messages only where they are asked for."""
    queue = self.get_queue(queue_name)
    if any(name == "All" or name in COUNTS for name in attribute_names):
        queue.BASE_ATTRIBUTES = [*Queue.BASE_ATTRIBUTES, *COUNTS]
    try:
        return _get_queue_attributes(self, queue_name, attribute_names)
    finally:
        vars(queue).pop("BASE_ATTRIBUTES", None)


def _hasten() -> None:
    """See above."""
    SQSBackend.is_message_valid_based_on_retention_period = _is_kept  # type: ignore[method-assign]
    SQSBackend.get_queue_attributes = _counted  # type: ignore[method-assign]
    Queue.BASE_ATTRIBUTES = [name for name in Queue.BASE_ATTRIBUTES if name not in COUNTS]
    jsonpath_ng.ext.parse = lru_cache(jsonpath_ng.ext.parse)  # type: ignore[attr-defined]
    moto.core.responses.get_service_model = cache(moto.core.utils.get_service_model)  # type: ignore[attr-defined]
    moto.backends.list_of_moto_modules = partial(list, [*moto.backends.list_of_moto_modules()])


def start_moto(host: str, port: int) -> str:
    """Serve from daemon threads until the process ends; returns the URL. Port 0 takes a free one."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    _hasten()
    application = Serialised(DomainDispatcherApplication(create_backend_app))
    server = make_server(host, port, application, threaded=True, request_handler=KeptAlive)
    Thread(target=server.serve_forever, name="moto", daemon=True).start()
    return f"http://{host}:{server.port}"
