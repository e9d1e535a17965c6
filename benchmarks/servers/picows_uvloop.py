"""picows on uvloop, with messages as str: text is decoded (and so checked) and
encoded again, as every server does here that hands text to the application."""

from __future__ import annotations

import uvloop
from picows import WSListener, WSMsgType, ws_create_server

from arguments import HOST, read_arguments

connected = set()


class Echo(WSListener):
    def on_ws_frame(self, transport, frame):
        if frame.msg_type == WSMsgType.TEXT:
            transport.send(WSMsgType.TEXT, frame.get_payload_as_utf8_text().encode())
        elif frame.msg_type == WSMsgType.BINARY:
            transport.send(WSMsgType.BINARY, frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()


class Broadcast(WSListener):
    def on_ws_connected(self, transport):
        connected.add(transport)

    def on_ws_frame(self, transport, frame):
        if frame.msg_type == WSMsgType.TEXT:
            message = frame.get_payload_as_utf8_text().encode()
            for other in connected:
                other.send(WSMsgType.TEXT, message)
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()

    def on_ws_disconnected(self, transport):
        connected.discard(transport)


def choose(request):
    return Broadcast() if request.path == b"/broadcast" else Echo()


async def main() -> None:
    arguments = read_arguments()
    server = await ws_create_server(
        choose, HOST, arguments.port, ssl=arguments.ssl_context(), backlog=2048
    )
    await server.serve_forever()


uvloop.run(main())
