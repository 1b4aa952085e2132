"""Status 0 means that what was asked for is there: what counts as there, what is missing and is said, how
an archive is brought up to date and proven, and which sessions a command line means."""

from __future__ import annotations

import datetime
import json
import os
import random
import re
import shutil
import sys
import threading
import urllib.request
import zipfile
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome, Xget
from launch import Terminal, launch
from network import Authority
from truth import hidden, read_tree, read_zip, truth
from xnat_server import File, World, XnatServer

SCANS = ("-ass", "NONE", "-recon", "NONE")
WAYS_OUT = r"-update adds what it lacks, -overwrite replaces it, -longname keeps both"
DICOM = {"format": "DICOM"}


def scan_of(session: Any, id: str, type: str = "T1w", files: int = 2, **more: Any) -> Any:
    """Add a scan of DICOM files, each with a content of its own."""
    scan = session.scan(id, type=type, **more)
    data = {f"{n}.dcm": f"{session.id} {id} {n}".encode() * 10 for n in range(1, files + 1)}
    scan.resource("DICOM", data, **DICOM)
    return scan


@pytest.fixture
def study(world: World) -> Any:
    """Ten sessions with gaps: P02 and P05 without T1w, P04 in NIFTI alone, P07 with another type, P10 without
    scans; P06 has an assessor, P08 a reconstruction; OTHER has a P01 too."""
    project = world.project("STUDY", name="The study")
    for n in range(1, 11):
        session = project.session(f"P{n:02}", subject=f"SUBJ{n:03}", date=f"2024-01-{n:02}")
        if n == 4:
            session.scan("1", type="T1w").resource("NIFTI", {"1.nii": b"nii"}, format="NIFTI")
        elif n == 10:
            session.resource("NOTES", {"notes.txt": b"notes"})
        else:
            if n not in (2, 5):
                scan_of(session, "1", type="T1" if n == 7 else "T1w")
            scan_of(session, "2", type="localizer", files=1)
    named(world, "P03").scan("9", type="PHYSIO").resource("PHYSIO", {"p.txt": b"p"}, format="TXT")
    named(world, "P06").assessor("P06_QC").resource("DATA", {"qc.txt": b"fine"})
    named(world, "P08").reconstruction("R1", type="REC").resource("NIFTI", {"r.nii": b"r"}, format="NIFTI")
    scan_of(world.project("OTHER").session("P01", subject="X1"), "1")
    return project


def named(world: World, label: str) -> Any:
    return next(each for each in world.sessions() if each.label == label)


def comment(path: Path) -> dict[str, Any]:
    """Read where an archive says that it comes from."""
    with zipfile.ZipFile(path) as archive:
        found: dict[str, Any] = json.loads(archive.comment)
    return found


def with_comment(path: Path, text: bytes, add: str = "") -> None:
    """Give an archive another comment, and perhaps another file."""
    with zipfile.ZipFile(path, "a") as archive:
        if add:
            archive.writestr(add, b"added")
        archive.comment = text


def without(path: Path, *names: str, **other: bytes) -> None:
    """Write an archive anew, without some members, or with another content of them; its comment stays."""
    with zipfile.ZipFile(path) as old:
        kept = {name: old.read(name) for name in old.namelist()}
        text = old.comment
    with zipfile.ZipFile(path, "w") as new:
        for name, data in kept.items():
            if not name.endswith(names or ("\0",)):
                new.writestr(name, other.get(name.rpartition("/")[2].partition(".")[0], data))
        new.comment = text


def on_disk(top: Path) -> dict[str, Any]:
    """Everything below a folder: content and time of each file, target of each link."""
    return {
        str(path.relative_to(top)): os.readlink(path)
        if path.is_symlink()
        else (path.is_file() and path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(top.rglob("*"))
    }


def transfers(server: XnatServer) -> list[str]:
    """The paths of the files and archives that were asked for."""
    return [request.path for request in server.requests if request.transfer]


def objects(outcome: Outcome) -> dict[tuple[str, str], dict[str, Any]]:
    """The results of a run with -json, by session and kind."""
    found = [json.loads(line) for line in outcome.out.splitlines()]
    return {(each["session"], each["kind"]): each for each in found}


def sessions(xget: Xget, kind: str = "acq") -> list[str]:
    """Which sessions have an archive."""
    end = f"_{kind}.zip"
    return sorted(path.name[: -len(end)] for path in xget.folder.glob(f"*{end}"))


def assert_held(xget: Xget, project: Any, *kinds: str) -> None:
    """Each session of a project has the archives that it should have, and each holds what it should."""
    for session in project.world.sessions():
        for kind in kinds if session.project is project else ():
            path = xget.folder / f"{session.label}_{kind}.zip"
            whole = truth(session, kind)
            assert path.exists() == bool(whole), path.name
            assert not whole or read_zip(path) == whole, path.name


def listed(outcome: Outcome) -> list[str]:
    """Which sessions a list shows, each once."""
    return list(dict.fromkeys(line.split("\t")[0] for line in outcome.out.splitlines()))


# --- there already: the constraints -----------------------------------------------------

RES = ("-acq", "NONE", *SCANS)
CONSTRAINTS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...], str]] = {
    # id: (kind, made with, asked for, what stands in the way)
    "the same": ("acq", ("-acq", "1"), ("-acq", "1"), ""),
    "the same in another order": ("acq", ("-acq", "1,2"), ("-acq", "2", "-acq", "1"), ""),
    "ALL is none": ("acq", (), ("-acq", "ALL", "-q", "ALL"), ""),
    "made without any, which is more": ("acq", (), ("-acq", "1", "-q", "usable"), ""),
    "made with one, all asked for": ("acq", ("-acq", "1"), (), "-acq 1"),
    "made with another one": ("acq", ("-acq", "1,TSE"), ("-acq", "1"), "-acq 1,TSE"),
    "made without some": ("acq", ("-acq", "!1"), (), "-acq !1"),
    "made with a quality": ("acq", ("-q", "usable"), ("-acq", "1"), "-q usable"),
    "made with two": ("acq", ("-acq", "1", "-q", "usable"), (), "-acq 1 -q usable"),
    "scans without -format are DICOM: NIFTI": ("acq", (), ("-format", "NIFTI"), "-format DICOM"),
    "scans without -format are DICOM: ALL": ("acq", (), ("-format", "ALL"), "-format DICOM"),
    "scans without -format are DICOM: itself": ("acq", (), ("-format", "DICOM"), ""),
    "formats and qualities in another case": (
        "acq",
        ("-format", "NIFTI", "-q", "Usable,questionable"),
        ("-format", "nifti", "-q", "USABLE,Questionable"),
        "",
    ),
    "scans in another case": ("acq", ("-acq", "TSE,2"), ("-acq", "tse,2"), "-acq TSE,2"),
    "scans of all formats are more": ("acq", ("-format", "ALL"), (), ""),
    "scans of all formats are more than one": ("acq", ("-format", "ALL"), ("-format", "NIFTI"), ""),
    "scans of one format are less": ("acq", ("-format", "NIFTI"), (), "-format NIFTI"),
    "an assessor without -format is whole": ("ass", (), ("-format", "NIFTI"), ""),
    "an assessor of one format is less": ("ass", ("-format", "DATA"), (), "-format DATA"),
    "a reconstruction by ID": ("recon", ("-recon", "R1"), (), "-recon R1"),
    "of the resources one": ("res", ("-res", "NOTES"), ("-res", "ALL"), "-res NOTES"),
    "all resources": ("res", ("-res", "ALL"), ("-res", "NOTES"), ""),
}


@pytest.mark.parametrize("online", [False, True], ids=["no server", "with its document"])
@pytest.mark.parametrize(("kind", "made", "asked", "why"), CONSTRAINTS.values(), ids=list(CONSTRAINTS))
def test_what_is_there_counts_by_its_constraints(
    xget: Xget,
    server: XnatServer,
    kind: str,
    made: tuple[str, ...],
    asked: tuple[str, ...],
    why: str,
    online: bool,
) -> None:
    """It is present where it is what is asked for now, or more; else it fails, with the ways out."""
    others = [f"-{each}=NONE" for each in ("acq", "ass", "recon") if each != kind]
    outcome = xget("-s", "sess_1", *others, *made)
    assert outcome == (0, f"./sess_1_{kind}.zip\n", "")
    before = on_disk(xget.folder)
    server.clear()
    if online:  # another kind has no archive yet: the server is asked, and tells the session's ID
        others = others[1:]
    else:
        server.stop()
    outcome = xget("-s", "sess_1", *others, *asked, "-json")
    result = objects(outcome)["sess_1", kind]
    if why:
        assert (outcome.status, result["status"]) == (1, "failed")
        assert result["error"] == f"./sess_1_{kind}.zip: exists, made with {why}; {WAYS_OUT}"
        assert f"xget: sess_1 {kind}: {result['error']}\n" in outcome.err
    else:
        assert (outcome.status, result["status"], result["error"]) == (0, "present", "")
    assert bool(server.requests) == online
    assert {name: before[name] for name in before} == {n: on_disk(xget.folder)[n] for n in before}


@pytest.mark.parametrize("flag", ["-update", "-overwrite", "-longname"])
def test_each_way_out_leads_out(xget: Xget, world: World, flag: str) -> None:
    """And the run after it finds everything there."""
    assert xget("-s", "sess_1", "-acq", "1", *SCANS)[0] == 0
    for out in (1, 0):
        outcome = xget("-s", "sess_1", flag, *SCANS)
        assert (outcome.status, outcome.err) == (0, "")
        assert len(outcome.out.splitlines()) == (1 if out or flag == "-overwrite" else 0)
    whole = truth(named(world, "sess_1"), "acq")
    held = [read_zip(path) for path in xget.folder.glob("*.zip")]
    assert whole in held and len(held) == (2 if flag == "-longname" else 1)


COMMENTS = {
    "no comment": b"",
    "some words": b"copied by hand",
    "another program's JSON": b'{"server": "elsewhere", "constraints": {"-acq": ["9"]}}',
    "JSON of another form": b"[1, 2]",
    "no JSON": b'{"xget": ',
}


