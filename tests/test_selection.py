"""What is chosen of a session: the field mapping, exact before glob, formats, warnings, status 4."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome, Xget
from xnat_server import World, XnatServer

DICOM = {"format": "DICOM"}


@pytest.fixture
def ugly(world: World) -> Any:
    """A session with the names that scanners and people make up."""
    session = world.project("P").session("ugly", subject="s", date="2020-02-02")
    scans = [
        ("1", "T1w", "usable", "t2_tse, sag"),
        ("4-MR2", "*tfl3d1", "Usable", "PIB 336mtx"),
        ("5", "T1w", "unusable", "Schädel_überall"),
        ("T1x", "loc", "questionable", "T1w"),
        ("loc", "tse[fs]", "questionable", "what?"),
        ("6", "", "", ""),
        ("7", "tse [fs]", "usable", 'R&D <1> "x"'),
        ("8", "aXtfl3d1", "usable", "t2_TSE, cor"),
    ]
    for id, type, quality, description in scans:
        scan = session.scan(id, type=type, quality=quality, description=description)
        scan.resource("DICOM", {"1.dcm": id.encode()}, format="DICOM")
    session.assessor("ugly_QC", type="xnat:qcManualAssessorData").resource("DATA", {"q": b"q"})
    session.assessor("ugly_FS", type="fs:fsData").resource("DATA", {"f": b"f"}, format="MGZ")
    session.reconstruction("R 1", type="RECON A").resource("NIFTI", {"r": b"r"}, format="NIFTI")
    session.reconstruction("R2").resource("DICOM", {"r2": b"r"}, format="DICOM")
    session.resource("NOTES", {"n": b"n"})
    session.resource("Protokoll ü", {"p": b"p"})
    return session


def listed(xget: Xget, *flags: str, session: str = "ugly") -> tuple[dict[str, list[str]], Outcome]:
    """List what would be downloaded; returns `ID` or `ID/resource` (if not DICOM) by kind."""
    outcome = xget("-s", session, "-list", *flags)
    found: dict[str, list[str]] = {}
    for line in outcome.out.splitlines():
        cells = line.split("\t")
        found.setdefault(cells[1], []).append(cells[2])
    return found, outcome


ACQ = {
    "scan ID": ("1", "1"),
    "scan ID with a dash": ("4-MR2", "4-MR2"),
    "scan type, two scans of it and a description": ("T1w", "1 5 T1x"),
    "series description, quoted for its comma": ('"t2_tse, sag"', "1"),
    "series description with a blank": ("PIB 336mtx", "4-MR2"),
    "series description with umlauts": ("Schädel_überall", "5"),
    "series description with & < > and quotes": ('"R&D <1> ""x"""', "7"),
    "a scan ID that is another scan's type: both": ("loc", "T1x loc"),
    "the manual's list: ID, type, description": ("1,tse [fs],PIB 336mtx", "1 4-MR2 7"),
    "exact before glob: an asterisk in a type": ("*tfl3d1", "4-MR2"),
    "exact before glob: a bracket in a type": ("tse[fs]", "loc"),
    "exact before glob: a question mark": ("what?", "loc"),
    "a glob where nothing bears that name": ("*tfl*", "4-MR2 8"),
    "a glob's question mark": ("T1?", "1 5 T1x"),
    "a glob's bracket": ("[15]", "1 5"),
    "a glob in the comparison's case": ("t2_tse*", "1"),
    "a scan named twice": ("1,T1w,1", "1 5 T1x"),
    "ALL": ("ALL", "1 4-MR2 5 T1x loc 6 7 8"),
    "! leaves out a type": ("!T1w", "4-MR2 loc 6 7 8"),
    "! leaves out what a glob names": ("!T1?,!*tfl*", "loc 6 7"),
    "! leaves out of what else is named": ("T1w,!5", "1 T1x"),
    "! quoted for a comma": ('"!t2_tse, sag"', "4-MR2 5 T1x loc 6 7 8"),
    "! that leaves out nothing": ("!nope,1", "1"),
}


@pytest.mark.parametrize(("items", "expected"), ACQ.values(), ids=list(ACQ))
def test_acq_matches(xget: Xget, ugly: Any, items: str, expected: str) -> None:
    found, outcome = listed(xget, "-acq", items, "-ass", "NONE", "-recon", "NONE")
    assert (outcome.status, outcome.err) == (0, "")
    assert found.get("acq", []) == expected.split()


