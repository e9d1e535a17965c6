"""BaseProtocol: messages go to the application as they are."""

from __future__ import annotations

import weakref
from typing import Any, ClassVar


class BaseProtocol:
    """Between a WebSocketApplication and its connection's events."""

    PROTOCOL_NAME: ClassVar[str] = ""
    """The name of the subprotocol."""

    def __init__(self, app: Any) -> None:
        self._app = weakref.ref(app)  # which has this protocol: no cycle, freed at once

    @property
    def app(self) -> Any:
        """The WebSocketApplication."""
        return self._app()

    def on_open(self) -> None:
        self.app.on_open()

    def on_message(self, message: Any) -> None:
        self.app.on_message(message)

    def on_close(self, reason: Any = None) -> None:
        self.app.on_close(reason)

    @property
    def handler(self) -> Any:
        """The WebSocketHandler of the connection; None before there is one."""
        return self.app.ws.handler if hasattr(self.app, "ws") else None

    @property
    def server(self) -> Any:
        """Its server; None likewise."""
        return self.handler.server if self.handler is not None else None
