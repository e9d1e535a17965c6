"""The import hook: `geventwebsocket` and its modules are those of `plainsocket.compat`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

_ALIAS: Final = "geventwebsocket"
_PACKAGE: Final = __package__


def install_geventwebsocket(**options: Any) -> None:
    """Let `import geventwebsocket` find plainsocket, even where gevent-websocket is installed.

    To be called before the first import of it: raises RuntimeError if that has happened. May be
    called again. The keywords are fields of `Options`, and hold for every WebSocketHandler that
    sets none of its own. Their defaults are plainsocket's but for `origins`, which is `"*"`:
    gevent-websocket never looked at the Origin.
    """
    from .handler import set_options

    present = sys.modules.get(_ALIAS)
    if present is not None and present is not sys.modules[_PACKAGE]:
        raise RuntimeError(
            f"gevent-websocket itself has been imported already, from "
            f"{getattr(present, '__file__', None)}: call install_geventwebsocket() before the "
            "first import of geventwebsocket, and of what imports it"
        )
    if options:
        set_options(**options)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        # First, because the distribution may be there too: others depend on it by name.
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        alias, dot, rest = fullname.partition(".")
        if alias != _ALIAS:
            return None
        real = importlib.util.find_spec(_PACKAGE + dot + rest)
        if real is None:
            return None  # and then nobody finds it
        is_package = real.submodule_search_locations is not None
        return ModuleSpec(fullname, _Alias(real.name), origin=real.origin, is_package=is_package)


class _Alias(Loader):
    """Gives a module that exists a second name: one object, one state."""

    def __init__(self, name: str) -> None:
        self._name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # which the import system has replaced by the alias's