def test_acq_none_leaves_the_scans_out(xget: Xget, ugly: Any) -> None:
    found, outcome = listed(xget, "-acq", "NONE")
    assert (outcome.status, outcome.err, list(found)) == (0, "", ["ass", "recon"])


def test_an_exclamation_mark_in_a_name_is_a_name(xget: Xget, ugly: Any) -> None:
    ugly.scan("9", type="!T1w").resource("DICOM", {"9.dcm": b"9"}, **DICOM)
    found, outcome = listed(xget, "-acq", "!T1w")
    assert (outcome.status, found["acq"]) == (0, ["9"])


def test_acq_does_not_match_what_the_mapping_does_not_name(xget: Xget, ugly: Any) -> None:
    """A scan's xsi:type is none of its names, not even where it has no type of its own."""
    _, outcome = listed(xget, "-acq", "xnat:mrScanData")
    assert outcome.status == 4 and "matches nothing" in outcome.err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("-q", "usable"), "1 4-MR2 7 8"),
        (("-quality", "USABLE,Unusable"), "1 4-MR2 5 7 8"),
        (("-q", "*usable"), "1 4-MR2 5 7 8"),
        (("-q", "ALL"), "1 4-MR2 5 T1x loc 6 7 8"),
        (("-acq", "T1w", "-q", "usable"), "1"),
        (("-q", "!USABLE"), "5 T1x loc 6"),
        (("-q", "*able,!un*"), "1 4-MR2 T1x loc 7 8"),
    ],
    ids=[
        "ignoring case",
        "several, by the long name",
        "a glob",
        "ALL",
        "of the scans that -acq chose",
        "! ignoring case, what has no quality included",
        "! and a glob, of what else is named",
    ],
)
def test_quality(xget: Xget, ugly: Any, flags: tuple[str, ...], expected: str) -> None:
    found, outcome = listed(xget, *flags)
    assert (outcome.status, outcome.err, found["acq"]) == (0, "", expected.split())
    assert len(found["ass"]) == len(found["recon"]) == 2, "qualities are of scans alone"


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ("ugly_FS", 1),
        ("{ugly_FS}", 1),
        ("fs:fsData", 1),
        ("*Data", 2),
        ("ugly_QC,fs:fsData", 2),
        ("!*_QC", 1),
        ("ALL", 2),
        ("NONE", 0),
    ],
    ids=["label", "ID", "xsi:type", "glob", "a list", "!", "ALL", "NONE"],
)
def test_ass_matches(xget: Xget, ugly: Any, items: str, expected: int) -> None:
    ids = {each.label: each.id for each in ugly.assessors}
    found, outcome = listed(xget, "-ass", items.format(**ids))
    assert (outcome.status, outcome.err, len(found.get("ass", []))) == (0, "", expected)
    if expected == 1:
        assert found["ass"][0] in ("ugly_FS", ids["ugly_FS"])
    assert len(found["acq"]) == 8 and len(found["recon"]) == 2


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ("R 1", "R 1"),
        ("RECON A", "R 1"),
        ("R?1", "R 1"),
        ("R2", "R2"),
        ("R*", "R 1|R2"),
        ("!RECON*", "R2"),
        ("NONE", ""),
    ],
    ids=["ID", "type", "glob", "ID without a type", "glob for both", "!", "NONE"],
)
def test_recon_matches(xget: Xget, ugly: Any, items: str, expected: str) -> None:
    found, outcome = listed(xget, "-recon", items)
    assert (outcome.status, outcome.err, "|".join(found.get("recon", []))) == (0, "", expected)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), []),
        (("-res", "NOTES"), ["NOTES"]),
        (("-res", "Protokoll ü"), ["Protokoll ü"]),
        (("-res", "N*"), ["NOTES"]),
        (("-res", "!N*"), ["Protokoll ü"]),
        (("-res", "ALL"), ["NOTES", "Protokoll ü"]),
    ],
    ids=["none by default", "label", "label with umlaut", "glob", "!", "ALL"],
)
def test_res_matches(xget: Xget, ugly: Any, flags: tuple[str, ...], expected: list[str]) -> None:
    found, outcome = listed(xget, *flags)
    assert (outcome.status, outcome.err, found.get("res", [])) == (0, "", expected)


