"""Archives and extracted trees: names, what is there already, -overwrite, -z, what standard output says."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Xget
from xnat_server import Synthetic, World, XnatServer

SCANS = ("-ass", "NONE", "-recon", "NONE")
ACQ1 = ("-acq", "1", *SCANS)
SCAN_1 = "sess_1/scans/1-TSE/resources/DICOM/files"


def read(archive: Path) -> dict[str, bytes]:
    """Read an archive: its files by name, each proven by its CRC."""
    with zipfile.ZipFile(archive) as zip:
        assert len(set(zip.namelist())) == len(zip.namelist())
        return {name: zip.read(name) for name in zip.namelist()}


def tree(folder: Path) -> dict[str, bytes]:
    """Read a folder: its files by name, .xget left out."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if path.name != ".xget"}


def hidden(xget: Xget) -> list[str]:
    """Name what begins with a dot in the output directory, .xget left out."""
    return [name for name in xget.files() if re.search(r"(^|/)\.(?!xget$)", name)]


def asked(server: XnatServer, what: str = "format=zip") -> list[str]:
    """Name the requests for archives, without what follows their path."""
    return [request.path.partition("?")[0] for request in server.requests if what in request.path]


def write_zip(path: Path, comment: Any = None) -> None:
    """Make a ZIP of one file, with this comment."""
    with zipfile.ZipFile(path, "w") as zip:
        zip.writestr("sess_1/x", "x")
        if comment is not None:
            zip.comment = json.dumps(comment).encode()


# --- the manual's section 9 ------------------------------------------------------------


def test_the_three_archives_of_sess_1(xget: Xget, server: XnatServer) -> None:
    """Names, contents with XNAT's own paths, standard output, nothing hidden left behind."""
    outcome = xget("-s", "sess_1", "-o", str(xget.folder))
    paths = [(xget.folder / f"sess_1_{kind}.zip").as_posix() for kind in ("acq", "ass", "recon")]
    assert (outcome.status, outcome.err) == (0, "")
    assert sorted(outcome.out.splitlines()) == paths
    assert xget.files() == ["sess_1_acq.zip", "sess_1_ass.zip", "sess_1_recon.zip"]
    scan_2 = "sess_1/scans/2-PIB_336mtx/resources/DICOM/files"
    assert read(xget.folder / "sess_1_acq.zip") == {
        **{f"{SCAN_1}/{n}.dcm": bytes([n]) * 1000 for n in range(1, 5)},
        **{f"{scan_2}/{n}.dcm": bytes([n]) * 2000 for n in range(1, 4)},
    }
    assert read(xget.folder / "sess_1_ass.zip") == {"sess_1_QC/out/resources/DATA/files/qc.txt": b"fine"}
    recon = "sess_1/reconstructions/R1-RECON_A/out/resources/NIFTI/files/r1.nii"
    assert read(xget.folder / "sess_1_recon.zip") == {recon: b"recon"}


def test_session_level_resources_are_a_fourth_archive(xget: Xget) -> None:
    outcome = xget("-s", "sess_1", "-res", "NOTES", *SCANS)
    assert (outcome.status, outcome.err) == (0, "")
    assert xget.files() == ["sess_1_acq.zip", "sess_1_res.zip"]
    assert read(xget.folder / "sess_1_res.zip") == {"sess_1/resources/NOTES/files/n.txt": b"notes"}


def test_the_output_directory(xget: Xget) -> None:
    """Section 8 of the manual: -o tmp is a folder in the current one, which has to be there."""
    (xget.folder / "tmp").mkdir()
    outcome = xget("-s", "sess_1", "-o", "tmp", *SCANS)
    assert outcome == (0, "tmp/sess_1_acq.zip\n", "")
    assert xget.files() == ["tmp/", "tmp/sess_1_acq.zip"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            ("-proj", "proj_3"),
            [
                "p_proj_3_sess_sess_1_acq_ALL_q_ALL_f_DICOM.zip",
                "p_proj_3_sess_sess_1_ass_ALL_q_ALL_f_DICOM.zip",
                "p_proj_3_sess_sess_1_recon_ALL_q_ALL_f_DICOM.zip",
            ],
        ),
        (("-acq", '1,TSE,"PIB 336mtx"', *SCANS), ["sess_sess_1_acq_1_TSE_PIB 336mtx_q_ALL_f_DICOM.zip"]),
        (
            ("-acq", "-q", "Usable,questionable", *SCANS),
            ["sess_sess_1_acq_ALL_q_Usable_questionable_f_DICOM.zip"],
        ),
        (
            ("-proj", "Project 3", "-acq", "NONE", "-ass", "sess_1_QC", "-recon", "NONE"),
            ["p_Project 3_sess_sess_1_ass_sess_1_QC_q_ALL_f_DICOM.zip"],
        ),
        (("-acq", "1,*:?x", *SCANS, "-format", "dicom"), ["sess_sess_1_acq_1____x_q_ALL_f_dicom.zip"]),
        (("-acq", "2", "-recon", "R1", "-ass", "NONE", "-format", "NIFTI"),
            [
                "sess_sess_1_acq_2_q_ALL_f_NIFTI.zip",
                "sess_sess_1_recon_R1_q_ALL_f_NIFTI.zip",
            ],
        ),
        (("-res", "NOTES", "-acq", "NONE", *SCANS), ["sess_sess_1_res_NOTES_q_ALL_f_DICOM.zip"]),
    ],
    ids=[
        "the manual's example",
        "several items",
        "a bare flag is ALL; qualities as typed",
        "a project by its name",
        "what a file system refuses",
        "formats",
        "session-level resources",
    ],
)  # fmt: skip
def test_longname(xget: Xget, flags: tuple[str, ...], expected: list[str]) -> None:
    outcome = xget("-s", "sess_1", "-longname", *flags)
    assert outcome.status == 0
    assert xget.files() == expected


