"""What is Windows' own: names, locks, Ctrl-C, consoles, lists from PowerShell, paths, xget.exe.

These run in the lane alone (`python3 tests/run.py windows`). Some need Wine, which hands a signal on
as Ctrl-C and a pseudo-terminal as console.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import lane
import pytest
from conftest import XGET, Outcome, Xget
from launch import Terminal
from truth import assert_earned, hidden, read_tree, read_zip, truth
from xnat_server import Synthetic, World, XnatServer

pytestmark = pytest.mark.skipif(not lane.WINDOWS, reason="Windows' own")
by_wine = pytest.mark.skipif(not lane.WINE, reason="takes Wine, which hands a signal on as Ctrl-C")

AT_ONCE = 5  # seconds; a second is the promise, but programs take their time to end on a busy machine
SCANS = ("-ass", "NONE", "-recon", "NONE")
ZIP = "format=zip"
FILES = "sess_1/scans/1-TSE/resources/DICOM/files"


def wait_for(condition: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this did not come about"
        time.sleep(0.02)


def finish(process: Any, timeout: float = 30) -> Outcome:
    """Wait for the end of a run, and end it where it does not come."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return Outcome(process.returncode, out, err)


def sent(server: XnatServer, pattern: str) -> list[str]:
    """Name the requests whose path fits."""
    return [each.path for each in list(server.requests) if re.search(pattern, each.path)]


