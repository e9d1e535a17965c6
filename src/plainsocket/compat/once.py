"""Warnings that are worth one line a process, not one a connection."""

from __future__ import annotations

import logging
from typing import Final

logger: Final = logging.getLogger("plainsocket")

_told: set[str] = set()


def warn_once(message: str) -> None:
    if message not in _told:
        _told.add(message)
        logger.warning("%s", message)
