"""The names that bridged Python 2 and 3, for programs that import them from gevent-websocket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

PY2 = False
PY3 = True
text_type = str
string_types = (str,)
range_type = range


def iteritems(mapping: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    return iter(mapping.items())
