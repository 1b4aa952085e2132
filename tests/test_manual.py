"""Every row of the manual, sections 5 to 10, under its name; the details are in the tests of each subject."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from conftest import Xget
from xnat_server import World, XnatServer

NO_REST = ("-ass", "NONE", "-recon", "NONE")
THREE = ["sess_1_acq.zip", "sess_1_ass.zip", "sess_1_recon.zip"]

ROWS: dict[str, tuple[tuple[str, ...], list[str], int]] = {
    # row: (command line, archives, images in them)
    "5 -s: session IDs and labels": (("-s", "sess_1"), THREE, 7),
    "5 -proj: only sessions in this project": (("-s", "sess_1", "-proj", "proj_3"), THREE, 7),
    "5 -start: on and after this date": (("-s", "sess_1,sess_2", "-start", "17112011"), THREE, 7),
    "5 -end: on and before this date": (("-s", "sess_1,sess_2", "-end", "17112011"), THREE, 7),
    "5 -acq: scans by type or description": (
        ("-s", "sess_1", "-acq", "PIB 336mtx", *NO_REST),
        ["sess_1_acq.zip"],
        3,
    ),
    "5 -q: quality of scans": (("-s", "sess_1", "-q", "usable", *NO_REST), ["sess_1_acq.zip"], 4),
    "5 -q: defaults to ALL": (("-s", "sess_1", *NO_REST), ["sess_1_acq.zip"], 7),
    "5 -ass: assessors": (
        ("-s", "sess_1", "-acq", "NONE", "-ass", "sess_1_QC", "-recon", "NONE"),
        ["sess_1_ass.zip"],
        0,
    ),
    "5 -recon: reconstructions": (
        ("-s", "sess_1", "-acq", "NONE", "-ass", "NONE", "-recon", "R1"),
        ["sess_1_recon.zip"],
        0,
    ),
    "5 -format: image format": (
        ("-s", "sess_1", "-format", "NIFTI"),
        ["sess_1_acq.zip", "sess_1_recon.zip"],
        0,
    ),
    "5 -format: defaults to DICOM": (("-s", "sess_1", *NO_REST), ["sess_1_acq.zip"], 7),
    "5 -o: output directory": (("-s", "sess_1", "-o", "tmp"), [f"tmp/{name}" for name in THREE], 7),
    "7 IDs and labels mixed": (
        ("-s", "XNAT_E00001,sess_2", *NO_REST),
        ["XNAT_E00001_acq.zip", "sess_2_acq.zip"],
        8,
    ),
    "7 sessions in a file": (("-f", "list", *NO_REST), ["XNAT_E00001_acq.zip", "sess_2_acq.zip"], 8),
    "7 on the command line and in a file": (
        ("-s", "sess_2", "-f", "list", *NO_REST),
        ["XNAT_E00001_acq.zip", "sess_2_acq.zip"],
        8,
    ),
    "9 three archives by default": (("-s", "sess_1", "-o", "tmp"), [f"tmp/{name}" for name in THREE], 7),
    "5, 9 -longname: names that hold the constraints": (
        ("-s", "sess_1", "-proj", "proj_3", "-longname"),
        [f"p_proj_3_sess_sess_1_{kind}_ALL_q_ALL_f_DICOM.zip" for kind in ("acq", "ass", "recon")],
        7,
    ),
    "10.1 -acq: IDs and descriptions, and all assessors and reconstructions": (
        ("-s", "sess_1", "-acq", '1,"PIB 336mtx"'),
        THREE,
        7,
    ),
    "10.1 -acq: the manual's list": (("-s", "sess_1", "-acq", "1,TSE,PIB 336mtx"), THREE, 7),
    "10.1 -quality: only scans of it": (
        ("-s", "sess_1", "-acq", "1,TSE,PIB 336mtx", "-quality", "usable"),
        THREE,
        4,
    ),
    "10.2 -ass: as scans": (
        ("-s", "sess_1", "-acq", "NONE", "-ass", "xnat:qcManualAssessorData", "-recon", "NONE"),
        ["sess_1_ass.zip"],
        0,
    ),
    "10.3 -recon: as scans": (
        ("-s", "sess_1", "-acq", "NONE", "-ass", "NONE", "-recon", "RECON A"),
        ["sess_1_recon.zip"],
        0,
    ),
    "10.4 -proj: looks within that project alone": (
        ("-s", "twin", "-proj", "proj_3", *NO_REST),
        ["twin_acq.zip"],
        1,
    ),
    "10.5 -format: only images of that type": (("-s", "sess_1", "-format", "dicom"), ["sess_1_acq.zip"], 7),
    "12 the subject as a constraint": (("-proj", "proj_3", "-subj", "subj_1"), THREE, 7),
    "12 all sessions of a project": (
        ("-proj", "proj_3", *NO_REST),
        ["sess_1_acq.zip", "sess_2_acq.zip", "twin_acq.zip"],
        9,
    ),
}


@pytest.fixture
def manual(world: World, xget: Xget) -> World:
    """The manual's session, two more in its project, a namesake elsewhere, a folder, a list."""
    other = world.project("other")
    for project, label in ((world.projects[0], "sess_2"), (world.projects[0], "twin"), (other, "twin")):
        scan = project.session(label, subject="subj_2", date="2010-01-01" if label == "twin" else "").scan(
            "1"
        )
        scan.resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    (xget.folder / "tmp").mkdir()
    (xget.folder / "list").write_text("XNAT_E00001\nsess_2\n")
    return world


