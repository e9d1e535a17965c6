"""Write docs/works-with.md from what `pytest --works-with FILE` has put into FILE.

PYTHONPATH=tests python tools/write_works_with.py FILE docs/works-with.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from works_with import PROGRAMS

HEAD = """\
# Works with

Made by `make works-with` from the tests themselves: a program is named here if tests that run it
have passed, with the version that they ran. Other versions are likely to work too; the ranges that
are tried are in [pyproject.toml](../pyproject.toml).

| program | version | what it is for | tests |
| --- | --- | --- | --- |
"""


def main(source: Path, target: Path) -> None:
    seen = json.loads(source.read_text())
    lines = []
    for name, (purpose, _version) in PROGRAMS.items():
        if name in seen:
            files = ", ".join(f"[{file}](../tests/{file})" for file in seen[name]["files"])
            lines.append(f"| {name} | {seen[name]['version']} | {purpose} | {files} |\n")
    target.write_text(HEAD + "".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
