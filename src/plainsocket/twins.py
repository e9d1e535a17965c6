"""Which twin of a compiled module is imported.

The compiled one lies beside the source and comes first, unless the environment variable
PLAINSOCKET_PURE is set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import (
    SOURCE_SUFFIXES,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from types import ModuleType


class _SourcesOnly:
    """A finder that passes by the compiled modules of this package."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(f"{__package__}."):
            return None
        finders = (FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES)) for folder in path or ())
        specs = (finder.find_spec(name, target) for finder in finders)
        return next((spec for spec in specs if spec is not None), None)


if os.environ.get("PLAINSOCKET_PURE"):
    # Before the usual finder, and behind those of tools that look into what is imported.
    sys.meta_path.insert(sys.meta_path.index(PathFinder), _SourcesOnly)
