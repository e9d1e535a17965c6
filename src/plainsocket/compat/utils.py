"""The version of gevent-websocket whose contract this package keeps."""

from __future__ import annotations

from typing import Final

VERSION: Final = (0, 10, 1, "final", 0)


def get_version() -> str:
    """Of gevent-websocket, for programs that look at it; not of plainsocket."""
    return ".".join(map(str, VERSION[:3]))