def test_the_long_and_the_short_name_are_two_archives(xget: Xget, server: XnatServer) -> None:
    """The NOTE of the manual's section 9: the same constraints, but another name."""
    assert xget("-s", "sess_1", "-longname", *SCANS)[0] == 0
    assert xget("-s", "sess_1", *SCANS).out == "./sess_1_acq.zip\n"
    assert len(asked(server)) == 2


def test_a_name_over_200_bytes_is_cut_and_told_apart_by_a_hash(xget: Xget, server: XnatServer) -> None:
    long = ",".join(f"größe{n}" for n in range(40))
    lists = [f"{long},1", f"{long},2"]
    for items in lists:
        assert xget("-s", "sess_1", "-longname", "-acq", items, "-quiet", *SCANS)[0] == 0
    names = xget.files()
    assert len(names) == 2
    for name in names:
        assert re.fullmatch(r"sess_sess_1_acq_größe0_größe1_.*_[0-9a-f]{6,}\.zip", name)
        assert len(name.encode()) <= 204
    server.clear()
    assert xget("-s", "sess_1", "-longname", "-acq", lists[0], "-quiet", *SCANS)[:2] == (0, "")
    assert server.requests == [], "the same constraints, the same name"


@pytest.mark.parametrize(
    ("label", "file"),
    [
        ("a|b<c>?", "a_b_c__"),
        ("CON", "CON"),
        ("dots...", "dots..."),
        ("Ω 日本", "Ω 日本"),
        ("x" * 250, None),
    ],
    ids=[
        "what a file system refuses",
        "a device of Windows, harmless with its ending",
        "dots",
        "any script",
        "too long",
    ],
)
def test_a_session_label_becomes_a_file_name(xget: Xget, world: World, label: str, file: Any) -> None:
    world.sessions()[0].label = label
    outcome = xget(f"-s={label}", *SCANS)
    assert (outcome.status, outcome.err) == (0, "")
    [name] = xget.files()
    assert name == f"{file}_acq.zip" if file else len(name.encode()) <= 204 and name.startswith("x" * 150)


def test_nothing_to_download_is_no_archive(xget: Xget, world: World) -> None:
    """Of a session that was named, a line says what it has, and the status is 4; of a project, silence."""
    session = world.projects[0].session("bare")
    session.scan("1", type="T1").resource("DICOM", {}, format="DICOM")
    session.scan("2", type="T2")
    outcome = xget("-s", "bare")
    assert outcome[:2] == (4, "") and "has nothing of what is asked for; it has 2 scans (-acq)" in outcome.err
    outcome = xget("-s", "sess_1", "-acq", "NONE", *SCANS)
    assert outcome[:2] == (4, "") and "has nothing of what is asked for" in outcome.err
    for kind in ("2 scans (-acq)", "1 assessors (-ass)", "1 reconstructions (-recon)", "1 resources (-res)"):
        assert kind in outcome.err
    assert xget.files() == []


def test_the_comment_says_where_an_archive_comes_from(xget: Xget, world: World, server: XnatServer) -> None:
    """Server, project, label and accession ID, and -proj and item as they were typed."""
    session = world.sessions()[0]
    session.share(world.project("p2", name="Zweites Projekt"), "über")
    assert xget("-s", "über", "-proj", "Zweites Projekt", *SCANS)[0] == 0
    with zipfile.ZipFile(xget.folder / "über_acq.zip") as zip:
        comment = json.loads(zip.comment)
    assert comment["server"] == server.url
    assert (comment["project"], comment["label"], comment["id"]) == ("p2", "über", session.id)
    assert comment["asked"] == {"proj": "Zweites Projekt", "session": "über"}


