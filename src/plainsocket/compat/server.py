"""WebSocketServer: pywsgi's server with the WebSocketHandler, and its clients by address."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, ClassVar

from gevent.pywsgi import WSGIServer

from ..flashpolicy import FlashOption, FlashPolicy, FlashPolicyServer, start_beside
from .clients import Clients
from .handler import WebSocketHandler
from .logging import create_logger

__all__ = ["WebSocketServer"]


class WebSocketServer(WSGIServer):
    """`WSGIServer` with these besides its own arguments:

    `debug` writes a log to stderr; `pre_start_hook` is called with the handler of each request
    and may return true to let the application answer a WebSocket request as an ordinary one;
    `flash_policy` lets Flash programs connect, with the same values as for `plainsocket.serve`.
    """

    handler_class = WebSocketHandler
    debug_log_format: ClassVar = (
        "%(levelname)s in %(module)s [%(pathname)s:%(lineno)d]: %(message)s"
    )

    def __init__(
        self,
        *args: Any,
        debug: bool = False,
        pre_start_hook: Callable[[WebSocketHandler], object] | None = None,
        flash_policy: FlashOption = None,
        **kwargs: Any,
    ) -> None:
        self.debug = debug
        self.pre_start_hook = pre_start_hook
        self.clients = Clients()
        """The open WebSockets: `Client(address, ws)` by address."""
        self.flash_policy: FlashPolicy | None = None
        self.flash_policy_server: FlashPolicyServer | None = None
        self._flash_wanted = flash_policy
        self._logger: logging.Logger | None = None
        super().__init__(*args, **kwargs)

    def init_socket(self) -> None:
        super().init_socket()
        options = getattr(self.handler_class, "options", None)
        try:
            self.flash_policy, self.flash_policy_server = start_beside(
                self._flash_wanted, address=self.address, origins=getattr(options, "origins", None)
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        super().close()
        if self.flash_policy_server is not None:
            self.flash_policy_server.stop()

    @property
    def logger(self) -> logging.Logger:
        if self._logger is None:
            self._logger = create_logger(
                "geventwebsocket.server", self.debug, self.debug_log_format
            )
        return self._logger

    @logger.setter
    def logger(self, logger: logging.Logger) -> None:
        self._logger = logger