def windows_python(*words: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the Python that runs xget; what it prints are bytes."""
    command = [*lane.python(), *map(str, words)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, **options)


# --- no password anywhere ---------------------------------------------------------------


@pytest.mark.parametrize("given", [subprocess.DEVNULL, subprocess.PIPE], ids=["NUL", "a pipe"])
def test_without_a_password_and_without_a_console_xget_says_so(
    given: int, xget: Xget, server: XnatServer
) -> None:
    """As in a scheduled task, whose standard input is NUL: it must not wait for somebody to type."""
    done = finish(xget.start("-host", server.url, "-u", "admin", "-s", "sess_1", login=False, stdin=given), 5)
    assert (done.status, done.out, server.requests) == (2, "", [])
    assert re.fullmatch(r"xget: [^\n]+\n", done.err)


# --- Ctrl-C, Ctrl-Break -----------------------------------------------------------------

MOMENTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "log-in": ("silence", "GET .*/data/auth", {"seconds": 60}),
    "look-up": ("silence", "format=xml", {"seconds": 60}),
    "listing": ("silence", "/files.*format=json", {"seconds": 60}),
    "before the first byte": ("silence", ZIP, {"seconds": 60}),
    "in mid-transfer": ("silence", ZIP, {"seconds": 60, "after": 3000}),
    "a slow transfer": ("slow", ZIP, {"rate": 20_000}),
    "waiting to try again": ("status", ZIP, {"status": 503}),
}


@by_wine
@pytest.mark.parametrize(("kind", "match", "details"), MOMENTS.values(), ids=MOMENTS)
def test_ctrl_c_is_heard_at_once(
    kind: str, match: str, details: dict[str, Any], xget: Xget, server: XnatServer
) -> None:
    """Within a second, though the server is silent; logged out, cleared up."""
    server.world.sessions()[0].scans[0].resources[0].add("big.dcm", Synthetic(4_000_000))
    server.fault(kind, match=match, times=None, **details)
    process = xget.start("-s", "sess_1", "-acq", "1", *SCANS, "-retry", "60", "-timeout", "15")
    wait_for(lambda: any(re.search(match, f"{each.method} {each.path}") for each in list(server.requests)))
    time.sleep(0.3)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    done = finish(process, 5)
    assert time.monotonic() - begun < AT_ONCE
    assert (done.status, done.out) == (130, "")
    assert "Traceback" not in done.err
    assert set(xget.files()) <= {"sess_1_acq.incomplete.zip"}  # what was proven by then
    if kind != "silence" or "auth" not in match:
        assert server.site.logins.sessions == {}


@by_wine
def test_ctrl_c_leaves_what_was_complete(xget: Xget, server: XnatServer) -> None:
    server.fault("silence", match=f"reconstructions.*{ZIP}", seconds=60, after=10)
    process = xget.start("-s", "sess_1")
    wait_for(lambda: {"sess_1_acq.zip", "sess_1_ass.zip"} <= set(xget.files()))
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.status == 130
    assert sorted(done.out.splitlines()) == ["./sess_1_acq.zip", "./sess_1_ass.zip"]
    assert set(xget.files()) == {"sess_1_acq.zip", "sess_1_ass.zip"}


BREAK = """
import os, signal, threading, time

def press():
    while not os.path.exists(os.environ["XGET_BREAK"]):
        time.sleep(0.05)
    signal.raise_signal(signal.SIGBREAK)

threading.Thread(target=press, daemon=True).start()
"""


def test_ctrl_break_ends_as_ctrl_c_does(xget: Xget, server: XnatServer, tmp_path: Path) -> None:
    """Ctrl-Break and a console that is closed, as the C run-time hands them on: logged out, cleared up."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "usercustomize.py").write_text(BREAK)
    xget.env.update(PYTHONPATH=str(tmp_path / "site"), XGET_BREAK=str(tmp_path / "break"))
    server.fault("silence", match=ZIP, seconds=60, after=3000)
    process = xget.start("-s", "sess_1", "-acq", "1", *SCANS, "-timeout", "15")
    wait_for(lambda: sent(server, ZIP))
    time.sleep(0.3)
    (tmp_path / "break").touch()
    begun = time.monotonic()
    done = finish(process)
    assert time.monotonic() - begun < AT_ONCE
    assert done.status in (130, 143) and "Traceback" not in done.err
    assert set(xget.files()) <= {"sess_1_acq.incomplete.zip"}
    assert server.site.logins.sessions == {}


# --- read-only files --------------------------------------------------------------------


def make_read_only(folder: Path) -> None:
    """Do what `attrib +R` does, or a copy from a CD."""
    for path in folder.rglob("*.dcm"):
        path.chmod(0o444)


def test_overwrite_replaces_read_only_files(xget: Xget, world: World) -> None:
    """Every time, with nothing of the old ones left."""
    assert xget("-s", "sess_1", "-z", *SCANS).status == 0
    for content in (b"second", b"third"):
        make_read_only(xget.folder)
        world.sessions()[0].scans[0].resources[0].add("1.dcm", content)
        assert xget("-s", "sess_1", "-z", "-overwrite", *SCANS) == (0, "./sess_1\n", "")
        assert read_tree(xget.folder) == truth(world.sessions()[0], "acq")
        assert hidden(xget.folder) == []


def test_overwrite_replaces_a_read_only_archive(xget: Xget) -> None:
    assert xget("-s", "sess_1", *SCANS).status == 0
    (xget.folder / "sess_1_acq.zip").chmod(0o444)
    assert xget("-s", "sess_1", "-overwrite", *SCANS) == (0, "./sess_1_acq.zip\n", "")
    assert xget.files() == ["sess_1_acq.zip"]


# --- names ------------------------------------------------------------------------------

REFUSED = [
    "aux.dcm",
    "nul.dcm",
    "con.dcm",
    "COM1.dcm",
    "a?b.dcm",
    "a:b.dcm",
    "2.dcm.",
    "2.dcm ",
    "sub./1.dcm",
]


@pytest.mark.parametrize("name", REFUSED)
def test_z_a_name_that_windows_refuses_fails_that_file(name: str, xget: Xget, world: World) -> None:
    """It is named, never stored under another name, and costs no other file; without -z it comes."""
    good = truth(world.sessions()[0], "acq")
    world.sessions()[0].scans[0].resources[0].add(name, b"refused")
    done = xget("-s", "sess_1", "-z", *SCANS, "-retry", "NONE")
    assert (done.status, done.out, "Traceback" in done.err) == (1, "./sess_1\n", False), done.err
    assert name.strip() in done.err
    assert read_tree(xget.folder) == good
    assert hidden(xget.folder) == []
    assert xget("-s", "sess_1", *SCANS) == (0, "./sess_1_acq.zip\n", "")
    assert read_zip(xget.folder / "sess_1_acq.zip") == {**good, f"{FILES}/{name}": b"refused"}


LABELS = ["CON", "a:b", "q?*", "nul.txt", "COM1", "dots..."]


@pytest.fixture
def odd_labels(world: World) -> list[str]:
    """Give the project sessions whose labels are no names of folders on Windows."""
    for label in LABELS:
        scan = world.projects[0].session(label).scan("1", type="T1")
        scan.resource("DICOM", {"1.dcm": label.encode()}, format="DICOM")
    return [f"-s={label}" for label in LABELS]


def test_labels_that_windows_refuses_become_archives(xget: Xget, odd_labels: list[str]) -> None:
    done = xget(*odd_labels, *SCANS)
    assert (done.status, done.err) == (0, "")
    contents = [list(read_zip(path).values()) for path in xget.folder.iterdir()]
    assert sorted(contents) == sorted([label.encode()] for label in LABELS)


def test_z_labels_that_windows_refuses_fail_their_session(xget: Xget, odd_labels: list[str]) -> None:
    """Each is named, none extracted under another name, and the session beside them comes."""
    done = xget(*odd_labels, "-s", "sess_1", "-z", *SCANS, "-retry", "NONE")
    assert (done.status, done.out, "Traceback" in done.err) == (1, "./sess_1\n", False), done.err
    assert [label for label in LABELS if label not in done.err] == []
    assert [path.name for path in xget.folder.iterdir()] == ["sess_1"]


def test_labels_that_differ_in_case_are_refused(xget: Xget, world: World) -> None:
    """They would be one file: both fail in one run, and a second run is told whose it is."""
    for label, content in (("Sess", b"one"), ("SESS", b"two")):
        scan = world.projects[0].session(label).scan("1", type="T1")
        scan.resource("DICOM", {"1.dcm": content}, format="DICOM")
    done = xget("-s", "Sess,SESS,sess_1", *SCANS)
    assert (done.status, done.out) == (1, "./sess_1_acq.zip\n")
    assert xget("-s", "Sess", *SCANS).status == 0
    again = xget("-s", "SESS", *SCANS)
    assert (again.status, again.out) == (1, "") and "Sess" in again.err
    assert list(read_zip(xget.folder / "Sess_acq.zip").values()) == [b"one"]


def test_z_names_that_differ_in_case_never_merge(xget: Xget, world: World) -> None:
    world.sessions()[0].scans[0].resources[0].add("A.dcm", b"upper")
    world.sessions()[0].scans[0].resources[0].add("a.dcm", b"lower")
    done = xget("-s", "sess_1", "-z", *SCANS, "-retry", "NONE")
    assert done.status == 1 and re.search(r"\ba\.dcm", done.err, re.IGNORECASE)
    found = {name: data for name, data in read_tree(xget.folder).items() if name.lower().endswith("/a.dcm")}
    assert all(data == (b"upper" if "/A." in name else b"lower") for name, data in found.items())
    assert len(found) <= 1


# --- another program holds what is to be replaced ------------------------------------------

HOLD = "import sys; file = open(sys.argv[1], 'rb'); print('open', flush=True); sys.stdin.read(1)"


@contextlib.contextmanager
def held_open(path: Path, xget: Xget) -> Iterator[Callable[[], None]]:
    """Have another program of Windows hold a file open; what is yielded ends that."""
    command = [*lane.python(), "-c", HOLD, str(path)]
    environment = xget.environment()
    holder = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )  # no stream is a file: Wine's Python ends at once where one is

    def release() -> None:
        if holder.poll() is None:
            holder.communicate(b"x", 30)

    try:
        assert holder.stdout and holder.stdout.readline().strip() == b"open"
        yield release
    finally:
        release()


