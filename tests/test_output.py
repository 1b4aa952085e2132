"""What xget says and where, how it ends, and that nothing ends in a traceback."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import XGET, Xget
from launch import Terminal, launch
from network import basic
from truth import assert_earned, read_zip, truth
from xnat_server import Synthetic, World, XnatServer

ALL_THREE = ["sess_1_acq.zip", "sess_1_ass.zip", "sess_1_recon.zip"]
ONE = ("-s", "sess_1", "-acq", "1", "-ass", "NONE", "-recon", "NONE")
posix = pytest.mark.skipif(os.name != "posix", reason="needs a pty, or limits, of POSIX")


def paths(out: str) -> list[str]:
    """Name the paths of standard output, which must be whole lines."""
    assert out == "" or out.endswith("\n")
    return sorted(os.path.normpath(line) for line in out.splitlines())


def lines(text: str) -> list[str]:
    """Split standard error into lines, each one of xget's."""
    found = text.splitlines()
    assert all(re.fullmatch(r"xget: [^\r\x1b]+", line) for line in found), text
    return found


# --- the two streams --------------------------------------------------------------------


def test_success_without_a_terminal_is_paths_and_silence(xget: Xget) -> None:
    status, out, err = xget("-s", "sess_1")
    assert (status, paths(out), err) == (0, ALL_THREE, "")
    assert xget("-s", "sess_1") == (0, "", "")


def test_with_z_standard_output_names_each_top_folder(xget: Xget) -> None:
    status, out, err = xget("-s", "sess_1", "-z")
    assert (status, err) == (0, "")
    tops = sorted(name.rstrip("/") for name in xget.files() if name.count("/") == 1 and name.endswith("/"))
    assert paths(out) == tops
    assert len(tops) > 1


def test_paths_are_absolute_where_o_is(xget: Xget) -> None:
    assert paths(xget(*ONE, "-o", str(xget.folder)).out) == [str(xget.folder / "sess_1_acq.zip")]


def test_errors_without_a_terminal_are_a_line_each_and_a_summary(xget: Xget) -> None:
    status, out, err = xget("-s", "nobody,sess_1,nothing")
    assert (status, paths(out)) == (1, ALL_THREE)
    found = lines(err)
    assert len(found) == 3, err
    assert [line.split(":")[1].strip() for line in found] == ["nobody", "nothing", "3 sessions"]


def test_quiet_drops_warnings_and_keeps_errors(xget: Xget) -> None:
    loud = xget("-s", "sess_1,nobody", "-acq", "1,9", "-list")
    quiet = xget("-s", "sess_1,nobody", "-acq", "1,9", "-list", "-quiet")
    assert "warning" in loud.err
    assert len(lines(quiet.err)) == 1
    assert re.match("xget: nobody", quiet.err)
    assert quiet.out == loud.out


def test_a_warning_is_said_once_per_cause_and_run(world: World, xget: Xget) -> None:
    for number in (2, 3):
        scan = world.projects[0].session(f"sess_{number}").scan("1")
        scan.resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    for session in world.sessions():
        session.scan("99", type="LOST").resource("RAW", {"1": b"1"}, format="RAW")
    _, _, err = xget("-proj", "proj_3", "-list", "-acq", "1,99,NOWHERE")
    warnings = lines(err)
    assert len(warnings) == len(set(warnings))
    assert all(line.startswith("xget: warning: ") for line in warnings)


def test_v_says_each_request_and_no_password(xget: Xget, server: XnatServer) -> None:
    status, out, err = xget("-s", "sess_1", "-v")
    assert (status, paths(out)) == (0, ALL_THREE)
    for request in server.requests:
        if "format=xml" in request.path:
            assert request.path in err
    assert lines(err)
    for secret in ("admin:admin", basic_of("admin:admin"), "Basic"):
        assert secret not in err


def basic_of(account: str) -> str:
    from base64 import b64encode

    token = b64encode(account.encode()).decode()
    assert basic(f"Basic {token}") == account
    return token


def test_an_error_quotes_the_servers_message_not_its_html(xget: Xget, server: XnatServer) -> None:
    for page in ("restlet", "tomcat", "nginx"):
        server.clear()
        server.fault(
            "status", match="XNAT_E00001.format=xml", times=None, status=500, message="A < B", page=page
        )
        status, out, err = xget(*ONE, "-retry", "NONE")
        assert (status, out) == (1, "")
        assert ("A < B" in err) == (page != "nginx"), err
        assert "500" in err
        assert not re.search(r"</?(h\d|html|title|p|b)\b", err)


