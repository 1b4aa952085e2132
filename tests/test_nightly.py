"""Whole projects, night after night: the list, JSON, only what is new, and a log that a person can read."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import XGET, Xget
from xnat_server import World, XnatServer

HEAD = ["session", "kind", "ID", "type", "description", "quality", "resource", "files", "bytes"]
KNOWN = ["id", "project", "subject", "date"]  # what -json tells beside


@pytest.fixture
def project(world: World) -> Any:
    """Five sessions: the manual's, one shared, a PET one, one with odd resources, one with nothing."""
    project, other = world.projects[0], world.project("other")
    shared = other.session("at_home", subject="o", date="2020-01-01")
    shared.share(project, "shared here")
    shared.scan("1", type="T1").resource("DICOM", {"1.dcm": b"shared"}, format="DICOM")
    pet = project.session("pet", type="xnat:petSessionData", date="2020-01-02")
    pet.scan("4-PT", type="PIB 336mtx").resource("DICOM", {"a/1.dcm": b"1", "2.dcm": b"22"}, format="DICOM")
    odd = project.session("odd", date="2020-01-03")
    odd.scan("a b", type="x/y").resource("", {"1.dcm": b"1"}, format="DICOM")
    odd.scan("2", type="\tT1\n").resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    odd.scan("3").resource("DICOM", {"1.dcm": b"1"}, format="DICOM", file_count="", file_size="")
    odd.assessor("odd_FS", type="fs:fsData").resource("DATA", {"fs": b"fs"}, format="MGZ")
    odd.resource("NOTES", {"n": b"n"})
    project.session("empty", date="2020-01-04")
    return project


def rows(text: str) -> list[dict[str, str]]:
    """Read a tab-separated list."""
    return [dict(zip(HEAD, line.split("\t"))) for line in text.splitlines()]


