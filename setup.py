"""Installs the one file `xget`; name, version and description are read from it."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
SOURCE = (HERE / "xget").read_text(encoding="utf-8")


class BuildPy(build_py):
    """Takes the file `xget`, which has no suffix, for the module `xget`.

    A script would be copied as it is: Python keeps no bytecode of it, and Windows gets no xget.exe.
    """

    def find_modules(self) -> list[tuple[str, str, str]]:
        """Name the package, which is none, the module and its file."""
        return [("", "xget", "xget")]


setup(
    name="xget",
    version=re.search(r'^__version__ = "(.+)"', SOURCE, re.MULTILINE)[1],
    description=re.search(r'^"""(.+)', SOURCE, re.MULTILINE)[1],
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    py_modules=["xget"],
    cmdclass={"build_py": BuildPy},
    entry_points={"console_scripts": ["xget = xget:main"]},
    # A plain editable install only puts this folder on the path, where no xget.py is to be found.
    options={"editable_wheel": {"mode": "strict"}},
    python_requires=">=3.9",
    install_requires=["pyxnat>=1.6,<1.7", "httplib2>=0.20", "lxml>=4.6", "tqdm>=4.60"],
    extras_require={
        "demo": ["pydicom>=2.4"],
        "test": [
            "pydicom>=2.4",
            "pytest>=8",
            "pytest-xdist>=3",
            "hypothesis>=6",
            "mypy>=1.13",
            "ruff>=0.8",
            "types-requests",
            "cryptography>=42",
            "pysocks>=1.7",
            "setuptools>=70.1",
        ],
        "bench": [
            "pyxnat==1.6.4",
            "xnat==0.8.1",
            "yaxil==0.17.0",
            "xnatctl==0.6.0; python_version >= '3.11'",
            "xnatutils==0.10.0",
        ],
        # Other people's clients, which have to get along with the test XNAT.
        "clients": ["xnat==0.8.1", "yaxil==0.17.0", "xnatctl==0.6.0; python_version >= '3.11'"],
    },
)