@pytest.mark.parametrize("match", ["format=xml", "/files.*format=json", "format=zip|dcm"])
def test_html_with_status_200_is_named_for_what_it_is(match: str, xget: Xget, server: XnatServer) -> None:
    page = b"<html><title>Down for &lt;maintenance&gt;</title><body>...</body></html>"
    server.fault("answer", match=match, times=None, body=page, headers={"Content-Type": "text/html"})
    status, out, err = xget(*ONE, "-retry", "NONE")
    assert (status, out) == (1, "")
    assert "Down for <maintenance>" in err or match.startswith("format=zip")
    assert "<html" not in err
    lines(err)
    assert xget.files() == []


# --- lists --------------------------------------------------------------------------------

HEAD = ["session", "kind", "ID", "type", "description", "quality", "resource", "files", "bytes"]


def test_a_list_is_tab_separated_without_a_terminal(xget: Xget) -> None:
    status, out, err = xget("-s", "sess_1", "-list")
    assert (status, err) == (0, "")
    assert [line.split("\t") for line in out.splitlines()][:2] == [
        ["sess_1", "acq", "1", "TSE", "t2_tse, sag", "usable", "DICOM", "4", "4000"],
        ["sess_1", "acq", "2", "PIB 336mtx", "PIB 336mtx", "questionable", "DICOM", "3", "6000"],
    ]
    assert all(line.count("\t") == 8 for line in out.splitlines())


def test_a_list_leaves_blank_what_the_document_does_not_say(world: World, xget: Xget) -> None:
    scan = world.projects[0].session("bare").scan("1", quality="")
    scan.resource("DICOM", {"1.dcm": b"1"}, format="DICOM", file_count="", file_size="")
    assert xget("-s", "bare", "-list").out == "bare\tacq\t1\t\t\t\tDICOM\t\t\n"


@posix
def test_a_list_is_aligned_on_a_terminal(xget: Xget) -> None:
    status, _, shown = Terminal(xget, "-s", "sess_1", "-list", columns=200).finish()
    assert status == 0
    rows = [line for line in shown.splitlines() if re.search(r"\b(acq|ass|recon)\b", line)]
    assert len(rows) == 4
    assert "\t" not in shown
    assert len({row.index(word) for row in rows for word in ("DICOM", "DATA", "NIFTI") if word in row}) == 1


def test_json_is_one_object_per_archive(world: World, xget: Xget) -> None:
    world.projects[0].session("bare", subject="subj_1")
    assert xget("-s", "sess_1", "-ass", "NONE", "-recon", "NONE").status == 0
    status, out, err = xget("-s", "sess_1,bare,nobody", "-json")
    assert status == 1
    found = [json.loads(line) for line in out.splitlines()]
    names = ["session", "id", "project", "kind", "status", "path", "files", "bytes", "error", "note"]
    assert all(list(each) == names for each in found)
    fates = {(each["session"], each["kind"]): each["status"] for each in found if each["kind"]}
    assert fates == {
        ("sess_1", "acq"): "present",
        ("sess_1", "ass"): "downloaded",
        ("sess_1", "recon"): "downloaded",
        ("bare", "acq"): "nothing",
        ("bare", "ass"): "nothing",
        ("bare", "recon"): "nothing",
    }
    quality = next(each for each in found if (each["session"], each["kind"]) == ("sess_1", "ass"))
    assert quality["id"] == "XNAT_E00001"
    assert quality["project"] == "proj_3"
    assert (quality["files"], quality["error"]) == (1, "")
    assert quality["bytes"] > 0
    assert [each["status"] for each in found if each["session"] == "nobody"] in ([], ["failed"] * 1)
    assert "nobody" in err


def test_json_says_what_failed_and_what_stayed_incomplete(xget: Xget, server: XnatServer) -> None:
    server.fault("status", match=r"scans.*(format=zip|1\.dcm)", times=None, status=404)
    server.fault("status", match="assessors.*/files", times=None, status=403, message="Not yours")
    status, out, _ = xget("-s", "sess_1", "-json", "-retry", "NONE")
    assert status == 1
    found = {each["kind"]: each for each in map(json.loads, out.splitlines())}
    assert {kind: each["status"] for kind, each in found.items()} == {
        "acq": "incomplete",
        "ass": "failed",
        "recon": "downloaded",
    }
    assert found["acq"]["path"].endswith("sess_1_acq.incomplete.zip")
    assert "Not yours" in found["ass"]["error"]