@pytest.mark.parametrize(
    ("flags", "query", "method"),
    [
        ((), "", zipfile.ZIP_DEFLATED),
        (("-compression", "stored"), "compression=0", zipfile.ZIP_STORED),
        (("-compression", "deflated"), "compression=8", zipfile.ZIP_DEFLATED),
    ],
    ids=["the server's own", "stored", "deflated"],
)
def test_compression(
    xget: Xget, world: World, server: XnatServer, flags: tuple[str, ...], query: str, method: int
) -> None:
    world.compression = 8
    assert xget("-s", "sess_1", *SCANS, *flags)[0] == 0
    with zipfile.ZipFile(xget.folder / "sess_1_acq.zip") as zip:
        assert {info.compress_type for info in zip.infolist()} == {method}
    [request] = [request.path for request in server.requests if "format=zip" in request.path]
    assert query in request and ("compression" in request) == bool(query)


# --- there already ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "asked_for"),
    [
        ((), ()),
        ((), ("-acq", "1")),
        ((), ("-q", "usable")),
        (("-format", "ALL"), ("-format", "ALL", "-acq", "1")),
        (("-acq", "1,2"), ("-acq", "2,1")),
        (("-acq",), ()),
        (("-acq", "1"), ("-acq", "1", "-proj", "proj_3")),
        (("-acq", "1"), ("-acq", "1", "-q", "usable")),
    ],
    ids=[
        "the same",
        "fewer scans",
        "one quality",
        "of one scan what is there of all formats",
        "the same in another order",
        "a bare -acq is none",
        "the same, with its project",
        "one constraint more",
    ],
)
def test_an_archive_that_holds_what_is_asked_for_is_not_downloaded_again(
    xget: Xget, server: XnatServer, made: tuple[str, ...], asked_for: tuple[str, ...]
) -> None:
    assert xget("-s", "sess_1", *made, *SCANS)[0] == 0
    before = (xget.folder / "sess_1_acq.zip").read_bytes()
    server.clear()
    assert xget("-s", "sess_1", *asked_for, *SCANS) == (0, "", "")
    assert asked(server, "/files") == []
    assert (xget.folder / "sess_1_acq.zip").read_bytes() == before and hidden(xget) == []


@pytest.mark.parametrize(
    ("made", "asked_for", "says"),
    [
        (("-acq", "1"), (), "-acq 1"),
        (("-acq", "1"), ("-acq", "2"), "-acq 1"),
        (("-q", "usable"), (), "-q usable"),
        ((), ("-format", "NIFTI"), "-format DICOM"),
        (("-format", "NIFTI"), (), "-format NIFTI"),
        (("-acq", "1", "-q", "usable"), ("-acq", "1"), "-q usable"),
    ],
    ids=[
        "one scan, asked for all",
        "another scan",
        "one quality, asked for all",
        "DICOM alone, asked for another format",
        "another format, asked for DICOM",
        "one constraint less",
    ],
)
def test_an_archive_of_other_constraints(
    xget: Xget, server: XnatServer, made: tuple[str, ...], asked_for: tuple[str, ...], says: str
) -> None:
    """Status 0 means that what was asked for is there: a failure that names the three ways out."""
    assert xget("-s", "sess_1", *made, *SCANS)[0] == 0
    before = (xget.folder / "sess_1_acq.zip").read_bytes()
    for more in (SCANS, ("-recon", "NONE")):  # nothing else to do; and with a server at hand
        outcome = xget("-s", "sess_1", *asked_for, *more)
        assert outcome.status == 1 and (xget.folder / "sess_1_acq.zip").read_bytes() == before
        line = (
            f"xget: sess_1 acq: .{os.sep}sess_1_acq.zip: exists, made with {says}; -update adds what it lacks"
        )
        assert f"{line}, -overwrite replaces it, -longname keeps both\n" in outcome.err
    for way in (("-update",), ("-overwrite",)):
        shutil.copy(xget.folder / "sess_1_acq.zip", xget.folder / "copy")
        assert xget("-s", "sess_1", *asked_for, *SCANS, *way)[:2] == (0, "./sess_1_acq.zip\n")
        assert xget("-s", "sess_1", *asked_for, *SCANS)[0] == 0
        shutil.move(str(xget.folder / "copy"), xget.folder / "sess_1_acq.zip")
    assert xget("-s", "sess_1", *asked_for, *SCANS, "-longname")[0] == 0


def test_an_archive_by_label_serves_under_that_label_with_or_without_its_project(
    xget: Xget, server: XnatServer
) -> None:
    """As the same accession ID, which the server is asked for; nothing comes twice."""
    assert xget("-s", "sess_1", *SCANS)[0] == 0
    server.clear()
    assert xget("-s", "sess_1", "-proj", "proj_3", *SCANS) == (0, "", "")
    assert asked(server, "/files") == []
    server.clear()
    assert xget("-s", "sess_1", *SCANS) == (0, "", "")
    assert server.requests == [], "as typed before: no server is needed"