@pytest.mark.parametrize("text", COMMENTS.values(), ids=list(COMMENTS))
def test_an_archive_that_xget_did_not_make_counts_by_its_name(
    xget: Xget, server: XnatServer, text: bytes
) -> None:
    """As those of the original xget do, whatever the constraints."""
    with zipfile.ZipFile(xget.folder / "sess_1_acq.zip", "w") as archive:
        archive.writestr("mine", b"mine")
        archive.comment = text
    for flags in ((), ("-acq", "1", "-q", "nonsense"), ("-format", "NIFTI")):
        assert xget("-s", "sess_1", *SCANS, *flags) == (0, "", "")
    assert server.requests == []


def make_incomplete(path: Path) -> None:
    with_comment(path, json.dumps({**comment(path), "incomplete": "1 of 7 files are missing"}).encode())


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_dead_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("nowhere")


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def cut(path: Path, start: int, stop: Any = None) -> None:
    path.write_bytes(path.read_bytes()[start:stop])


SPOILT: dict[str, tuple[Any, str]] = {
    "its end is missing": (lambda path: cut(path, 0, -9), "no whole ZIP.*-overwrite"),
    "its beginning is missing": (lambda path: cut(path, 100), "no whole ZIP.*-overwrite"),
    "something stands behind it": (lambda path: path.open("ab").write(b"x" * 9), "no whole ZIP.*-overwrite"),
    "it is empty": (lambda path: path.write_bytes(b""), "no whole ZIP.*-overwrite"),
    "a web page": (lambda path: path.write_bytes(b"<html>"), "no whole ZIP.*-overwrite"),
    "an incomplete one under another name": (make_incomplete, "incomplete.*-update.*-overwrite"),
    "a folder": (make_folder, "exists"),
    "a dead link": (make_dead_link, "exists"),
    "a pipe": (make_pipe, "exists"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes and links there")
@pytest.mark.parametrize(("spoil", "says"), SPOILT.values(), ids=list(SPOILT))
def test_what_is_no_whole_archive_fails_and_is_left_alone(
    xget: Xget, server: XnatServer, spoil: Any, says: str
) -> None:
    assert xget("-s", "sess_1", *SCANS)[0] == 0
    spoil(xget.folder / "sess_1_acq.zip")
    before = on_disk(xget.folder)
    server.clear()
    outcome = xget("-s", "sess_1", *SCANS)
    assert (outcome.status, outcome.out, server.requests) == (1, "", [])
    assert re.match(rf"xget: sess_1 acq: \./sess_1_acq\.zip: [^\n]*{says}[^\n]*\n", outcome.err)
    assert on_disk(xget.folder) == before


# --- there already: which session, which server -----------------------------------------


def test_sessions_relabelled_on_the_server_are_other_ones(xget: Xget, study: Any, world: World) -> None:
    """Two labels were put right: each archive holds the other session; both IDs are named."""
    assert xget("-proj", "STUDY", *SCANS)[0] == 0
    one, other = named(world, "P01"), named(world, "P03")
    one.label, other.label = other.label, one.label
    before = on_disk(xget.folder)
    outcome = xget("-proj", "STUDY", *SCANS)
    assert (outcome.status, outcome.out) == (1, "")
    for session, stranger in ((one, other), (other, one)):
        line = next(
            line for line in outcome.err.splitlines() if line.startswith(f"xget: {session.label} acq: ")
        )
        assert session.id in line and stranger.id in line and "-overwrite replaces it" in line
    assert on_disk(xget.folder) == before
    assert xget("-proj", "STUDY", "-update", *SCANS).status == 1, "an update is no way to another session"
    assert on_disk(xget.folder) == before
    assert xget("-proj", "STUDY", "-overwrite", *SCANS)[0] == 0
    assert_held(xget, study, "acq")


@pytest.mark.parametrize(
    "flags",
    [("-proj", "STUDY", *SCANS), ("-s", "P01", "-proj", "STUDY"), ("-s", "P0[1]", "-proj", "STUDY", *SCANS)],
    ids=["a whole project", "named, and looked up since a kind has no archive", "a pattern"],
)
def test_a_session_uploaded_anew_is_another_one(
    xget: Xget, study: Any, world: World, flags: tuple[str, ...]
) -> None:
    assert xget(*flags)[0] == 0
    old = named(world, "P01")
    world.experiments.remove(old)
    new = study.session("P01", subject="SUBJ001", date="2024-02-01")
    scan_of(new, "1")
    before = on_disk(xget.folder)
    outcome = xget(*flags)
    line = next(line for line in outcome.err.splitlines() if line.startswith("xget: P01 acq: "))
    assert outcome.status == 1 and old.id in line and new.id in line and "-overwrite" in line
    assert on_disk(xget.folder) == before


def test_a_session_is_the_same_however_it_was_typed(xget: Xget, study: Any, server: XnatServer) -> None:
    """With another -proj than before, the server tells that it is; another project's namesake is not."""
    assert xget("-s", "P02", "-proj", "The study", *SCANS)[0] == 0
    for flags in (("-s", "P02"), ("-s", "P02", "-proj", "STUDY"), ("-proj", "STUDY", "-start", "2024-01-02",
                  "-end", "2024-01-02"), ("-s", "P*2", "-proj", "STUDY")):  # fmt: skip
        server.clear()
        assert xget(*flags, *SCANS) == (0, "", "")
        assert transfers(server) == [] and server.requests
    outcome = xget("-s", "P01", "-proj", "STUDY", *SCANS)
    assert outcome.status == 0
    outcome = xget("-s", "P01", "-proj", "OTHER", *SCANS)
    assert outcome.status == 1 and "-overwrite" in outcome.err


@pytest.mark.parametrize("flags", [(), ("-update",), ("-verify",)], ids=["plain", "-update", "-verify"])
@pytest.mark.parametrize("all_there", [True, False], ids=["offline", "a kind without an archive"])
def test_a_server_on_another_port_is_another_one(
    xget: Xget, world: World, server: XnatServer, flags: tuple[str, ...], all_there: bool
) -> None:
    """Two XNATs on one host, with the same IDs."""
    more = SCANS if all_there else ("-ass", "NONE")
    assert xget("-s", "sess_1", *SCANS)[0] == 0
    before = on_disk(xget.folder)
    with XnatServer(world) as other:
        xget.url = other.url
        outcome = xget("-s", "sess_1", *more, *flags)
        line = next(line for line in outcome.err.splitlines() if line.startswith("xget: sess_1 acq: "))
        assert outcome.status == 1 and server.url in line and "-overwrite" in line
        assert (bool(other.requests), [r for r in other.requests if "/scans/" in r.path and r.transfer]) == (
            bool(flags) or not all_there,
            [],
        )
    assert {name: on_disk(xget.folder)[name] for name in before} == before


def test_a_server_that_asks_for_https_is_the_same_the_next_night(
    xget: Xget, world: World, server: XnatServer, tmp_path: Path
) -> None:
    """Whatever port that is on: what was typed is what is compared."""
    authority = Authority(tmp_path)
    with XnatServer(world, certificate=authority.issue("127.0.0.1")) as secure:
        server.fault("redirect", times=None, location=secure.url + "{path}")
        for flags in (SCANS, ("-ass", "NONE")):
            assert xget("-s", "sess_1", "-cacert", authority.file, *flags).status == 0
        for flags, brought in ((("-recon", "NONE"), 1), (("-z",), 2), (("-z",), 0), (("-verify",), 3)):
            outcome = xget("-s", "sess_1", "-cacert", authority.file, *flags)
            assert (outcome.status, outcome.err, len(outcome.out.split())) == (0, "", brought)


@pytest.mark.parametrize(
    "flags",
    [("-s", "{id}"), ("-s", "P01", "-proj", "STUDY"), ("-s", "{id}", "-proj", "STUDY"), ("-proj", "STUDY")],
    ids=["by ID", "by label", "by ID, -proj", "a whole project"],
)
def test_a_cache_that_answers_with_another_session_brings_none(
    xget: Xget, study: Any, world: World, server: XnatServer, flags: tuple[str, ...]
) -> None:
    """Another patient's scans never come under this one's name."""
    session, other = named(world, "P01"), named(world, "P02")
    server.fault("document", match=rf"experiments/({session.id}|P01)\?", times=None, id=other.id)
    outcome = xget(*(flag.format(id=session.id) for flag in flags), *SCANS)
    assert outcome.status == 1
    assert re.search(rf"^xget: (P01|{session.id}): .*{other.id}", outcome.err, re.MULTILINE)
    assert set(sessions(xget)) <= {"P02", "P03", "P05", "P06", "P07", "P08", "P09"}


def test_an_extracted_session_that_was_uploaded_anew_names_both_and_the_way_out(
    xget: Xget, study: Any, world: World
) -> None:
    assert xget("-proj", "STUDY", "-z", "-s", "P0[12]")[0] == 0
    old = named(world, "P01")
    world.experiments.remove(old)
    new = scan_of(study.session("P01", subject="SUBJ001"), "1").session
    before = on_disk(xget.folder)
    outcome = xget("-proj", "STUDY", "-z", "-s", "P0[12]")
    assert (outcome.status, outcome.out) == (1, "")
    line = next(line for line in outcome.err.splitlines() if line.startswith("xget: P01 acq: "))
    assert old.id in line and new.id in line and "-o" in line and "remove" in line
    assert on_disk(xget.folder) == before


def test_extracted_sessions_of_two_servers_are_not_mixed(xget: Xget, world: World) -> None:
    assert xget("-s", "sess_1", "-z")[0] == 0
    before = read_tree(xget.folder)
    with XnatServer(world) as other:
        xget.url = other.url
        outcome = xget("-s", "sess_1", "-z")
    assert outcome.status == 1 and "-o" in outcome.err and read_tree(xget.folder) == before


# --- what it costs ----------------------------------------------------------------------


def test_a_run_over_many_sessions_that_are_all_there_sends_nothing(
    xget: Xget, world: World, server: XnatServer
) -> None:
    """Named in any way: on the command line, in a list, with constraints; a server need not even run."""
    project = world.project("MANY")
    labels = [f"M{n:03}" for n in range(60)]
    for label in labels:
        scan_of(project.session(label), "1", files=1)
    (xget.folder / "list").write_text("\n".join(labels))
    assert xget("-f", "list", "-proj", "MANY", "-acq", "T*", *SCANS)[0] == 0
    server.clear()
    server.stop()
    for flags in (("-f", "list"), ("-s", ",".join(labels)), ("-f", "list", "-s", "!M00?,M001")):
        assert xget(*flags, "-proj", "MANY", "-acq", "T*", *SCANS) == (0, "", "")
    assert server.requests == []


def test_of_a_whole_project_that_is_there_only_the_list_is_asked_for(
    xget: Xget, world: World, server: XnatServer
) -> None:
    project = world.project("MANY")
    for n in range(20):
        scan_of(project.session(f"M{n:03}"), "1", files=1)
    for flags in (("-proj", "MANY"), ("-proj", "MANY", "-s", "M*,M001"), ("-s", "M*")):
        assert xget(*flags, *SCANS)[0] == 0
        server.clear()
        outcome = xget(*flags, *SCANS, "-json")
        assert (outcome.status, outcome.err) == (0, "")
        assert sorted(each for each, _ in objects(outcome)) == [f"M{n:03}" for n in range(20)]
        assert len(outcome.out.splitlines()) == 20, "each session once"
        assert not any("/experiments/" in request.path for request in server.requests)


# --- -update -----------------------------------------------------------------------------


def resource_ids(paths: list[str]) -> set[str]:
    """The resources that these archives were asked for."""
    found = [re.search(r"/resources/([^/]+)/files", path) for path in paths]
    return {id for place in found if place for id in place[1].split(",")}


def test_an_update_asks_only_for_the_rest(xget: Xget, world: World, server: XnatServer) -> None:
    first, second = named(world, "sess_1").scans
    assert xget("-s", "sess_1", "-acq", "1", *SCANS)[0] == 0
    server.clear()
    outcome = xget("-s", "sess_1", "-update", *SCANS)
    assert outcome == (0, "./sess_1_acq.zip\n", "")
    assert resource_ids(transfers(server)) == {str(second.resources[0].id)}
    assert read_zip(xget.folder / "sess_1_acq.zip") == truth(first.session, "acq")
    assert "-acq" not in comment(xget.folder / "sess_1_acq.zip")["constraints"]
    assert hidden(xget.folder) == [] and len(xget.files()) == 1


CHANGES: dict[str, tuple[Any, list[str]]] = {
    "a new file": (lambda files: files.update({"5.dcm": File(b"5" * 50)}), ["5.dcm"]),
    "a file put right": (lambda files: files.update({"2.dcm": File(b"right" * 50)}), ["2.dcm"]),
    "a file put right, of the same size": (
        lambda files: files.update({"2.dcm": File(b"x" * 1000)}),
        ["2.dcm"],
    ),
    "a file that is gone": (lambda files: files.pop("2.dcm"), []),
    "a new file for one that is gone": (
        lambda files: (files.pop("2.dcm"), files.update({"new.dcm": File(b"new")})),
        ["new.dcm"],
    ),
    "an empty one": (lambda files: files.update({"empty": File(b"")}), []),
}


@pytest.mark.parametrize(("change", "asked"), CHANGES.values(), ids=list(CHANGES))
def test_an_update_brings_what_is_listed_now(
    xget: Xget, world: World, server: XnatServer, change: Any, asked: list[str]
) -> None:
    """What it proves of the old archive stays; a plain run would find it there."""
    session = named(world, "sess_1")
    assert xget("-s", "sess_1", *SCANS)[0] == 0
    change(session.scans[0].resources[0].files)
    assert xget("-s", "sess_1", *SCANS) == (0, "", "")
    server.clear()
    outcome = xget("-s", "sess_1", "-update", *SCANS)
    assert outcome == (0, "./sess_1_acq.zip\n", "")
    assert [path.partition("?")[0].rpartition("/")[2] for path in transfers(server)] == asked
    assert read_zip(xget.folder / "sess_1_acq.zip") == truth(session, "acq")
    assert comment(xget.folder / "sess_1_acq.zip").get("incomplete") is None


def test_an_update_says_what_it_left_out(xget: Xget, world: World) -> None:
    """What is no longer listed to whoever listens; what is only not asked for now in any case."""
    session = named(world, "sess_1")
    assert xget("-s", "sess_1", *SCANS)[0] == 0
    del session.scans[0].resources[0].files["2.dcm"]
    said = xget("-s", "sess_1", "-update", "-v", *SCANS).err
    assert re.search(
        r"xget: sess_1 acq: sess_1/scans/1-TSE/\S+/2\.dcm: is no longer listed; left out\n", said
    )
    session.scans[0].resources[0].add("6.dcm", b"6")
    outcome = xget("-s", "sess_1", "-update", "-acq", "1", *SCANS)
    assert outcome.status == 0
    assert re.fullmatch(
        r"xget: warning: sess_1 acq: [^\n]*not asked for[^\n]*scans/2-PIB[^\n]*\n", outcome.err
    )


@pytest.mark.parametrize("flags", [(), ("-acq", "1"), ("-q", "usable")], ids=["all", "-acq", "-q"])
def test_an_update_of_what_holds_all_that_is_asked_for_changes_nothing(
    xget: Xget, server: XnatServer, flags: tuple[str, ...]
) -> None:
    """Also where it holds more."""
    assert xget("-s", "sess_1", *SCANS)[0] == 0
    before = on_disk(xget.folder)
    server.clear()
    outcome = xget("-s", "sess_1", "-update", "-json", *flags, *SCANS)
    assert (outcome.status, objects(outcome)["sess_1", "acq"]["status"]) == (0, "present")
    assert (transfers(server), on_disk(xget.folder)) == ([], before)


def test_an_update_makes_what_is_not_there(xget: Xget, study: Any, world: World) -> None:
    """The way to keep a whole project up to date: one flag, every night."""
    assert xget("-proj", "STUDY", "-update")[0] == 0
    scan_of(named(world, "P05"), "3", type="T2w")
    scan_of(study.session("P11", subject="SUBJ011"), "1")
    outcome = xget("-proj", "STUDY", "-update")
    assert sorted(outcome.out.split()) == ["./P05_acq.zip", "./P11_acq.zip"] and outcome.status == 0
    assert_held(xget, study, "acq", "ass", "recon")


def test_an_update_begins_with_an_archive_that_xget_did_not_make(
    xget: Xget, world: World, server: XnatServer
) -> None:
    session = named(world, "sess_1")
    assert xget("-s", "sess_1", *SCANS)[0] == 0
    path = xget.folder / "sess_1_acq.zip"
    without(path, "2.dcm")
    with_comment(path, b"")
    server.clear()
    assert xget("-s", "sess_1", "-update", *SCANS) == (0, "./sess_1_acq.zip\n", "")
    assert [each.rpartition("/")[2] for each in transfers(server)] == ["2.dcm", "2.dcm"]
    assert read_zip(path) == truth(session, "acq") and comment(path)["id"] == session.id


def test_an_update_mends_a_damaged_file(xget: Xget, world: World, server: XnatServer) -> None:
    assert xget("-s", "sess_1", *SCANS)[0] == 0
    path = xget.folder / "sess_1_acq.zip"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\x04" * 1000, b"\x04" * 999 + b"!"))
    server.clear()
    assert xget("-s", "sess_1", "-update", *SCANS) == (0, "./sess_1_acq.zip\n", "")
    assert [each.rpartition("/")[2] for each in transfers(server)] == ["4.dcm"]
    assert read_zip(path) == truth(named(world, "sess_1"), "acq")


@pytest.mark.parametrize("kind", ["cut", "status", "stop"])
def test_the_old_archive_stays_until_the_new_one_is_complete(
    xget: Xget, world: World, server: XnatServer, kind: str
) -> None:
    """Whatever breaks; the next update goes on where this one ended."""
    session = named(world, "sess_1")
    assert xget("-s", "sess_1", "-acq", "1", *SCANS)[0] == 0
    path = xget.folder / "sess_1_acq.zip"
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    scan_of(session, "3", files=3)
    details = {"cut": {"after": 3000}, "stop": {"after": 3000}, "status": {"status": 403}}[kind]
    server.fault(kind, match="format=zip", times=None, **details)
    server.fault("status", match=r"/files/[^?]+$", times=None, status=403)
    outcome = xget("-s", "sess_1", "-update", "-retry", "NONE", *SCANS)
    assert outcome.status in (1, 3) and outcome.out == ""
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert xget("-s", "sess_1", "-acq", "1", *SCANS)[:2] == (0, ""), "it is still what it was"
    if kind == "stop":
        server.start()
    server.clear()
    assert xget("-s", "sess_1", "-update", *SCANS) == (0, "./sess_1_acq.zip\n", "")
    assert str(session.scans[0].resources[0].id) not in resource_ids(transfers(server))
    assert read_zip(path) == truth(session, "acq")
    assert hidden(xget.folder) == [] and len(xget.files()) == 1


def test_a_plain_run_says_that_an_update_was_not_completed(
    xget: Xget, world: World, server: XnatServer
) -> None:
    """What is asked for is there; what came of the update lies beside it, and both stay."""
    session = named(world, "sess_1")
    assert xget("-s", "sess_1", *SCANS)[0] == 0
    scan_of(session, "3").resources[0].files["2.dcm"].on_disk = False
    assert xget("-s", "sess_1", "-update", "-retry", "NONE", *SCANS)[0] == 1
    before = on_disk(xget.folder)
    assert sorted(before) == ["sess_1_acq.incomplete.zip", "sess_1_acq.zip"]
    for flags in (SCANS, ("-ass", "NONE")):
        outcome = xget("-s", "sess_1", *flags)
        assert outcome.status == 0
        line = r"xget: warning: sess_1 acq: [^\n]*\./sess_1_acq\.incomplete\.zip[^\n]*-update[^\n]*\n"
        assert re.fullmatch(line, outcome.err)
    assert {name: on_disk(xget.folder)[name] for name in before} == before
    session.scans[2].resources[0].files["2.dcm"].on_disk = True
    server.clear()
    assert xget("-s", "sess_1", "-update", *SCANS) == (0, "./sess_1_acq.zip\n", "")
    assert [path.rpartition("/")[2] for path in transfers(server)] == ["2.dcm"]
    assert not (xget.folder / "sess_1_acq.incomplete.zip").exists()


def test_a_killed_update_leaves_the_old_archive(xget: Xget, world: World, server: XnatServer) -> None:
    session = named(world, "sess_1")
    assert xget("-s", "sess_1", "-acq", "1", *SCANS)[0] == 0
    path = xget.folder / "sess_1_acq.zip"
    before = path.read_bytes()
    reached = threading.Event()
    server.fault("call", match="format=zip", action=reached.set)
    server.fault("silence", match="format=zip", seconds=30, after=3000)
    process = xget.start("-s", "sess_1", "-update", *SCANS)
    assert reached.wait(30)
    process.kill()
    process.communicate()
    assert path.read_bytes() == before
    server.clear()
    assert xget("-s", "sess_1", "-update", *SCANS) == (0, "./sess_1_acq.zip\n", "")
    assert read_zip(path) == truth(session, "acq") and hidden(xget.folder) == []


def test_an_update_refuses_what_is_no_whole_archive(xget: Xget, server: XnatServer) -> None:
    assert xget("-s", "sess_1", *SCANS)[0] == 0
    cut(xget.folder / "sess_1_acq.zip", 0, -9)
    before = on_disk(xget.folder)
    server.clear()
    outcome = xget("-s", "sess_1", "-update", *SCANS)
    assert outcome.status == 1 and re.match(r"xget: sess_1 acq: .*no whole ZIP; -overwrite", outcome.err)
    assert (on_disk(xget.folder), transfers(server)) == (before, [])


def test_an_update_of_what_the_server_has_no_more_is_said(xget: Xget, world: World) -> None:
    assert xget("-s", "sess_1")[0] == 0
    before = on_disk(xget.folder)
    named(world, "sess_1").reconstructions.clear()
    outcome = xget("-s", "sess_1", "-update")
    assert (outcome.status, outcome.out) == (0, "")
    assert re.fullmatch(r"xget: warning: \./sess_1_recon\.zip: left as it is[^\n]*\n", outcome.err)
    assert on_disk(xget.folder) == before


# --- -verify -----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [(), ("-z",), ("-z", "-flat")], ids=["archives", "-z", "-z -flat"])
def test_verify_proves_what_is_there_and_says_its_paths(
    xget: Xget, study: Any, server: XnatServer, layout: tuple[str, ...]
) -> None:
    """Nothing is transferred, nothing is written."""
    brought = xget("-proj", "STUDY", *layout)
    assert brought.status == 0
    before = on_disk(xget.folder)
    server.clear()
    outcome = xget("-proj", "STUDY", "-verify", *layout)
    assert (outcome.status, sorted(outcome.out.split())) == (0, sorted(brought.out.split()))
    with_json = objects(xget("-proj", "STUDY", "-verify", "-json", *layout))
    statuses = {(s, kind) for (s, kind), each in with_json.items() if each["status"] == "verified"}
    assert len(statuses) == 10 and ("P06", "ass") in statuses and ("P08", "recon") in statuses
    assert {each["status"] for each in with_json.values()} == {"verified", "nothing"}
    one = with_json["P01", "acq"]
    assert (one["files"], one["error"], bool(one["path"])) == (3, "", True)
    assert (transfers(server), on_disk(xget.folder)) == ([], before)


def twice(path: Path, end: str) -> None:
    """Append a second member of the same name, so that readers of the ZIP would take this one."""
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        [name] = [each for each in archive.namelist() if each.endswith(end)]
        archive.writestr(name, b"other")


DAMAGES: dict[str, tuple[Any, str]] = {
    "a file is missing": (lambda path: without(path, "files/2.dcm"), r"1 DICOM 2\.dcm: .*"),
    "a file differs, of the same size": (
        lambda path: without(path, **{"4": b"x" * 1000}),
        r"1 DICOM 4\.dcm: another MD5.*",
    ),
    "a file differs": (lambda path: without(path, **{"4": b"x"}), r"1 DICOM 4\.dcm: 1 bytes .*"),
    "a file is not listed": (lambda path: with_comment(path, b"", "sess_1/x"), r"sess_1/x: not listed"),
    "a byte is inverted": (
        lambda path: path.write_bytes(path.read_bytes().replace(b"\x04" * 1000, b"\x04" * 999 + b"!")),
        r"1 DICOM 4\.dcm: damaged: .*",
    ),
    "a file is there twice": (lambda path: twice(path, "files/4.dcm"), r"1 DICOM 4\.dcm: .*"),
    "the directory names another file": (
        lambda path: path.write_bytes(path.read_bytes()[::-1].replace(b"mcd.4/", b"mcd.7/", 1)[::-1]),
        r"1 DICOM 4\.dcm: is not what the directory of the archive shows",
    ),
    "an archive is not there": (lambda path: path.unlink(), r"\./sess_1_acq\.zip: is not there"),
    "no ZIP": (lambda path: path.write_bytes(b"no"), r"\./sess_1_acq\.zip: exists, and is no whole ZIP.*"),
}


def assert_named(outcome: Outcome, says: str) -> None:
    """A line of its own for it, the failure of the archive, and the sum; the path is not said."""
    assert (outcome.status, outcome.out) == (1, "")
    lines = outcome.err.splitlines()
    assert any(re.fullmatch(f"xget: sess_1 acq: {says}", line) for line in lines), outcome.err
    assert re.fullmatch(r"xget: 1 session: 1 failed; .*", lines[-1])


@pytest.mark.parametrize(("damage", "says"), DAMAGES.values(), ids=list(DAMAGES))
def test_verify_names_what_is_wrong_with_an_archive(
    xget: Xget, server: XnatServer, damage: Any, says: str
) -> None:
    assert xget("-s", "sess_1", *SCANS)[0] == 0
    damage(xget.folder / "sess_1_acq.zip")
    before = on_disk(xget.folder)
    server.clear()
    assert_named(xget("-s", "sess_1", "-verify", *SCANS), says)
    assert (transfers(server), on_disk(xget.folder)) == ([], before)


FILES = "sess_1/scans/1-TSE/resources/DICOM/files"
TREE_DAMAGES: dict[str, tuple[Any, str]] = {
    "a file is missing": (lambda top: (top / FILES / "2.dcm").unlink(), r"1 DICOM 2\.dcm: .*"),
    "a file differs, of the same size": (
        lambda top: (top / FILES / "4.dcm").write_bytes(b"x" * 1000),
        r"1 DICOM 4\.dcm: another MD5 than listed",
    ),
    "a file is cut": (lambda top: cut(top / FILES / "4.dcm", 0, 3), r"1 DICOM 4\.dcm: 3 bytes .*"),
    "a folder for a file": (lambda top: make_folder(top / FILES / "4.dcm"), r"1 DICOM 4\.dcm: .*"),
    "a dead link": (lambda top: make_dead_link(top / FILES / "4.dcm"), r"1 DICOM 4\.dcm: .*"),
    "a file is not listed": (
        lambda top: (top / FILES / "more.dcm").write_bytes(b"more"),
        rf"{FILES}/more\.dcm: not listed",
    ),
    "a scan is not there": (
        lambda top: shutil.rmtree(top / "sess_1/scans/2-PIB_336mtx"),
        r"2 DICOM 1\.dcm: .*",
    ),
    "a scan that the session does not have": (
        lambda top: shutil.copytree(top / "sess_1/scans/1-TSE", top / "sess_1/scans/3-TSE"),
        r"sess_1/scans/3-TSE/resources/DICOM/files/1\.dcm: not listed",
    ),
    "the session is not there": (lambda top: shutil.rmtree(top / "sess_1"), r"2 DICOM 3\.dcm: .*"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="no links there")
@pytest.mark.parametrize(("damage", "says"), TREE_DAMAGES.values(), ids=list(TREE_DAMAGES))
def test_verify_names_what_is_wrong_with_extracted_files(
    xget: Xget, server: XnatServer, damage: Any, says: str
) -> None:
    assert xget("-s", "sess_1", "-z", *SCANS)[0] == 0
    damage(xget.folder)
    before = on_disk(xget.folder)
    server.clear()
    assert_named(xget("-s", "sess_1", "-z", "-verify", *SCANS), says)
    assert (transfers(server), on_disk(xget.folder)) == ([], before)


@pytest.mark.parametrize("layout", [(), ("-z",)], ids=["archives", "-z"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda scan: scan.resources[0].add("5.dcm", b"5"), r"1 DICOM 5\.dcm: .*"),
        (lambda scan: scan.resources[0].add("2.dcm", b"2"), r"1 DICOM 2\.dcm: .*"),
        (lambda scan: scan.resources[0].files.pop("2.dcm"), r"sess_1/scans/1-TSE/\S*/2\.dcm: not listed"),
        (lambda scan: scan.session.scans.remove(scan), r"sess_1/scans/1-TSE/\S*/2\.dcm: not listed"),
        (lambda scan: scan.session.scans.clear(), r"sess_1/scans/2-PIB_336mtx/\S*/2\.dcm: not listed"),
    ],
    ids=["a new file", "a file put right", "a file gone", "a scan gone", "all scans gone"],
)
def test_verify_compares_with_the_listing_of_now(
    xget: Xget, world: World, layout: tuple[str, ...], change: Any, says: str
) -> None:
    """A plain run is content with what is there; this is the way to find out."""
    assert xget("-s", "sess_1", *layout, *SCANS)[0] == 0
    change(named(world, "sess_1").scans[0])
    outcome = xget("-s", "sess_1", "-verify", *layout, *SCANS)
    outcome = outcome._replace(err="".join(re.sub("^xget: warning.*\n", "", outcome.err, flags=re.MULTILINE)))
    assert_named(outcome, says)


@pytest.mark.parametrize("layout", [(), ("-z",)], ids=["archives", "-z"])
def test_verify_holds_nothing_against_what_is_not_asked_for(xget: Xget, layout: tuple[str, ...]) -> None:
    """What was brought with fewer constraints, or in another run, is the session's too."""
    assert xget("-s", "sess_1", "-format", "ALL", *layout)[0] == 0
    for flags in (("-acq", "1"), ("-q", "usable"), (), ("-format", "NIFTI", "-acq", "2")):
        outcome = xget("-s", "sess_1", "-verify", *flags, *layout, *SCANS)
        assert (outcome.status, outcome.err, len(outcome.out.split())) == (0, "", 1)


def test_another_format_beside_is_not_called_strange(xget: Xget, world: World) -> None:
    """With -z, runs with one format and another fill one tree; what no run could bring is still named."""
    flags = ("-s", "sess_1", "-z", "-acq", "2", *SCANS)
    assert xget(*flags, "-format", "NIFTI") == (0, "./sess_1\n", "")
    assert xget(*flags) == (0, "./sess_1\n", "")
    (xget.folder / "sess_1/scans/2-PIB_336mtx/resources/DICOM/files/mine").write_bytes(b"mine")
    named(world, "sess_1").scans[1].resources[0].add("9.dcm", b"9")
    outcome = xget(*flags)
    assert outcome.status == 0 and re.fullmatch(
        r"xget: warning: sess_1 acq: [^\n]*DICOM/files/mine\n", outcome.err
    )


def test_verify_tells_good_from_bad_and_goes_on(xget: Xget, study: Any) -> None:
    assert xget("-proj", "STUDY")[0] == 0
    without(xget.folder / "P03_acq.zip", "1.dcm")
    (xget.folder / "P06_ass.zip").unlink()
    outcome = xget("-proj", "STUDY", "-verify", "-json")
    statuses = {key: each["status"] for key, each in objects(outcome).items() if each["status"] != "nothing"}
    assert outcome.status == 1
    assert {key for key, status in statuses.items() if status == "failed"} == {("P03", "acq"), ("P06", "ass")}
    assert set(statuses.values()) == {"failed", "verified"} and len(statuses) == 10


@pytest.mark.skipif(sys.platform == "win32", reason="another kind of rights there")
@pytest.mark.parametrize("layout", [(), ("-z",)], ids=["archives", "-z"])
def test_verify_works_where_nothing_can_be_written(xget: Xget, layout: tuple[str, ...]) -> None:
    """In a mirror that is another user's, say."""
    brought = xget("-s", "sess_1", *layout, *SCANS)
    xget.folder.chmod(0o555)
    try:
        for flags, status in ((("-verify",), 0), (("-overwrite",), 2)):
            process = launch(xget, "plain", "-s", "sess_1", *flags, *layout, *SCANS)
            out, _ = process.communicate(timeout=60)
            assert (process.returncode, out) == (status, "" if status else brought.out)
    finally:
        xget.folder.chmod(0o755)


# --- what matched nothing ----------------------------------------------------------------


def test_one_line_an_item_names_all_sessions_without_it(xget: Xget, study: Any) -> None:
    """At the end; where archives are there already they count among all: the next night says the same."""
    for flags in ((), (), ("-ass", "P06_QC,P07_QC", "-recon", "ALL")):
        outcome = xget("-proj", "STUDY", "-acq", "T1w", *(flags or SCANS))
        lines = outcome.err.splitlines()
        assert outcome.status == 0
        assert "xget: warning: -acq T1w: matches nothing in 4 of 10 sessions: P02, P05, P07, P10" in lines
        assert sum("-acq T1w: matches nothing; there is" in line for line in lines) == 1
    assert sum("matches nothing in" in line for line in lines[-4:]) == 4, "T1w, DICOM, and two assessors"
    assert sessions(xget) == ["P01", "P03", "P06", "P08", "P09"]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("-acq", "nope"), "-acq nope: matches nothing in 10 of 10 sessions: P01, P02,"),
        (("-q", "bad"), "-q bad: matches nothing in 9 of 10 sessions: P01,"),
        (("-ass", "P06_QC"), "-ass P06_QC: matches nothing in 9 of 10 sessions: P01,"),
        (("-recon", "R9"), "-recon R9: matches nothing in 10 of 10 sessions: P01,"),
        (("-res", "N?TES"), "-res N?TES: matches nothing in 9 of 10 sessions: P01,"),
        (("-format", "MINC"), "-format MINC: matches nothing in "),
        (("-acq", "!*"), "-acq !*: matches nothing in any session"),
        (("-q", "!usable"), "-q !usable: matches nothing in any session"),
        (("-format", "!*"), "-format !*: matches nothing in any session"),
    ],
    ids=["-acq", "-q", "-ass", "-recon", "-res", "-format", "-acq, all left out", "-q, too", "-format, too"],
)  # fmt: skip
def test_the_last_line_for(xget: Xget, study: Any, flags: tuple[str, ...], line: str) -> None:
    """A status of 4 never comes without one."""
    outcome = xget("-proj", "STUDY", "-list", *flags)
    assert any(each.startswith(f"xget: warning: {line}") for each in outcome.err.splitlines()), outcome.err
    assert outcome.status == (0 if flags[0] in ("-ass", "-res") else 4)
    assert xget("-proj", "STUDY", "-list", "-quiet", *flags) == (outcome.status, outcome.out, "")