def test_json_with_list_is_one_object_per_resource(world: World, xget: Xget) -> None:
    status, out, _ = xget("-s", "sess_1", "-list", "-json")
    found = [json.loads(line) for line in out.splitlines()]
    assert (status, len(found)) == (0, 4)
    assert all(list(each) == [*HEAD, "id", "project", "subject", "date"] for each in found)
    assert (found[0]["files"], found[0]["bytes"]) == (4, 4000)
    subject = world.projects[0].subjects[0].id
    known = [each[name] for each in found for name in ("id", "project", "subject", "date")]
    assert known == ["XNAT_E00001", "proj_3", subject, "2011-11-17"] * 4


# --- on a terminal -------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("columns", [80, 40])
def test_a_terminal_shows_a_bar_that_fits_and_a_closing_line(columns: int, world: World, xget: Xget) -> None:
    session = world.projects[0].session("a_session_with_a_rather_long_label", subject="subj_1")
    session.scan("1").resource("DICOM", {"1.dcm": Synthetic(3_000_000)}, format="DICOM")
    with XnatServer(world, rate=2_000_000) as slow:
        xget.url = slow.url
        terminal = Terminal(
            xget, "-s", "sess_1,a_session_with_a_rather_long_label", on="err", columns=columns
        )
        status, out, shown = terminal.finish()
    assert (status, len(paths(out))) == (0, 4)
    bars = [part for part in re.split(r"[\r\n]", shown) if "B/s" in part]
    assert bars, shown
    plain = [re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", bar) for bar in bars]
    assert max(map(len, plain)) <= columns
    last = shown.rstrip("\n").splitlines()[-1].rpartition("\r")[2]
    for word in ("2 session", r"4\b", "file", "MB", r" s\b"):
        assert re.search(word, last), last


@posix
def test_a_terminal_is_told_what_was_skipped(xget: Xget) -> None:
    assert xget("-s", "sess_1", "-ass", "NONE", "-recon", "NONE").status == 0
    status, out, shown = Terminal(xget, "-s", "sess_1", on="err").finish()
    assert (status, paths(out)) == (0, ALL_THREE[1:])
    assert re.search(r"xget: sess_1 acq: .*(there|present)", shown)


@posix
@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("http://no-such-host.invalid", "no connection: [^\n]*(known|resol|getaddrinfo)"),
        ("http://127.0.0.1:{port}", "no connection: Connection refused"),
    ],
    ids=["a misspelt host", "a server that is down"],
)
def test_each_wait_is_said_on_a_terminal(host: str, says: str, xget: Xget) -> None:
    with socket.socket() as taken:  # bound, not listening
        taken.bind(("127.0.0.1", 0))
        url = host.format(port=taken.getsockname()[1])
        words = ("-host", url, "-u", "admin", "-p", "admin", *ONE, "-retry", "0.1,0.2")
        status, _, shown = Terminal(xget, *words, columns=160, login=False).finish()
        waits = [line for line in shown.splitlines() if "; again in " in line]
        assert status == 3
        assert [line.rpartition(" again in ")[2] for line in waits] == ["0.1 s", "0.2 s"]
        for line in [*waits, *(line for line in lines(shown) if line not in waits)][:3]:
            assert re.search(rf"^xget: {re.escape(url)}: {says}", line), shown
            assert line.count("(") == line.count(")")
        quiet = xget(*words, login=False).err  # no terminal: one line, at the end
        assert len(lines(quiet)) == 1


@posix
def test_a_wait_for_a_transfer_is_said_on_a_terminal(xget: Xget, server: XnatServer) -> None:
    server.fault("status", match="format=zip", status=503, retry_after=1)
    status, _, shown = Terminal(xget, *ONE, "-retry", "0").finish()
    assert status == 0
    assert re.search(r"503[^\n]*; again in 1 s", shown)


