"""What makes xget fast, as far as it can be told without a clock: what it imports and asks for,
what goes on side by side, and what it holds in memory. The times themselves are bench.py's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import XGET, Xget
from xnat_server import Request, Synthetic, World, XnatServer

LIBRARIES = {
    *("pyxnat", "requests", "urllib3", "lxml", "httplib2", "tqdm"),
    *("ssl", "socket", "http", "zipfile", "concurrent", "email", "hashlib"),
}


def add_sessions(world: World, count: int, size: int = 1000) -> list[str]:
    """Add sessions of three kinds to a project of their own; returns their labels."""
    project = world.project("many")
    labels = [f"visit_{n:03}" for n in range(count)]
    for label in labels:
        session = project.session(label, subject="subj_1")
        session.scan("1", type="T1").resource("DICOM", {f"{label}.dcm": Synthetic(size)}, format="DICOM")
        session.assessor(f"{label}_QC").resource("DATA", {"qc.txt": Synthetic(size)})
        session.reconstruction("R1").resource("DATA", {"r.nii": Synthetic(size)})
    return labels


def imported(trace: str) -> set[str]:
    """The packages that Python reports to have imported."""
    return {name.split(".")[0] for name in re.findall(r"^import time:.*\| +([\w.]+)$", trace, re.MULTILINE)}


def transfers(server: XnatServer) -> list[Request]:
    return [request for request in server.requests if request.transfer]


def session_of(request: Request) -> str:
    found = re.search(r"/experiments/([^/?]+)", request.path)
    return found[1] if found else ""


# --- the start -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        pytest.param(["-h"], 0, id="help"),
        pytest.param(["-version"], 0, id="version"),
        pytest.param(["-overwite"], 2, id="an unknown flag"),
        pytest.param(["-s", "sess_1", "-j", "17"], 2, id="a wrong value"),
        pytest.param(["-s", "sess_1", "-o", "nowhere"], 2, id="no output directory"),
    ],
)
def test_what_needs_no_server_imports_nothing_for_servers(
    xget: Xget, server: XnatServer, arguments: list[str], status: int
) -> None:
    xget.env["PYTHONPROFILEIMPORTTIME"] = "1"
    outcome = xget(*arguments, login=False)
    assert outcome.status == status
    assert "contextlib" in imported(outcome.err)
    assert not imported(outcome.err) & LIBRARIES
    assert server.requests == []


def test_archives_that_are_there_cost_no_request_and_no_import(
    xget: Xget, world: World, server: XnatServer
) -> None:
    labels = add_sessions(world, 20)
    names = xget.folder.parent / "names"
    names.write_text("\n".join(labels))
    assert xget("-f", str(names), "-j", "8").status == 0
    before = {path: path.stat().st_mtime_ns for path in xget.folder.iterdir()}
    assert len(before) == 60
    server.clear()
    xget.env["PYTHONPROFILEIMPORTTIME"] = "1"
    outcome = xget("-f", str(names), "-json")
    assert outcome.status == 0
    assert [json.loads(line)["status"] for line in outcome.out.splitlines()] == ["present"] * 60
    assert server.requests == []
    assert not imported(outcome.err) & LIBRARIES
    assert {path: path.stat().st_mtime_ns for path in xget.folder.iterdir()} == before


# --- requests --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hidden_fields", "arguments", "most"),
    [
        pytest.param(True, ["-s", "visit_000"], 2 + 3 + 6 + 1, id="one session by label"),
        pytest.param(True, ["-s", "XNAT_E00003"], 2 + 3 + 6 + 1, id="one session by ID"),
        pytest.param(True, ["-s", "visit_000", "-proj", "many"], 2 + 2 + 6 + 1, id="one of a project"),
        pytest.param(True, ["-s", "a label", "-proj", "many"], 2 + 3 + 6 + 1, id="a label that no URL takes"),
        pytest.param(False, ["-s", "visit_000"], 2 + 3 + 1 + 6 + 1, id="a document without resource IDs"),
        pytest.param(
            True, ["-s", ",".join(f"visit_{n:03}" for n in range(10))], 2 + 10 * 9 + 1, id="ten by label"
        ),
        pytest.param(True, ["-proj", "many"], 2 + 2 + 10 * 7 + 1, id="a project of ten"),
    ],
)
def test_requests_stay_within_the_budget(
    xget: Xget, world: World, server: XnatServer, hidden_fields: bool, arguments: list[str], most: int
) -> None:
    add_sessions(world, 10)
    if "a label" in arguments:
        world.sessions()[1].label = "a label"
    world.hidden_fields = hidden_fields
    assert xget(*arguments, "-j", "4").status == 0
    asked = [f"{request.method} {request.path}" for request in server.requests]
    archives = len(list(xget.folder.glob("*.zip")))
    assert archives in (3, 30)
    assert len(asked) <= most, "\n".join(asked)
    assert len(transfers(server)) == archives
    assert asked[-1].startswith("DELETE ")
    assert server.sessions_opened == 1


# --- side by side ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "at_once"),
    [
        pytest.param(["-j", "1"], 1, id="-j 1"),
        pytest.param([], 2, id="two unless told otherwise"),
        pytest.param(["-j", "5"], 5, id="-j 5"),
    ],
)
def test_as_many_transfers_as_j_says_and_never_more(
    xget: Xget, world: World, server: XnatServer, arguments: list[str], at_once: int
) -> None:
    labels = add_sessions(world, 10, size=100_000)
    server.rate = 1e6  # so that transfers last
    assert xget("-s", ",".join(labels), *arguments).status == 0
    assert len(transfers(server)) == 30
    assert server.most_transfers == at_once


def test_sessions_are_looked_up_while_others_are_transferred(
    xget: Xget, world: World, server: XnatServer
) -> None:
    labels = add_sessions(world, 6, size=200_000)
    server.rate = 1e6
    assert xget("-s", ",".join(labels), "-j", "1").status == 0
    overlapping = {
        session_of(query)
        for query in server.requests
        for transfer in transfers(server)
        if not query.transfer
        and query.path.endswith("?format=xml")
        and transfer.time < query.time < (transfer.end_time or 0)
        and session_of(query) != session_of(transfer)
    }
    assert len(overlapping) >= 4


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_for_room_is_left_alone(
    xget: Xget, world: World, server: XnatServer, status: int
) -> None:
    labels = add_sessions(world, 12, size=100_000)
    server.rate = 5e5  # enough to do for longer than the server asks to be left alone
    server.fault("status", match="format=zip", skip=3, status=status, retry_after=3)
    assert xget("-s", ",".join(labels), "-retry", "0").status == 0
    (refused,) = [request for request in server.requests if request.status == status]
    again = [r for r in server.requests if r.path == refused.path and r.time > refused.time]
    assert [r.status for r in again] == [200]
    assert again[0].time - refused.time >= 3
    # What was under way may still come; after a second nobody asks for anything.
    assert [r.path for r in server.requests if 1 < r.time - refused.time < 2.9] == []
    assert len(transfers(server)) == 36


# --- compression -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("site", "arguments", "asked", "comes"),
    [
        pytest.param(8, ["-z"], "0", None, id="-z: stored, whatever the site does"),
        pytest.param(8, ["-z", "-compression", "deflated"], "[1-9]", None, id="-z: deflated on request"),
        pytest.param(8, [], "", zipfile.ZIP_DEFLATED, id="a site that deflates"),
        pytest.param(0, [], "", zipfile.ZIP_STORED, id="a site that stores"),
        pytest.param(8, ["-compression", "stored"], "0", zipfile.ZIP_STORED, id="stored on request"),
        pytest.param(
            0, ["-compression", "deflated"], "[1-9]", zipfile.ZIP_DEFLATED, id="deflated on request"
        ),
    ],
)
def test_compression(
    xget: Xget,
    world: World,
    server: XnatServer,
    site: int,
    arguments: list[str],
    asked: str,
    comes: int | None,
) -> None:
    world.compression = site
    assert xget("-s", "sess_1", *arguments).status == 0
    assert len(transfers(server)) == 3
    for request in transfers(server):
        found = re.search(r"[?&]compression=(\d+)", request.path)
        assert re.fullmatch(asked, found[1] if found else "")
    for path in xget.folder.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            assert {info.compress_type for info in archive.infolist()} == {comes}
    assert len(list(xget.folder.glob("*.zip"))) == (0 if "-z" in arguments else 3)


# --- memory ----------------------------------------------------------------------------

# A small process in between: a program's peak begins with that of the one that starts it.
METER = """
import os, resource, sys
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
unit = 1 if sys.platform == "darwin" else 1024
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss * unit // 1_000_000)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the system does not tell a process's peak")
@pytest.mark.parametrize(
    ("count", "size", "arguments"),
    [
        pytest.param(30, 10_000_000, [], id="300 MB"),
        pytest.param(3, 100_000_000, ["-z"], id="300 MB, extracted"),
        pytest.param(3, 100_000_000, ["-z", "-compression", "deflated"], id="300 MB, inflated"),
        pytest.param(10_000, 100, [], id="10,000 files"),
    ],
)
def test_memory_stays_under_80_MB(
    xget: Xget, world: World, server: XnatServer, count: int, size: int, arguments: list[str]
) -> None:
    files = {f"{n:05}.dcm": Synthetic(size, n % 4) for n in range(count)}
    world.project("p").session("large").scan("1", type="T1").resource("DICOM", files, format="DICOM")
    account = ["-host", server.url, "-u", "admin", "-p", "admin"]
    command = [sys.executable, str(XGET), *account, "-s", "large", "-ass", "NONE", "-recon", "NONE"]
    done = subprocess.run(
        [sys.executable, "-S", "-c", METER, *command, *arguments],
        cwd=xget.folder,
        env=xget.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    status, megabytes = map(int, done.stdout.split()[-2:])
    assert status == 0, done.stderr
    assert sum(request.bytes_sent for request in transfers(server)) > 0
    assert content_size(xget.folder) == count * size
    assert 20 < megabytes < 80


def content_size(folder: Path) -> int:
    """The bytes of all images in a folder, in files and in ZIPs."""
    total = sum(path.stat().st_size for path in folder.rglob("*.dcm"))
    for path in folder.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            total += sum(info.file_size for info in archive.infolist())
    return total
