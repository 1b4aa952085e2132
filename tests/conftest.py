"""Runs xget as users run it: a process of its own, an empty directory, its own HOME, no terminal."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lane
import pytest
from xnat_server import World, XnatServer

XGET = Path(__file__).resolve().parent.parent / "xget"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lane.skip_what_is_posix(items)


class Outcome(NamedTuple):
    """What a run of xget left behind."""

    status: int
    out: str
    err: str


class Xget:
    """Calls xget in `folder`; `env` holds what the environment has beside HOME and PATH."""

    def __init__(self, home: Path, folder: Path, url: str) -> None:
        self.home, self.folder, self.url = home, folder, url
        self.env: dict[str, str] = {}

    def environment(self) -> dict[str, str]:
        return {**lane.environment(self.home), **self.env}

    def start(self, *args: str, login: bool = True, **options: Any) -> subprocess.Popen[str]:
        """Start xget without waiting for it; with `login`, as admin of the test XNAT."""
        account = ["-host", self.url, "-u", "admin", "-p", "admin"] if login else []
        settings: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "cwd": self.folder,
            "env": self.environment(),
            "start_new_session": True,
            "text": True,
        }
        return lane.Process([*lane.program(), *account, *args], **{**settings, **options})

    def __call__(self, *args: str, login: bool = True, given: str = "", timeout: float = 60) -> Outcome:
        """Run xget to its end, `given` on standard input."""
        process = self.start(*args, login=login, stdin=subprocess.PIPE)
        try:
            out, err = process.communicate(given, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return Outcome(process.returncode, out, err)

    def files(self) -> list[str]:
        """Name everything in the output directory, hidden files too, folders with a slash."""
        found = sorted(self.folder.rglob("*"))
        return [f"{p.relative_to(self.folder).as_posix()}{'/' * p.is_dir()}" for p in found]


@pytest.fixture
def world() -> World:
    """One project with the manual's session: two scans, an assessor, a reconstruction, notes."""
    world = World()
    session = world.project("proj_3", name="Project 3").session("sess_1", subject="subj_1", date="2011-11-17")
    scan = session.scan("1", type="TSE", quality="usable", description="t2_tse, sag")
    scan.resource("DICOM", {f"{n}.dcm": bytes([n]) * 1000 for n in range(1, 5)}, format="DICOM")
    scan = session.scan("2", type="PIB 336mtx", quality="questionable", description="PIB 336mtx")
    scan.resource("DICOM", {f"{n}.dcm": bytes([n]) * 2000 for n in range(1, 4)}, format="DICOM")
    scan.resource("NIFTI", {"2.nii": b"nifti"}, format="NIFTI")
    session.assessor("sess_1_QC", type="xnat:qcManualAssessorData").resource("DATA", {"qc.txt": b"fine"})
    session.reconstruction("R1", type="RECON A").resource("NIFTI", {"r1.nii": b"recon"}, format="NIFTI")
    session.resource("NOTES", {"n.txt": b"notes"})
    return world


@pytest.fixture
def server(world: World) -> Iterator[XnatServer]:
    with XnatServer(world) as server:
        yield server


@pytest.fixture
def xget(tmp_path: Path, server: XnatServer) -> Xget:
    home, folder = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    folder.mkdir()
    return Xget(home, folder, server.url)