SUBJECTS: dict[str, tuple[tuple[str, ...], int, str]] = {
    "misspelt": (("-proj", "STUDY", "-subj", "SUBJ0O1"), 4, "SUBJ0O1"),
    "misspelt, sessions named": (("-s", "P02,P03", "-subj", "SUBJ0O1"), 4, "SUBJ0O1"),
    "misspelt, sessions by pattern": (("-s", "P0*", "-proj", "STUDY", "-subj", "SUBJ0O1"), 4, "SUBJ0O1"),
    "misspelt, other constraints": (("-proj", "STUDY", "-subj", "SUBJ0O1", "-acq", "T1w"), 4, "SUBJ0O1"),
    "a pattern that names nobody": (("-proj", "STUDY", "-subj", "SUB0*"), 4, r"SUB0\*"),
    "another case": (("-proj", "STUDY", "-subj", "subj001"), 4, "subj001"),
    "of other sessions than those named": (
        ("-s", "P02,P03", "-proj", "STUDY", "-subj", "SUBJ009"),
        4,
        "SUBJ009",
    ),
    "beside one that is there": (("-proj", "STUDY", "-subj", "SUBJ0O1,SUBJ002"), 0, "SUBJ0O1"),
    "beside one that is there, sessions named": (("-s", "P02,P03", "-subj", "SUBJ0O1,SUBJ002"), 0, "SUBJ0O1"),
}


