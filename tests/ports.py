"""Ports for programs that are told where to listen."""

from __future__ import annotations

import contextlib
import random
import socket


def free_ports(count: int) -> list[int]:
    """Ports that nobody has, TCP and UDP, of those that the kernel gives to no client.

    One of the kernel's own choice might be a client's before the program has it.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(15_000, 32_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(socket.create_server(("", port)))
            udp = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            udp.bind(("", port))
            if port not in ports:
                ports.append(port)
    return ports


def free_port() -> int:
    return free_ports(1)[0]
