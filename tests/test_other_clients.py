"""Other people's clients, unchanged, download from the test XNAT: it is not made to
please xget."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from xnat_server import World, XnatServer

IMAGES = {f"{number}.dcm": bytes([number]) * 9000 for number in (1, 2, 3)}
OTHERS = {"a.dcm": b"a" * 70000, "sub/b.dcm": b"b" * 100}


@pytest.fixture()
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[XnatServer]:
    """A site with one session of two scans; HOME is an empty directory."""
    world = World()
    session = world.project("proj_3").session("sess_1", "subj_1", date="2011-11-17")
    scan = session.scan("1", type="T1 MPRAGE", description="t1_mprage_sag")
    scan.resource("DICOM", IMAGES, format="DICOM", content="RAW")
    session.scan("2", type="TSE").resource("DICOM", OTHERS, format="DICOM")
    monkeypatch.setenv("HOME", str(tmp_path))
    with XnatServer(world, context="/xnat") as server:
        yield server


def contents(path: Path) -> dict[str, bytes]:
    """The members of a ZIP, proven."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def members(scan: str, files: dict[str, bytes]) -> dict[str, bytes]:
    folder = f"sess_1/scans/{scan}/resources/DICOM/files/"
    return {folder + name: data for name, data in files.items()}


ALL_MEMBERS = {**members("1-T1_MPRAGE", IMAGES), **members("2-TSE", OTHERS)}


def test_pyxnat(server: XnatServer, tmp_path: Path) -> None:
    core = pytest.importorskip("pyxnat.core")
    core.derivatives.__path__ = []  # it would import packages that pyxnat lacks
    import pyxnat

    interface = pyxnat.Interface(server=server.url, user="admin", password="admin")
    assert interface.select.projects().get() == ["proj_3"]
    session = interface.select.project("proj_3").subject("subj_1").experiment("sess_1")
    assert session.exists()
    assert (session.id(), session.attrs.get("date")) == ("XNAT_E00001", "2011-11-17")
    assert session.scans().get() == ["1", "2"]
    found = interface.array.experiments("proj_3", experiment_type="xnat:mrSessionData")
    assert [row["ID"] for row in found.data] == ["XNAT_E00001"]
    found = interface.array.scans(project_id="proj_3")
    assert [row["xnat:imagescandata/id"] for row in found.data] == ["1", "2"]

    saved = session.scans().download(str(tmp_path), type="ALL", extract=False)
    assert contents(Path(saved)) == ALL_MEMBERS
    file = session.scan("1").resource("DICOM").file("2.dcm")
    assert Path(file.get(str(tmp_path / "2.dcm"))).read_bytes() == IMAGES["2.dcm"]
    interface.disconnect()
    assert server.requests[-1].method == "DELETE"


def test_xnatpy(server: XnatServer, tmp_path: Path) -> None:
    xnat = pytest.importorskip("xnat")
    with xnat.connect(server.url, user="admin", password="admin") as connection:
        session = connection.projects["proj_3"].experiments["sess_1"]
        assert (session.id, session.date.isoformat()) == ("XNAT_E00001", "2011-11-17")
        assert [scan.type for scan in session.scans.values()] == ["T1 MPRAGE", "TSE"]
        assert session.scans["1"].quality == "usable"
        session.scans["1"].download(str(tmp_path / "1.zip"), verbose=False)
        session.download(str(tmp_path / "all.zip"), verbose=False)
    assert contents(tmp_path / "1.zip") == members("1-T1_MPRAGE", IMAGES)
    assert contents(tmp_path / "all.zip") == ALL_MEMBERS
    assert server.requests[-1].method == "DELETE"


def test_yaxil(server: XnatServer, tmp_path: Path) -> None:
    yaxil = pytest.importorskip("yaxil")
    auth = yaxil.auth2(host=server.url, username="admin", password="admin")
    with yaxil.session(auth) as session:
        (experiment,) = session.experiments(label="sess_1", project="proj_3")
        assert (experiment.id, experiment.subject_label) == ("XNAT_E00001", "subj_1")
        scans = session.scans(experiment=experiment)
        assert [scan["series_description"] for scan in scans] == ["t1_mprage_sag", ""]
    yaxil.download(auth, "sess_1", project="proj_3", out_dir=str(tmp_path / "out"))
    saved = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert saved == {**IMAGES, "a.dcm": OTHERS["a.dcm"], "b.dcm": OTHERS["sub/b.dcm"]}


def test_xnatctl(server: XnatServer, tmp_path: Path) -> None:
    pytest.importorskip("xnatctl")
    where = ["-P", "proj_3", "-E", "sess_1", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "xnatctl", "session", "download", *where]
    account = {"XNAT_URL": server.url, "XNAT_USER": "admin", "XNAT_PASS": "admin"}
    done = subprocess.run(command, env={**os.environ, **account}, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(tmp_path / "sess_1" / "scans.zip") == ALL_MEMBERS
