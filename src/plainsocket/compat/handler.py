"""WebSocketHandler for pywsgi, as gevent-websocket's: the 101 goes out before the application."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, Final

from .. import handler
from ..flashpolicy import FlashPolicy
from ..frames import CloseCode
from ..handshake import Refused, Request, accept
from ..options import Options
from ..probe import answer
from ..websocket import WebSocket as PlainWebSocket
from .clients import Client, Clients
from .logging import create_logger
from .once import warn_once
from .websocket import WebSocket

__all__ = ["Client", "WebSocketHandler"]


_unchecked = Options(origins="*")  # which gevent-websocket did, and nobody may have thought of

_UNCHECKED: Final = (
    "Any page may open a WebSocket here, with the cookies of its visitor: as with "
    'gevent-websocket, the Origin is not checked. install_geventwebsocket(origins=["self"]) lets '
    'only pages of this host connect; origins="*" says that all are meant to.'
)


def set_options(**options: Any) -> None:
    """Set the options of every WebSocketHandler that sets none of its own."""
    global _unchecked
    WebSocketHandler.options = Options(**{"origins": "*", **options})
    if "origins" not in options:
        _unchecked = WebSocketHandler.options


class WebSocketHandler(handler.WebSocketHandler):
    """Give the application `environ["wsgi.websocket"]`, an open one.

    What the application answers by `start_response` is dropped: the 101 has been sent before it
    was called. A status of 400 and above becomes the close code 1008, of 500 and above 1011.
    Options are those of `install_geventwebsocket`, or of a subclass::

        class Handler(WebSocketHandler):
            options = plainsocket.Options(origins=["self"])
    """

    options = _unchecked

    server: Any  # any of pywsgi's; what is missing on it is added
    application: Any

    websocket: WebSocket | None = None
    active_client: Client | None = None
    """The entry of this connection in the server's `clients`."""

    carries_http = False  # what it gives the application needs a connection

    _is_ordinary = False

    @property
    def flash_policy(self) -> FlashPolicy | None:
        return getattr(self.server, "flash_policy", None) or self.options.flash_policy

    def run_application(self) -> None:
        hook = getattr(self.server, "pre_start_hook", None)
        self._is_ordinary = bool(hook and hook(self))
        super().run_application()

    def run_websocket_request(self, request: Request) -> None:
        if self._is_ordinary:
            super(handler.WebSocketHandler, self).run_application()
            return
        try:
            accepted = accept(request, self._options_of_request())
        except Refused as refused:
            self.refuse(request, refused)
            return
        if self.options is _unchecked:
            warn_once(_UNCHECKED)
        if getattr(self, "prevent_wsgi_call", False):
            warn_once("prevent_wsgi_call has no effect: plainsocket calls the application itself")
        plain = PlainWebSocket(self.options, request)
        self.open_websocket(plain, accepted)
        self.run_handler(plain, answer if accepted.is_probe else self._run_with)

    def _options_of_request(self) -> Options:
        """With the one subprotocol that the application, a Resource, speaks at this path."""
        app_protocol = getattr(self.application, "app_protocol", None)
        name = app_protocol(self.environ["PATH_INFO"]) if app_protocol is not None else ""
        return dataclasses.replace(self.options, subprotocols=[name]) if name else self.options

    def _run_with(self, plain: PlainWebSocket) -> None:
        self.websocket = WebSocket(plain, self)
        self.active_client = Client(self.client_address, self.websocket)
        self.environ["wsgi.websocket"] = self.websocket
        self.environ["wsgi.websocket_version"] = self.websocket.version
        if not hasattr(self.server, "clients"):
            self.server.clients = Clients()
        clients = self.server.clients
        key = clients.add(self.active_client, self.client_address, self._peer)
        try:
            self._call_application(plain)
        finally:
            clients.pop(key, None)
            # Or each would keep the other alive.
            self.websocket = self.active_client = None
            self.environ.pop("wsgi.websocket", None)

    def _call_application(self, plain: PlainWebSocket) -> None:
        statuses: list[str] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            statuses.append(status)
            return lambda data: None

        result = self.application(self.environ, start_response)
        try:
            for _ in result or ():
                pass
        finally:
            if hasattr(result, "close"):
                result.close()
        if statuses and statuses[-1] >= "4":
            is_error = statuses[-1] >= "5"
            plain.close(
                CloseCode.INTERNAL_ERROR if is_error else CloseCode.POLICY_VIOLATION,
                statuses[-1][:100],
            )

    @property
    def logger(self) -> logging.Logger:
        if not hasattr(self.server, "logger"):
            self.server.logger = create_logger("geventwebsocket.handler")
        logger: logging.Logger = self.server.logger
        return logger

    def log_request(self) -> None:
        """To the server's logger; a WebSocket has its line in the log of plainsocket."""
        if "101" not in str(self.status):
            self.logger.info(self.format_request())
