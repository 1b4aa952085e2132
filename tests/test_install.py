"""What pip makes of the one file: a module with its bytecode kept, and the command `xget`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import XGET

HOME = XGET.parent
PARTS = ("xget", "setup.py", "README.md", "LICENSE")
BUILD = """
import sys
from setuptools import build_meta
folder = sys.argv[1]  # each build sets sys.argv anew
build_meta.build_sdist(folder)
build_meta.build_wheel(folder)
"""


def run(*command: object, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder; what it prints is kept, and nothing is said about its status."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": "", **env},
        capture_output=True,
        text=True,
        check=False,
    )


def copy_tree(folder: Path) -> Path:
    """Copy what is installed into a folder of its own, so that building leaves nothing here."""
    for name in PARTS:
        shutil.copy(HOME / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist and a wheel, built without network by the setuptools that is here."""
    pytest.importorskip("setuptools", minversion="70.1")  # the first that makes wheels by itself
    folder, tree = tmp_path_factory.mktemp("dist"), copy_tree(tmp_path_factory.mktemp("tree"))
    done = run(sys.executable, "-c", BUILD, folder, folder=tree)
    assert done.returncode == 0, done.stderr
    return folder


class Installed:
    """What pip put into a folder, and its command."""

    def __init__(self, prefix: Path, *what: object) -> None:
        paths = sysconfig.get_paths(
            scheme="nt" if os.name == "nt" else "posix_prefix", vars={"base": str(prefix)}
        )
        self.prefix, self.site = prefix, Path(paths["purelib"])
        self.command = Path(paths["scripts"], "xget.exe" if os.name == "nt" else "xget")
        offline = ("--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", *offline]
        done = run(*pip, "--prefix", prefix, *what, folder=prefix)
        assert done.returncode == 0, done.stderr

    def __call__(self, *args: str) -> tuple[int, str]:
        """Run the command; returns its exit status and standard output."""
        path = [str(self.site), *(link.read_text().strip() for link in self.site.glob("*.pth"))]
        done = run(self.command, *args, folder=self.prefix, PYTHONPATH=os.pathsep.join(path))
        return done.returncode, done.stdout


def version() -> str:
    done = run(sys.executable, XGET, "-version", folder=HOME)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_holds_the_file_once(dist: Path) -> None:
    [wheel] = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as zip:
        names = [name for name in zip.namelist() if ".dist-info/" not in name]
        assert names == ["xget.py"]
        assert zip.read("xget.py") == XGET.read_bytes()


def test_sdist_holds_the_file_once(dist: Path) -> None:
    [sdist] = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as tar:
        members = [each for each in tar if each.isfile()]
        same = [each.name for each in members if tar.extractfile(each).read() == XGET.read_bytes()]  # type: ignore[union-attr]
    assert same == [f"{sdist.name[: -len('.tar.gz')]}/xget"]


def test_tree_holds_the_file_once() -> None:
    """No copy beside it; what is below build/ is a link, or made anew by pip."""
    assert [path.name for path in HOME.glob("xget*") if path.is_file()] == ["xget"]


def test_command_of_the_wheel(dist: Path, tmp_path: Path) -> None:
    """It works, passes the exit status on, and its bytecode is kept."""
    installed = Installed(tmp_path, *dist.glob("*.whl"))
    assert installed("-version") == (0, version())
    assert installed("-nonsense") == (2, "")
    assert list(installed.site.glob("__pycache__/xget.*.pyc"))
    assert not list(installed.command.parent.glob("xget.py"))


def test_sdist_installs(dist: Path, tmp_path: Path) -> None:
    assert Installed(tmp_path, *dist.glob("*.tar.gz"))("-version") == (0, version())


def test_editable_install_runs_the_file_of_the_tree(dist: Path, tmp_path: Path) -> None:
    """A plain `pip install -e .` works, and follows each edit."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "prefix").mkdir()
    tree = copy_tree(tmp_path / "tree")
    installed = Installed(tmp_path / "prefix", "--use-pep517", "--editable", tree)
    assert installed("-version") == (0, version())
    with open(tree / "xget", encoding="utf-8") as file:
        source = file.read()
    with open(tree / "xget", "w", encoding="utf-8") as file:
        file.write(source.replace('__version__ = "', '__version__ = "9'))
    assert installed("-version") == (0, version().replace("xget ", "xget 9"))