@pytest.mark.parametrize("terminal", [False, True], ids=["no terminal", "terminal"])
@pytest.mark.parametrize(("flags", "status", "item"), SUBJECTS.values(), ids=list(SUBJECTS))
def test_a_subject_that_nobody_is(
    xget: Xget, study: Any, flags: tuple[str, ...], status: int, item: str, terminal: bool
) -> None:
    """One line, with those that there are."""
    line = rf"xget: warning: -subj {item}: matches nothing; there is [^\n]*SUBJ003[^\n]*"
    if not terminal:
        outcome = xget(*flags, "-list")
        assert outcome.status == status and re.fullmatch(line + "\n", outcome.err), outcome.err
        assert listed(outcome) == ([] if status else ["P02"])
    elif sys.platform != "win32":
        found, _, shown = Terminal(xget, *flags, "-list", columns=400).finish()
        assert found == status and re.search(line, shown), shown


def test_a_subject_of_whom_nothing_is_asked_for_is_somebody(
    xget: Xget, study: Any, server: XnatServer
) -> None:
    """Without a session, or without one of these days: an empty answer, not a wrong question."""
    study.subject("SUBJ099")
    for flags in (
        ("-subj", "SUBJ099"),
        ("-subj", "SUBJ001", "-start", "2030-01-01"),
        ("-subj", "SUBJ099,SUBJ001", "-end", "2000-01-01", "-acq", "T1w"),
        ("-subj", "!SUBJ*"),
    ):
        assert xget("-proj", "STUDY", *flags) == (0, "", "")
    assert xget.files() == []