def foreigners(world: World, server: XnatServer) -> dict[str, Any]:
    """Comments of archives that are not what is asked for, or bytes that are no ZIP; and what is said."""
    right = {
        "xget": "2.0.0",
        "server": server.url,
        "project": "proj_3",
        "label": "sess_1",
        "id": "XNAT_E00001",
        "asked": {"proj": "proj_3", "session": "sess_1"},
        "constraints": {},
    }
    typed, port = {"proj": "other", "session": "sess_1"}, server.port + 1
    return {
        "of another session": ({**right, "id": "X_E9", "asked": typed}, "X_E9, not XNAT_E00001"),
        "of another project": ({**right, "id": "X_E9", "project": "other", "asked": typed}, "other sess_1"),
        "of another server": ({**right, "server": "http://127.0.0.2:9/xnat"}, "http://127.0.0.2:9/xnat"),
        "of another port": ({**right, "server": f"http://127.0.0.1:{port}"}, f"127.0.0.1:{port}"),
        "of another path": ({**right, "server": f"{server.url}/test"}, f"{server.url}/test"),
        "that is incomplete": ({**right, "incomplete": "1 of 2"}, "incomplete; -update"),
        "that is no ZIP": (b"no zip", "no whole ZIP"),
        "that is empty": (b"", "no whole ZIP"),
        "that is cut": ("cut", "no whole ZIP"),
        "that has bytes behind it": ("more", "no whole ZIP"),
    }


NAMES = list(foreigners(World(), XnatServer(World())))


@pytest.mark.parametrize("name", NAMES)
def test_an_archive(xget: Xget, world: World, server: XnatServer, name: str) -> None:
    """Left alone, a failure that says why; -overwrite replaces it."""
    path, (wrong, says) = xget.folder / "sess_1_acq.zip", foreigners(world, server)[name]
    if isinstance(wrong, dict):
        write_zip(path, wrong)
    elif isinstance(wrong, bytes):
        path.write_bytes(wrong)
    else:
        assert xget("-s", "sess_1", *SCANS)[0] == 0
        whole = path.read_bytes()
        path.write_bytes(whole[:-400] if wrong == "cut" else whole + b"x")
    before = path.read_bytes()
    for flags in (SCANS, ("-recon", "NONE")):  # nothing else to do; and with a server at hand
        outcome = xget("-s", "sess_1", "-proj", "proj_3", *flags)
        assert outcome.status == 1 and path.read_bytes() == before
        assert f"xget: sess_1 acq: .{os.sep}sess_1_acq.zip: exists, and " in outcome.err
        assert says in outcome.err and "-overwrite" in outcome.err
        assert outcome.out in ("", "./sess_1_ass.zip\n")
    assert xget("-s", "sess_1", "-overwrite", *SCANS) == (0, "./sess_1_acq.zip\n", "")
    assert len(read(path)) == 7 and hidden(xget) == []


@pytest.mark.parametrize(
    "comment",
    [None, "made by hand", [1], {"server": "http://x"}],
    ids=["no comment", "words", "a list", "JSON"],
)
@pytest.mark.parametrize("flags", [(), ("-acq", "2", "-format", "ALL")], ids=["all", "constraints"])
def test_an_archive_that_xget_has_not_marked_is_there_by_its_name(
    xget: Xget, server: XnatServer, comment: Any, flags: tuple[str, ...]
) -> None:
    """The original xget's, or a person's own: it counts, whatever the constraints; -overwrite replaces it."""
    path = xget.folder / "sess_1_acq.zip"
    write_zip(path, comment)
    before = path.read_bytes()
    assert xget("-s", "sess_1", *flags, *SCANS) == (0, "", "")
    assert (server.requests, path.read_bytes()) == ([], before)
    assert xget("-s", "sess_1", *flags, *SCANS, "-overwrite")[:2] == (0, "./sess_1_acq.zip\n")
    assert path.read_bytes() != before


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are no files there, and links need rights")
@pytest.mark.parametrize("what", ["folder", "pipe", "dead link", "loop"])
@pytest.mark.parametrize("way", [(), ("-update",), ("-verify",)], ids=["plain", "update", "verify"])
def test_no_regular_file_in_the_place_of_an_archive(xget: Xget, what: str, way: tuple[str, ...]) -> None:
    """A failure that says so, at once, and it is left alone."""
    path = xget.folder / "sess_1_acq.zip"
    make = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "dead link": lambda: path.symlink_to("nowhere"),
        "loop": lambda: path.symlink_to(path.name),
    }
    make[what]()
    outcome = xget("-s", "sess_1", *SCANS, *way)
    assert outcome[:2] == (1, "") and "sess_1_acq.zip: " in outcome.err and "Traceback" not in outcome.err
    assert xget.files() in (["sess_1_acq.zip"], ["sess_1_acq.zip/"])


@pytest.mark.parametrize("spelled", ["http://127.0.0.1:{port}/", "127.0.0.1:{port}"])
def test_one_server_however_it_is_spelled(xget: Xget, server: XnatServer, spelled: str) -> None:
    assert xget("-s", "sess_1", *SCANS)[0] == 0
    server.clear()
    xget.url = spelled.format(port=server.port)
    assert xget("-s", "sess_1", *SCANS) == (0, "", "")
    assert server.requests == []


