"""websockets on uvloop. Off: the 1 MiB limit that 1 MiB messages touch."""

from __future__ import annotations

import asyncio

import uvloop
from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosed

from arguments import HOST, read_arguments

connected = set()


async def handle(ws):
    try:
        if ws.request.path != "/broadcast":
            async for message in ws:
                await ws.send(message)
            return
        connected.add(ws)
        try:
            async for message in ws:
                broadcast(connected, message)
        finally:
            connected.discard(ws)
    except ConnectionClosed:  # ended without a Close, as the handshake test does
        pass


async def main() -> None:
    arguments = read_arguments()
    context = arguments.ssl_context()
    async with serve(
        handle,
        HOST,
        arguments.port,
        ssl=context,
        compression="deflate" if arguments.deflate else None,
        max_size=None,
        backlog=2048,
    ):
        await asyncio.Future()


uvloop.run(main())