def test_patterns_of_subjects(xget: Xget, study: Any) -> None:
    for items, expected in (
        ("SUBJ00[13]", ["P01", "P03"]),
        ("SUBJ*,!SUBJ00?", []),
        ("!SUBJ00[1-8]", ["P09"]),
        ("SUBJ001,!SUBJ001", []),
        ("?UBJ009", ["P09"]),
    ):
        outcome = xget("-proj", "STUDY", "-subj", items, "-list")
        assert (outcome.status, outcome.err, listed(outcome)) == (0, "", expected)


def test_a_project_without_dicom(xget: Xget, world: World) -> None:
    """As OASIS is: the way out is named once for all; with it, all come."""
    project = world.project("OASIS")
    for n in range(1, 5):
        scan = project.session(f"O{n}").scan("1", type="T1w")
        scan.resource("NIFTI", {"1.nii.gz": b"n" * n}, format="NIFTI")
        scan.resource("BIDS", {"1.json": b"b" * n}, format="JSON")
    outcome = xget("-proj", "OASIS", "-acq", "T1w")
    first, last = outcome.err.splitlines()
    assert (outcome.status, outcome.out, xget.files()) == (4, "", [])
    assert re.match(r"xget: warning: O1: -format DICOM: .*JSON, NIFTI; -format ", first)
    assert last == "xget: warning: -format DICOM: matches nothing in 4 of 4 sessions: O1, O2, O3, O4"
    assert xget("-proj", "OASIS", "-acq", "T1w", "-format", "NIFTI")[0] == 0
    assert sessions(xget) == ["O1", "O2", "O3", "O4"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("-s", "P08", "-acq", "T1w", "-format", "NIFTI"), r"-format NIFTI \(scans\): .*DICOM"),
        (("-s", "P06", "-ass", "P06_QC", "-format", "DICOM"), r"-format DICOM \(assessors\): .*DATA"),
        (("-s", "P08", "-recon", "R*", "-format", "DICOM"), r"-format DICOM \(reconstructions\): .*NIFTI"),
        (("-s", "P06", "-format", "DICOM"), ""),
        (("-s", "P08", "-acq", "NONE", "-format", "NIFTI"), ""),
    ],
    ids=[
        "scans",
        "assessors that were named",
        "reconstructions that were named",
        "assessors",
        "no scans asked for",
    ],
)
def test_a_format_that_leaves_nothing_of_what_was_chosen(
    xget: Xget, study: Any, flags: tuple[str, ...], says: str
) -> None:
    """It matches in another kind, so that the status is 0; a line names the formats that there are."""
    outcome = xget(*flags, "-proj", "STUDY", "-list")
    line = rf"xget: warning: P0\d: {says}[^\n]*-format[^\n]*\n" if says else ""
    assert outcome.status == 0 and outcome.out and re.fullmatch(line, outcome.err), outcome.err


