# An echo server, as it was written in 2011.

from gevent.pywsgi import WSGIServer
from plainsocket import WebSocketHandler


def app(environ, start_response):
    if environ["PATH_INFO"] == "/echo":
        ws = environ["wsgi.websocket"]
        print("connected:", environ["REMOTE_ADDR"])
        while True:
            message = ws.wait()
            if message is None or message == "quit":
                break
            print("received:", message)
            ws.send(message)
        print("disconnected:", environ["REMOTE_ADDR"])
    else:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"There is only /echo here.\n"]


print("WebSocket echo server on port 8087")
WSGIServer(("", 8087), app, handler_class=WebSocketHandler).serve_forever()
