"""Closing many WebSockets before their server goes."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final

import gevent

from .frames import CloseCode
from .websocket import WebSocket

_BATCH: Final = 100  # connections told in a row
_SPREAD: Final = 0.5  # seconds over which all are told, so that not all come back at once


def close_all(websockets: Iterable[WebSocket]) -> None:
    """Tell all 1001, in random order and in batches; does not wait for them to be gone."""
    remaining = list(websockets)
    random.shuffle(remaining)
    starts = range(0, len(remaining), _BATCH)
    for start in starts:
        for websocket in remaining[start : start + _BATCH]:
            websocket.close(CloseCode.GOING_AWAY, "server is stopping")
        if len(starts) > 1:
            gevent.sleep(random.uniform(0.001, 2 * _SPREAD / len(starts)))