def test_scans_without_dicom_beside_others_are_no_matter_for_a_log(xget: Xget, study: Any) -> None:
    """P03 has such a scan; a person at a terminal is told."""
    for _ in range(2):
        assert xget("-s", "P03", "-proj", "STUDY").err == ""
    if sys.platform != "win32":
        _, _, shown = Terminal(xget, "-s", "P03", "-proj", "STUDY", "-list").finish()
        assert re.search(r"xget: P03: .*\b9\b.*TXT", shown)


def bare(study: Any) -> Any:
    return study.session("bare")


def empty_scan(study: Any) -> Any:
    session = study.session("bare")
    session.scan("1", type="T1w")
    return session


def empty_resource(study: Any) -> Any:
    session = study.session("bare")
    session.scan("1", type="T1w").resource("DICOM", {}, **DICOM)
    return session


def only_resources(study: Any) -> Any:
    session = study.session("bare")
    session.resource("NOTES", {"n": b"n"})
    return session


def only_inputs(study: Any) -> Any:
    session = study.session("bare")
    session.assessor("bare_QC").resource("LOG", {"log": b"log"}, where="in")
    return session


@pytest.mark.parametrize(
    ("make", "has"),
    [
        (bare, "nothing at all"),
        (empty_scan, r"1 scans? \(-acq\)"),
        (empty_resource, r"1 scans? \(-acq\)"),
        (only_resources, r"1 resources? \(-res\)"),
        (only_inputs, r"1 assessors? \(-ass\)"),
    ],
    ids=[
        "nothing",
        "a scan without resources",
        "a resource without files",
        "resources of the session alone",
        "an assessor with files outside `out` alone",
    ],
)
def test_a_named_session_that_has_nothing_of_what_is_asked_for(
    xget: Xget, study: Any, make: Any, has: str
) -> None:
    """A line says what it has, whatever the others brought; of a whole project it is no matter."""
    make(study)
    outcome = xget("-s", "P02,bare", "-proj", "STUDY")
    lines = [line for line in outcome.err.splitlines() if "outside `out`" not in line]
    assert (outcome.status, outcome.out) == (4, "./P02_acq.zip\n")
    assert len(lines) == 1 and re.fullmatch(rf"xget: warning: bare: has nothing[^\n]*{has}", lines[0])
    outcome = xget("-proj", "STUDY", "-s", "ba*,P02")
    assert (outcome.status, "has nothing" in outcome.err) == (0, False)


def test_files_that_are_never_fetched_are_named_where_there_is_nothing_else(xget: Xget, study: Any) -> None:
    """An assessor whose files all lie outside `out`."""
    only_inputs(study)
    outcome = xget("-proj", "STUDY", "-list", "-s", "ba*")
    assert outcome.status == 0
    assert re.fullmatch(r"xget: warning: bare: assessor bare_QC has files outside `out`[^\n]*\n", outcome.err)


def test_a_constraint_that_a_named_session_lacks(xget: Xget, study: Any) -> None:
    """Named once in its closing line, not twice."""
    outcome = xget("-s", "P01,P02,P05", "-proj", "STUDY", "-acq", "T1w")
    first, last = outcome.err.splitlines()
    assert outcome.out == "./P01_acq.zip\n"
    assert first.startswith("xget: warning: P02: -acq T1w: matches nothing; there is ")
    assert last == "xget: warning: -acq T1w: matches nothing in 2 of 3 sessions: P02, P05"


def test_two_nights_of_a_project_with_one_session_in_another_format_end_alike(xget: Xget, study: Any) -> None:
    """Also when all others are there by then."""
    for _ in range(2):
        outcome = xget("-proj", "STUDY", *SCANS)
        assert outcome.status == 0
        assert outcome.err.splitlines()[-1] == (
            "xget: warning: -format DICOM: matches nothing in 1 of 10 sessions: P04"
        )


def test_nothing_in_these_days_is_no_constraint_that_failed(xget: Xget, study: Any) -> None:
    for flags in (("-proj", "STUDY"), ("-s", "P0*", "-proj", "STUDY"), ("-s", "P02,P03")):
        outcome = xget(*flags, "-start", "2030-01-01", "-acq", "T1w", "-q", "usable", "-ass", "P06_QC")
        assert (outcome, xget.files()) == ((0, "", ""), [])


# --- which sessions ----------------------------------------------------------------------

PATTERNS: dict[str, tuple[tuple[str, ...], str]] = {
    "a star": (("-s", "P0[1-3]*", "-proj", "STUDY"), "P01 P02 P03"),
    "a question mark": (("-s", "P?2", "-proj", "STUDY"), "P02"),
    "without a project": (("-s", "P0[2-3]"), "P02 P03"),
    "two patterns, a name": (("-s", "P02,P0[23],*3", "-proj", "STUDY"), "P02 P03"),
    "a pattern and an ID": (("-s", "*9,{P02}", "-proj", "STUDY"), "P09 {P02}"),
    "! of a pattern": (("-s", "P0*,!P0[4-9]", "-proj", "STUDY"), "P01 P02 P03"),
    "! alone: everything else": (("-s", "!P0[3-9],!P10", "-proj", "STUDY"), "P01 P02 here_1"),
    "! of names": (("-s", "P01,P02,P03,!P02", "-proj", "STUDY"), "P01 P03"),
    "! of an ID that was named by its label": (("-s", "P01,P02,!{P02}", "-proj", "STUDY"), "P01"),
    "! of a label that was named by its ID": (("-s", "P01,{P02},!P02", "-proj", "STUDY"), "P01"),
    "! in a file": (("-f", "list", "-proj", "STUDY"), "P01"),
    "! beside a file": (("-f", "names", "-s", "!P0[23]", "-proj", "STUDY"), "P01"),
    "a pattern and days": (("-s", "P0*", "-proj", "STUDY", "-end", "2024-01-02"), "P01 P02"),
    "a pattern and a subject": (("-s", "P0*", "-proj", "STUDY", "-subj", "SUBJ003"), "P03"),
    "the label of a shared session": (("-s", "here*", "-proj", "STUDY"), "here_1"),
}


@pytest.mark.parametrize(("flags", "expected"), PATTERNS.values(), ids=list(PATTERNS))
def test_patterns_of_sessions(
    xget: Xget, study: Any, world: World, flags: tuple[str, ...], expected: str
) -> None:
    """Each session once, and on the second night all are there: nothing else comes."""
    scan_of(world.projects[0].session("at_home", subject="X2"), "1").session.share(study, "here_1")
    (xget.folder / "list").write_text("P0[1-2]\n!P02\n")
    (xget.folder / "names").write_text("P01\nP02\nP03\n")
    ids = {label: named(world, label).id for label in ("P01", "P02")}
    typed = [re.sub(r"{(\w+)}", lambda found: ids[found[1]], flag) for flag in flags]
    names = [re.sub(r"{(\w+)}", lambda found: ids[found[1]], name) for name in expected.split()]
    for night in (1, 2):
        outcome = xget(*typed, *SCANS, "-json")
        assert outcome.status == 0, outcome.err
        assert sorted(json.loads(line)["session"] for line in outcome.out.splitlines()) == sorted(names), (
            night
        )
        assert sessions(xget) == sorted(names)


def test_a_pattern_that_names_nothing_is_not_found(xget: Xget, study: Any) -> None:
    for flags in ((), ("-proj", "STUDY")):
        outcome = xget("-s", "P02,Q*", *flags, *SCANS)
        assert (outcome.status, sessions(xget)) == (1, ["P02"])
        assert outcome.err.startswith("xget: Q*: not found")


def test_a_label_with_a_bracket_is_a_label_before_it_is_a_pattern(xget: Xget, study: Any) -> None:
    scan_of(study.session("P0[23]", date="2024-03-01"), "1")
    for flags in ((), ("-proj", "STUDY")):
        outcome = xget("-s", "P0[23]", *flags, "-list")
        assert (outcome.status, listed(outcome)) == (0, ["P0[23]"])
        assert xget("-s", "P0[23]", *flags, "-list", "-end", "2024-02-01") == (0, "", ""), (
            "its own date counts"
        )


def test_a_pattern_that_finds_one_label_in_two_projects_brings_neither(
    xget: Xget, study: Any, world: World
) -> None:
    """Both are named, by their IDs: one archive cannot hold both, and none is chosen by chance."""
    ids = [each.id for each in world.sessions() if each.label == "P01"]
    outcome = xget("-s", "P0[12]", *SCANS)
    assert (outcome.status, sessions(xget)) == (1, ["P02"])
    lines = [line for line in outcome.err.splitlines() if line.startswith("xget: P01: ")]
    assert len(lines) == 2 and all(id in line for id in ids for line in lines)
    assert xget("-s", ",".join(ids), *SCANS)[0] == 0


def test_a_second_night_of_named_sessions_and_exclusions_brings_nothing_else(
    xget: Xget, study: Any, server: XnatServer
) -> None:
    """Once what was named is there, what is left out must not come to mean everything else."""
    for flags in (("-s", "P01,!P02"), ("-s", "P01,!nope*"), ("-s", "P01,P02,!P02")):
        for _ in range(2):
            assert xget(*flags, "-proj", "STUDY", *SCANS)[0] == 0
            assert sessions(xget) == ["P01"]
    server.clear()
    assert xget("-s", "P01,!P02", "-proj", "STUDY", *SCANS) == (0, "", "") and server.requests == []


TWICE = [
    "-proj",
    "-start",
    "-end",
    "-o",
    "-f",
    "-host",
    "-u",
    "-p",
    "-j",
    "-timeout",
    "-compression",
]


