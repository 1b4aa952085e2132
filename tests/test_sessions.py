"""Which sessions a command line means: IDs, labels, projects, dates, subjects, and what that costs."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import Xget
from xnat_server import World, XnatServer

SCANS = ("-ass", "NONE", "-recon", "NONE")


def add(project: Any, label: str, subject: str = "subj_1", **more: Any) -> Any:
    """Add a session with one scan, whose only file holds the session's ID."""
    session = project.session(label, subject=subject, **more)
    session.scan("1", type="T1").resource("DICOM", {"1.dcm": session.id.encode()}, format="DICOM")
    return session


def content(archive: Path) -> bytes:
    """Read the first file of an archive."""
    with zipfile.ZipFile(archive) as zip:
        return zip.read(zip.namelist()[0])


def archives(xget: Xget) -> dict[str, str]:
    """Tell of which session (by its first file) each archive of scans is."""
    return {path.name: content(path).decode() for path in sorted(xget.folder.glob("*_acq.zip"))}


def documents(server: XnatServer) -> list[str]:
    """Name the session documents that were asked for."""
    return [r.path for r in server.requests if "/experiments/" in r.path and "format=xml" in r.path]


def kinds_of_requests(server: XnatServer) -> list[str]:
    """Say of each request what it was for, in their order."""
    found = []
    for request in server.requests:
        path, _, query = request.path.partition("?")
        if "format=zip" in query:
            found.append("zip")
        elif path.endswith("/files"):
            found.append("listing")
        elif "/experiments/" in path:
            found.append("document")
        elif path.startswith("/data/projects/") and "/experiments" not in path:
            found.append("project")
        else:
            found.append(f"{request.method} {path}")
    return found


# --- named one by one ------------------------------------------------------------------


@pytest.fixture
def many(world: World) -> World:
    """The manual's session, a second one, a namesake elsewhere, a shared one, a questionnaire."""
    mine, other = world.projects[0], world.project("other", name="Another project", aliases=("alias_o",))
    add(mine, "sess_2", subject="subj_2", date="2012-01-01")
    add(mine, "twin", date="2012-01-02")
    add(other, "twin", date="2013-02-03")
    add(other, "theirs", subject="subj_9", date="2014-03-04").share(mine, "shared_here")
    mine.session("form", subject="subj_1", type="xnat:questionnaireData")
    return world


@pytest.fixture
def ids(many: World) -> dict[str, str]:
    """The accession IDs, by `project/label`."""
    return {f"{each.project.id}/{each.label}": each.id for each in many.sessions()}


def test_ids_and_labels_mixed_as_in_section_7_of_the_manual(xget: Xget, ids: dict[str, str]) -> None:
    id = ids["proj_3/sess_2"]
    assert xget("-s", f"sess_1,{id}", *SCANS)[0] == 0
    assert sorted(archives(xget)) == [f"{id}_acq.zip", "sess_1_acq.zip"]
    assert archives(xget)[f"{id}_acq.zip"] == id


def test_a_file_of_sessions_adds_to_the_flag(xget: Xget, ids: dict[str, str]) -> None:
    """One LIST a line, as in section 7 of the manual."""
    (xget.folder / "list").write_text(f"# mine\n\nsess_1, {ids['other/theirs']}\r\nsess_2\n")
    assert xget("-f", "list", "-s", ids["other/twin"], *SCANS)[0] == 0
    assert len(archives(xget)) == 4


@pytest.mark.parametrize("proj", ["other", "alias_o", "Another project"], ids=["ID", "alias", "name"])
def test_a_project_by(xget: Xget, ids: dict[str, str], proj: str) -> None:
    assert xget("-s", "twin", "-proj", proj)[0] == 0
    assert archives(xget) == {"twin_acq.zip": ids["other/twin"]}


def test_a_project_id_goes_before_the_same_name_of_another(xget: Xget, many: World) -> None:
    add(many.project("nine", name="other"), "twin")
    assert xget("-s", "twin", "-proj", "other")[0] == 0
    assert archives(xget)["twin_acq.zip"] == many.sessions()[3].id


def test_a_name_of_two_projects_is_refused_naming_both(xget: Xget, many: World) -> None:
    many.project("nine", name="Another project")
    outcome = xget("-s", "twin", "-proj", "Another project")
    assert outcome.status == 1 and re.search("other.*nine|nine.*other", outcome.err)
    assert xget.files() == []