def test_labels_that_were_put_right_on_the_server(xget: Xget, world: World) -> None:
    """The archive of that name is another session's now: a failure with both IDs; -overwrite replaces it."""
    first = world.sessions()[0]
    other = world.projects[0].session("sess_2")
    other.scan("1").resource("DICOM", {"other.dcm": b"o"}, format="DICOM")
    assert xget("-proj", "proj_3", *SCANS).status == 0
    before = {path.name: path.read_bytes() for path in xget.folder.iterdir()}
    first.label, other.label = "sess_2", "sess_1"
    outcome = xget("-proj", "proj_3", *SCANS)
    assert outcome[:2] == (1, "")
    assert outcome.err.count("-overwrite replaces it") == 2
    assert f"({first.id}, not {other.id})" in outcome.err and f"({other.id}, not {first.id})" in outcome.err
    assert {path.name: path.read_bytes() for path in xget.folder.iterdir()} == before
    assert xget("-proj", "proj_3", *SCANS, "-overwrite").status == 0
    assert list(read(xget.folder / "sess_1_acq.zip").values()) == [b"o"]


def test_an_incomplete_archive_that_was_renamed(xget: Xget, world: World) -> None:
    world.sessions()[0].scans[0].resources[0].files["1.dcm"].on_disk = False
    assert xget("-s", "sess_1", "-retry", "NONE", *SCANS).status == 1
    (xget.folder / "sess_1_acq.incomplete.zip").rename(xget.folder / "sess_1_acq.zip")
    outcome = xget("-s", "sess_1", *SCANS)
    assert outcome[:2] == (1, "")
    assert "incomplete; -update adds what it lacks, -overwrite replaces it" in outcome.err


def test_a_refused_archive_is_named_by_its_path(xget: Xget) -> None:
    """Whether or not a server had to be asked for the other kinds."""
    (xget.folder / "sess_1_acq.zip").write_bytes(b"no zip")
    for flags in (SCANS, ("-ass", "nope", "-recon", "NONE")):
        assert "./sess_1_acq.zip: " in xget("-s", "sess_1", *flags).err


def test_an_archive_of_a_namesake_in_another_project(xget: Xget, world: World) -> None:
    """Made with -proj A, asked for with -proj B: never taken for the same."""
    other = world.project("other").session("sess_1")
    other.scan("1").resource("DICOM", {"other.dcm": b"o"}, format="DICOM")
    assert xget("-s", "sess_1", "-proj", "other", *SCANS)[0] == 0
    outcome = xget("-s", "sess_1", "-proj", "proj_3", *SCANS)
    assert outcome.status == 1 and "other" in outcome.err
    assert list(read(xget.folder / "sess_1_acq.zip").values()) == [b"o"]


def test_overwrite_replaces_whole_and_leaves_the_old_one_where_it_cannot(
    xget: Xget, world: World, server: XnatServer
) -> None:
    assert xget("-s", "sess_1", *ACQ1)[0] == 0
    before = (xget.folder / "sess_1_acq.zip").read_bytes()
    server.fault("status", match="/files/?.*(format=zip|[.]dcm)", status=403, times=None)
    assert xget("-s", "sess_1", "-overwrite", "-retry", "NONE", *SCANS)[:2] == (1, "")
    assert (xget.folder / "sess_1_acq.zip").read_bytes() == before and hidden(xget) == []
    server.clear()
    assert xget("-s", "sess_1", "-overwrite", *SCANS) == (0, "./sess_1_acq.zip\n", "")
    assert len(read(xget.folder / "sess_1_acq.zip")) == 7


# --- extraction ------------------------------------------------------------------------


def test_z_extracts_the_archives_tree_and_removes_the_archive(
    xget: Xget, world: World, server: XnatServer
) -> None:
    outcome = xget("-s", "sess_1", "-z", "-res", "NOTES")
    assert (outcome.status, sorted(outcome.out.splitlines()), outcome.err) == (
        0,
        ["./sess_1", "./sess_1_QC"],
        "",
    )
    files = tree(xget.folder)
    assert len(files) == 10 and hidden(xget) == []
    assert files[f"{SCAN_1}/4.dcm"] == b"\x04" * 1000
    assert files["sess_1_QC/out/resources/DATA/files/qc.txt"] == b"fine"
    assert files["sess_1/resources/NOTES/files/n.txt"] == b"notes"
    assert all("compression=0" in r.path for r in server.requests if "format=zip" in r.path)
    for top in ("sess_1", "sess_1_QC"):
        note = json.loads((xget.folder / top / ".xget").read_text())
        assert note == {"server": server.url, "project": "proj_3", "label": "sess_1", "id": "XNAT_E00001"}


def test_z_leaves_an_archive_of_that_name_alone(xget: Xget) -> None:
    (xget.folder / "sess_1_acq.zip").write_bytes(b"mine")
    assert xget("-s", "sess_1", "-z", *SCANS) == (0, "./sess_1\n", "")
    assert (xget.folder / "sess_1_acq.zip").read_bytes() == b"mine"