def test_an_archive_that_is_held_for_a_moment_is_replaced(
    xget: Xget, server: XnatServer, world: World
) -> None:
    """As virus scanners do: xget tries again for two seconds."""
    assert xget("-s", "sess_1", *SCANS).status == 0
    world.sessions()[0].scans[0].resources[0].add("9.dcm", b"new")
    server.clear()
    with held_open(xget.folder / "sess_1_acq.zip", xget) as release:
        process = xget.start("-s", "sess_1", "-overwrite", *SCANS)
        wait_for(lambda: any(ZIP in each.path and each.end_time for each in list(server.requests)))
        time.sleep(0.7)
        release()
        assert finish(process) == (0, "./sess_1_acq.zip\n", "")
    assert read_zip(xget.folder / "sess_1_acq.zip") == truth(world.sessions()[0], "acq")
    assert xget.files() == ["sess_1_acq.zip"]


def test_an_archive_that_stays_open_is_named_and_nothing_is_lost(
    xget: Xget, server: XnatServer, world: World
) -> None:
    """The old one stays, the message names it, and the next run asks for nothing that was proven."""
    assert xget("-s", "sess_1", *SCANS).status == 0
    old = (xget.folder / "sess_1_acq.zip").read_bytes()
    world.sessions()[0].scans[0].resources[0].add("9.dcm", b"new")
    with held_open(xget.folder / "sess_1_acq.zip", xget):
        done = xget("-s", "sess_1", "-overwrite", *SCANS)
    assert (done.status, done.out) == (1, "")
    assert "sess_1_acq.zip" in done.err and ".part" not in done.err
    assert (xget.folder / "sess_1_acq.zip").read_bytes() == old
    server.clear()
    assert xget("-s", "sess_1", "-overwrite", *SCANS) == (0, "./sess_1_acq.zip\n", "")
    assert sent(server, rf"{ZIP}|/files/\w") == []
    assert read_zip(xget.folder / "sess_1_acq.zip") == truth(world.sessions()[0], "acq")
    assert xget.files() == ["sess_1_acq.zip"]