def test_a_project_that_is_not_there(xget: Xget, many: World, server: XnatServer) -> None:
    many.project("hidden", hidden_from=("admin",))
    for name in ("nowhere", "hidden"):
        outcome = xget("-s", "sess_1", "-proj", name)
        assert outcome.status == 1 and outcome.out == ""
        assert re.fullmatch(rf"xget: -proj {name}: [^\n]+\n", outcome.err)
    assert documents(server) == []


def test_shared_sessions_under_their_label_there(xget: Xget, ids: dict[str, str]) -> None:
    outcome = xget("-s", "shared_here", "-proj", "proj_3", *SCANS)
    assert (outcome.status, outcome.err) == (0, "")
    assert archives(xget) == {"shared_here_acq.zip": ids["other/theirs"]}
    with zipfile.ZipFile(xget.folder / "shared_here_acq.zip") as zip:
        assert zip.namelist() == ["theirs/scans/1-T1/resources/DICOM/files/1.dcm"]


def test_a_shared_session_by_its_id(xget: Xget, ids: dict[str, str]) -> None:
    assert xget("-s", ids["other/theirs"], "-proj", "proj_3", *SCANS)[0] == 0
    assert list(archives(xget).values()) == [ids["other/theirs"]]


def test_a_label_that_is_an_id_elsewhere_is_found_in_the_project(xget: Xget, many: World) -> None:
    """A site that took over another's sessions has such labels; the server answers with the ID's."""
    stranger = add(many.projects[1], "anything", id="OLD_E00007")
    mine = add(many.projects[0], "OLD_E00007")
    outcome = xget("-s", "OLD_E00007", "-proj", "proj_3")
    assert (outcome.status, archives(xget)) == (0, {"OLD_E00007_acq.zip": mine.id}), outcome.err
    assert stranger.id != mine.id


@pytest.mark.parametrize(
    ("asked", "flags", "says"),
    [
        ("twin", (), r"(?=.*proj_3)(?=.*\bother\b).*-proj"),
        ("{other/twin}", ("-proj", "proj_3"), r"not found in project proj_3"),
        ("theirs", ("-proj", "proj_3"), r"not found in project proj_3"),
        ("shared_here", (), r"not found.*-proj"),
        ("nowhere", (), r"not found.*-proj"),
        ("SESS_2", (), r"not found.*-proj"),
        ("form", (), r"not an image session"),
        ("{proj_3/form}", ("-proj", "proj_3"), r"not an image session"),
        ("sess_1_QC", ("-proj", "proj_3"), r"an assessor .*XNAT_E00001"),
        ("sess_1_QC", (), r"an assessor .*XNAT_E00001"),
        ("XNAT_E00002", (), r"an assessor .*XNAT_E00001"),
    ],
    ids=[
        "a label of several projects: they are named, -proj suggested",
        "an ID of another project",
        "a shared session's label at home, with -proj",
        "a shared session's label there, without -proj: suggested",
        "not there at all: -proj suggested",
        "another case",
        "a questionnaire by label",
        "a questionnaire by ID",
        "an assessor by label, with -proj: of which session",
        "an assessor by label",
        "an assessor by ID",
    ],
)
def test_an_error_for_that_item_and_the_others_go_on(
    xget: Xget, ids: dict[str, str], asked: str, flags: tuple[str, ...], says: str
) -> None:
    item = asked.strip("{}")
    item = ids.get(item, item)
    outcome = xget("-s", f"{item},sess_1", *flags, *SCANS)
    lines = outcome.err.splitlines()
    assert outcome.status == 1
    assert re.search(rf"^xget: {item}: .*{says}", lines[0]), outcome.err
    assert len(lines) == 2, "one line for the failure, one to sum up"
    assert list(archives(xget)) == ["sess_1_acq.zip"]


def test_who_may_not_read_a_session_does_not_find_it(xget: Xget, many: World, ids: dict[str, str]) -> None:
    many.projects[1].hidden_from = ("admin",)
    id = ids["other/twin"]
    outcome = xget("-s", f"{id},twin", *SCANS)
    assert outcome.status == 1 and re.match(rf"xget: {id}: not found", outcome.err)
    assert archives(xget) == {"twin_acq.zip": ids["proj_3/twin"]}