def archives(xget: Xget) -> list[Path]:
    return sorted(xget.folder.rglob("*.zip"))


def images(xget: Xget) -> int:
    """Count the images in all archives."""
    names = [name for path in archives(xget) for name in zipfile.ZipFile(path).namelist()]
    return sum(name.endswith(".dcm") for name in names)


@pytest.mark.parametrize(("flags", "expected", "count"), ROWS.values(), ids=list(ROWS))
def test_manual(xget: Xget, manual: World, flags: tuple[str, ...], expected: list[str], count: int) -> None:
    outcome = xget(*flags)
    assert outcome.status == 0, outcome.err
    assert [path.relative_to(xget.folder).as_posix() for path in archives(xget)] == sorted(expected)
    assert images(xget) == count


def test_manual_5_h_prints_a_help_message(xget: Xget) -> None:
    outcome = xget("-h", login=False)
    flags = (
        "-h -u -p -host -passfile -s -proj -start -end -acq -q -ass -recon -format -o -z -overwrite -longname"
    )
    assert (outcome.status, outcome.err) == (0, "")
    assert set(flags.split()) <= {word.strip(",") for word in outcome.out.split()}


def test_manual_5_z_extracts_and_is_off_by_default(xget: Xget) -> None:
    assert xget("-s", "sess_1", "-z")[0] == 0
    assert archives(xget) == [] and len(list(xget.folder.rglob("*.dcm"))) == 7


def test_manual_9_an_archive_is_not_downloaded_again_unless_overwrite_is_set(
    xget: Xget, world: World, server: XnatServer
) -> None:
    """Rows `-overwrite` of section 5 and the end of section 9."""
    assert xget("-s", "sess_1", *NO_REST)[0] == 0
    world.sessions()[0].scans[0].resources[0].add("5.dcm", b"5")
    server.clear()
    assert xget("-s", "sess_1", *NO_REST)[0] == 0
    assert images(xget) == 7 and server.requests == []
    assert xget("-s", "sess_1", "-overwrite", *NO_REST)[0] == 0
    assert images(xget) == 8


def test_manual_9_note_only_the_name_says_what_is_there(xget: Xget, server: XnatServer) -> None:
    assert xget("-s", "sess_1", "-longname", *NO_REST)[0] == 0
    assert xget("-s", "sess_1", *NO_REST)[0] == 0
    assert len(archives(xget)) == 2


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("", ("-u", "admin", "-p", "admin", "-host", "{url}")),
        ("+admin@{url}=admin", ()),
        ("+admin@{url}=admin", ("-u", "admin")),
        ("+admin@{url}=wrong", ("-p", "admin")),
        ("+admin@{url}=admin", ("-host", "{url}")),
        ("-admin@{url}=admin", ("-host", "{url}")),
    ],
    ids=[
        "5 -u -p -host: on the command line",
        "the pass file has it all",
        "host and password from the pass file",
        "host and user from the pass file",
        "user and password from the pass file",
        "an entry that is not the default",
    ],
)
@pytest.mark.parametrize("name", [".xnatPass", "elsewhere"], ids=["~/.xnatPass", "-passfile"])
def test_manual_6(xget: Xget, server: XnatServer, line: str, flags: tuple[str, ...], name: str) -> None:
    path = xget.home / name
    path.write_text(line.format(url=server.url) + "\n")
    path.chmod(0o600)
    more = () if name == ".xnatPass" else ("-passfile", str(path))
    given = [flag.format(url=server.url) for flag in flags]
    outcome = xget(*given, *more, "-s", "sess_1", *NO_REST, login=False)
    assert (outcome.status, outcome.err) == (0, "")
    assert images(xget) == 7


def test_manual_8_the_output_directory_has_to_exist(xget: Xget, server: XnatServer) -> None:
    outcome = xget("-s", "sess_1", "-o", "nowhere")
    assert outcome.status == 2 and outcome.err.startswith("xget: -o nowhere: ")
    assert server.requests == [] and xget.files() == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_manual_8_the_output_directory_has_to_be_writable(xget: Xget, server: XnatServer) -> None:
    (xget.folder / "tmp").mkdir(mode=0o555)
    outcome = xget("-s", "sess_1", "-o", "tmp")
    assert outcome.status == 2 and outcome.err.startswith("xget: -o tmp: ") and server.requests == []
