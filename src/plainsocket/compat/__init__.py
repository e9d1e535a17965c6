"""gevent-websocket's programs, unchanged, on plainsocket.

One line before the program's own imports::

    import plainsocket.compat; plainsocket.compat.install_geventwebsocket()

From then on `import geventwebsocket` finds this package, which has the modules of gevent-websocket
(`handler`, `websocket`, `server`, `resource`, `protocols.wamp` …), its classes and its manners.
Nothing on disk bears the name `geventwebsocket`, so that both distributions can be installed.
"""

from .exceptions import WebSocketError
from .hook import install_geventwebsocket
from .resource import Resource, WebSocketApplication
from .server import WebSocketServer
from .utils import VERSION, get_version

__all__ = [
    "VERSION",
    "Resource",
    "WebSocketApplication",
    "WebSocketError",
    "WebSocketServer",
    "get_version",
    "install_geventwebsocket",
]