UGLY = {
    "a blank": ("my session", "my session", "my-session"),
    "an umlaut": ("Müller_1", "Müller_1", "Muller_1"),
    "an ampersand": ("R&D_1", "R&D_1", "RxD_1"),
    "a comma": ("sag,1", "sag,1", "sag.1"),
    "a percent sign": ("50%", "50%", "507"),
    "what looks encoded": ("a%41", "a%41", "aA"),
    "a plus": ("a+b", "a+b", "a b"),
    "an asterisk": ("a*b", "a_b", "aXb"),
    "an apostrophe": ("d'Or", "d'Or", "dxOr"),
    "a double quote": ('3"', "3_", "3'"),
    "a bracket": ("a<b", "a_b", "a>b"),
    "a hash": ("#1", "#1", "1"),
    "a question mark": ("what?", "what_", "what"),
    "a semicolon": ("a;b", "a;b", "a"),
    "a dash in front": ("-s", "-s", "s"),
    "an underscore, SQL's wildcard": ("s_1", "s_1", "sX1"),
}


@pytest.mark.parametrize(("label", "file", "decoy"), UGLY.values(), ids=list(UGLY))
def test_a_label_with(xget: Xget, world: World, label: str, file: str, decoy: str) -> None:
    """Found with -proj and without, and never another one that the server's patterns find too."""
    add(world.projects[0], decoy)
    id = add(world.projects[0], label).id
    quoted = '"' + label.replace('"', '""') + '"'
    for flags in ((), ("-proj", "proj_3")):
        outcome = xget(f"-s={quoted}", *flags, "-overwrite")
        assert (outcome.status, outcome.err) == (0, "")
        assert archives(xget) == {f"{file}_acq.zip": id}


# --- once, and without clashes ---------------------------------------------------------


def test_an_item_named_twice_or_by_id_and_label_comes_once_under_its_first_name(
    xget: Xget, server: XnatServer, ids: dict[str, str]
) -> None:
    id = ids["proj_3/sess_2"]
    outcome = xget("-s", f"sess_2,{id},sess_2", "-s", "sess_2")
    assert (outcome.status, outcome.out.split(), outcome.err) == (0, ["./sess_2_acq.zip"], "")
    assert kinds_of_requests(server).count("zip") == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [("scan_a", "Scan_A"), ("a:b", "a?b"), ("straße", "STRASSE")],
    ids=["case", "characters that a file system refuses", "case as Unicode folds it"],
)
def test_names_that_clash_by(xget: Xget, world: World, server: XnatServer, one: str, other: str) -> None:
    """Both fail before any transfer, named; the others go on."""
    for label in (one, other):
        add(world.projects[0], label)
    outcome = xget("-s", f"{one},sess_1,{other}", *SCANS)
    failures = outcome.err.splitlines()
    assert outcome.status == 1 and len(failures) == 3
    assert failures[0].startswith(f"xget: {one}: ") and other in failures[0]
    assert failures[1].startswith(f"xget: {other}: ") and one in failures[1]
    assert list(archives(xget)) == ["sess_1_acq.zip"]


def test_clashing_names_in_a_whole_project(xget: Xget, world: World) -> None:
    for label in ("scan_a", "SCAN_A"):
        add(world.projects[0], label)
    outcome = xget("-proj", "proj_3", *SCANS)
    assert outcome.status == 1 and len(outcome.err.splitlines()) == 3
    assert list(archives(xget)) == ["sess_1_acq.zip"]


# --- dates and subjects ----------------------------------------------------------------


@pytest.fixture
def dated(world: World) -> World:
    """Sessions of 2010-12-31, 2011-01-01, 2011-06-15, 2011-11-17 (sess_1), and one without a date."""
    project = world.projects[0]
    for label, date in (("eve", "2010-12-31"), ("newyear", "2011-01-01"), ("june", "2011-06-15")):
        add(project, label, subject=f"of_{label}", date=date, inserted="2020-01-01 00:00:00.0")
    add(project, "undated", subject="of_undated")
    return world


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("-start", "01012011"), "june newyear sess_1"),
        (("-start", "2011-01-01"), "june newyear sess_1"),
        (("-end", "01012011"), "eve newyear"),
        (("-start", "01012011", "-end", "15062011"), "june newyear"),
        (("-start", "15062011", "-end", "15062011"), "june"),
        (("-start", "01012030"), ""),
    ],
    ids=[
        "start, day month year",
        "start, ISO",
        "end",
        "both ends included",
        "one day",
        "a range without sessions is no error",
    ],
)
def test_dates(xget: Xget, server: XnatServer, dated: World, flags: tuple[str, ...], expected: str) -> None:
    """For a whole project, the dates come from its listing: only what is wanted is looked up."""
    outcome = xget("-proj", "proj_3", *flags, *SCANS)
    assert [name[: -len("_acq.zip")] for name in archives(xget)] == expected.split()
    assert outcome.status == 0
    assert re.fullmatch(r"xget: warning: undated: [^\n]*date[^\n]*\n", outcome.err)
    assert len(documents(server)) == len(expected.split())