@pytest.mark.parametrize("flag", TWICE)
def test_a_single_value_given_twice_is_refused(xget: Xget, server: XnatServer, flag: str) -> None:
    """Which one was meant is not guessed."""
    value = {"-start": "2024-01-01", "-end": "2024-01-01", "-j": "2", "-timeout": "5",
             "-compression": "stored", "-o": "."}.get(flag, "x")  # fmt: skip
    outcome = xget("-s", "sess_1", flag, value, flag, value, login=flag not in ("-host", "-u", "-p"))
    assert (outcome.status, outcome.out, server.requests) == (2, "", [])
    assert re.fullmatch(rf"xget: {flag}: [^\n]*twice[^\n]*\n", outcome.err)


def test_days_before_today(xget: Xget, study: Any) -> None:
    """Today included, and the tenth day before."""
    today = datetime.date.today()
    for days in (0, 9, 12):  # no day that midnight could move
        date = today - datetime.timedelta(days)
        scan_of(study.session(f"D{days:02}", date=date.isoformat()), "1")
    assert listed(xget("-proj", "STUDY", "-start", "10d", "-list")) == ["D00", "D09"]
    assert listed(xget("-proj", "STUDY", "-s", "D*", "-end", "10d", "-list")) == ["D12"]
    assert xget("-proj", "STUDY", "-start", "10w").status == 2


def exported(server: XnatServer, query: str) -> bytes:
    """What XNAT answers for a list as CSV."""
    token = b64encode(b"admin:admin").decode()
    uri = f"{server.url}/data/projects/STUDY/experiments?format=csv&{query}"
    request = urllib.request.Request(uri, headers={"Authorization": f"Basic {token}"})
    with urllib.request.urlopen(request) as answer:
        data: bytes = answer.read()
    return data


QUERIES = {
    "the default columns": "xsiType=xnat:imageSessionData",
    "columns chosen, the ID behind": "xsiType=xnat:mrSessionData&columns=label,project,date,ID",
    "with subjects": "columns=subject_label,label,ID,subject_ID,date",
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=list(QUERIES))
def test_a_list_that_xnat_exported(xget: Xget, study: Any, server: XnatServer, query: str) -> None:
    """Ten sessions are ten sessions, not ten times the number of columns."""
    data = exported(server, query)
    (xget.folder / "list.csv").write_bytes(data)
    server.clear()
    outcome = xget("-f", "list.csv", "-proj", "STUDY", "-acq", "2", "-json", *SCANS)
    found = sorted(each for each, _ in objects(outcome))
    assert found == sorted(each.id for each in study.world.sessions() if each.project is study)
    assert len(found) == 10 and "not found" not in outcome.err and len(server.requests) < 50


TABLES: dict[str, tuple[str, str]] = {
    "ID goes before all": ("label,MR ID,ID\nx,y,{P02}\n", "{P02}"),
    "a column that ends in ID": ('"Subject","MR ID","Date"\n"S1","P02","x"\n"S2","P03",""\n', "P02 P03"),
    "the first that ends in ID": ("PET ID,MR ID\nP02,P03\n", "P02"),
    "label where there is no ID": ("project,label\nSTUDY,P02\nSTUDY,P03\n", "P02 P03"),
    "one column": ("ID\n{P02}\n", "{P02}"),
    "quoted, blanks, CRLF, a mark": ('\ufeff"ID" , "label"\r\n"{P02}" ,"P02"\r\n\r\n', "{P02}"),
    "a comment in front": ("# exported today\nlabel\nP02\n", "P02"),
    "a comma in a cell": ('note,label\n"one, two",P02\n', "P02"),
    "a line break in a cell": ('note,label\n"one\ntwo",P02\n', "P02"),
    "no heading: a LIST a line": ("P02,P03\nP09\n", "P02 P03 P09"),
    "a label that is nearly a heading": ("P02,Id\n", "P02 Id"),
}  # fmt: skip


@pytest.mark.parametrize("text", ["note,label\nshort\nx,P02\n", "ID,label\n,P03\n"], ids=["short", "empty"])
def test_a_row_of_a_table_that_names_no_session_is_no_silent_gap(xget: Xget, study: Any, text: str) -> None:
    (xget.folder / "table").write_text(text)
    outcome = xget("-f", "table", "-proj", "STUDY", "-list")
    assert outcome.status == 2
    assert re.fullmatch(r"xget: -f table: has a row without (label|ID): (short|,P03)\n", outcome.err)


@pytest.mark.parametrize(("text", "expected"), TABLES.values(), ids=list(TABLES))
def test_a_table_of_sessions(xget: Xget, study: Any, world: World, text: str, expected: str) -> None:
    scan_of(study.session("Id"), "1")
    id = named(world, "P02").id
    (xget.folder / "table").write_bytes(text.replace("{P02}", id).encode())
    outcome = xget("-f", "table", "-proj", "STUDY", "-list")
    assert (outcome.status, outcome.err, listed(outcome)) == (0, "", expected.replace("{P02}", id).split())


def test_a_table_with_a_heading_alone_names_no_session(xget: Xget, server: XnatServer) -> None:
    outcome = xget("-f", "-", given="ID,project,label\n")
    assert (outcome.status, server.requests) == (2, [])
    assert outcome.err == "xget: -f -: names no session\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_a_list_with_a_mark_of_its_encoding_is_read(xget: Xget, study: Any, encoding: str) -> None:
    scan_of(study.session("Müller"), "1")
    mark = "" if encoding in ("utf-16", "utf-8-sig") else "\ufeff"
    (xget.folder / "list").write_bytes(f"{mark}Müller\r\nP02\r\n".encode(encoding))
    outcome = xget("-f", "list", "-proj", "STUDY", "-list")
    assert (outcome.status, listed(outcome)) == (0, ["Müller", "P02"])


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_a_list_in_another_encoding_is_refused(xget: Xget, server: XnatServer, encoding: str) -> None:
    (xget.folder / "list").write_bytes("Müller\nP02\n".encode(encoding))
    outcome = xget("-f", "list")
    assert (outcome.status, outcome.out, server.requests) == (2, "", [])
    assert re.fullmatch(r"xget: -f list: [^\n]*encoding[^\n]*UTF-8[^\n]*\n", outcome.err)


# --- the list ----------------------------------------------------------------------------

ANY_FLAG = [
    *(
        ("-z",),
        ("-z", "-flat"),
        ("-overwrite",),
        ("-update",),
        ("-verify",),
        ("-z", "-verify"),
        ("-longname",),
    ),
    *(("-j", "4"), ("-compression", "stored"), ("-timeout", "9"), ("-retry", "NONE"), ("-quiet",)),
    ("-o", "nowhere"),
]


@pytest.mark.parametrize("flags", ANY_FLAG, ids=" ".join)
def test_the_list_goes_with(xget: Xget, server: XnatServer, flags: tuple[str, ...]) -> None:
    """It shows the same, and neither asks for a file nor writes one."""
    (xget.folder / "sess_1_acq.zip").write_bytes(b"no zip")
    before = on_disk(xget.folder)
    assert xget("-s", "sess_1", "-list", *flags) == xget("-s", "sess_1", "-list")
    assert (transfers(server), on_disk(xget.folder)) == ([], before)


def test_the_list_shows_each_session_as_soon_as_it_is_read(
    xget: Xget, study: Any, world: World, server: XnatServer
) -> None:
    """In their order: a slow one holds back only those behind it."""
    go_on = threading.Event()
    uri = f"/experiments/{named(world, 'P03').id}\\?"
    server.fault("call", match=uri, action=lambda: go_on.wait(30))
    process = xget.start("-proj", "STUDY", "-list", "-acq", "2")
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(2)]
    assert [line.split("\t")[0] for line in lines] == ["P01", "P02"]
    assert process.poll() is None
    go_on.set()
    rest, _ = process.communicate(timeout=60)
    order = ["P03", "P05", "P06", "P06", "P07", "P08", "P08", "P09"]
    assert [line.split("\t")[0] for line in rest.splitlines()] == order


@pytest.mark.skipif(sys.platform == "win32", reason="no pty there")
@pytest.mark.parametrize("columns", [200, 80, 60, 40, 30])
def test_the_list_fits_the_terminal(xget: Xget, study: Any, world: World, columns: int) -> None:
    """No line is wider; numbers are whole, and end in one place; the names that matter most stay."""
    session = named(world, "P02")
    scan_of(session, "a-very-long-scan-id", type="a type of many words that nobody can read", files=12,
            description="a description that is longer than any terminal is wide, " * 3)  # fmt: skip
    status, _, shown = Terminal(xget, "-proj", "STUDY", "-list", on="out", columns=columns).finish()
    lines = shown.splitlines()
    heads = [line for line in lines if line.split()[0].startswith("ses")]
    table = [line for line in lines if re.match(r"P\d\d ", line)]
    assert (status, len(table)) == (0, 17)
    assert max(map(len, lines)) <= columns
    assert heads[0] == lines[0] and all(head.split()[-2:] == ["files", "bytes"] for head in heads)
    wanted = ["session", "kind", "ID", "type", "description", "quality", "resource", "files", "bytes"]
    titles = lines[0].split()
    assert [name for name in wanted if name in titles] == [t for t in titles if "…" not in t]
    assert len(titles) == 9 if columns == 200 else len(titles) >= 4
    piped = [line.split("\t") for line in xget("-proj", "STUDY", "-list").out.splitlines()]
    assert [line.split()[0] for line in table] == [row[0] for row in piped]
    assert [line.split()[-2:] for line in table] == [row[7:] for row in piped]
    for head, rows in blocks(lines):
        assert {len(row) for row in rows} == {len(head)}, "numbers are right-aligned under their heading"
    assert re.fullmatch(r"17 resources, \d+ files, [\d.]+ kB", lines[-1])


def blocks(lines: list[str]) -> list[tuple[str, list[str]]]:
    """The rows under each heading, as far as they are as wide as it: a later session may widen a column."""
    found: list[tuple[str, list[str]]] = []
    for line in lines:
        if line.startswith("ses"):
            found.append((line, []))
        elif re.match(r"P01 ", line):
            found[-1][1].append(line)
    return [(head, rows) for head, rows in found if rows]


