"""docs/works-with.md names the programs that tests run with: no other, and none is missing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from processes import ROOT
from works_with import PARAMETERS, PROGRAMS

TESTS = Path(__file__).parent


def marked() -> set[str]:
    """The programs that the tests' marks name, as their source says."""
    names = {name for programs in PARAMETERS.values() for name in programs}
    for path in TESTS.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.works_with"):
                for argument in node.args:
                    assert isinstance(argument, ast.Constant), f"{path.name}:{node.lineno}"
                    names.add(str(argument.value))
    return names


def rows() -> dict[str, str]:
    text = (ROOT / "docs" / "works-with.md").read_text()
    return dict(re.findall(r"^\| (\S+) \| (\d\S*) \|", text, re.MULTILINE))


def test_the_table_is_of_the_programs_that_tests_name() -> None:
    assert rows().keys() == marked(), "run `make works-with`"


def test_every_program_has_a_version() -> None:
    assert marked() == PROGRAMS.keys()


def test_every_file_of_tests_is_there() -> None:
    text = (ROOT / "docs" / "works-with.md").read_text()
    for name in re.findall(r"\]\(\.\./tests/([^)]+)\)", text):
        assert (TESTS / name).exists(), name
