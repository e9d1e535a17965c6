"""broadcast: one message to many WebSockets."""

from __future__ import annotations

from collections.abc import Iterable

from .protocol import Message, SharedMessage
from .websocket import WebSocket


def broadcast(
    websockets: Iterable[WebSocket], message: Message | bytearray | memoryview
) -> list[WebSocket]:
    """Send a message to many; return those that did not get it because they lag behind.

    Never waits, so that no receiver holds up the others. One that has `write_limit` bytes
    waiting already, or where other greenlets wait in `send`, is left out and returned: close it,
    or let it miss the message. Those that are closing or closed are left out too. ::

        for slow in plainsocket.broadcast(room, message):
            slow.close(1013, "too slow")

    The message is encoded once, and compressed once for all that agreed on the same; it leaves at
    the end of the loop's turn, with all others sent to the same WebSocket by then. Raises
    TypeError for what is not a message, UnicodeEncodeError for a `str` that is not text,
    RuntimeError for a WebSocket of another thread.
    """
    shared = SharedMessage(message)
    slow = []
    for websocket in websockets:
        if not websocket.queue_shared(shared):
            slow.append(websocket)  # noqa: PERF401 a comprehension's variable is not compiled
    return slow
