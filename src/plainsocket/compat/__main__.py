"""`python -m plainsocket.compat app.py`: run a program of gevent-websocket's unchanged."""

from __future__ import annotations

import argparse
import os
import runpy
import sys

from .hook import install_geventwebsocket

USAGE = "python -m plainsocket.compat [--origin ORIGIN]... (SCRIPT | -m MODULE) [ARGUMENT]..."


def main(arguments: list[str]) -> None:
    own, program = _split(arguments)
    parser = argparse.ArgumentParser(
        prog="python -m plainsocket.compat",
        usage=USAGE,
        description="Run a Python program in which `import geventwebsocket` finds plainsocket.",
    )
    parser.add_argument(
        "--origin",
        action="append",
        dest="origins",
        metavar="ORIGIN",
        help='let only pages of this origin connect; "self" are those of this host (repeatable)',
    )
    options = parser.parse_args(own)
    if not program or program == ["-m"]:
        parser.error("which program?")
    install_geventwebsocket(**({"origins": options.origins} if options.origins else {}))
    if program[0] == "-m":
        sys.argv = program[1:]
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = program
        if not getattr(sys.flags, "safe_path", False):
            sys.path[0] = os.path.dirname(os.path.realpath(program[0]))  # as Python itself does
        runpy.run_path(program[0], run_name="__main__")


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Our own options, and the program with its arguments, which are none of our business."""
    index = 0
    while index < len(arguments) and arguments[index].startswith("-") and arguments[index] != "-m":
        index += 2 if arguments[index] == "--origin" else 1
    return arguments[:index], arguments[index:]


if __name__ == "__main__":
    main(sys.argv[1:])
