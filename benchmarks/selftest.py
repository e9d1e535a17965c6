"""Does the generator notice? Breaks an echo server in every way that matters
and checks that each is reported; `make selftest`. Uses build/ and nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

LOAD = Path(__file__).resolve().parent / "build" / "load"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
AT = 40  # the message with which the server goes wrong

# What goes wrong, and what the generator must say of it.
FAULTS = {
    "nothing": "",
    "a byte flipped": "differs at byte",
    "two messages swapped": "differs at byte",
    "a message twice": "differs at byte",
    "a message lost": "nothing came for",
    "a byte too few": "shorter than",
    "a byte too many": "longer than",
    "binary for text": "opcode 2 instead of 1",
    "a masked frame": "is masked",
    "a reserved bit": "a reserved bit is set",
    "a Close": "closed by the server after",
    "the connection cut": "hung up without a Close",
    "silence": "nothing came for",
    "a refused upgrade": "refused: HTTP/1.1 403",
    "a wrong accept": "no right Sec-WebSocket-Accept",
    "no answer to the upgrade": "not open after",
}

ADDRESSES = ("10.0.0.1", "192.168.1.1", "128.0.0.1", "0.0.0.0", "localhost", "::1")


async def read_message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(6)
    masked = await reader.readexactly(head[1] & 0x7F)
    if head[0] & 0x0F == 8:
        raise EOFError
    return bytes(byte ^ head[2 + i % 4] for i, byte in enumerate(masked))


def frame(payload: bytes, first: int = 0x81, masked: bool = False) -> bytes:
    if masked:
        return bytes([first, 0x80 | len(payload), 0, 0, 0, 0]) + payload
    return bytes([first, len(payload)]) + payload


def broken(fault: str, message: bytes, before: bytes) -> bytes:
    """The reply to one message, with the fault in it; b"" to send nothing."""
    return {
        "a byte flipped": frame(message[:-1] + bytes([message[-1] ^ 1])),
        "two messages swapped": frame(before),
        "a message twice": frame(message) * 2,
        "a message lost": b"",
        "a byte too few": frame(message[:-1]),
        "a byte too many": frame(message + b"!"),
        "binary for text": frame(message, first=0x82),
        "a masked frame": frame(message, masked=True),
        "a reserved bit": frame(message, first=0xC1),
        "a Close": frame(b"\x03\xf3oops", first=0x88),
    }.get(fault, frame(message))


def answer(fault: str, request: bytes) -> bytes:
    key = request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    if fault == "a wrong accept":
        accept = accept[::-1]
    if fault == "a refused upgrade":
        return b"HTTP/1.1 403 Forbidden\r\n\r\n"
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


async def serve(fault: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        request = await reader.readuntil(b"\r\n\r\n")
        if fault == "no answer to the upgrade":
            await reader.read()  # until the generator gives up
        writer.write(answer(fault, request))
        number, before = 0, b""
        while True:
            message = await read_message(reader)
            number += 1
            wrong = number == AT or (fault == "silence" and number > AT)
            if wrong and fault == "the connection cut":
                break
            if wrong and fault == "silence":
                continue
            writer.write(broken(fault, message, before) if wrong else frame(message))
            before = message
    except (EOFError, ConnectionError):
        pass
    finally:
        writer.close()


async def load(*arguments: str) -> tuple[int, dict[str, Any], str]:
    process = await asyncio.create_subprocess_exec(
        str(LOAD), *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, json.loads(out) if out else {}, err.decode()


async def notices(fault: str, expected: str) -> str:
    """What is wrong with the generator; "" if nothing is."""
    server = await asyncio.start_server(
        lambda reader, writer: serve(fault, reader, writer), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    status, result, _ = await load(
        *("--port", str(port), "--connections", "2", "--verify", "--timeout", "0.4"),
        *("--warmup", "0.1", "--seconds", "0.8", "--server-pid", str(os.getpid())),
    )
    server.close()
    if fault == "nothing":
        return "" if status == 0 and result["ok"] and result["count"] else str(result)
    good = status == 1 and not result["ok"] and expected in result["error"]
    return "" if good else f"status {status}: {result.get('error')!r}"


async def refuses(address: str) -> str:
    status, _, err = await load("--host", address, "--port", "9")
    return "" if status == 2 and "--host must be" in err else f"status {status}: {err}"


async def main() -> int:
    checks = [(f"with {fault}", notices(fault, says)) for fault, says in FAULTS.items()]
    checks += [(f"refuses {address}", refuses(address)) for address in ADDRESSES]
    failed = 0
    for name, check in checks:
        problem = await check
        failed += bool(problem)
        print(f"{'FAIL' if problem else 'ok  '} {name} {problem}".rstrip())
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