def objects(text: str) -> list[dict[str, Any]]:
    """Read JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


def paths_of(result: dict[str, Any]) -> list[str]:
    """Name the paths of a result: with -z a list, else one or none."""
    path = result["path"]
    return path if isinstance(path, list) else [path] * bool(path)


def resources_in(archive: Path) -> set[tuple[str, str]]:
    """Name the (folder of an element, resource) pairs of an archive."""
    with zipfile.ZipFile(archive) as zip:
        places = [re.fullmatch(r"(.+?)/resources/([^/]+)/files/.+", name) for name in zip.namelist()]
    return {(place[1], place[2]) for place in places if place}


def folder_of(row: dict[str, Any], labels: dict[str, str]) -> str:
    """Name the folder in an archive of what a row of the list shows."""
    top = labels.get(row["session"], row["session"])
    type = re.sub(r"[^A-Za-z0-9_]", "_", row["type"])
    if row["kind"] == "acq":
        return f"{top}/scans/{row['ID']}" + (f"-{type}" if type else "")
    if row["kind"] == "recon":
        return f"{top}/reconstructions/{row['ID']}-{type}/out"
    return top if row["kind"] == "res" else f"{row['ID']}/out"


# --- the list --------------------------------------------------------------------------


def test_the_list_and_the_download_agree_on_every_resource(
    xget: Xget, project: Any, server: XnatServer
) -> None:
    """As JSON (where names come unescaped), and line for line on a pipe; listing downloads nothing."""
    flags = ("-proj", "proj_3", "-res", "ALL")
    plain, with_json = xget(*flags, "-list"), xget(*flags, "-list", "-json")
    assert (plain.status, plain.err, with_json.status, with_json.err) == (0, "", 0, "")
    assert xget.files() == []
    assert not any(request.transfer or "/files" in request.path for request in server.requests)
    listed = objects(with_json.out)
    assert [list(each) for each in listed] == [[*HEAD, *KNOWN]] * len(listed)
    assert len(rows(plain.out)) == len(listed) == 12
    assert all(line.count("\t") == 8 for line in plain.out.splitlines())
    assert xget(*flags)[0] == 0
    got: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for path in xget.folder.glob("*.zip"):
        session, _, kind = path.stem.rpartition("_")
        got[session, kind] = resources_in(path)
    expected: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for row in listed:
        place = folder_of(row, {"shared here": "at_home"})
        expected.setdefault((row["session"], row["kind"]), set()).add((place, row["resource"]))
    assert expected == got


def test_the_list_on_a_pipe_is_tab_separated(xget: Xget, world: World) -> None:
    outcome = xget("-s", "sess_1", "-list")
    assert outcome.out.splitlines()[:2] == [
        "sess_1\tacq\t1\tTSE\tt2_tse, sag\tusable\tDICOM\t4\t4000",
        "sess_1\tacq\t2\tPIB 336mtx\tPIB 336mtx\tquestionable\tDICOM\t3\t6000",
    ]


def test_the_list_is_blank_where_the_document_does_not_say(xget: Xget, project: Any) -> None:
    [row] = [row for row in rows(xget("-s", "odd", "-list").out) if row["ID"] == "3"]
    assert [row[key] for key in ("type", "description", "files", "bytes")] == ["", "", "", ""]


def test_the_list_includes_what_is_there_already(xget: Xget) -> None:
    assert xget("-s", "sess_1")[0] == 0
    assert len(xget("-s", "sess_1", "-list").out.splitlines()) == 4


def on_terminal(xget: Xget, *args: str, columns: int = 80) -> tuple[int, str]:
    """Run xget with a terminal of this width as standard output and error."""
    import fcntl
    import pty
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    process = xget.start(*args, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    said = b""
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:
            break
        if not data:
            break
        said += data
    os.close(master)
    return process.wait(60), said.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="no pty there")
def test_the_list_on_a_terminal_is_an_aligned_table_with_totals(xget: Xget, project: Any) -> None:
    """It shows the same resources as on a pipe."""
    status, said = on_terminal(xget, "-s", "sess_1,pet,odd", "-list", columns=120)
    lines = [
        re.sub(r"\x1b\[[0-9;]*[A-Za-z]|^.*\r", "", line) for line in said.replace("\r\n", "\n").split("\n")
    ]
    start = next(i for i, line in enumerate(lines) if line.split() == HEAD)
    table = lines[start : start + 10]
    plain = rows(xget("-s", "sess_1,pet,odd", "-list").out)
    assert status == 0 and len(plain) == 9
    for column in ("kind", "resource"):
        place = table[0].index(column)
        cells = [re.match(r"\S*", line[place:])[0] for line in table[1:]]  # type: ignore[index]
        assert cells == [row[column] for row in plain]
    ends = {re.search(r"\d*$", line.rstrip())[0] for line in table[1:4]}  # type: ignore[index]
    assert ends == {"4000", "6000", "4"} and len({len(line) for line in table[1:6]}) == 1
    totals = "\n".join(lines[start + 10 :])
    assert re.search(r"\b9 resources\b", totals) and re.search(r"\b14 files\b", totals), totals


# --- JSON ------------------------------------------------------------------------------


def test_json_is_one_object_per_archive_asked_for(xget: Xget, project: Any, server: XnatServer) -> None:
    (xget.folder / "pet_acq.zip").write_bytes(b"no zip")
    assert xget("-s", "sess_1", "-ass", "NONE", "-recon", "NONE")[0] == 0
    outcome = xget("-s", "sess_1,pet,nowhere", "-proj", "proj_3", "-json")
    found = {(each["session"], each["kind"]): each for each in objects(outcome.out)}
    keys = ["session", "id", "project", "kind", "status", "path", "files", "bytes", "error", "note"]
    assert outcome.status == 1 and all(sorted(each) == sorted(keys) for each in found.values())
    assert {key: each["status"] for key, each in found.items() if key[0] != "nowhere"} == {
        ("sess_1", "acq"): "present",
        ("sess_1", "ass"): "downloaded",
        ("sess_1", "recon"): "downloaded",
        ("pet", "acq"): "failed",
        ("pet", "ass"): "nothing",
        ("pet", "recon"): "nothing",
    }
    lost = [each for key, each in found.items() if key[0] == "nowhere"]
    assert lost and all(each["status"] == "failed" and "not found" in each["error"] for each in lost)
    ass = found["sess_1", "ass"]
    path = xget.folder / ass["path"]
    assert (ass["id"], ass["project"], ass["files"], ass["error"]) == ("XNAT_E00001", "proj_3", 1, "")
    assert path.name == "sess_1_ass.zip" and ass["bytes"] in (path.stat().st_size, 4)
    assert found["pet", "acq"]["error"] and found["pet", "ass"]["path"] == ""
    assert server.requests


def test_json_alone_is_on_standard_output(xget: Xget, project: Any) -> None:
    """Also with -z, and when everything is there already."""
    for flags in (("-z",), ("-z",), (), ()):
        outcome = xget("-proj", "proj_3", "-json", *flags)
        found = objects(outcome.out)
        assert (outcome.status, outcome.err) == (0, "")
        assert sorted((each["session"], each["kind"]) for each in found) == sorted(
            (label, kind)
            for label in ("sess_1", "shared here", "pet", "odd", "empty")
            for kind in ("acq", "ass", "recon")
        )
        for each in found:
            assert bool(paths_of(each)) == (each["status"] in ("downloaded", "present"))
            assert all(path and (xget.folder / path).exists() for path in paths_of(each))


def test_json_with_several_top_folders_names_paths_that_are_there(xget: Xget, world: World) -> None:
    """Two assessors have two folders."""
    world.sessions()[0].assessor("sess_1_FS").resource("DATA", {"fs": b"fs"})
    found = objects(xget("-s", "sess_1", "-z", "-json").out)
    assert sorted(path for each in found if each["kind"] == "ass" for path in paths_of(each)) == [
        "./sess_1_FS",
        "./sess_1_QC",
    ]
    assert all((xget.folder / path).exists() for each in found for path in paths_of(each))


@pytest.mark.skipif(not shutil.which("jq"), reason="needs jq")
def test_failed_items_go_back_in_by_way_of_jq(xget: Xget, world: World, server: XnatServer) -> None:
    """Whatever their labels: with blanks, commas, quotes."""
    labels = ["a b", "a,b", 'a"b', "#c", "ü"]
    for label in labels:
        scan = world.projects[0].session(label, date="2020-01-01").scan("1")
        scan.resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    server.fault("status", match="format=xml", status=403, skip=2, times=None)
    first = xget("-proj", "proj_3", "-json", "-retry", "NONE")
    assert first.status == 1
    program = 'select(.status | IN("failed", "incomplete", "busy")) | [.session] | @csv'
    jq = subprocess.run(["jq", "-r", program], input=first.out, capture_output=True, text=True, check=True)
    assert len(set(jq.stdout.split("\n"))) == 6
    server.clear()
    second = xget("-proj", "proj_3", "-f", "-", given=jq.stdout)
    assert (second.status, second.err) == (0, "")
    assert len(list(xget.folder.glob("*_acq.zip"))) == 6


# --- night after night -----------------------------------------------------------------


@pytest.mark.parametrize("flags", [("-z",), ()], ids=["extracted", "archives"])
def test_a_run_with_nothing_new_transfers_no_image(
    xget: Xget, project: Any, server: XnatServer, flags: tuple[str, ...]
) -> None:
    assert xget("-proj", "proj_3", *flags)[0] == 0
    before = xget.files()
    server.clear()
    assert xget("-proj", "proj_3", *flags) == (0, "", "")
    assert not any(request.transfer for request in server.requests) and xget.files() == before


def test_a_new_session_and_a_late_scan_come_with_the_next_run(
    xget: Xget, project: Any, server: XnatServer
) -> None:
    assert xget("-proj", "proj_3", "-z")[0] == 0
    scan = project.session("new", date="2020-02-02").scan("1")
    scan.resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    late = project.world.sessions()[0].scan("77")
    late.resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    server.clear()
    assert sorted(xget("-proj", "proj_3", "-z").out.splitlines()) == ["./new", "./sess_1"]
    assert sum(request.transfer for request in server.requests) == 2


def test_standard_output_is_what_this_run_brought(xget: Xget, project: Any) -> None:
    """A path a line, each a file that is there."""
    lines = xget("-proj", "proj_3").out.splitlines()
    assert sorted(lines) == sorted(f"./{path.name}" for path in xget.folder.glob("*.zip"))
    assert xget("-proj", "proj_3") == (0, "", "")


def test_cron_is_told_nothing_on_success(xget: Xget, project: Any, server: XnatServer) -> None:
    """With HOME and PATH alone, a pass file, and names beyond ASCII."""
    scan = project.session("Müller", date="2020-01-05").scan("1", description="Schädel")
    scan.resource("DICOM", {"ü.dcm": b"1"}, format="DICOM")
    pass_file = xget.home / ".xnatPass"
    pass_file.write_text(f"+admin@{server.url}=admin\n")
    pass_file.chmod(0o600)
    command = [sys.executable, str(XGET), "-proj", "proj_3", "-z", "-o", str(xget.folder)]
    for paths in (7, 0):
        run = subprocess.run(
            command,
            env={"HOME": str(xget.home), "PATH": "/usr/bin:/bin"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert (run.returncode, run.stderr) == (0, b"")
        lines = [os.fsdecode(line) for line in run.stdout.splitlines()]
        assert len(lines) == paths and all(os.path.isdir(line) for line in lines)


def test_a_line_per_failure_and_one_to_sum_up(xget: Xget, project: Any, server: XnatServer) -> None:
    (xget.folder / "pet_acq.zip").write_bytes(b"no zip")
    outcome = xget("-s", "sess_1,pet,nowhere,odd", "-proj", "proj_3", "-ass", "NONE", "-recon", "NONE")
    *failures, summary = outcome.err.splitlines()
    assert outcome.status == 1
    assert sorted(line.split(":")[1].strip() for line in failures) == ["nowhere", "pet acq"]
    assert summary.startswith("xget: ") and "2 failed" in summary and "2 downloaded" in summary
    assert "4 sessions" in summary


def test_quiet_says_errors_only(xget: Xget, project: Any) -> None:
    outcome = xget("-s", "sess_1,nowhere", "-acq", "1,nope", "-quiet")
    assert outcome.status == 1
    assert [line.split(":")[1].strip() for line in outcome.err.splitlines()] == ["nowhere"]


@pytest.mark.skipif(sys.platform == "win32", reason="no pty there")
@pytest.mark.parametrize("columns", [80, 40])
def test_a_person_sees_what_was_skipped_and_a_closing_line(xget: Xget, project: Any, columns: int) -> None:
    assert xget("-s", "pet", "-ass", "NONE", "-recon", "NONE")[0] == 0
    status, said = on_terminal(xget, "-proj", "proj_3", "-acq", "1,4-PT,nope", columns=columns)
    assert status == 0
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", said).replace("\r", "\n")
    lines = [line.strip() for line in plain.split("\n") if line.strip()]
    assert any(line.startswith("xget: pet acq: ") for line in lines), "skipped"
    assert any("nope" in line and "TSE" in line for line in lines), "matched nothing; what there is"
    closing = lines[-1]
    for part in (r"5 sessions", r"\d+ downloaded", r"\d+ files", r"\d+ (k?B)\b", r"[\d.]+ s\b"):
        assert re.search(part, closing), closing


def test_one_log_in_and_one_log_out_for_a_whole_project(xget: Xget, project: Any, server: XnatServer) -> None:
    assert xget("-proj", "proj_3", "-j", "3")[0] == 0
    assert server.sessions_opened == 1 and server.most_transfers <= 3
    assert [request.method for request in server.requests].count("DELETE") == 1
    assert server.requests[-1].method == "DELETE"


def test_the_call_known_from_the_field(xget: Xget, world: World, server: XnatServer) -> None:
    """xget -passfile FILE -s XNAT_E00001 -o DIR -proj P, then unzip DIR/XNAT_E00001_acq.zip."""
    (xget.home / "pass").write_text(f"+admin@{server.url}=admin\n")
    (xget.home / "pass").chmod(0o600)
    (xget.folder / "DIR").mkdir()
    passfile = ("-passfile", str(xget.home / "pass"))
    outcome = xget(*passfile, "-s", "XNAT_E00001", "-o", "DIR", "-proj", "proj_3", login=False)
    assert (outcome.status, outcome.err) == (0, "")
    with zipfile.ZipFile(xget.folder / "DIR/XNAT_E00001_acq.zip") as zip:
        zip.extractall(xget.folder)
    assert len(list(xget.folder.rglob("*.dcm"))) == 7
