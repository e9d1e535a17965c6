"""simple-websocket (what Flask-Sock uses) on gevent's pywsgi."""

# ruff: noqa: E402  (gevent patches before anything else is imported)
from gevent import monkey

monkey.patch_all()

import contextlib

from gevent.pywsgi import WSGIServer
from simple_websocket import ConnectionClosed, Server

from arguments import HOST, read_arguments

connected = set()


def echo(ws):
    while True:
        ws.send(ws.receive())


def broadcast(ws):
    connected.add(ws)
    try:
        while True:
            message = ws.receive()
            for other in list(connected):
                other.send(message)
    finally:
        connected.discard(ws)


def application(environ, start_response):
    handler = broadcast if environ["PATH_INFO"] == "/broadcast" else echo
    ws = Server.accept(environ)
    with contextlib.suppress(ConnectionClosed, OSError):
        handler(ws)
    return []


arguments = read_arguments()
tls = {"ssl_context": arguments.ssl_context()} if arguments.tls else {}
WSGIServer((HOST, arguments.port), application, log=None, error_log=None, **tls).serve_forever()
