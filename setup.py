"""Installs the one file `xget`; name, version and description are read from it."""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
SOURCE = (HERE / "xget").read_text(encoding="utf-8")

setup(
    name="xget",
    version=re.search(r'^__version__ = "(.+)"', SOURCE, re.MULTILINE)[1],
    description=re.search(r'^"""(.+)', SOURCE, re.MULTILINE)[1],
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    scripts=["xget"],
    py_modules=[],
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