def test_a_bare_flag_is_all(xget: Xget, ugly: Any) -> None:
    found, outcome = listed(xget, "-acq", "-ass", "-recon")
    assert (outcome.status, {kind: len(ids) for kind, ids in found.items()}) == (
        0,
        {"acq": 8, "ass": 2, "recon": 2},
    )


def test_a_repeated_list_adds(xget: Xget, ugly: Any) -> None:
    assert listed(xget, "-acq", "1", "-acq", "5")[0]["acq"] == ["1", "5"]


# --- formats ---------------------------------------------------------------------------


@pytest.fixture
def formats(world: World) -> Any:
    """A session whose resources have labels and formats that differ, or that lack one of them."""
    session = world.project("P").session("formats", subject="s")
    scan = session.scan("1", type="T1")
    scan.resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    scan.resource("NIFTI", {"1.nii": b"1"}, format="NIFTI")
    session.scan("2", type="T2").resource("secondary", {"2.dcm": b"2"}, format="dicom")
    session.scan("3", type="T3").resource("DICOM", {"3.dcm": b"3"})
    session.assessor("f_QC").resource("DATA", {"q": b"q"}, format="TXT")
    session.reconstruction("R1").resource("NIFTI", {"r": b"r"}, format="NIFTI")
    return session


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), "acq:DICOM acq:secondary acq:DICOM ass:DATA recon:NIFTI"),
        (("-format", "DICOM"), "acq:DICOM acq:secondary acq:DICOM"),
        (("-format", "nifti,Txt", "-acq", "1"), "acq:NIFTI ass:DATA recon:NIFTI"),
        (("-format", "ALL"), "acq:DICOM acq:NIFTI acq:secondary acq:DICOM ass:DATA recon:NIFTI"),
        (("-format", "second*", "-acq", "2"), "acq:secondary"),
        (("-format", "!dicom"), "acq:NIFTI ass:DATA recon:NIFTI"),
        (("-format", "DICOM,!second*"), "acq:DICOM acq:DICOM"),
    ],
    ids=[
        "default: DICOM of scans, the rest whole",
        "given: all three kinds are limited",
        "ignoring case, label or format",
        "ALL",
        "a glob",
        "! leaves out: not even DICOM is asked for",
        "! of what else is named",
    ],
)
def test_format(xget: Xget, formats: Any, flags: tuple[str, ...], expected: str) -> None:
    outcome = xget("-s", "formats", "-list", *flags)
    rows = [line.split("\t") for line in outcome.out.splitlines()]
    assert (outcome.status, outcome.err) == (0, "")
    assert [f"{row[1]}:{row[6]}" for row in rows] == expected.split()


def test_format_exact_before_glob_in_the_whole_session(xget: Xget, formats: Any) -> None:
    """What one scan bears exactly is no pattern for the others."""
    formats.scan("4").resource("D*", {"4": b"4"})
    outcome = xget("-s", "formats", "-list", "-format", "D*", "-ass", "NONE")
    assert [line.split("\t")[2] for line in outcome.out.splitlines()] == ["4"]


def test_a_scan_left_out_for_its_formats_alone_is_named_with_those_that_it_has(
    xget: Xget, formats: Any
) -> None:
    """To whoever asks with -v; a log of every night stays empty."""
    formats.scan("8").resource("JPEGS", {"8": b"8"}, format="JPG")
    formats.scan("9")
    outcome = xget("-s", "formats", "-list")
    assert (outcome.status, outcome.err) == (0, "")
    said = "\n".join(line for line in xget("-s", "formats", "-list", "-v").err.splitlines() if "JPG" in line)
    assert re.fullmatch(r"xget: formats: [^\n]*\b8\b[^\n]*JPG[^\n]*", said)
    assert "JPG" not in xget("-s", "formats", "-list", "-v", "-acq", "1,2").err, "-acq left 8 out already"


@pytest.mark.parametrize(
    ("flags", "status"),
    [((), 4), (("-format", "JPG"), 0), (("-acq", "1,8"), 0), (("-acq", "8"), 4), (("-acq", "NONE"), 0)],
    ids=[
        "none of the scans that are there",
        "another format chosen",
        "one of them is DICOM",
        "none of those that -acq chose",
        "no scan asked for",
    ],
)
def test_where_no_scan_is_dicom_the_way_out_is_named(
    xget: Xget, formats: Any, flags: tuple[str, ...], status: int
) -> None:
    """The default counts as a constraint that matched nothing, whatever other kinds brought."""
    formats.scan("8").resource("JPEGS", {"8": b"8"}, format="JPG")
    if flags != ("-acq", "1,8"):
        del formats.scans[:3]
    outcome = xget("-s", "formats", "-list", *flags)
    assert outcome.status == status
    if status:
        assert re.fullmatch(r"xget: warning: formats: [^\n]*DICOM[^\n]*JPG[^\n]*-format[^\n]*\n", outcome.err)
    else:
        assert outcome.err == ""


