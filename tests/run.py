#!/usr/bin/env python3
"""Runs the demonstration, the tests or the benchmark, in a virtual environment of their own.

    python3 tests/run.py demo               xget against a test XNAT with real DICOM images
    python3 tests/run.py test [ARG ...]     linters, types and tests; ARGs are pytest's
    python3 tests/run.py windows [ARG ...]  the tests with xget in Windows' Python, by Wine where this is no
                                            Windows; --gate runs the part that stands for the rest
    python3 tests/run.py bench [ARG ...]    what xget promises, measured beside other downloaders

The environment is `.venv` at the top of the repository; the first call makes it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
VENV = HOME / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")


def is_linked() -> bool:
    """Tell whether the environment's xget runs this tree's file: setup.py links it below build/."""
    links = HOME.glob("build/__editable__*/xget.py")
    return any(link.exists() and link.samefile(HOME / "xget") for link in links)


def prepare(extra: str) -> None:
    """Make the environment, with what `extra` of setup.py needs, unless that was done before."""
    done = VENV / f"xget-{extra}"
    recipe = (HOME / "setup.py").read_text(encoding="utf-8")
    if done.exists() and done.read_text(encoding="utf-8") == recipe and is_linked():
        return
    print("installing the packages into .venv (about a minute) ...", file=sys.stderr, flush=True)
    if not PYTHON.exists():  # the pip that comes with Python 3.9 may be too old for what follows
        venv.create(VENV, with_pip=True, upgrade_deps=sys.version_info < (3, 10))
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--use-pep517", "--editable", f"{HOME}[{extra}]"], check=True)
    done.write_text(recipe, encoding="utf-8")


def run(*command: object) -> int:
    """Run a command of the environment, its tools first on the PATH; returns its exit status."""
    env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(VENV)}
    return subprocess.run([str(word) for word in command], cwd=HOME, env=env, check=False).returncode


def test(arguments: list[str]) -> int:
    """Run everything that has to pass; returns the first status that is not 0."""
    steps = [
        ("ruff", "format", "--check", "."),
        ("ruff", "check", "."),
        ("mypy",),
        ("mypy", "--platform", "win32"),
        ("pytest", "-q", "-n", os.environ.get("XGET_TEST_PROCESSES", "6"), *arguments),
    ]
    for name, *rest in steps:
        status = run(PYTHON, "-m", name, *rest)
        if status:
            return status
    return 0


def main(argv: list[str]) -> int:
    """Do what the first word says."""
    task, *rest = argv or [""]
    if task == "demo":
        prepare("demo")
        return run(PYTHON, HOME / "tests" / "demo.py", *rest)
    if task == "test":
        prepare("test,clients")
        return test(rest)
    if task == "windows":
        prepare("test,clients")
        return run(PYTHON, HOME / "tests" / "windows.py", *rest)
    if task == "bench":
        prepare("bench")
        return run(PYTHON, HOME / "tests" / "bench.py", *rest)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
