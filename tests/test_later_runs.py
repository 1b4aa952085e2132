"""What one run leaves and a later one makes of it, and what happens beside a run: nothing is lost."""

from __future__ import annotations

import re
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import Xget
from xnat_server import World, XnatServer

SCANS = ("-ass", "NONE", "-recon", "NONE")
SCAN_1 = "sess_1/scans/1-TSE/resources/DICOM/files"


def asked(server: XnatServer) -> list[str]:
    """Name what was asked for by ZIP and file, without the way to it."""
    return [each.path.partition("/experiments/")[2] for each in server.requests if each.transfer]


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as file:
        return [name.rpartition("/")[2] for name in file.namelist()]


def lose(server: XnatServer, name: str) -> None:
    """Let the server lose a file that it lists."""
    server.fault("missing", match="format=zip", member=name, times=None)
    server.fault("status", match=f"files/{name}", status=404, times=None)


def unlist_scan_2(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [row for row in rows if "/scans/2/" not in row.get("URI", "")]


@pytest.mark.parametrize("flags", [("-z",), ("-z", "-verify"), ("-update",), ("-verify",)], ids=" ".join)
def test_a_broken_catalog_is_a_failure_each_time(
    flags: tuple[str, ...], xget: Xget, world: World, server: XnatServer
) -> None:
    """What the document counts and the listing lacks is no success of the second run."""
    scans = world.sessions()[0].scans
    second = scans.pop()
    first = ("-z",) if "-z" in flags else ()
    assert xget("-s", "sess_1", *SCANS, *first).status == 0
    scans.append(second)
    server.fault("listing", match="files.format=json", times=None, edit=unlist_scan_2)
    for _ in range(2):
        outcome = xget("-s", "sess_1", *SCANS, *flags)
        assert outcome.status == 1
        assert "2 DICOM: has files that are not listed; the server's catalog is broken" in outcome.err


@pytest.mark.parametrize("flags", [(), ("-z",)], ids=["archive", "-z"])
def test_a_file_that_a_front_end_refuses_costs_no_other(
    flags: tuple[str, ...], xget: Xget, world: World, server: XnatServer
) -> None:
    world.sessions()[0].scans[0].resources[0].add(".DS_Store", b"odds and ends")
    server.fault("status", match="DS_Store", status=403, page="nginx", times=None)
    server.fault("vanish", match="format=zip", member="DS_Store", times=None)
    outcome = xget("-s", "sess_1", "-acq", "1", "-j", "1", *SCANS, *flags)
    assert outcome.status == 1
    assert "1 DICOM .DS_Store: missing: the server answered 403" in outcome.err
    assert "1 of 5 files are missing" in outcome.err
    if not flags:
        assert names(xget.folder / "sess_1_acq.incomplete.zip") == ["1.dcm", "2.dcm", "3.dcm", "4.dcm"]


def test_a_part_whose_first_file_was_lost_still_serves(xget: Xget, server: XnatServer) -> None:
    """What was first in it tells where it comes from; what takes its place has to tell that too."""
    args = ("-s", "sess_1", "-acq", "1", "-retry", "NONE", *SCANS)
    server.fault("flip", match="format=zip", member="1.dcm", times=None)
    server.fault("status", match="files/1.dcm", status=404, times=None)
    assert xget(*args).status == 1
    (xget.folder / "sess_1_acq.incomplete.zip").rename(xget.folder / ".sess_1_acq.zip.part")  # and killed
    server.faults.clear()
    server.clear()
    assert xget(*args) == (0, "./sess_1_acq.zip\n", "")
    assert len(asked(server)) == 1 and asked(server)[0].endswith("/files/1.dcm")


def test_an_incomplete_archive_of_other_constraints_is_left(
    xget: Xget, world: World, server: XnatServer
) -> None:
    lose(server, "3.dcm")
    assert xget("-s", "sess_1", "-acq", "1", *SCANS).status == 1
    kept = (xget.folder / "sess_1_acq.incomplete.zip").read_bytes()
    server.faults.clear()
    server.fault("status", match="/files", status=503, times=None)
    outcome = xget("-s", "sess_1", "-acq", "2", "-retry", "NONE", *SCANS)
    assert outcome.status == 1
    server.faults.clear()
    outcome = xget("-s", "sess_1", "-acq", "2", "-retry", "NONE", *SCANS)
    assert outcome.status == 1
    assert "sess_1_acq.incomplete.zip: exists, and was made with -acq 1; remove it" in outcome.err
    assert (xget.folder / "sess_1_acq.incomplete.zip").read_bytes() == kept
    assert xget("-s", "sess_1", "-acq", "1", *SCANS) == (0, "./sess_1_acq.zip\n", "")
    assert xget.files() == ["sess_1_acq.zip"]


def test_a_zip_of_the_users_own_at_the_name_of_an_incomplete_one_is_left(
    xget: Xget, server: XnatServer
) -> None:
    own = xget.folder / "sess_1_acq.incomplete.zip"
    with zipfile.ZipFile(own, "w") as file:
        file.writestr("notes.txt", "three weeks of work")
    before = own.read_bytes()
    assert xget("-s", "sess_1", *SCANS) == (0, "./sess_1_acq.zip\n", "")
    assert own.read_bytes() == before
    lose(server, "3.dcm")
    outcome = xget("-s", "sess_1", "-overwrite", *SCANS)
    assert outcome.status == 1 and "is in the way, and not xget's own" in outcome.err
    assert own.read_bytes() == before


AGAIN = ("-s", "sess_1", "-z", "-overwrite", "-retry", "NONE", *SCANS)


def unfinished_overwrite(xget: Xget, server: XnatServer) -> None:
    """Extract a session, and lose a file while it is to be replaced."""
    assert xget(*AGAIN).status == 0
    lose(server, "4.dcm")
    assert xget(*AGAIN).status == 1
    server.faults.clear()


def test_z_an_overwrite_that_was_not_finished_hinders_no_later_one(
    xget: Xget, world: World, server: XnatServer
) -> None:
    """Whatever lies between: here a run that replaces something else."""
    unfinished_overwrite(xget, server)
    assert xget(*AGAIN, "-acq", "2").status == 0
    assert xget(*AGAIN) == (0, "./sess_1\n", "")
    assert [name for name in xget.files() if re.search(r"(^|/)\.(?!xget$)", name)] == []


@pytest.mark.parametrize("content", [b"x" * 1000, b"shorter"], ids=["as long", "shorter"])
def test_z_what_an_unfinished_overwrite_had_brought_is_proven_again(
    content: bytes, xget: Xget, world: World, server: XnatServer
) -> None:
    """The server may have changed it since."""
    unfinished_overwrite(xget, server)
    world.sessions()[0].scans[0].resources[0].add("2.dcm", content)
    server.clear()
    assert xget(*AGAIN) == (0, "./sess_1\n", "")
    assert (xget.folder / SCAN_1 / "2.dcm").read_bytes() == content
    assert not any("files/1.dcm" in each for each in asked(server))


def test_an_incomplete_archive_that_holds_more_serves_and_is_left(
    xget: Xget, world: World, server: XnatServer
) -> None:
    """Never is it replaced by one that holds less; what both hold serves the next run."""
    lose(server, "3.dcm")
    assert xget("-s", "sess_1", *SCANS).status == 1
    kept = (xget.folder / "sess_1_acq.incomplete.zip").read_bytes()
    server.requests.clear()
    outcome = xget("-s", "sess_1", "-acq", "1", *SCANS)
    assert outcome.status == 1 and "sess_1_acq.incomplete.zip: is in the way, and holds more" in outcome.err
    assert asked(server) == []  # but for 3.dcm, which is refused
    assert (xget.folder / "sess_1_acq.incomplete.zip").read_bytes() == kept
    server.faults.clear()
    server.clear()
    assert xget("-s", "sess_1", *SCANS) == (0, "./sess_1_acq.zip\n", "")
    assert {each.rpartition("/")[2] for each in asked(server)} == {"3.dcm"}
    assert xget.files() == ["sess_1_acq.zip"]


@pytest.mark.parametrize("status", [403, 500])
def test_a_resource_that_cannot_be_asked_for_costs_no_other(
    status: int, xget: Xget, world: World, server: XnatServer
) -> None:
    """It is counted and lists nothing, and what it holds does not come either."""
    server.fault("listing", match="files.format=json", times=None, edit=unlist_scan_2)
    lost = world.sessions()[0].scans[1].resources[0].id
    server.fault("status", match=rf"resources/{lost}/files\?format=zip", status=status, times=None)
    outcome = xget("-s", "sess_1", "-retry", "NONE", *SCANS)
    assert outcome.status == 1 and f"2 DICOM: the server answered {status}" in outcome.err
    assert names(xget.folder / "sess_1_acq.incomplete.zip") == ["1.dcm", "2.dcm", "3.dcm", "4.dcm"]


@pytest.mark.parametrize("flags", [(), ("-overwrite",)], ids=["plain", "-overwrite"])
def test_an_archive_that_appears_during_the_transfer(
    flags: tuple[str, ...], xget: Xget, server: XnatServer
) -> None:
    """Another one's, or this user's: it is only replaced where that was asked for."""
    server.fault("silence", match="format=zip", seconds=2)
    process = xget.start("-s", "sess_1", *SCANS, *flags)
    end = time.monotonic() + 30
    while not any("format=zip" in each.path for each in list(server.requests)) and time.monotonic() < end:
        time.sleep(0.02)
    target = xget.folder / "sess_1_acq.zip"
    target.write_text("the user's own")
    _, err = process.communicate(timeout=60)
    if flags:
        assert process.returncode == 0
        return
    assert process.returncode == 1 and "exists, and is no whole ZIP" in err
    assert target.read_text() == "the user's own"


def test_a_label_that_holds_the_accession_id(xget: Xget, world: World) -> None:
    """XNAT puts the label for the ID in a path."""
    session = world.projects[0].session("to be named")
    session.label = f"{session.id}_MR"
    files = {f"{session.id}-1.dcm": b"one", f"{session.id}_MR-2.dcm": b"two"}
    session.scan("1", type="T").resource("DICOM", files, format="DICOM")
    assert xget("-s", session.label, *SCANS) == (0, f"./{session.label}_acq.zip\n", "")
    assert names(xget.folder / f"{session.label}_acq.zip") == list(files)


def test_a_504_leads_to_smaller_requests(xget: Xget, server: XnatServer) -> None:
    """A front end gives a large ZIP 60 seconds until its first byte; scan by scan each comes in time."""
    server.fault("status", match="scans/1,2/.*format=zip", status=504, times=None)
    assert xget("-s", "sess_1", "-retry", "0,0,0", *SCANS) == (0, "./sess_1_acq.zip\n", "")


def test_z_verify_names_local_files_of_a_scan_that_lists_none_now(
    xget: Xget, world: World, server: XnatServer
) -> None:
    assert xget("-s", "sess_1", "-z", *SCANS).status == 0
    world.sessions()[0].scans[0].resources[0].files.clear()
    outcome = xget("-s", "sess_1", "-z", "-verify", *SCANS)
    assert outcome.status == 1
    assert f"{SCAN_1}/1.dcm: not listed" in outcome.err


def test_what_has_nothing_to_prove_it_by_is_said_so(xget: Xget, server: XnatServer) -> None:
    """Neither size nor MD5 listed, no length, and no ZIP that goes on behind it."""
    rows: Any = lambda rows: [{**row, "Size": "", "digest": ""} for row in rows]  # noqa: E731
    server.fault("listing", match="files.format=json", times=None, edit=rows)
    server.fault("gzip", match="files/", times=None, chunked=True)
    outcome = xget("-s", "sess_1", "-acq", "1", "-compression", "deflated", "-retry", "NONE", *SCANS)
    assert outcome.status == 1
    assert "4.dcm: missing: neither size nor MD5 listed, and no length sent" in outcome.err


def test_leaving_out_alone_does_not_mean_all_that_the_account_sees(xget: Xget, server: XnatServer) -> None:
    outcome = xget("-s", "!sess_1")
    assert outcome == (2, "", "xget: -s: name sessions with -s or -f, or a project with -proj\n")
    assert server.requests == []