def test_the_list_as_json_tells_where_a_session_is(xget: Xget, study: Any, world: World) -> None:
    session = named(world, "P02").share(world.projects[0], "there_2")
    outcome = xget("-s", "P02", "-list", "-json")
    assert [json.loads(line) for line in outcome.out.splitlines()] == [
        {
            "session": "P02", "kind": "acq", "ID": "2", "type": "localizer", "description": "",
            "quality": "usable", "resource": "DICOM", "files": 1, "bytes": len(f"{session.id} 2 1") * 10,
            "id": session.id, "project": "STUDY", "subject": session.subject.id, "date": "2024-01-02",
        }
    ]  # fmt: skip
    there = json.loads(xget("-s", "there_2", "-proj", "proj_3", "-list", "-json").out)
    assert (there["session"], there["id"], there["project"]) == ("there_2", session.id, "proj_3")


@pytest.mark.parametrize(
    "flags",
    [(), ("-acq", "!localizer"), ("-format", "ALL", "-res", "ALL"), ("-format", "!DICOM"), ("-s", "P0[3-8]")],
    ids=" ".join,
)
def test_the_list_and_the_download_agree_on(xget: Xget, study: Any, flags: tuple[str, ...]) -> None:
    """Which archives there are, and how many files and bytes each holds."""
    shown: dict[str, list[int]] = {}
    listing = xget("-proj", "STUDY", "-list", "-json", *flags)
    for row in map(json.loads, listing.out.splitlines()):
        sums = shown.setdefault(f"{row['session']}_{row['kind']}.zip", [0, 0])
        sums[:] = [sums[0] + row["files"], sums[1] + row["bytes"]]
    brought = xget("-proj", "STUDY", *flags)
    held = {path.name: read_zip(path) for path in xget.folder.glob("*.zip")}
    assert {name: [len(files), sum(map(len, files.values()))] for name, files in held.items()} == shown
    assert (brought.status, brought.err) == (listing.status, listing.err)


# --- what a part brought -----------------------------------------------------------------


def test_extracted_files_that_came_are_said_and_counted_although_some_did_not(
    xget: Xget, world: World
) -> None:
    session = named(world, "sess_1")
    session.scans[0].resources[0].files["2.dcm"].on_disk = False
    outcome = xget("-s", "sess_1", "-z", "-json", "-retry", "NONE", *SCANS)
    result = objects(outcome)["sess_1", "acq"]
    assert (outcome.status, result["status"], result["files"], result["path"]) == (
        1,
        "incomplete",
        6,
        ["./sess_1"],
    )
    assert result["bytes"] == 3 * 1000 + 3 * 2000 and "1 of 7 files are missing" in result["error"]
    session.scans[0].resources[0].add("9.dcm", b"9")
    outcome = xget("-s", "sess_1", "-z", "-retry", "NONE", *SCANS)
    assert (outcome.status, outcome.out) == (1, "./sess_1\n")
    assert xget("-s", "sess_1", "-z", "-retry", "NONE", *SCANS)[:2] == (1, ""), "this run brought nothing"


def test_one_kind_fails_and_the_folder_of_the_others_is_said(xget: Xget, server: XnatServer) -> None:
    server.fault("status", match="/scans/", times=None, status=403)
    outcome = xget("-s", "sess_1", "-z", "-retry", "NONE")
    assert (outcome.status, outcome.out.split()) == (1, ["./sess_1", "./sess_1_QC"])


@pytest.mark.parametrize("layout", [(), ("-z",)], ids=["archive", "-z"])
def test_a_resource_that_contradicts_its_listing_as_a_whole_is_noted(
    xget: Xget, world: World, layout: tuple[str, ...]
) -> None:
    """An anonymisation in place leaves such a catalog: a warning, a note in the comment and in -json."""
    files = named(world, "sess_1").scans[0].resources[0].files
    for file in files.values():
        file.size_listed, file.md5 = file.data.size + 8, "0" * 32
    outcome = xget("-s", "sess_1", "-json", *layout, *SCANS)
    result = objects(outcome)["sess_1", "acq"]
    assert (outcome.status, result["status"], result["files"]) == (0, "downloaded", 7)
    assert re.match(r"1 DICOM: .*listing.*", result["note"])
    assert re.fullmatch(r"xget: warning: sess_1 acq: 1 DICOM: [^\n]*\n", outcome.err)
    if not layout:
        path = xget.folder / "sess_1_acq.zip"
        assert comment(path)["note"] == result["note"]
        assert read_zip(path) == truth(named(world, "sess_1"), "acq")
        assert xget("-s", "sess_1", *SCANS) == (0, "", "")


# --- the document against the listing ----------------------------------------------------


@pytest.mark.parametrize("layout", [(), ("-z",)], ids=["archive", "-z"])
@pytest.mark.parametrize("alone", [False, True], ids=["beside others", "alone"])
def test_a_resource_that_is_counted_but_empty_is_asked_for(
    xget: Xget, world: World, server: XnatServer, layout: tuple[str, ...], alone: bool
) -> None:
    """The server says 404: it is a notice, for whoever listens."""
    session = world.project("P").session("s")
    scan = session.scan("8", type="T1w")
    resource = scan.resource("DICOM", {"a.dcm": b"a"}, unlisted=True, **DICOM)
    if not alone:
        scan_of(session, "9")
    outcome = xget("-proj", "P", "-v", *layout, *SCANS)
    assert outcome.status == 0 and "warning" not in outcome.err
    assert re.search(r"xget: s acq: 8 DICOM: is empty, though 1 files are counted\n", outcome.err)
    asked = [r.path for r in server.requests if "format=zip" in r.path]
    assert sum(f"/resources/{resource.id}/files" in path for path in asked) == 1
    assert len(asked) == (1 if alone else 2)


@pytest.mark.parametrize("layout", [(), ("-z",)], ids=["archive", "-z"])
@pytest.mark.parametrize("alone", [False, True], ids=["beside others", "alone"])
def test_files_of_a_resource_that_is_listed_empty_are_a_failure(
    xget: Xget, world: World, server: XnatServer, layout: tuple[str, ...], alone: bool
) -> None:
    """The catalog is broken: the resource is named, what else there is comes, the run fails."""
    session = world.project("P").session("s")
    broken = session.scan("8", type="T1w").resource("DICOM", {"a.dcm": b"a"}, **DICOM)
    if not alone:
        scan_of(session, "9")

    def edit(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [row for row in rows if row["cat_ID"] != str(broken.id)]

    server.fault("listing", match="/files", times=None, edit=edit)
    outcome = xget("-s", "s", *layout, *SCANS)
    assert outcome.status == 1
    assert re.search(r"xget: s acq: [^\n]*8 DICOM: has files that are not listed[^\n]*catalog", outcome.err)
    assert not (xget.folder / "s_acq.zip").exists()
    if not alone:
        kept = read_tree(xget.folder) if layout else read_zip(xget.folder / "s_acq.incomplete.zip")
        assert sorted(name.rpartition("/")[2] for name in kept) == ["1.dcm", "2.dcm"]


def test_a_resource_that_is_not_counted_is_not_asked_for(
    xget: Xget, world: World, server: XnatServer
) -> None:
    session = scan_of(world.project("P").session("s"), "1").session
    session.scans[0].resource("DICOM", {}, format="DICOM", file_count="")
    session.scan("2").resource("DICOM", {}, **DICOM)
    assert xget("-s", "s", *SCANS) == (0, "./s_acq.zip\n", "")
    assert len(transfers(server)) == 1


# --- whatever is asked for ---------------------------------------------------------------

CHOICES = {
    "-acq": ["1", "T1w", "T1w,2", "!localizer", "T*", "ALL", "NONE", "nope,1"],
    "-q": ["usable", "!usable", "ALL"],
    "-ass": ["NONE", "P06_QC", "*_QC"],
    "-recon": ["NONE", "R1", "REC"],
    "-res": ["NOTES", "ALL"],
    "-format": ["DICOM", "dicom", "NIFTI", "ALL", "!TXT", "NIFTI,DICOM"],
    "-s": ["P01", "P03,P04", "P0[1-5]", "P*,!P02", "P06,P0?", "P10,P08"],
    "-subj": ["SUBJ00[1-4]", "!SUBJ001"],
    "-start": ["2024-01-04"],
}


def is_held(top: Path, row: dict[str, Any], extracted: bool) -> bool:
    """Whether all files of a resource that a list shows are in its archive, or extracted."""
    type = re.sub(r"[^A-Za-z0-9_]", "_", row["type"])
    item = {
        "acq": f"{row['session']}/scans/{row['ID']}-{type}",
        "ass": f"{row['ID']}/out",
        "res": row["session"],
    }
    recon = f"{row['session']}/reconstructions/{row['ID']}-{type}/out"
    place = f"{item.get(row['kind'], recon)}/resources/{row['resource']}/files/"
    path = top / f"{row['session']}_{row['kind']}.zip"
    held = read_tree(top) if extracted else read_zip(path) if path.exists() else {}
    sizes = [len(data) for name, data in held.items() if name.startswith(place)]
    return (len(sizes), sum(sizes)) == (row["files"], row["bytes"])


@pytest.mark.parametrize("seed", range(5))
def test_what_the_list_shows_is_there_once_the_same_flags_ended_with_0(
    xget: Xget, study: Any, seed: int
) -> None:
    """Whatever other runs left in the folder before; 4 tells of what the server does not have."""
    chance, good = random.Random(seed), 0
    for _ in range(7):
        names = chance.sample(list(CHOICES), chance.randint(0, 3))
        flags = ["-proj", "STUDY", *(word for name in names for word in (name, chance.choice(CHOICES[name])))]
        way = chance.choice([[], [], [], ["-update"], ["-overwrite"], ["-z"]])
        outcome = xget(*flags, *way)
        assert outcome.status in (0, 1, 4) and ("exists" in outcome.err or outcome.status != 1)
        if outcome.status != 1:
            rows = [json.loads(line) for line in xget(*flags, "-list", "-json").out.splitlines()]
            missing = [row for row in rows if not is_held(xget.folder, row, way == ["-z"])]
            assert missing == [], (flags, way, outcome)
            good += bool(rows)
    assert good, "this seed asks for nothing"
