"""The compiled parts. They are optional: without a compiler plainsocket works in pure Python."""

from pathlib import Path

from setuptools import Extension, setup

SOURCES = [
    "frames",
    "protocol",
    "carriers/base",
    "carriers/descriptor",
    "carriers/tcp",
    "deadlines",
    "websocket",
    "broadcast",
    "connections",
    "timers",
    "head",
    "handshake",
    "opening",
    "workers",
    "endpoint",
    "routed",
    "visit",
    "entrance",
    "server",
]
"""Of src/plainsocket, those that are compiled."""


HEADERS = [str(header) for header in Path("src/plainsocket").rglob("*.h")]


def extensions() -> list[Extension]:
    try:
        import greenlet
        from Cython.Build import cythonize
    except ImportError:  # installed without build isolation
        return []
    return cythonize(
        [
            Extension(
                "plainsocket." + source.replace("/", "."),
                [f"src/plainsocket/{source}.py"],
                include_dirs=["src/plainsocket", "src/plainsocket/carriers", *headers(greenlet)],
                depends=HEADERS,
                extra_compile_args=["-O3", "-Wno-unused-function"],
                optional=True,
            )
            for source in SOURCES
        ],
        include_path=["src"],
        build_dir="build/cython",
        # The types are those of the .pxd files: annotations stay what mypy takes them for.
        compiler_directives={
            "language_level": 3,
            "annotation_typing": False,
            "infer_types": True,
            "boundscheck": False,  # indices are checked by what is around them
        },
    )


def headers(package: object) -> list[str]:
    """The folder above a package's own, for `#include <package/…>`."""
    return [str(Path(package.__file__).parent.parent)]


setup(ext_modules=extensions())
