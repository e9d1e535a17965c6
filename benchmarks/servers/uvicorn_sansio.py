"""uvicorn (uvloop, httptools) with its websockets-sansio protocol and a bare ASGI
application. Off: compression, the access log, the lifespan protocol."""

from __future__ import annotations

import uvicorn

from arguments import HOST, read_arguments

connected = set()


async def application(scope, receive, send):
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    broadcasts = scope["path"] == "/broadcast"
    if broadcasts:
        connected.add(send)
    try:
        while (event := await receive())["type"] == "websocket.receive":
            text = event.get("text")
            if text is None:
                await send({"type": "websocket.send", "bytes": event["bytes"]})
            elif not broadcasts:
                await send({"type": "websocket.send", "text": text})
            else:
                for other in list(connected):
                    await other({"type": "websocket.send", "text": text})
    finally:
        connected.discard(send)


arguments = read_arguments()
certificate, key = arguments.tls or (None, None)
uvicorn.run(
    application,
    host=HOST,
    port=arguments.port,
    loop="uvloop",
    http="httptools",
    ws="websockets-sansio",
    ws_per_message_deflate=False,
    lifespan="off",
    access_log=False,
    log_level="warning",
    ssl_certfile=certificate,
    ssl_keyfile=key,
)
