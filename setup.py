"""The compiled part. It is optional: without a compiler plainsocket works in pure Python."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "plainsocket._mask",
            ["src/plainsocket/_mask.c"],
            extra_compile_args=["-O3"],
            optional=True,
        )
    ]
)