@posix
def test_a_terminal_is_told_that_nothing_was_found(world: World, xget: Xget) -> None:
    world.project("empty")
    status, out, shown = Terminal(xget, "-proj", "empty", on="err").finish()
    assert (status, out) == (0, "")
    assert re.fullmatch(r"xget: 0 sessions: nothing found; [^\n]*\n", shown)


@posix
def test_quiet_on_a_terminal_is_silent(xget: Xget) -> None:
    status, out, shown = Terminal(xget, "-s", "sess_1", "-quiet", on="err").finish()
    assert (status, paths(out), shown) == (0, ALL_THREE, "")


@posix
def test_no_bar_where_only_standard_output_is_a_terminal(xget: Xget) -> None:
    process = Terminal(xget, "-s", "sess_1", on="out")
    assert process.finish()[0] == 0
    assert sorted(os.path.normpath(line) for line in process.shown.splitlines()) == ALL_THREE


@posix
def test_ctrl_c_is_answered_and_the_terminal_left_clean(world: World, xget: Xget, server: XnatServer) -> None:
    world.sessions()[0].scans[0].resources[0].add("big.dcm", Synthetic(4_000_000))
    server.fault("slow", match="format=zip", rate=500_000)
    terminal = Terminal(xget, *ONE)
    terminal.wait_for("B/s")
    terminal.type("\x03")
    status, _, shown = terminal.finish()
    assert status == 130
    assert "interrupted" in shown
    assert "Traceback" not in shown
    assert shown.endswith("\n")
    assert xget.files() in ([], ["sess_1_acq.incomplete.zip"])


# --- what a server sends ------------------------------------------------------------------------

UGLY = "a\x1b[2Jb\x07\x9bc\u202ed"


def test_control_characters_of_a_server_are_escaped(world: World, xget: Xget, server: XnatServer) -> None:
    world.users["admin"] = "other"
    world.login_failure = UGLY
    _, _, err = xget(*ONE)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", err)
    assert "\\x1b[2J" in err


def test_control_characters_in_lists_and_warnings_are_escaped(xget: Xget, server: XnatServer) -> None:
    document = server.site.world.sessions()[0]
    document.scan("7", type="tab\tnew\nline\x85\u202e").resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    status, out, err = xget("-s", "sess_1", "-list", "-acq", "7,nowhere")
    assert status == 0
    assert "nowhere" in err
    for text in (out.replace("\t", "").replace("\n", ""), err.replace("\n", "")):
        assert not re.search("[\x00-\x1f\x7f-\x9f\u202e]", text)
    assert all(line.count("\t") == 8 for line in out.splitlines())


UGLY_NAMES = {"a\x9bb": "a_b", "c\u202ed": "c_d", "e\x85f\u2028g": "e_f_g"}


@pytest.mark.parametrize(("label", "name"), UGLY_NAMES.items(), ids=UGLY_NAMES.values())
def test_control_and_separator_characters_in_names_become_underscores(
    label: str, name: str, world: World, xget: Xget
) -> None:
    session = world.project("ugly").session(label)
    session.scan("1", type="T1").resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    assert xget("-proj", "ugly") == (0, f"./{name}_acq.zip\n", "")
    assert xget.files() == [f"{name}_acq.zip"]
    assert read_zip(xget.folder / f"{name}_acq.zip") == truth(session, "acq")
    assert xget("-proj", "ugly", "-list").out.startswith(f"{name}\tacq\t1\t")


def test_control_characters_in_the_names_of_extracted_files_are_refused(world: World, xget: Xget) -> None:
    resource = world.sessions()[0].scans[0].resources[0]
    resource.add("odd\x9b.dcm", b"1").add("odd\x07.dcm", b"2")
    status, out, err = xget(*ONE, "-z", "-retry", "NONE")
    assert (status, paths(out)) == (1, ["sess_1"])
    for name in ("odd\\x9b.dcm", "odd\\x07.dcm"):
        assert re.search(rf"xget: sess_1 acq: 1 DICOM {re.escape(name)}: ", err), err
    lines(err)
    kept = sorted(path.name for path in xget.folder.rglob("*.dcm"))
    assert kept == ["1.dcm", "2.dcm", "3.dcm", "4.dcm"]


