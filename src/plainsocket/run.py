"""`plainsocket run`: serve an application, while it is being developed or elsewhere."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from gevent import monkey

from . import reloader
from .listening import listen
from .server import Server


class TargetError(Exception):
    """There is nothing to serve at `MODULE:NAME`."""


class ListenError(Exception):
    """The address can't be had, for `reason`."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def run(
    target: str, *, host: str, port: int, reload: bool, patch: bool, command: Sequence[str]
) -> int:
    """Serve `target` until SIGINT or SIGTERM; return the exit code.

    `command` starts this again for `reload`. Raises TargetError where there is nothing to serve,
    ListenError where the address can't be had.
    """
    listener = reloader.handed_listener()
    is_child = listener is not None
    if listener is None:
        try:
            listener = listen(host=host, port=port)
        except OSError as error:  # while one of the application's own is another matter
            raise ListenError(error) from error
    if reload and not is_child:
        return reloader.supervise(listener, command)
    if patch:
        monkey.patch_all()  # before the application's modules are imported

    def make_server() -> Server:
        served = load(target)
        if isinstance(served, Mapping):
            return Server(served, listener=listener)
        return Server({}, app=served, listener=listener)

    if reload:
        return reloader.serve_until_changed(make_server)
    make_server().serve_forever()
    return 0


def load(target: str) -> Any:
    """What `MODULE:NAME` names: a WSGI application, or a mapping of paths to handlers.

    Without a name it is `application` or `app`. `MODULE:NAME()` calls a factory.
    """
    name, _, attribute = target.partition(":")
    is_factory = attribute.endswith("()")
    names = [attribute.removesuffix("()")] if attribute else ["application", "app"]
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # one of its own imports
        raise TargetError(f"no module {name!r} is found from {os.getcwd()}") from error
    for each in names:
        if hasattr(module, each):
            served = getattr(module, each)
            served = served() if is_factory else served
            if not callable(served) and not isinstance(served, Mapping):
                raise TargetError(f"{name}:{each} is neither an application nor a dict of handlers")
            return served
    raise TargetError(f"the module {name!r} has no {' and no '.join(map(repr, names))}")
