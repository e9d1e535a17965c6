"""TLS by gevent's sockets, whatever kind of context it is."""

from __future__ import annotations

import ssl
from typing import Any, cast

from gevent.ssl import SSLContext as GeventContext
from gevent.ssl import SSLSocket


def adapt(context: Any) -> ssl.SSLContext:
    """Make a context of the standard library's fit for gevent's sockets, and return it."""
    callback: Any = context.sni_callback
    if callback is not None and not isinstance(context, GeventContext):

        def with_real_socket(connection: Any, *arguments: Any) -> Any:
            # gevent's plain socket stands there, which lacks the attributes to choose a context.
            real = getattr(connection, "_sslsock", lambda: connection)()
            return callback(real, *arguments)

        context.sni_callback = with_real_socket
    return cast(ssl.SSLContext, context)


def accept(sock: Any, context: ssl.SSLContext | None) -> Any:
    """Do the server's handshake on a socket of gevent's; return the TLS socket.

    Raises OSError. The caller sets the deadline.
    """
    return SSLSocket(sock=sock, server_side=True, _context=context)