def test_z_overwrite_while_a_file_of_the_tree_is_open(xget: Xget, world: World) -> None:
    """Replaced, or named and left as it was; the next run leaves nothing behind."""
    assert xget("-s", "sess_1", "-z", *SCANS).status == 0
    old = truth(world.sessions()[0], "acq")
    world.sessions()[0].scans[0].resources[0].add("1.dcm", b"new")
    new = truth(world.sessions()[0], "acq")
    with held_open(xget.folder / FILES / "1.dcm", xget):
        done = xget("-s", "sess_1", "-z", "-overwrite", *SCANS)
        seen = {name: data for name, data in read_tree(xget.folder).items() if "/." not in f"/{name}"}
        assert seen == (new if done.status == 0 else old), done.err
    assert xget("-s", "sess_1", "-z", "-overwrite", *SCANS).status == 0
    assert read_tree(xget.folder) == new and hidden(xget.folder) == []


# --- what lists and pipes hold ----------------------------------------------------------

LISTS = {
    "UTF-16, as PowerShell's > writes it": "utf-16",
    "UTF-16, big end first": "utf-16-be",
    "UTF-8 with a mark, as Notepad may write it": "utf-8-sig",
    "UTF-8": "utf-8",
}


@pytest.mark.parametrize("encoding", LISTS.values(), ids=LISTS)
def test_a_list_in(encoding: str, xget: Xget, world: World) -> None:
    world.projects[0].session("Müller").scan("1").resource("DICOM", {"1.dcm": b"m"}, format="DICOM")
    text = "\ufeff" * (encoding == "utf-16-be") + "# two\r\nMüller\r\n\r\nsess_1\r\n"
    (xget.folder / "list.txt").write_bytes(text.encode(encoding))
    done = xget("-f", "list.txt", *SCANS)
    assert (done.status, done.err) == (0, "")
    assert {"Müller_acq.zip", "sess_1_acq.zip"} < set(xget.files())


def test_a_list_in_the_code_page_is_refused_in_words_that_help(xget: Xget, server: XnatServer) -> None:
    (xget.folder / "list.txt").write_bytes("Müller\r\n".encode("cp1252"))
    done = xget("-f", "list.txt", *SCANS)
    assert (done.status, done.out, server.requests) == (2, "", [])
    assert "list.txt" in done.err and "UTF-8" in done.err and "codec" not in done.err


@pytest.mark.parametrize("label", ["日本", "Müller", "€uro"])
def test_names_go_into_a_pipe_as_utf_8(label: str, xget: Xget, world: World) -> None:
    """Whatever the code page is: what comes out names the file, and can be given to -s again."""
    world.projects[0].session(label).scan("1").resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    process = xget.start("-s", label, *SCANS, text=False)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")
    assert out.replace(b"\\", b"/").splitlines() == [f"./{label}_acq.zip".encode()]
    listed = xget("-s", label, "-list")
    assert listed.out.split("\t")[0] == label
    given = xget("-f", "-", "-list", given=f"{label}\n")
    assert given == listed


