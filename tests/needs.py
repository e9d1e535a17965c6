"""What a test needs from the machine, and may not get: browsers, drivers, a free port."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def unavailable(reason: str) -> NoReturn:
    """Skip the test for `reason`, or fail it where PLAINSOCKET_NO_SKIP=1 says it must run."""
    if os.environ.get("PLAINSOCKET_NO_SKIP") == "1":
        pytest.fail(f"PLAINSOCKET_NO_SKIP=1 and {reason}", pytrace=False)
    pytest.skip(reason)


def program(name: str, package: str) -> str:
    """The path of an installed program."""
    return shutil.which(name) or unavailable(f"{name} is missing (Debian package {package})")
