"""The compiled parts. They are optional: without a compiler plainsocket works in pure Python."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            f"plainsocket.{name}",
            [f"src/plainsocket/{name}.c"],
            extra_compile_args=["-O3"],
            optional=True,
        )
        for name in ("_mask", "_calls")
    ]
)