# --- who -----------------------------------------------------------------------------------


def test_the_pass_file_in_userprofile(xget: Xget, server: XnatServer) -> None:
    (xget.home / ".xnatPass").write_bytes(f"+admin@{server.url}=admin\r\n".encode())
    assert xget("-s", "sess_1", *SCANS, login=False) == (0, "./sess_1_acq.zip\n", "")


def test_the_netrc_of_windows(xget: Xget, server: XnatServer) -> None:
    text = "machine 127.0.0.1\r\n  login admin\r\n  password admin\r\n"
    (xget.home / "_netrc").write_bytes(text.encode())
    done = xget("-host", server.url, "-s", "sess_1", *SCANS, login=False)
    assert done == (0, "./sess_1_acq.zip\n", "")


def test_the_password_from_a_pipe(xget: Xget, server: XnatServer) -> None:
    words = ("-host", server.url, "-u", "admin", "-p", "-", "-s", "sess_1", "-list")
    assert xget(*words, login=False, given="admin\r\n").status == 0


# --- where ---------------------------------------------------------------------------------


def spellings(folder: Path) -> dict[str, str]:
    """Ways to write, on Windows, a folder that is `out` in the current one."""
    full = lane.windows_path(folder.resolve())
    return {
        "a drive": full,
        "a drive, and slashes": full.replace("\\", "/"),
        "a slash at the end": "out/",
        "a back-slash at the end": "out\\",
        "below": ".\\out\\..\\out",
        "\\\\?\\": f"\\\\?\\{full}",
    }


@pytest.mark.parametrize("spelling", list(spellings(Path("out"))))
def test_an_output_directory_given_as(spelling: str, xget: Xget, world: World) -> None:
    (xget.folder / "out").mkdir()
    given = spellings(xget.folder / "out")[spelling]
    process = xget.start("-s", "sess_1", "-o", given, *SCANS, text=False)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")
    shown = out.decode().strip().replace("\\", "/")
    assert shown == f"{given.rstrip('/' + chr(92))}/sess_1_acq.zip".replace("\\", "/")
    assert xget("-s", "sess_1", "-z", "-o", given, *SCANS).status == 0
    assert read_tree(xget.folder / "out") == truth(world.sessions()[0], "acq")
    assert xget("-s", "sess_1", "-o", given, *SCANS) == (0, "", "")


@pytest.mark.parametrize("mark", ["", "\\\\?\\"], ids=["as it is", "\\\\?\\"])
def test_paths_longer_than_259_characters(mark: str, xget: Xget, world: World) -> None:
    """A folder that is short enough for Windows, but not what comes into it; Wine has no such limit."""
    full = lane.windows_path(xget.folder)
    names = [f"{'d' * 20}{n}" for n in range(9)]
    while len(full) + sum(len(name) + 1 for name in names) > 240:
        names.pop()
    folder = xget.folder.joinpath(*names)
    folder.mkdir(parents=True)
    given = mark + lane.windows_path(folder)
    for flags in ((), ("-longname",), ("-z",), ("-z", "-overwrite")):
        done = xget("-s", "sess_1", *flags, "-o", given, *SCANS)
        assert (done.status, done.err) == (0, "")
    assert read_tree(folder) == truth(world.sessions()[0], "acq") and hidden(folder) == []
    assert xget("-s", "sess_1", "-o", given, *SCANS) == (0, "", "")


# --- several runs ----------------------------------------------------------------------------


@pytest.fixture
def gate(server: XnatServer) -> Iterator[threading.Event]:
    """Holds the next archive back until it is set."""
    gate = threading.Event()
    server.fault("call", match=ZIP, times=1, action=lambda: gate.wait(60))
    yield gate
    gate.set()