def test_dates_of_sessions_that_are_named(xget: Xget, dated: World) -> None:
    outcome = xget("-s", "eve,june,undated", "-start", "01012011", *SCANS)
    assert outcome.status == 0 and list(archives(xget)) == ["june_acq.zip"]
    assert re.fullmatch(r"xget: warning: undated: [^\n]*date[^\n]*\n", outcome.err)
    assert xget("-s", "eve,june,undated", "-start", "01012011", "-quiet", *SCANS).err == ""


@pytest.mark.parametrize("flags", [("-proj", "proj_3"), ("-s", "eve,june,sess_1,undated")])
def test_subjects_by_label_and_id(xget: Xget, dated: World, flags: tuple[str, ...]) -> None:
    id = next(each.id for each in dated.projects[0].subjects if each.label == "of_june")
    outcome = xget(*flags, "-subj", f"of_eve,{id}", *SCANS)
    assert (outcome.status, outcome.err) == (0, "")
    assert list(archives(xget)) == ["eve_acq.zip", "june_acq.zip"]


def test_a_subject_of_a_shared_session(xget: Xget, many: World) -> None:
    """By the subject's ID, and by its label."""
    shared = next(each for each in many.sessions() if each.label == "theirs")
    for subject in (shared.subject.id, "subj_9"):
        outcome = xget("-proj", "proj_3", "-subj", subject, "-overwrite", *SCANS)
        assert (outcome.status, archives(xget)) == (0, {"shared_here_acq.zip": shared.id})


def test_a_subject_without_sessions_is_no_error(xget: Xget, dated: World) -> None:
    id = dated.projects[0].subject("waiting").id
    for subject in ("waiting", id):
        outcome = xget("-proj", "proj_3", "-subj", subject)
        assert (outcome, xget.files()) == ((0, "", ""), [])


# --- whole projects --------------------------------------------------------------------

MODALITIES = {
    "MR": "xnat:mrSessionData",
    "PET": "xnat:petSessionData",
    "CT": "xnat:ctSessionData",
    "PETMR": "xnat:petmrSessionData",
    "OT": "xnat:otherDicomSessionData",
    "US": "xnat:usSessionData",
    "EEG": "xnat:eegSessionData",
}


def test_a_whole_project_of_every_modality_and_shared_sessions(xget: Xget, many: World) -> None:
    for label, type in MODALITIES.items():
        add(many.projects[0], label, type=type)
    outcome = xget("-proj", "proj_3", *SCANS)
    assert (outcome.status, outcome.err) == (0, "")
    labels = ["sess_1", "sess_2", "twin", "shared_here", *MODALITIES]
    assert sorted(archives(xget)) == sorted(f"{label}_acq.zip" for label in labels)
    assert sorted(outcome.out.split()) == sorted(f"./{label}_acq.zip" for label in labels)


def test_an_image_session_without_scans_is_still_one(xget: Xget, world: World) -> None:
    session = world.projects[0].session("bare", type="xnat:otherDicomSessionData")
    session.assessor("bare_QC").resource("DATA", {"x": b"x"})
    outcome = xget("-s", "bare")
    assert (outcome.status, xget.files(), outcome.err) == (0, ["bare_ass.zip"], "")


def test_an_empty_project_is_no_error(xget: Xget, world: World) -> None:
    world.project("empty")
    outcome = xget("-proj", "empty")
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")


def test_a_project_that_may_be_seen_but_not_read(xget: Xget, world: World) -> None:
    add(world.project("seen", unreadable=("admin",)), "s")
    outcome = xget("-proj", "seen")
    assert outcome.status == 1 and "Unable to read experiments for Project: seen" in outcome.err


def test_ten_thousand_sessions_cost_no_request_for_those_that_the_dates_rule_out(
    xget: Xget, world: World, server: XnatServer
) -> None:
    for number in range(10_000):
        add(world.projects[0], f"s{number}", date="2001-01-01")
    outcome = xget("-proj", "proj_3", "-start", "2011-01-01", *SCANS)
    assert (outcome.status, outcome.out) == (0, "./sess_1_acq.zip\n")
    assert len(server.requests) <= 8


# --- what it costs ---------------------------------------------------------------------


def overhead(server: XnatServer) -> list[str]:
    """Every request but those for listings and archives."""
    return [kind for kind in kinds_of_requests(server) if kind not in ("listing", "zip")]


