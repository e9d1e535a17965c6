"""aiohttp on uvloop. Off: compression unless asked for, and the access log."""

from __future__ import annotations

import asyncio

import uvloop
from aiohttp import WSMsgType, web

from arguments import HOST, read_arguments

connected = set()
DEFLATE = web.AppKey("deflate", bool)


async def accept(request):
    ws = web.WebSocketResponse(compress=request.app[DEFLATE])
    await ws.prepare(request)
    return ws


async def echo(request):
    ws = await accept(request)
    async for message in ws:
        if message.type is WSMsgType.TEXT:
            await ws.send_str(message.data)
        else:
            await ws.send_bytes(message.data)
    return ws


async def broadcast(request):
    ws = await accept(request)
    connected.add(ws)
    try:
        async for message in ws:
            for other in list(connected):
                try:
                    await other.send_str(message.data)
                except ConnectionError:
                    connected.discard(other)
    finally:
        connected.discard(ws)
    return ws


async def main() -> None:
    arguments = read_arguments()
    application = web.Application()
    application[DEFLATE] = arguments.deflate
    application.add_routes([web.get("/echo", echo), web.get("/broadcast", broadcast)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(
        runner, HOST, arguments.port, ssl_context=arguments.ssl_context(), backlog=2048
    )
    await site.start()
    await asyncio.Future()


uvloop.run(main())