# --- exactly these resources -----------------------------------------------------------


def members(archive: Path) -> dict[str, bytes]:
    """Read an archive, by the names of its files without their folders."""
    with zipfile.ZipFile(archive) as zip:
        return {name.rpartition("/files/")[2]: zip.read(name) for name in zip.namelist()}


HIDDEN = pytest.mark.parametrize(
    "hidden", [True, False], ids=["IDs in the document", "IDs from the resource list"]
)


@HIDDEN
def test_never_another_resource_of_the_same_label(xget: Xget, world: World, hidden: bool) -> None:
    world.hidden_fields = hidden
    session = world.project("P").session("s")
    scan = session.scan("1", type="T1")
    scan.resource("DATA", {"text": b"text"}, format="TXT")
    scan.resource("DATA", {"wanted": b"dicom"}, format="DICOM")
    scan.resource("", {"unlabelled": b"dicom"}, format="DICOM")
    scan.resource("", {"neither": b"text"}, format="TXT")
    session.scan("2", type="1").resource("DATA", {"other": b"other"}, format="DICOM")
    session.assessor("s_QC").resource("DATA", {"q": b"q"}, format="DICOM")
    outcome = xget("-s", "s", "-acq", "T1", "-ass", "NONE")
    assert (outcome.status, outcome.err) == (0, "")
    assert members(xget.folder / "s_acq.zip") == {"wanted": b"dicom", "unlabelled": b"dicom"}


@HIDDEN
def test_two_files_that_bear_one_name_are_fetched_apart(xget: Xget, world: World, hidden: bool) -> None:
    """Two resources of one label, each with a file of the same name: XNAT's ZIP holds one of them."""
    world.hidden_fields = hidden
    scan = world.project("P").session("s").scan("1", type="T1")
    for text in (b"one", b"two"):
        scan.resource("DICOM", {"1.dcm": text, text.decode(): text}, format="DICOM")
    outcome = xget("-s", "s")
    assert (outcome.status, outcome.err) == (0, "")
    with zipfile.ZipFile(xget.folder / "s_acq.zip") as zip:
        assert sorted(map(zip.read, zip.namelist())) == [b"one", b"one", b"two", b"two"]


@HIDDEN
def test_files_of_an_assessor_outside_out_are_not_fetched_but_named(
    xget: Xget, world: World, hidden: bool
) -> None:
    world.hidden_fields = hidden
    assessor = world.project("P").session("s").assessor("s_QC")
    assessor.resource("DATA", {"outside": b"1"}, where="resources")
    assessor.resource("DATA", {"inside": b"2"})
    assessor.resource("SOURCE", {"source": b"3"}, where="in")
    outcome = xget("-s", "s")
    assert outcome.status == 0
    assert re.fullmatch(r"xget: warning: s: [^\n]*s_QC[^\n]*out[^\n]*\n", outcome.err)
    assert members(xget.folder / "s_ass.zip") == {"inside": b"2"}


def test_a_scan_id_that_is_another_scans_type(xget: Xget, ugly: Any) -> None:
    """XNAT gives both for one word; the archive holds the one that was chosen."""
    ugly.scans[4].resources[0].files["loc.dcm"] = ugly.scans[4].resources[0].files.pop("1.dcm")
    assert xget("-s", "ugly", "-acq", "what?", "-ass", "NONE", "-recon", "NONE")[0] == 0
    assert members(xget.folder / "ugly_acq.zip") == {"loc.dcm": b"loc"}


def test_every_ugly_name_can_be_fetched(xget: Xget, ugly: Any) -> None:
    for id in ("a b", "a+b", "ä", "50%", "a;b", "#1", "a:b"):
        scan = ugly.scan(id, type=f"{id} & <{id}>/T2")
        scan.resource("DICOM", {f"{scan.number}.dcm": id.encode()}, format="DICOM")
    outcome = xget("-s", "ugly", "-res", "ALL")
    assert (outcome.status, outcome.err) == (0, "")
    with zipfile.ZipFile(xget.folder / "ugly_acq.zip") as zip:
        assert sorted(map(zip.read, zip.namelist())) == sorted(scan.id.encode() for scan in ugly.scans)
    assert members(xget.folder / "ugly_res.zip") == {"n": b"n", "p": b"p"}
    assert members(xget.folder / "ugly_recon.zip") == {"r": b"r", "r2": b"r"}