def test_z_again_brings_only_what_is_new(xget: Xget, world: World, server: XnatServer) -> None:
    """Nothing; then a new scan; then one new file of a scan that is there."""
    session = world.sessions()[0]
    assert xget("-s", "sess_1", "-z")[0] == 0
    server.clear()
    assert xget("-s", "sess_1", "-z") == (0, "", "")
    assert not any(request.transfer for request in server.requests)
    session.scan("3", type="T2").resource("DICOM", {"new.dcm": b"new"}, format="DICOM")
    server.clear()
    assert xget("-s", "sess_1", "-z") == (0, "./sess_1\n", "")
    [path] = asked(server)
    assert "/scans/3/" in path
    session.scans[0].resources[0].add("9.dcm", b"late")
    server.clear()
    assert xget("-s", "sess_1", "-z") == (0, "./sess_1\n", "")
    assert tree(xget.folder)[f"{SCAN_1}/9.dcm"] == b"late"
    sent = [request.path for request in server.requests if request.transfer]
    assert len(sent) == 1 and "/scans/1/" in sent[0]


def test_z_with_sizes_unlisted_counts_what_is_there(xget: Xget, world: World, server: XnatServer) -> None:
    world.listed_sizes, world.digests = False, "empty"
    assert xget("-s", "sess_1", "-z", *SCANS)[0] == 0
    server.clear()
    assert xget("-s", "sess_1", "-z", *SCANS) == (0, "", "")
    assert asked(server) == []


def test_z_a_file_that_was_uploaded_anew(xget: Xget, world: World, server: XnatServer) -> None:
    """It is left alone and a failure; -overwrite replaces the scan's folder as a whole, and only that."""
    assert xget("-s", "sess_1", "-z", *SCANS)[0] == 0
    world.sessions()[0].scans[0].resources[0].add("1.dcm", b"re-uploaded")
    mine = [xget.folder / "sess_1/scans" / scan / "mine.txt" for scan in ("1-TSE", "2-PIB_336mtx")]
    for path in mine:
        path.write_text("mine")
    outcome = xget("-s", "sess_1", "-z", *SCANS)
    assert outcome[:2] == (1, "")
    assert "1.dcm" in outcome.err and "differs" in outcome.err and "-overwrite" in outcome.err
    assert tree(xget.folder)[f"{SCAN_1}/1.dcm"] == b"\x01" * 1000
    assert xget("-s", "sess_1", "-z", "-overwrite", *ACQ1) == (0, "./sess_1\n", "")
    files = tree(xget.folder)
    assert files[f"{SCAN_1}/1.dcm"] == b"re-uploaded" and len(files) == 8
    assert [path.exists() for path in mine] == [False, True] and hidden(xget) == []


def test_z_names_local_files_of_a_fetched_scan_that_the_listing_lacks(xget: Xget, world: World) -> None:
    assert xget("-s", "sess_1", "-z", *SCANS)[0] == 0
    for scan in ("1-TSE", "2-PIB_336mtx"):
        (xget.folder / f"sess_1/scans/{scan}/resources/DICOM/files/mine.txt").write_text("mine")
    world.sessions()[0].scans[0].resources[0].add("9.dcm", b"late")
    outcome = xget("-s", "sess_1", "-z", *SCANS)
    assert outcome[:2] == (0, "./sess_1\n")
    [line] = outcome.err.splitlines()
    assert line.startswith("xget: warning: sess_1") and "mine.txt" in line and "1-TSE" in line
    assert "2-PIB" not in line and "9.dcm" not in line
    assert (xget.folder / f"{SCAN_1}/mine.txt").exists()


def test_z_files_of_another_format_are_not_called_strange(xget: Xget) -> None:
    """A second run for another format adds to the scan's folder; the server has the first ones, too."""
    assert xget("-s", "sess_1", "-z", *SCANS)[0] == 0
    outcome = xget("-s", "sess_1", "-z", "-acq", "2", "-format", "NIFTI", *SCANS)
    assert (outcome.status, outcome.out) == (0, "./sess_1\n")
    assert "not on the server" not in outcome.err


def test_z_a_folder_of_another_session(xget: Xget, world: World) -> None:
    """It fails, naming both, with the advice to give it its own -o."""
    other = world.project("other").session("sess_1")
    other.scan("7").resource("DICOM", {"other.dcm": b"o"}, format="DICOM")
    assert xget("-s", "sess_1", "-proj", "proj_3", "-z", *SCANS)[0] == 0
    before = xget.files()
    for flags in ((), ("-overwrite",)):
        outcome = xget("-s", "sess_1", "-proj", "other", "-z", *SCANS, *flags)
        assert outcome[:2] == (1, "") and xget.files() == before
        assert "proj_3" in outcome.err and re.search(r"\bother\b", outcome.err) and "-o" in outcome.err