@pytest.mark.parametrize("extract", [(), ("-z",)], ids=["archives", "extract"])
def test_two_runs_never_fetch_the_same(
    extract: tuple[str, ...], xget: Xget, server: XnatServer, world: World, gate: threading.Event
) -> None:
    first = xget.start("-s", "sess_1", *SCANS, *extract)
    wait_for(lambda: sent(server, ZIP))
    second = xget("-s", "sess_1", *SCANS, *extract, "-json")
    gate.set()
    assert finish(first).status == 0
    assert second.status == 1 and json.loads(second.out)["status"] == "busy"
    assert len(sent(server, ZIP)) == 1
    assert_earned(xget.folder, world)
    assert hidden(xget.folder) == []


def test_eight_runs_at_once(xget: Xget, server: XnatServer, world: World) -> None:
    server.rate = 30_000
    runs = [xget.start("-s", "sess_1", *SCANS) for _ in range(8)]
    done = [finish(each, 60) for each in runs]
    assert {each.status for each in done} <= {0, 1} and 0 in {each.status for each in done}
    for each in done:
        lines = [line for line in each.err.splitlines() if not re.match(r"xget: \d+ session", line)]
        assert all("another run" in line for line in lines), each.err
    assert len(sent(server, ZIP)) == 1
    assert_earned(xget.folder, world)
    assert xget.files() == ["sess_1_acq.zip"]


@pytest.mark.parametrize(
    "flags", [(), ("-z",), ("-z", "-overwrite")], ids=["archives", "extract", "overwrite"]
)
def test_killed_and_run_again(flags: tuple[str, ...], xget: Xget, server: XnatServer, world: World) -> None:
    """What a killed run leaves is used or cleared by the next."""
    if "-overwrite" in flags:
        assert xget("-s", "sess_1", "-z", *SCANS).status == 0
    server.clear()
    server.fault("silence", match=ZIP, seconds=60, after=3000)
    process = xget.start("-s", "sess_1", *SCANS, *flags)
    wait_for(lambda: sent(server, ZIP))
    time.sleep(0.3)
    process.kill()
    process.communicate()
    assert_earned(xget.folder, world)
    assert xget("-s", "sess_1", *SCANS, *flags).status == 0
    assert_earned(xget.folder, world)
    assert hidden(xget.folder) == []


def test_eight_transfers_at_once(xget: Xget, world: World) -> None:
    for number in range(8):
        scan = world.projects[0].session(f"s{number}").scan("1", type="T1")
        scan.resource("DICOM", {f"{n}.dcm": Synthetic(20_000, seed=n) for n in range(5)}, format="DICOM")
    done = xget("-proj", "proj_3", "-j", "8")
    assert (done.status, done.err) == (0, "")
    assert len(done.out.splitlines()) == 11 == len(xget.files())
    assert_earned(xget.folder, world)


# --- what it says ----------------------------------------------------------------------------


def test_json(xget: Xget) -> None:
    """Paths as Windows writes them, names in any script."""
    process = xget.start("-s", "sess_1", "-json", text=False)
    out, err = process.communicate(timeout=30)
    rows = [json.loads(line) for line in out.splitlines()]
    assert (process.returncode, err) == (0, b"")
    assert sorted(row["path"] for row in rows) == [f".\\sess_1_{k}.zip" for k in ("acq", "ass", "recon")]
    assert {row["status"] for row in rows} == {"downloaded"}


def test_list_in_a_pipe(xget: Xget) -> None:
    done = xget("-s", "sess_1", "-list", *SCANS)
    assert (done.status, done.err) == (0, "")
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert [(row[0], row[2], len(row)) for row in rows] == [("sess_1", "1", 9), ("sess_1", "2", 9)]


def on_console(terminal: Terminal) -> tuple[int, str]:
    """Wait for the end of a run on a console; returns its status and what was shown."""
    status, _, shown = terminal.finish()
    return status, shown


@pytest.fixture
def console(xget: Xget) -> Xget:
    """An xget that is started on a console, which Wine makes of a pseudo-terminal."""
    if not lane.WINE:
        pytest.skip("takes Wine, which makes a console of a pseudo-terminal")
    xget.env["TERM"] = "xterm"
    return xget