def test_a_list_of_ids_too_long_for_one_url_is_still_one_archive(
    xget: Xget, world: World, server: XnatServer
) -> None:
    session = world.project("P").session("long")
    for number in range(400):
        scan = session.scan(f"{number}-a long ID with blanks", type="T1")
        scan.resource("DICOM", {f"{number}.dcm": b"x" * number}, format="DICOM")
    outcome = xget("-s", "long")
    assert outcome == (0, "./long_acq.zip\n", "")
    assert len(members(xget.folder / "long_acq.zip")) == 400
    assert max(len(request.path) for request in server.requests) < 4096
    zips = [request for request in server.requests if "format=zip" in request.path]
    assert 2 <= len(zips) == sum("format=json" in r.path and "/files" in r.path for r in server.requests)


# --- what matched nothing --------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "has"),
    [
        (("-acq", "1,T1W"), "T1w"),
        (("-acq", "1,X*"), "4-MR2"),
        (("-acq", "1", "-q", "usable,bad"), "usable"),
        (("-ass", "ugly_QC,FS"), "ugly_FS"),
        (("-recon", "R2,R1"), "RECON A"),
        (("-res", "NOTES,MISC"), "Protokoll ü"),
        (("-acq", "1", "-format", "DICOM,BRIK"), "dicom"),
    ],
    ids=["-acq, other case", "-acq, glob", "-q", "-ass", "-recon", "-res", "-format"],
)
def test_an_item_that_matches_nothing_is_warned_about_with_what_there_is(
    xget: Xget, ugly: Any, flags: tuple[str, ...], has: str
) -> None:
    _, outcome = listed(xget, *flags)
    idle = flags[-1].split(",")[1]
    assert outcome.status == 0, "another item of the flag matched"
    line = outcome.err.splitlines()[0]
    assert line.startswith("xget: warning: ugly: ") and idle in line and has.lower() in line.lower()
    assert len(outcome.err.splitlines()) == 1


def test_a_warning_comes_once_per_cause_and_run(xget: Xget, ugly: Any) -> None:
    """With what there is in the first session; the last line names all."""
    outcome = xget("-s", "ugly,sess_1", "-list", "-acq", "1,nope")
    first, last = outcome.err.splitlines()
    assert outcome.status == 0 and re.match(r"xget: warning: ugly: -acq nope: .*4-MR2", first)
    assert last == "xget: warning: -acq nope: matches nothing in 2 of 2 sessions: ugly, sess_1"


@pytest.mark.parametrize(
    "flags",
    [
        ("-acq", "nope"),
        ("-acq", "nope*"),
        ("-q", "nope"),
        ("-ass", "nope"),
        ("-recon", "nope"),
        ("-res", "nope"),
        ("-format", "nope"),
    ],
    ids=["-acq", "-acq with a glob", "-q", "-ass", "-recon", "-res", "-format"],
)
def test_status_4_whatever_the_others_brought(xget: Xget, ugly: Any, flags: tuple[str, ...]) -> None:
    rest = () if flags[0] in ("-format", "-q") else ("-format", "ALL")
    assert xget("-s", "ugly,sess_1", *flags, *rest)[0] == 4
    both = ("-acq", "1") if flags[0] != "-acq" else ("-ass", "ugly_QC")
    assert xget("-s", "ugly,sess_1", *flags, *both, "-list")[0] == 4


def test_a_constraint_that_matches_in_one_session_is_enough(xget: Xget, ugly: Any) -> None:
    outcome = xget("-s", "ugly,sess_1", "-acq", "4-MR2", "-ass", "sess_1_QC", "-recon", "NONE")
    assert outcome.status == 0 and sorted(outcome.out.split()) == ["./sess_1_ass.zip", "./ugly_acq.zip"]


def test_a_failure_outweighs_a_constraint_that_matched_nothing(xget: Xget, ugly: Any) -> None:
    assert xget("-s", "ugly,nowhere", "-acq", "nope", "-list")[0] == 1
