"""moto's server for everything but Kinesis, in threads of this process, one request at a time.

moto's backends are not safe for concurrent writers (measured: 8,000 puts acknowledged, 7,991 stored; 8,000
of 8,000 behind one lock), so the whole WSGI application, body included, runs under one lock.
"""

import logging
from collections.abc import Callable, Iterable
from threading import Lock, Thread
from typing import TYPE_CHECKING

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


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


def start_moto(host: str, port: int) -> str:
    """Serve from daemon threads until the process ends; returns the URL. Port 0 takes a free one."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    application = Serialised(DomainDispatcherApplication(create_backend_app))
    server = make_server(host, port, application, threaded=True)
    Thread(target=server.serve_forever, name="moto", daemon=True).start()
    return f"http://{host}:{server.port}"
