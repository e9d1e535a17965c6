"""gevent-websocket, with wsaccel, which it uses for UTF-8 if installed."""

from __future__ import annotations

import contextlib

from gevent import ssl
from gevent.pywsgi import WSGIServer
from geventwebsocket.exceptions import WebSocketError
from geventwebsocket.handler import WebSocketHandler

from arguments import HOST, read_arguments

connected = set()


def echo(ws):
    while (message := ws.receive()) is not None:
        ws.send(message)


def broadcast(ws):
    connected.add(ws)
    try:
        while (message := ws.receive()) is not None:
            for other in list(connected):
                other.send(message)
    finally:
        connected.discard(ws)


def application(environ, start_response):
    handler = broadcast if environ["PATH_INFO"] == "/broadcast" else echo
    with contextlib.suppress(WebSocketError):  # its way to say that the peer has gone
        handler(environ["wsgi.websocket"])
    return []


arguments = read_arguments()
tls = {"ssl_context": arguments.ssl_context(ssl.SSLContext)} if arguments.tls else {}
server = WSGIServer(
    (HOST, arguments.port), application, handler_class=WebSocketHandler, log=None, **tls
)
server.serve_forever()
