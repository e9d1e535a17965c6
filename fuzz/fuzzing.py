"""Runs one of the properties under atheris; see README.md."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

_TESTS = Path(__file__).resolve().parent.parent / "tests"


def fuzz(name: str) -> None:
    """Look for bytes that break the property `name` of tests/properties.py. Does not return."""
    # By name, because type checks are made where atheris is not installed.
    atheris: Any = importlib.import_module("atheris")
    # Else "\n" == line[-1:] is all or nothing to the fuzzer.
    atheris.enabled_hooks.add("str")
    sys.path.insert(0, str(_TESTS))
    with atheris.instrument_imports(include=["plainsocket"]):
        properties: Any = importlib.import_module("properties")
    atheris.Setup(sys.argv, properties.ALL[name])
    atheris.Fuzz()