def test_z_sessions_of_one_label_in_one_run_never_mix(xget: Xget, world: World) -> None:
    """Namesakes of several projects, asked for by ID: one gets the folder, the others fail, or are busy
    where they came while it was marking the folder."""
    for name in "abcdefgh":
        session = world.project(name).session("same", id=f"ID_{name}")
        session.scan(name).resource("DICOM", {f"{name}.dcm": b"x"}, format="DICOM")
    outcome = xget("-s", ",".join(f"ID_{name}" for name in "abcdefgh"), "-z", "-j", "8")
    assert (outcome.status, outcome.out) == (1, "./same\n")
    assert outcome.err.count("its own -o") + outcome.err.count("at work here") == 7
    assert len(tree(xget.folder)) == 1 and hidden(xget) == []


def test_z_two_sessions_with_assessors(xget: Xget, world: World) -> None:
    """Each top folder once, those of assessors being their own."""
    session = world.projects[0].session("sess_2")
    session.scan("1").resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    for label in ("sess_2_QC", "sess_2_FS"):
        session.assessor(label).resource("DATA", {"x.txt": label.encode()})
    outcome = xget("-s", "sess_1,sess_2", "-z")
    assert (outcome.status, outcome.err) == (0, "")
    tops = ["./sess_1", "./sess_1_QC", "./sess_2", "./sess_2_FS", "./sess_2_QC"]
    assert sorted(outcome.out.splitlines()) == tops
    assert all((xget.folder / top / ".xget").is_file() for top in tops)
    assert xget("-s", "sess_1,sess_2", "-z") == (0, "", "")


def test_z_assessors_below_their_session_in_the_old_layout(xget: Xget, world: World) -> None:
    """What standard output names is there; a second run finds it."""
    world.old_assessor_layout = True
    outcome = xget("-s", "sess_1", "-z", "-acq", "NONE", "-recon", "NONE")
    assert (outcome.status, outcome.err) == (0, "")
    assert all((xget.folder / top).is_dir() for top in outcome.out.splitlines())
    assert list(tree(xget.folder).values()) == [b"fine"]
    assert xget("-s", "sess_1", "-z", "-acq", "NONE", "-recon", "NONE") == (0, "", "")


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another file system, where there is one."""
    top = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(dir=top))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights of their own there")
@pytest.mark.parametrize("where", ["sess_1", "sess_1/scans", "sess_1/scans/1-TSE"])
def test_z_a_link_that_the_user_put_in_the_place_of(
    xget: Xget, world: World, server: XnatServer, elsewhere: Path, where: str
) -> None:
    """Followed, also to another file system, in the first run, the next, and with -overwrite."""
    link = xget.folder / where
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(elsewhere)
    assert xget("-s", "sess_1", "-z", *ACQ1) == (0, "./sess_1\n", "")
    assert link.is_symlink() and len(tree(elsewhere)) == 4
    assert {path.name for path in link.rglob("*.dcm")} == {f"{n}.dcm" for n in range(1, 5)}
    server.clear()
    assert xget("-s", "sess_1", "-z", *ACQ1) == (0, "", "") and asked(server) == []
    world.sessions()[0].scans[0].resources[0].add("1.dcm", b"re-uploaded")
    assert xget("-s", "sess_1", "-z", "-overwrite", *ACQ1) == (0, "./sess_1\n", "")
    assert link.is_symlink() and b"re-uploaded" in tree(elsewhere).values()


def test_z_a_shared_session_has_its_own_label_as_folder(xget: Xget, world: World) -> None:
    world.sessions()[0].share(world.project("p2"), "there")
    assert xget("-s", "there", "-proj", "p2", "-z", *SCANS) == (0, "./sess_1\n", "")
    note = json.loads((xget.folder / "sess_1/.xget").read_text())
    assert note["id"] == "XNAT_E00001" and note["project"] in ("proj_3", "p2")
    assert xget("-s", "sess_1", "-proj", "proj_3", "-z", *SCANS) == (0, "", "")


def test_z_one_lost_assessor_folder_comes_again(xget: Xget, server: XnatServer) -> None:
    assert xget("-s", "sess_1", "-z")[0] == 0
    shutil.rmtree(xget.folder / "sess_1_QC")
    server.clear()
    assert xget("-s", "sess_1", "-z") == (0, "./sess_1_QC\n", "")
    assert len(asked(server)) == 1


def test_z_a_folder_of_the_users_own_is_kept(xget: Xget) -> None:
    """A folder of that name without a .xget is filled, and its files are left as they are."""
    (xget.folder / "sess_1").mkdir()
    (xget.folder / "sess_1/notes.txt").write_text("mine")
    assert xget("-s", "sess_1", "-z", *SCANS) == (0, "./sess_1\n", "")
    assert (xget.folder / "sess_1/notes.txt").read_text() == "mine"
    assert (xget.folder / "sess_1/.xget").exists()


def test_z_a_late_file_of_a_scan_without_a_type_lands_beside_the_others(xget: Xget, world: World) -> None:
    """XNAT names such a scan's folder by its ID alone; so does what comes by itself."""
    resource = world.sessions()[0].scan("3").resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    assert xget("-s", "sess_1", "-z", "-acq", "3", *SCANS)[0] == 0
    resource.add("2.dcm", b"22")
    assert xget("-s", "sess_1", "-z", "-acq", "3", *SCANS)[0] == 0
    folder = "sess_1/scans/3/resources/DICOM/files"
    assert tree(xget.folder) == {f"{folder}/1.dcm": b"1", f"{folder}/2.dcm": b"22"}


