"""GeventWebSocketWorker, made when asked for: gunicorn is an optional part."""

from __future__ import annotations

import importlib
from typing import Any

from ..handler import WebSocketHandler


def __getattr__(name: str) -> Any:
    if name != "GeventWebSocketWorker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    worker: Any = importlib.import_module("plainsocket.gunicorn").Worker
    bases = [WebSocketHandler]
    members: dict[str, Any] = {"__module__": __name__, "options": WebSocketHandler.options}
    if hasattr(worker, "handler_class"):
        bases.append(worker.handler_class)
        # gunicorn's access log is the place for requests, not the logger of the server.
        handler = type("Handler", tuple(bases), {"log_request": worker.handler_class.log_request})
        members["handler_class"] = handler
    made = type(name, (worker,), members)
    globals()[name] = made
    return made