@pytest.mark.parametrize(
    ("flags", "lookups"),
    [
        (("-s", "XNAT_E00001"), 1),
        (("-s", "sess_1"), 3),
        (("-s", "sess_1", "-proj", "proj_3"), 2),
        (("-s", "XNAT_E00001", "-proj", "proj_3"), 2),
        (("-s", "sess 2", "-proj", "proj_3"), 3),
        (("-s", "sess 2"), 3),
    ],
    ids=["an ID", "a label", "a label, -proj", "an ID, -proj", "a label with a blank, -proj", "with a blank"],
)
def test_requests_for_one_session_named_by(
    xget: Xget, world: World, server: XnatServer, flags: tuple[str, ...], lookups: int
) -> None:
    """Log-in and its proof, the way to the document, a listing and a ZIP per kind, log-out."""
    session = world.sessions()[0]
    if flags[1] == "sess 2":
        session.label = "sess 2"
    assert xget(*flags)[0] == 0
    kinds = kinds_of_requests(server)
    assert kinds.count("listing") == kinds.count("zip") == 3
    rest = overhead(server)
    assert rest[-1] == "DELETE /data/JSESSION"
    proof = [each for each in rest if each in ("GET /data/auth", "GET /data/JSESSION")]
    assert len(proof) <= 2 and rest.count("DELETE /data/JSESSION") == 1
    assert len(rest) - len(proof) - 1 <= lookups
    assert server.sessions_opened == 1


def test_resource_ids_cost_one_request_more_where_the_document_lacks_them(
    xget: Xget, world: World, server: XnatServer
) -> None:
    world.hidden_fields = False
    assert xget("-s", "XNAT_E00001")[0] == 0
    asked = [request.path for request in server.requests if "/resources?" in request.path]
    assert len(asked) == 1 and "all=true" in asked[0]
    assert len(server.requests) <= 1 + 1 + 1 + 1 + 6 + 1


def test_requests_for_thirty_sessions(xget: Xget, world: World, server: XnatServer) -> None:
    """Log-in, proof, project and log-out once; then a document, a listing and a ZIP each."""
    labels = [f"s{number}" for number in range(30)]
    for label in labels:
        add(world.projects[0], label)
    assert xget("-s", ",".join(labels), "-proj", "proj_3")[0] == 0
    kinds = kinds_of_requests(server)
    assert kinds.count("document") == kinds.count("listing") == kinds.count("zip") == 30
    assert kinds.count("project") == 1 and len(kinds) <= 90 + 4
    assert server.sessions_opened == 1 and server.most_transfers <= 2


def test_requests_for_a_project(xget: Xget, world: World, server: XnatServer) -> None:
    """One listing serves dates, subjects and labels; what is there already costs no request of its own."""
    for number in range(9):
        add(world.projects[0], f"s {number}", subject=f"of_{number}", date="2012-01-01")
    flags = ("-proj", "proj_3", "-subj", ",".join(f"of_{n}" for n in range(9)), "-start", "01012012", *SCANS)
    assert xget(*flags)[0] == 0
    kinds = kinds_of_requests(server)
    assert kinds.count("document") == kinds.count("listing") == kinds.count("zip") == 9
    assert kinds.count("GET /data/projects/proj_3/experiments") == 1 and len(kinds) <= 27 + 5
    server.clear()
    outcome = xget(*flags)
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")
    assert documents(server) == [] and len(server.requests) <= 5


def test_nothing_is_sent_when_all_archives_are_there(xget: Xget, server: XnatServer) -> None:
    assert xget("-s", "sess_1")[0] == 0
    server.clear()
    server.stop()
    outcome = xget("-s", "sess_1", "-acq", "2", "-q", "nonsense", "-start", "01012030")
    assert outcome == (0, "", "") and server.requests == []


def test_a_kind_without_an_archive_is_looked_up_unless_it_is_not_wanted(
    xget: Xget, world: World, server: XnatServer
) -> None:
    add(world.projects[0], "s")
    assert xget("-s", "s")[0] == 0
    server.clear()
    assert xget("-s", "s")[:2] == (0, "")
    assert kinds_of_requests(server).count("listing") == 0 and len(server.requests) > 0
    server.clear()
    assert xget("-s", "s", *SCANS)[:2] == (0, "") and server.requests == []


def test_one_archive_is_there_and_the_others_come(xget: Xget, server: XnatServer) -> None:
    assert xget("-s", "sess_1", *SCANS)[0] == 0
    server.clear()
    outcome = xget("-s", "sess_1")
    assert sorted(outcome.out.split()) == ["./sess_1_ass.zip", "./sess_1_recon.zip"]
    assert not any("/scans/" in request.path for request in server.requests)