def test_the_progress_bar_on_a_console(console: Xget, server: XnatServer, world: World) -> None:
    world.sessions()[0].scans[0].resources[0].add("big.dcm", Synthetic(3_000_000))
    server.rate = 1_500_000
    status, shown = on_console(Terminal(console, "-s", "sess_1", *SCANS, columns=100))
    assert status == 0, shown
    assert "sess_1_acq.zip" in shown
    assert re.search(r"\d[.\d]* ?MB?.*/s|B/s", shown), shown
    assert re.search(r"1 session.*1 downloaded", shown), shown


def test_the_password_is_asked_for_on_a_console(console: Xget, server: XnatServer) -> None:
    words = ("-host", server.url, "-u", "admin", "-s", "sess_1", *SCANS)
    terminal = Terminal(console, *words, columns=100, login=False)
    terminal.wait_for("assword")
    terminal.type("admin\r")
    status, shown = on_console(terminal)
    assert (status, console.files()) == (0, ["sess_1_acq.zip"]), shown


def test_ctrl_c_typed_on_a_console(console: Xget, server: XnatServer) -> None:
    server.fault("silence", match=ZIP, times=None, seconds=60, after=3000)
    words = ("-s", "sess_1", *SCANS, "-timeout", "15")
    terminal = Terminal(console, *words, columns=100)
    wait_for(lambda: sent(server, ZIP))
    time.sleep(0.3)
    terminal.type("\x03")
    begun = time.monotonic()
    status, shown = on_console(terminal)
    assert (status, time.monotonic() - begun < AT_ONCE) == (130, True), shown
    assert set(console.files()) <= {"sess_1_acq.incomplete.zip"}


def test_ctrl_c_typed_at_the_password_prompt(console: Xget, server: XnatServer) -> None:
    words = ("-host", server.url, "-u", "admin", "-s", "sess_1")
    terminal = Terminal(console, *words, columns=100, login=False)
    terminal.wait_for("assword")
    time.sleep(0.3)
    terminal.type("\x03")
    time.sleep(0.5)
    with contextlib.suppress(OSError):
        terminal.type("\r")  # Wine wakes who reads keys with the next one only
    status, shown = on_console(terminal)
    assert (status, server.requests, console.files()) == (130, [], []), shown


# --- xget.exe ----------------------------------------------------------------------------------


def build_wheel(folder: Path) -> Path:
    """Build the wheel by the setuptools of the tests' Python, without network."""
    tree = folder / "tree"
    tree.mkdir()
    for name in ("xget", "setup.py", "README.md", "LICENSE"):
        (tree / name).write_bytes((XGET.parent / name).read_bytes())
    script = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", script, str(folder)], cwd=tree, capture_output=True, check=True)
    [wheel] = folder.glob("*.whl")
    return wheel


def test_pip_makes_xget_exe(xget: Xget, tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="70.1")
    wheel, prefix = build_wheel(tmp_path), tmp_path / "prefix"
    offline = ("-q", "--no-deps", "--no-index", "--ignore-installed", "--no-warn-script-location")
    words = (
        "-m",
        "pip",
        "install",
        *offline,
        "--prefix",
        lane.windows_path(prefix),
        lane.windows_path(wheel),
    )
    xget.env["PYTHONWARNINGS"] = ""
    done = windows_python(*words, env=xget.environment())
    assert done.returncode == 0, done.stderr
    program = prefix / "Scripts" / "xget.exe"
    assert program.exists() and zipfile.is_zipfile(program)
    xget.env.update(PYTHONWARNINGS="error", PYTHONPATH=str(prefix / "Lib" / "site-packages"))
    command = [*lane.python()[:-1], str(program)]
    account = ("-host", xget.url, "-u", "admin", "-p", "admin", "-s", "sess_1")
    for words, status, files in (
        (("-version",), 0, 0),
        (("-nonsense",), 2, 0),
        (account, 0, 3),
        ((*account[:-3], "wrong", *account[-2:], "-overwrite"), 3, 3),
    ):
        done = subprocess.run(
            [*command, *words],
            cwd=xget.folder,
            env=xget.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert (done.returncode, len(xget.files())) == (status, files), done.stderr
    assert list((prefix / "Lib" / "site-packages" / "__pycache__").glob("xget.*.pyc"))
    assert os.access(program, os.R_OK)
