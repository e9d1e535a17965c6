"""The loggers that servers and handlers have."""

from __future__ import annotations

import logging


def create_logger(
    name: str,
    debug: bool = False,
    format: str | None = None,  # noqa: A002 - part of the contract
) -> logging.Logger:
    """The logger of that name; with `debug` it writes everything to stderr.

    Handlers that it had are removed, so that calling twice does not log twice.
    """
    logger = logging.getLogger(name)
    logger.handlers.clear()
    if debug:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(format))
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    return logger