def test_a_redirects_target_is_escaped(xget: Xget, server: XnatServer) -> None:
    server.fault("redirect", times=None, location="http://other.example.org/\x1b]0;title\x07")
    _, _, err = xget(*ONE)
    assert "other.example.org" in err
    assert "\x1b" not in err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_lacks_a_letter_gets_it_escaped(encoding: str, world: World, xget: Xget) -> None:
    scan = world.projects[0].session("sitzung").scan("1", type="T1 müde €")
    scan.resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    xget.env.update(PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    process: Any = xget.start("-s", "sitzung", "-list", text=False)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert b"de \\u20ac" in out


# --- never a traceback ----------------------------------------------------------------------------


def done(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in (err or "")
    assert "Exception ignored" not in (err or "")
    return process.returncode, out, err


@posix
@pytest.mark.parametrize("flags", [(), ("-z",)], ids=["ZIP", "-z"])
def test_a_write_that_fails_is_a_line_and_no_name_is_unearned(
    flags: tuple[str, ...], world: World, xget: Xget
) -> None:
    world.sessions()[0].scans[0].resources[0].add("big.dcm", Synthetic(2_000_000))
    status, out, err = done(launch(xget, "file-size=1000000", *ONE, *flags, "-retry", "0,0"))
    assert (status, paths(out)) == (1, ["sess_1"] if flags else [])
    assert re.search("too large", err), err
    lines(err)
    assert not [name for name in xget.files() if re.search(r"part|sess_1_acq\.zip|big\.dcm", name)]
    assert_earned(xget.folder, world)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB, where this account may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if not mount or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=False)


def test_an_archive_without_room_fails_before_its_first_byte(
    small_disk: Path, world: World, xget: Xget, server: XnatServer
) -> None:
    world.sessions()[0].scans[0].resources[0].add("big.dcm", Synthetic(3_000_000))
    status, out, err = xget("-s", "sess_1", "-acq", "1", "-o", str(small_disk))
    assert (status, paths(out)) == (1, [str(small_disk / name) for name in ALL_THREE[1:]])
    assert re.search(r"^xget: sess_1 acq: .*room", err, re.MULTILINE)
    assert not [r for r in server.requests if "scans" in r.path and "format=zip" in r.path]
    assert sorted(os.listdir(small_disk)) == ALL_THREE[1:]


def test_a_disk_that_fills_up_is_a_line_and_no_name_is_unearned(
    small_disk: Path, world: World, xget: Xget, server: XnatServer
) -> None:
    """The listing gave no sizes, so that nothing could be reckoned."""
    world.listed_sizes = False
    resource = world.sessions()[0].scans[0].resources[0]
    resource.add("big.dcm", Synthetic(3_000_000))
    status, out, err = xget(*ONE, "-o", str(small_disk), "-retry", "0,0")
    assert (status, out) == (1, "")
    assert re.search("No space left|no room", err), err  # whether xget or the system notices first
    lines(err)
    assert set(os.listdir(small_disk)) <= {"sess_1_acq.incomplete.zip"}


def test_an_output_directory_that_vanishes_is_a_line(xget: Xget, server: XnatServer) -> None:
    target = xget.folder / "gone"
    target.mkdir()
    server.fault(
        "call", match="/files.*format=json", action=lambda: shutil.rmtree(target, ignore_errors=True)
    )
    status, out, err = xget(*ONE, "-o", "gone", "-retry", "0", timeout=20)
    assert (status, out) == (1, "")
    assert "gone" in err
    lines(err)


@posix
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("argv", [("-h",), ("-version",), ONE, (*ONE, "-list"), (*ONE, "-json")])
def test_standard_output_on_a_full_disk_is_a_line(argv: tuple[str, ...], xget: Xget) -> None:
    with open("/dev/full", "w") as full:
        status, _, err = done(xget.start(*argv, stdout=full))
    assert status == 1
    assert re.search("No space left", err), err
    lines(err)


@posix
@pytest.mark.parametrize("streams", ["close=0", "close=1", "close=2", "close=0 close=1 close=2"])
def test_closed_streams_do_no_harm(streams: str, xget: Xget) -> None:
    status, _, _ = done(launch(xget, streams, *ONE))
    assert status == 0
    assert xget.files() == ["sess_1_acq.zip"]


@posix
def test_closed_streams_do_no_harm_to_a_usage_error(xget: Xget) -> None:
    for streams in ("close=1", "close=2", "close=0 close=1 close=2"):
        assert done(launch(xget, streams, "-overwite"))[0] == 2
    assert done(launch(xget, "close=0", "-s", "sess_1", "-p", "-"))[0] == 2
    assert done(launch(xget, "close=0", "-f", "-"))[0] == 2


READERS = [("-h",), ("-version",), ("-s", "sess_1"), ("-s", "sess_1", "-list"), ("-s", "sess_1", "-json")]
READERS += [("-s", "sess_1", "-z"), ("-s", "sess_1", "-list", "-json"), ("-s", "sess_1", "-v")]


@posix
@pytest.mark.parametrize("argv", READERS, ids=" ".join)
def test_a_reader_that_leaves_is_met_with_silence(
    argv: tuple[str, ...], xget: Xget, server: XnatServer
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = xget.start(*argv, stdout=writer)
    os.close(writer)
    _, _, err = done(process)
    assert process.returncode == (1 if "-s" in argv else 0)  # what was asked for did not come
    assert "ipe" not in err
    assert err == "" or "-v" in argv
    assert server.site.logins.sessions == {}
    assert not [name for name in xget.files() if ".part" in name]


@posix
def test_head_of_a_list_ends_in_silence(world: World, xget: Xget, server: XnatServer) -> None:
    for number in range(30):
        scan = world.projects[0].session(f"visit_{number:02}").scan("1")
        scan.resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    process = xget.start("-proj", "proj_3", "-list")
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline().startswith("sess_1\t")
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait(30)
    assert server.site.logins.sessions == {}


@posix
def test_a_hang_up_of_standard_error_is_no_traceback(xget: Xget) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = xget.start("-s", "nobody,sess_1", stderr=writer)
    os.close(writer)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert paths(out) in (ALL_THREE, [])


def test_a_server_that_vanishes_between_archives_is_said(xget: Xget, server: XnatServer) -> None:
    server.fault("stop", match="reconstructions.*format=zip", after=10)
    status, out, err = xget("-s", "sess_1", "-j", "1", "-retry", "0")
    assert (status, paths(out)) == (3, ALL_THREE[:2])
    assert xget.files() == ALL_THREE[:2]
    assert "no connection" in lines(err)[0]


# --- exit statuses -----------------------------------------------------------------------------------

STATUSES = {
    "everything is there": (0, ("-s", "sess_1")),
    "an empty project": (0, ("-proj", "empty")),
    "an empty date range": (0, ("-proj", "proj_3", "-end", "01012001")),
    "a subject without sessions": (0, ("-proj", "proj_3", "-subj", "subj_9")),
    "a subject without sessions, as a pattern": (0, ("-proj", "proj_3", "-subj", "*_9")),
    "a subject without sessions, and -acq": (0, ("-proj", "proj_3", "-subj", "subj_9", "-acq", "1")),
    "a subject that is misspelt": (4, ("-proj", "proj_3", "-subj", "subj_l")),
    "a session of another subject": (4, ("-s", "sess_1", "-subj", "subj_l")),
    "a session that is not found": (1, ("-s", "sess_1,nobody")),
    "a project that is not found": (1, ("-proj", "nowhere")),
    "a session that is no image session": (1, ("-s", "survey")),
    "-acq that matches nothing": (4, ("-s", "sess_1", "-acq", "99")),
    "-q that matches nothing": (4, ("-s", "sess_1", "-q", "good")),
    "-ass that matches nothing": (4, ("-s", "sess_1", "-ass", "99")),
    "-recon that matches nothing": (4, ("-s", "sess_1", "-recon", "99")),
    "-res that matches nothing": (4, ("-s", "sess_1", "-res", "99")),
    "-format that matches nothing": (4, ("-s", "sess_1", "-format", "MINC")),
    "-acq of which one item matches": (0, ("-s", "sess_1", "-acq", "1,99")),
    "a failure before a constraint that matches nothing": (1, ("-s", "sess_1,nobody", "-q", "good")),
    "a default of DICOM that matches nothing": (4, ("-s", "nifti")),
    "a named session without what was asked for": (4, ("-s", "sess_1,notes")),
    "a project with a session without what was asked for": (0, ("-proj", "proj_3", "-s", "!survey,!nifti")),
    "-acq NONE of a session": (0, ("-s", "sess_1", "-acq", "NONE")),
    "a list of what matches nothing": (4, ("-s", "sess_1", "-acq", "99", "-list")),
}


@pytest.mark.parametrize(("status", "argv"), STATUSES.values(), ids=STATUSES)
def test_the_exit_status_of(status: int, argv: tuple[str, ...], world: World, xget: Xget) -> None:
    world.project("empty")
    world.projects[0].subject("subj_9")
    world.projects[0].session("survey", type="xnat:demographicData")
    world.projects[0].session("notes").resource("NOTES", {"n.txt": b"notes"})
    world.projects[0].session("nifti").scan("1").resource("NIFTI", {"1.nii": b"1"}, format="NIFTI")
    outcome = xget(*argv)
    assert outcome.status == status, outcome.err
    assert outcome.err == "" or lines(outcome.err)
    assert status == 0 or outcome.err


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_while_standard_input_is_awaited(name: str, xget: Xget) -> None:
    import fcntl
    import termios

    number = getattr(signal, name)
    reader, writer = os.pipe()
    os.write(writer, b"sess_1\n")
    process = xget.start("-f", "-", stdin=reader)
    end = time.monotonic() + 30
    while fcntl.ioctl(reader, termios.FIONREAD, bytes(4)) != bytes(4):  # until it reads, and waits for more
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)
    status, _, err = done(process)
    os.close(reader)
    os.close(writer)
    assert status == 128 + number
    assert len(lines(err)) == 1


# --- Windows ---------------------------------------------------------------------------------------------

ELSEWHERE = """
import concurrent.futures, email.utils, fcntl, getpass, http.client, netrc, ntpath, os, runpy, shutil
import socket, ssl, subprocess, sys, tempfile, types, urllib.request, zipfile
import httplib2, lxml.etree, pyxnat, requests, tqdm

msvcrt = types.ModuleType("msvcrt")
msvcrt.LK_NBLCK = 2
msvcrt.locking = lambda descriptor, mode, count: fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
sys.modules["msvcrt"] = msvcrt
for name in ("fcntl", "termios", "pwd", "grp", "resource", "pty", "tty"):
    sys.modules[name] = None
sys.platform, os.path.expanduser, sys.argv = "win32", ntpath.expanduser, sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def elsewhere(xget: Xget, *args: str) -> tuple[int, str, str]:
    """Run xget where POSIX's modules are missing and the home directory is Windows'."""
    env = {
        name: value for name, value in xget.environment().items() if name not in ("HOME", "PYTHONWARNINGS")
    }
    command = [sys.executable, "-c", ELSEWHERE, str(XGET), *args]
    done = subprocess.run(command, env=env, cwd=xget.folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_run_needs_no_module_of_posix(xget: Xget) -> None:
    status, out, err = elsewhere(xget, "-h")
    assert (status, err) == (0, "")
    assert out.startswith("usage: xget")
    assert elsewhere(xget, "-overwite")[0] == 2
    account = ("-host", xget.url, "-u", "admin", "-p", "admin")
    status, out, err = elsewhere(xget, *account, *ONE)
    assert (status, paths(out), err) == (0, ["sess_1_acq.zip"], "")


def test_the_pass_file_is_in_userprofile(xget: Xget) -> None:
    path = xget.home / ".xnatPass"
    path.write_text("+alice@http://127.0.0.1:9=one\n")
    path.chmod(0o600)
    status, _, err = elsewhere(xget, *ONE, "-retry", "NONE")
    assert status == 3, err  # it knows where to go; nobody listens there
    assert "127.0.0.1:9" in err


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("CON", "_CON_acq.zip"),
        ("nul.1", "_nul.1_acq.zip"),
        ("a:b", "a_b_acq.zip"),
        ("dot.", "dot._acq.zip"),
        ('q?"<>|*', "q_______acq.zip"),
    ],
)
def test_an_archive_gets_a_name_that_windows_takes(label: str, name: str, world: World, xget: Xget) -> None:
    world.projects[0].session(label).scan("1").resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    status, _, err = xget("-proj", "proj_3", f'-s="{label.replace(chr(34), chr(34) * 2)}"', *ONE[2:])
    assert (status, err) == (0, "")
    (found,) = xget.files()
    assert not re.search(r'[<>:"/\\|?*]|[. ]$', found)
    assert not re.match(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", found, re.IGNORECASE)
    assert found == name or label in ("CON", "nul.1")