# --- what a fresh reader of the file found ---------------------------------------------------------


def listed_outside(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The listing of a server that, asked once more, names a file outside the folder."""
    first = next(row for row in rows if row["URI"].endswith("/1.dcm"))
    outside = first["URI"].replace("/files/1.dcm", "/files/../../../../../../outside.dcm")
    return [*rows, {**first, "URI": outside, "Size": "7", "digest": ""}]


@pytest.mark.parametrize("flags", [("-z",), ("-z", "-flat"), ()], ids=["-z", "-z -flat", "archive"])
def test_a_name_that_only_the_second_listing_has_is_refused_too(
    flags: tuple[str, ...], xget: Xget, world: World, server: XnatServer, tmp_path: Path
) -> None:
    name = "sess_1/scans/1-TSE/resources/DICOM/files/../../../../../../outside.dcm"
    server.fault("add", match="format=zip", name=name, data=b"outside", times=None)
    server.fault("listing", match=r"format=json", skip=1, edit=listed_outside, times=None)
    outcome = xget("-s", "sess_1", "-acq", "1", "-ass", "NONE", "-recon", "NONE", "-retry", "NONE", *flags)
    assert outcome.status == 1
    assert "outside.dcm: missing: its name is unsafe as a path" in outcome.err
    assert not list(tmp_path.rglob("outside.dcm"))


def test_a_scan_whose_zip_is_asked_for_again_may_be_as_large_as_the_whole(
    xget: Xget, world: World, server: XnatServer
) -> None:
    """A file of a scan with a comma comes in the ZIP of its resource, with all that is there already."""
    scan = world.sessions()[0].scan("3,1", type="T1")
    large = scan.resource(
        "DICOM", {f"{n}.dcm": Synthetic(3_000_000, seed=n) for n in range(2)}, format="DICOM"
    )
    args = ("-s", "sess_1", "-acq", "3*", "-ass", "NONE", "-recon", "NONE", "-retry", "NONE")
    assert xget(*args).status == 0
    large.add("3.dcm", b"new")
    outcome = xget(*args, "-update")
    assert (outcome.status, outcome.err) == (0, "")
    assert read(xget.folder / "sess_1_acq.zip")["sess_1/scans/3,1-T1/resources/DICOM/files/3.dcm"] == b"new"


def test_what_bears_no_word_of_its_origin_is_not_taken_for_this_sessions(
    xget: Xget, world: World, server: XnatServer
) -> None:
    """Where neither size nor MD5 is listed, only its origin could tell whose a file of that name is."""
    world.listed_sizes = False
    for file in world.sessions()[0].scans[0].resources[0].files.values():
        file.md5 = ""
    entry = "sess_1/scans/1-TSE/resources/DICOM/files/1.dcm"
    with zipfile.ZipFile(xget.folder / "sess_1_acq.incomplete.zip", "w") as file:
        file.writestr(entry, b"somebody else's")
    outcome = xget("-s", "sess_1", "-acq", "1", "-ass", "NONE", "-recon", "NONE")
    assert outcome.status == 0
    assert read(xget.folder / "sess_1_acq.zip")[entry] == bytes([1]) * 1000


@pytest.mark.parametrize("part", ["a name", "a CRC", "an offset", "a size"])
def test_verify_and_update_notice_a_directory_that_is_not_that_of_the_files(
    part: str, xget: Xget, world: World, server: XnatServer
) -> None:
    args = ("-s", "sess_1", "-acq", "1", "-ass", "NONE", "-recon", "NONE")
    assert xget(*args).status == 0
    path = xget.folder / "sess_1_acq.zip"
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02") + {"a CRC": 16, "an offset": 42, "a size": 24, "a name": 50}[part]
    data[at] ^= 1
    path.write_bytes(data)
    outcome = xget(*args, "-verify")
    assert (outcome.status, path.read_bytes()) == (1, bytes(data))
    assert re.search(r"1 DICOM \d.dcm: is not what the directory of the archive shows", outcome.err)
    assert xget(*args, "-update") == (0, "./sess_1_acq.zip\n", "")
    assert xget(*args, "-verify").status == 0
    assert [*read(path)] == [f"sess_1/scans/1-TSE/resources/DICOM/files/{n}.dcm" for n in range(1, 5)]
