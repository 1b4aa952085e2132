"""The machine as it is: locales, streams, disks that refuse, threads that are not to be had, other users.

What a machine lacks is taken from the process by a `sitecustomize` on its PYTHONPATH, which changes what
Python itself offers, and nothing of xget's own.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import XGET, Outcome, Xget
from launch import Terminal, launch
from truth import assert_earned, hidden, read_tree, read_zip, truth
from xnat_server import Session, Synthetic, World, XnatServer

pytestmark = pytest.mark.skipif(os.name != "posix", reason="machines of the Unix kind")
QUICK = ("-ass", "NONE", "-recon", "NONE", "-retry", "0.1,0.1", "-timeout", "20")
SCANS = ("-s", "sess_1", *QUICK)
WAYS = [(), ("-z",)]
BOTH = pytest.mark.parametrize("way", WAYS, ids=["archive", "extracted"])
ROOT = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root to be two users")
OTHER = 65534  # nobody


def first(world: World) -> Session:
    return world.sessions()[0]


def found(xget: Xget, way: tuple[str, ...] = ()) -> dict[str, bytes]:
    return read_tree(xget.folder) if way else read_zip(xget.folder / "sess_1_acq.zip")


def assert_lines(outcome: Outcome, *texts: str) -> None:
    """Standard error is lines of xget's own, and each text is in one of them."""
    lines = outcome.err.splitlines()
    assert all(line.startswith("xget: ") for line in lines), outcome.err
    assert all(any(text in line for line in lines) for text in texts), outcome.err


def finish(process: Any, timeout: float = 60) -> Outcome:
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return Outcome(process.returncode, out, err)


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this did not come about"
        time.sleep(0.01)


@pytest.fixture
def machine(xget: Xget, tmp_path: Path) -> Callable[[str], None]:
    """Give the process of xget a machine on which this was done before anything else."""

    def make(code: str) -> None:
        folder = tmp_path / "machine"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(code)
        xget.env["PYTHONPATH"] = str(folder)

    return make


# --- locales ------------------------------------------------------------------------------------

PLAIN_C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def with_umlauts(world: World) -> list[Session]:
    """Three sessions more, the middle one with a label, a type and a file that ASCII cannot name."""
    sessions = []
    for label, type, file in [("one", "T1", "a.dcm"), ("Müller", "Schädel", "ö.dcm"), ("two", "T1", "a.dcm")]:
        session = world.projects[0].session(label)
        resource = session.scan("1", type=type).resource("DICOM", {"plain.dcm": b"p" * 500}, format="DICOM")
        resource.add(file, b"o" * 600)
        sessions.append(session)
    return sessions


def test_a_locale_that_cannot_name_a_label_costs_an_underscore(xget: Xget, world: World) -> None:
    sessions = with_umlauts(world)
    xget.env.update(PLAIN_C)
    outcome = xget("-proj", "proj_3", *QUICK)
    names = [f"./{name}_acq.zip" for name in ("M_ller", "one", "sess_1", "two")]
    assert (outcome.status, sorted(outcome.out.splitlines()), outcome.err) == (0, names, "")
    assert read_zip(xget.folder / "M_ller_acq.zip") == truth(sessions[1], "acq")


def test_a_locale_that_cannot_name_a_folder_costs_its_session_alone(xget: Xget, world: World) -> None:
    sessions = with_umlauts(world)
    xget.env.update(PLAIN_C)
    outcome = xget("-proj", "proj_3", "-z", *QUICK)
    assert outcome.status == 1
    assert_lines(outcome, "xget: M\\xfcller acq: ", "locale")
    assert "Error:" not in outcome.err
    assert_earned(xget.folder, world)
    assert set(read_tree(xget.folder)) >= {*truth(sessions[0], "acq"), *truth(sessions[2], "acq")}


def test_a_locale_that_cannot_name_a_file_costs_that_file_alone(xget: Xget, world: World) -> None:
    resource = first(world).scans[0].resources[0].add("ö.dcm", b"o" * 600)
    xget.env.update(PLAIN_C)
    outcome = xget(*SCANS, "-z")
    assert outcome.status == 1
    assert_lines(outcome, "1 DICOM \\xf6.dcm: missing: ", "locale")
    expected = {name: data for name, data in truth(first(world), "acq").items() if "ö" not in name}
    assert len(resource.files) == 5 and found(xget, ("-z",)) == expected


@pytest.mark.parametrize("args", [("-list",), ("-list", "-json")], ids=["table", "objects"])
def test_a_list_in_a_locale_that_lacks_its_letters(xget: Xget, world: World, args: tuple[str, ...]) -> None:
    with_umlauts(world)
    xget.env.update(PLAIN_C)
    outcome = xget("-proj", "proj_3", *args, *QUICK)
    assert outcome.status == 0 and outcome.err == ""
    assert ("M\\xfcller" if len(args) == 1 else "M\\u00fcller") in outcome.out
    assert "\ntwo\t" in outcome.out or '"session": "two"' in outcome.out


def test_verify_and_update_in_such_a_locale(xget: Xget, world: World) -> None:
    with_umlauts(world)
    xget.env.update(PLAIN_C)
    assert xget("-proj", "proj_3", *QUICK).status == 0
    assert xget("-proj", "proj_3", "-verify", *QUICK).status == 0
    assert xget("-proj", "proj_3", "-update", *QUICK) == (0, "", "")


# --- bytes that are no text -----------------------------------------------------------------------

LATIN = "Gün".encode("latin-1")


def raw(xget: Xget, *args: Any, given: bytes = b"", **env: Any) -> Outcome:
    """Run xget with words that are bytes."""
    process = subprocess.run(
        [sys.executable, str(XGET), *args],
        input=given,
        capture_output=True,
        cwd=xget.folder,
        env={**xget.environment(), **env},
        timeout=60,
        check=False,
    )
    return Outcome(process.returncode, process.stdout.decode(), process.stderr.decode())


BYTES: dict[str, tuple[tuple[Any, ...], bytes, dict[str, Any]]] = {
    "-u": (("-u", LATIN, "-p", "x"), b"", {}),
    "-p": (("-u", "admin", "-p", LATIN), b"", {}),
    "-p=": (("-u", "admin", b"-p=" + LATIN), b"", {}),
    "-p -": (("-u", "admin", "-p", "-"), LATIN + b"\n", {}),
    "XNAT_PASS": (("-u", "admin"), b"", {"XNAT_PASS": LATIN}),
    "XNAT_USER": ((), b"", {"XNAT_USER": LATIN, "XNAT_PASS": "x"}),
    "-s": (("-u", "admin", "-p", "admin", "-s", LATIN), b"", {}),
    "-f": (("-u", "admin", "-p", "admin", "-f", "list"), b"", {}),
    "-f -": (("-u", "admin", "-p", "admin", "-f", "-"), b"sess_1\n" + LATIN, {}),
    "-passfile": (("-passfile", "pass"), b"", {}),
    "a flag": (("-u", "admin", "-p", "admin", b"-" + LATIN), b"", {}),
    "-o": (("-u", "admin", "-p", "admin", "-o", LATIN), b"", {}),
    "-acq": (("-u", "admin", "-p", "admin", "-acq", LATIN), b"", {}),
    "-proj": (("-u", "admin", "-p", "admin", "-proj", LATIN), b"", {}),
    "-host": (("-u", "admin", "-p", "admin", "-host", LATIN), b"", {}),
}


@pytest.mark.parametrize("locale", [{}, PLAIN_C], ids=["UTF-8", "C"])
@pytest.mark.parametrize("case", BYTES)
def test_bytes_of_another_encoding_are_a_usage_error_in_one_line(
    xget: Xget, server: XnatServer, case: str, locale: dict[str, str]
) -> None:
    args, given, env = BYTES[case]
    (xget.folder / "list").write_bytes(b"sess_1\n" + LATIN + b"\n")
    (xget.folder / "pass").write_bytes(b"+admin@" + server.url.encode() + b"=" + LATIN + b"\n")
    (xget.folder / "pass").chmod(0o600)
    more = () if case.startswith(("-s", "-f")) else ("-s", "sess_1")
    host = () if case == "-host" else ("-host", server.url)
    outcome = raw(xget, *host, *args, *more, given=given, **{**env, **locale})
    assert outcome.status == 2 and outcome.out == ""
    assert len(outcome.err.splitlines()) == 1 and outcome.err.startswith("xget: ")
    assert "G\\" not in outcome.err or case.startswith(("-u", "-f", "a flag"))
    assert not server.requests


def test_the_same_bytes_in_utf_8_are_taken(xget: Xget, world: World) -> None:
    world.users["Gün"] = "Gün"
    session = world.projects[0].session("Gün")
    session.scan("1").resource("DICOM", {"a.dcm": b"a"}, format="DICOM")
    args = ("-host", xget.url, "-u", "Gün", "-p", "-", "-s", "Gün", *QUICK)
    assert raw(xget, *args, given="Gün\n".encode()).status == 0
    assert read_zip(xget.folder / "Gün_acq.zip") == truth(session, "acq")


# --- what the file system refuses -------------------------------------------------------------------

REFUSE = """
import errno, os, sys
left = {{}}
def refusing(module, name, number, when=lambda *args: True, skip=0, times=10**9):
    real = getattr(module, name)
    left[name] = [skip, times]
    def refuse(*args, **more):
        if when(*args):
            if left[name][0] > 0:
                left[name][0] -= 1
            elif left[name][1] > 0:
                left[name][1] -= 1
                raise OSError(number, os.strerror(number), *(a for a in args[:1] if isinstance(a, str)))
        return real(*args, **more)
    setattr(module, name, refuse)
{}
"""


def refusing(*lines: str) -> str:
    return REFUSE.format("\n".join(lines))


@BOTH
@pytest.mark.parametrize("number", ["ENOLCK", "ENOTSUP"])
def test_a_file_system_without_locks_serves(
    xget: Xget, world: World, machine: Callable[[str], None], number: str, way: tuple[str, ...]
) -> None:
    machine(refusing(f"import fcntl; refusing(fcntl, 'flock', errno.{number})"))
    assert xget(*SCANS, *way).status == 0
    assert found(xget, way) == truth(first(world), "acq") and hidden(xget.folder) == []


@BOTH
@pytest.mark.parametrize("number", ["EINVAL", "ENOTSUP"])
def test_a_file_system_without_fsync_serves(
    xget: Xget, world: World, machine: Callable[[str], None], number: str, way: tuple[str, ...]
) -> None:
    none = "import ctypes\nclass Library:\n    def __init__(self, *_, **__): pass\nctypes.CDLL = Library"
    machine(refusing(f"refusing(os, 'fsync', errno.{number})", none))
    assert xget(*SCANS, *way).status == 0
    assert found(xget, way) == truth(first(world), "acq")


@BOTH
@pytest.mark.parametrize("more", [(), ("-overwrite",)], ids=["new", "overwrite"])
def test_renames_between_folders_are_not_needed(
    xget: Xget, world: World, machine: Callable[[str], None], way: tuple[str, ...], more: tuple[str, ...]
) -> None:
    """Union file systems answer EXDEV to a rename from one folder to another."""
    assert not more or xget(*SCANS, *way).status == 0
    first(world).scans[0].resources[0].add("new.dcm", b"new")
    apart = "lambda a, b, *_: os.path.dirname(os.path.abspath(a)) != os.path.dirname(os.path.abspath(b))"
    machine(refusing(*(f"refusing(os, {name!r}, errno.EXDEV, {apart})" for name in ("rename", "replace"))))
    assert xget(*SCANS, *way, *more).status == 0
    assert found(xget, way) == truth(first(world), "acq") and hidden(xget.folder) == []


@BOTH
@pytest.mark.parametrize("number", ["EACCES", "ESTALE"])
@pytest.mark.parametrize("skip", range(3))
def test_a_rename_that_is_refused_once_is_tried_again(
    xget: Xget, world: World, machine: Callable[[str], None], skip: int, number: str, way: tuple[str, ...]
) -> None:
    lines = [f"refusing(os, {n!r}, errno.{number}, skip={skip}, times=1)" for n in ("rename", "replace")]
    machine(refusing(*lines))
    assert xget(*SCANS, *way) == (0, "./sess_1\n" if way else "./sess_1_acq.zip\n", "")
    assert found(xget, way) == truth(first(world), "acq") and hidden(xget.folder) == []


@BOTH
def test_a_rename_that_is_always_refused_fails_and_loses_nothing(
    xget: Xget, world: World, server: XnatServer, machine: Callable[[str], None], way: tuple[str, ...]
) -> None:
    machine(refusing(*(f"refusing(os, {name!r}, errno.EACCES)" for name in ("rename", "replace"))))
    outcome = xget(*SCANS, *way)
    assert outcome.status == 1 and outcome.out == ""
    assert_lines(outcome, "Permission denied")
    assert_earned(xget.folder, world)
    machine("")
    server.clear()
    assert xget(*SCANS, *way).status == 0
    assert found(xget, way) == truth(first(world), "acq") and hidden(xget.folder) == []
    assert way or not [each for each in server.requests if "format=zip" in each.path]


# Files that xget writes are opened without a buffer, or written by os.write and os.pwrite.
WRITES = """
import builtins, io
real_open = builtins.open
class Full(io.FileIO):
    def write(self, data):
        spend(len(data))
        return super().write(data)
def open_(file, mode="r", buffering=-1, *args, **more):
    if buffering == 0 and set(mode) & set("xwa"):
        return Full(file, mode.replace("b", ""))
    return real_open(file, mode, buffering, *args, **more)
builtins.open = open_
room = [{room}]
def spend(size):
    room[0] -= size
    if room[0] < 0:
        raise OSError(errno.{number}, os.strerror(errno.{number}))
for name in ("write", "pwrite"):
    def write(descriptor, data, *more, real=getattr(os, name)):
        if descriptor > 2:
            spend(len(data))
        return real(descriptor, data, *more)
    setattr(os, name, write)
"""


@BOTH
@pytest.mark.parametrize(
    ("number", "room"),
    [("ENOSPC", 0), ("ENOSPC", 700), ("ENOSPC", 9000), ("ENOSPC", 10_700), ("EDQUOT", 5000), ("EIO", 5000)],
)
def test_a_disk_that_takes_no_more_fails_that_archive_and_keeps_what_is_proven(
    xget: Xget, world: World, machine: Callable[[str], None], number: str, room: int, way: tuple[str, ...]
) -> None:
    machine(refusing(WRITES.format(number=number, room=room)))
    outcome = xget(*SCANS, *way)
    text = os.strerror(getattr(errno, number))
    whole = outcome.status == 0 and outcome.err == ""  # a tree's files need no more than their bytes
    assert whole or (outcome.status == 1 and text in outcome.err)
    assert_lines(outcome)
    assert len(outcome.err.splitlines()) <= 3
    assert_earned(xget.folder, world)
    assert whole or room < 10_000 or way or not (xget.folder / "sess_1_acq.zip").exists()
    machine("")
    assert xget(*SCANS, *way).status == 0
    assert found(xget, way) == truth(first(world), "acq") and hidden(xget.folder) == []


@BOTH
def test_reading_that_fails_is_a_line(
    xget: Xget, world: World, machine: Callable[[str], None], way: tuple[str, ...]
) -> None:
    """What was written cannot be read again: an error of the disk, not of xget."""
    machine(
        refusing(
            "refusing(os, 'read', errno.EIO, lambda d, n: n > 4 and os.path.isfile(f'/proc/self/fd/{d}'))"
        )
    )
    outcome = xget(*SCANS, *way)
    assert outcome.status in (0, 1)
    assert_lines(outcome)
    assert_earned(xget.folder, world)


@BOTH
@pytest.mark.parametrize("starts", range(9))
def test_no_further_thread_makes_it_slower_not_worse(
    xget: Xget, world: World, machine: Callable[[str], None], starts: int, way: tuple[str, ...]
) -> None:
    machine(
        "import threading\n"
        f"left = [{starts}]\n"
        "real = threading.Thread.start\n"
        "def start(self):\n"
        "    left[0] -= 1\n"
        "    if left[0] < 0:\n"
        '        raise RuntimeError("can\'t start new thread")\n'
        "    return real(self)\n"
        "threading.Thread.start = start\n"
    )
    for number in range(3):  # large enough for a thread that proves
        first(world).scans[0].resources[0].add(f"large{number}.dcm", Synthetic(3_000_000, seed=number))
    outcome = xget(*SCANS, *way, "-j", "4")
    if starts == 0:
        assert outcome == (1, "", "xget: this machine: gives no further thread\n")
        return
    assert outcome == (0, "./sess_1\n" if way else "./sess_1_acq.zip\n", "")
    assert found(xget, way) == truth(first(world), "acq")


@pytest.mark.parametrize(
    "clock", ["5.0", "-86400.0 * 400", "time_() + 86400 * 36500"], ids=["1970", "1968", "in 100 years"]
)
@BOTH
def test_a_clock_that_is_wrong_does_no_harm(
    xget: Xget, world: World, machine: Callable[[str], None], clock: str, way: tuple[str, ...]
) -> None:
    first(world).date = "1969-12-30"
    machine(f"import time\ntime_ = time.time\ntime.time = lambda: {clock}\n")
    assert xget(*SCANS, *way).status == 0
    assert found(xget, way) == truth(first(world), "acq")
    assert xget(*SCANS, *way, "-start", "10d").status in (0, 2)
    assert xget(*SCANS, *way, "-overwrite").status == 0


# --- homes, streams, shells ------------------------------------------------------------------------


def test_no_home_at_all(xget: Xget, world: World, machine: Callable[[str], None]) -> None:
    """Neither the variable nor an entry in the system's table of users."""
    machine("import pwd\ndef getpwuid(uid): raise KeyError(uid)\npwd.getpwuid = getpwuid\n")
    real = xget.environment
    xget.environment = lambda: {k: v for k, v in real().items() if k not in ("HOME", "USERPROFILE")}  # type: ignore[method-assign]
    assert xget(*SCANS).status == 0
    outcome = xget("-host", xget.url, *SCANS, "-overwrite", login=False)
    assert outcome.status == 2
    assert_lines(outcome, "no user for it; looked at")


@pytest.mark.parametrize("name", [".xnatPass", ".netrc"])
@ROOT
def test_somebody_elses_home(xget: Xget, server: XnatServer, name: str) -> None:
    """As under sudo: its files are not ours to read."""
    path = xget.home / name
    path.write_text(f"+admin@{server.url}=admin\n")
    path.chmod(0o600)
    os.chown(path, OTHER, OTHER)
    xget.home.chmod(0o755)
    assert finish(launch(xget, "plain", *SCANS)).status == 0
    outcome = finish(launch(xget, "plain", "-host", xget.url, "-u", "admin", *SCANS, "-z", login=False))
    assert outcome.status == 2
    assert_lines(outcome, name)
    assert "PermissionError" in outcome.err or "Permission denied" in outcome.err


@pytest.mark.parametrize("streams", ["close=0", "close=1", "close=2", "close=0 close=1 close=2"])
@BOTH
def test_streams_that_are_closed(xget: Xget, world: World, streams: str, way: tuple[str, ...]) -> None:
    assert finish(launch(xget, streams, *SCANS, *way, "-v")).status == 0
    assert found(xget, way) == truth(first(world), "acq")


def many(world: World) -> list[Session]:
    """Five sessions of a project, one after the other, each of which takes a moment."""
    project = world.project("many")
    for number in range(5):
        resource = project.session(f"m{number}").scan("1").resource("DICOM", format="DICOM")
        resource.add("a.dcm", Synthetic(300_000, seed=number))
    return [each for each in world.sessions() if each.project is project]


def assert_all(xget: Xget, sessions: list[Session]) -> None:
    for session in sessions:
        assert read_zip(xget.folder / f"{session.label}_acq.zip") == truth(session, "acq")
    assert hidden(xget.folder) == []


@pytest.mark.parametrize("number", ["SIGINT", "SIGHUP", "SIGTERM"])
def test_a_signal_that_the_caller_has_ignored_stays_ignored(
    xget: Xget, world: World, server: XnatServer, number: str
) -> None:
    """`nohup xget` ignores SIGHUP, a shell without job control SIGINT in what `&` starts."""
    sessions, server.rate = many(world), 400_000
    ignore = f"signal.signal(signal.{number}, signal.SIG_IGN)"
    start = f"import os, signal, sys; {ignore}; os.execv(sys.argv[1], sys.argv[1:])"
    account = ["-host", xget.url, "-u", "admin", "-p", "admin"]
    command = [sys.executable, "-c", start, sys.executable, str(XGET), *account, "-proj", "many", *QUICK]
    process = subprocess.Popen(
        command,
        cwd=xget.folder,
        env=xget.environment(),
        stdout=-1,
        stderr=-1,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: list(xget.folder.glob("*.zip")))
    process.send_signal(getattr(signal, number))
    assert finish(process).status == 0
    assert_all(xget, sessions)


def test_nohup(xget: Xget, world: World, server: XnatServer) -> None:
    sessions, server.rate = many(world), 400_000
    command = ["nohup", sys.executable, str(XGET), "-host", xget.url, "-u", "admin", "-p", "admin"]
    settings: dict[str, Any] = {"cwd": xget.folder, "env": xget.environment(), "start_new_session": True}
    with (xget.home / "log").open("w") as log:
        process = subprocess.Popen([*command, "-proj", "many", *QUICK], stdout=log, stderr=log, **settings)
    wait_for(lambda: list(xget.folder.glob("*.zip")))
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(60) == 0
    assert_all(xget, sessions)


def test_a_terminal_that_is_gone_and_nobody_hung_up(xget: Xget, world: World, server: XnatServer) -> None:
    """A disowned run outlives its terminal: what it says is lost, what it brings is not."""
    sessions, server.rate = many(world), 400_000
    master, slave = os.openpty()
    process = xget.start("-proj", "many", *QUICK, stdout=slave, stderr=slave, stdin=slave)
    os.close(slave)
    wait_for(lambda: list(xget.folder.glob("*.zip")))
    os.close(master)
    assert process.wait(60) == 0
    assert_all(xget, sessions)
    assert server.requests[-1].method == "DELETE"


def test_a_terminal_that_hangs_up(xget: Xget, world: World, server: XnatServer) -> None:
    """SIGHUP, and nobody to tell: what is proven is kept, the log-in is ended, within two seconds."""
    many(world)
    server.rate = 400_000
    terminal = Terminal(xget, "-proj", "many", *QUICK)
    wait_for(lambda: list(xget.folder.glob("*.zip")))
    begun = time.monotonic()
    os.close(terminal.master)
    assert terminal.process.wait(10) == 129
    assert time.monotonic() - begun < 5
    assert_earned(xget.folder, world)
    assert server.requests[-1].method == "DELETE"
    terminal.reader.join(10)


# --- a folder that others can write to ----------------------------------------------------------------


@pytest.fixture
def victim(xget: Xget) -> Path:
    """A folder with files of ours, outside the output directory."""
    folder = xget.home / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years")
    (folder / ".xget").write_text("{}")
    return folder


def intact(folder: Path) -> bool:
    return {p.name: p.read_text() for p in folder.iterdir()} == {"thesis.txt": "years", ".xget": "{}"}


def plant(path: Path, what: str, victim: Path) -> None:
    """Put this at a name of which a run may think that it is its own."""
    if what == "link to a folder":
        path.symlink_to(victim, target_is_directory=True)
    elif what == "link to a file":
        path.symlink_to(victim / "thesis.txt")
    elif what == "dead link":
        path.symlink_to(victim / "new.txt")
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        shutil.copytree(victim, path)
    elif what == "hard link":
        os.link(victim / "thesis.txt", path)
    elif what == "text":
        path.write_text("this is no part")
    else:
        path.write_bytes(b"" if "empty" in what else b"PK\x03\x04 something else")
        os.chown(path, OTHER, OTHER)
        path.chmod(0o644 if "readable" in what else 0o666)


def picture(folder: Path) -> dict[str, tuple[int, int]]:
    """What lies in a folder: kinds and sizes."""
    return {
        str(p.relative_to(folder)): (stat.S_IFMT(p.lstat().st_mode), p.lstat().st_size)
        for p in sorted(folder.rglob("*"))
    }


PLANTED = ["link to a folder", "link to a file", "dead link", "pipe", "folder", "hard link", "text"]
OTHERS = ["another user's file", "another user's readable file", "another user's empty file"]
WITH_OTHERS = [*PLANTED, *(pytest.param(each, marks=ROOT) for each in OTHERS)]
PARTS = {(): ".sess_1_acq.zip.part", ("-z",): ".sess_1_acq.part"}


@BOTH
@pytest.mark.parametrize("what", WITH_OTHERS)
def test_what_is_not_ours_at_the_name_of_a_part_is_left_and_named(
    xget: Xget, world: World, victim: Path, what: str, way: tuple[str, ...]
) -> None:
    path = xget.folder / PARTS[way]
    plant(path, what, victim)
    before = picture(xget.folder)
    outcome = finish(launch(xget, "plain", *SCANS, *way))
    assert outcome.status == 1 and outcome.out == ""
    assert_lines(outcome, path.name)
    assert "remove it" in outcome.err
    assert intact(victim) and picture(xget.folder) == before
    shutil.rmtree(path) if what == "folder" else path.unlink()
    assert xget(*SCANS, *way).status == 0
    assert found(xget, way) == truth(first(world), "acq")


@pytest.mark.parametrize("what", WITH_OTHERS)
def test_an_archive_that_is_there_needs_no_part(xget: Xget, victim: Path, what: str) -> None:
    assert xget(*SCANS).status == 0
    plant(xget.folder / PARTS[()], what, victim)
    before = picture(xget.folder)
    assert xget(*SCANS) == (0, "", "")
    assert intact(victim) and picture(xget.folder) == before


@BOTH
@ROOT
@pytest.mark.parametrize("what", OTHERS)
def test_a_part_that_another_users_run_holds_is_busy(
    xget: Xget, victim: Path, what: str, way: tuple[str, ...]
) -> None:
    import fcntl

    path = xget.folder / PARTS[way]
    plant(path, what, victim)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        outcome = finish(launch(xget, "plain", "-json", *SCANS, *way))
    assert outcome.status == 1
    assert json.loads(outcome.out)["status"] == "busy"
    assert_lines(outcome, "another run is at work here")
    assert path.exists() and path.stat().st_uid == OTHER


@pytest.mark.parametrize("what", WITH_OTHERS)
def test_what_is_not_ours_at_the_name_of_an_incomplete_archive_is_left(
    xget: Xget, world: World, victim: Path, what: str
) -> None:
    path = xget.folder / "sess_1_acq.incomplete.zip"
    plant(path, what, victim)
    before = picture(xget.folder)
    outcome = finish(launch(xget, "plain", *SCANS))
    assert_lines(outcome)
    assert intact(victim)
    assert {name: picture(xget.folder).get(name) for name in before} == before
    assert outcome.status == 0 or path.name in outcome.err
    assert_earned_but(path, xget, world)


def assert_earned_but(path: Path, xget: Xget, world: World) -> None:
    """What bears a final name is whole, whatever was planted elsewhere."""
    target = xget.folder / "sess_1_acq.zip"
    assert not target.exists() or read_zip(target) == truth(first(world), "acq")


LINKS = ["link to a folder", "link to a file", "dead link", "pipe", "text"]


@pytest.mark.parametrize("what", LINKS)
def test_what_is_planted_at_the_mark_of_a_folder_is_not_followed(
    xget: Xget, world: World, victim: Path, what: str
) -> None:
    (xget.folder / "sess_1").mkdir()
    plant(xget.folder / "sess_1" / ".xget", what, victim)
    outcome = xget(*SCANS, "-z")
    assert_lines(outcome)
    assert intact(victim)
    assert set(read_tree(xget.folder)) <= set(truth(first(world), "acq"))
    assert outcome.status == 0 or ".xget" in outcome.err


@pytest.mark.parametrize("word", ["new", "old"])
@pytest.mark.parametrize(
    "what", ["link to a folder", "link to a file", "dead link", "pipe", "folder", "text"]
)
def test_what_is_planted_beside_a_folder_that_is_replaced_is_not_followed(
    xget: Xget, world: World, victim: Path, what: str, word: str
) -> None:
    """The new folder of a scan gathers in a hidden one beside the old; its name can be foreseen."""
    import hashlib

    assert xget(*SCANS, "-z").status == 0
    old = found(xget, ("-z",))
    mark = hashlib.sha256(b"1-TSE").hexdigest()[:8]
    path = xget.folder / "sess_1" / "scans" / f".xget-{word}-{mark}"
    plant(path, what, victim)
    first(world).scans[0].resources[0].add("new.dcm", b"new")
    outcome = xget(*SCANS, "-z", "-overwrite")
    assert_lines(outcome)
    assert intact(victim)
    now = {name: data for name, data in found(xget, ("-z",)).items() if not re.search(r"(^|/)\.", name)}
    assert now in (truth(first(world), "acq"), old)
    assert outcome.status == 1 or now != old


@pytest.mark.parametrize("what", ["link to a folder", "link to a file", "dead link", "pipe", "hard link"])
def test_what_is_planted_at_the_name_of_an_archive_is_not_written_through(
    xget: Xget, world: World, victim: Path, what: str
) -> None:
    plant(xget.folder / "sess_1_acq.zip", what, victim)
    outcome = xget(*SCANS)
    assert_lines(outcome)
    assert intact(victim)
    outcome = xget(*SCANS, "-overwrite")
    assert_lines(outcome)
    assert intact(victim)
    assert outcome.status == 1 or read_zip(xget.folder / "sess_1_acq.zip") == truth(first(world), "acq")


@ROOT
def test_two_users_share_a_folder(xget: Xget, world: World, server: XnatServer) -> None:
    """The other one's archive is there; what the other one left half-done is named, not taken."""
    assert xget(*SCANS).status == 0
    os.chown(xget.folder / "sess_1_acq.zip", OTHER, OTHER)
    assert finish(launch(xget, "plain", *SCANS)) == (0, "", "")
    first(world).scans[0].resources[0].add("new.dcm", b"new")
    assert finish(launch(xget, "plain", *SCANS, "-update")).status == 0
    assert read_zip(xget.folder / "sess_1_acq.zip") == truth(first(world), "acq")


def locked_by_another(path: Path) -> Any:
    """A child that becomes the other user and holds a lock on a part of its own; a pipe that ends it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(reader)
        return pid, writer
    with contextlib.suppress(BaseException):
        import fcntl

        os.close(writer)
        os.setgid(OTHER)
        os.setuid(OTHER)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, b"PK\x03\x04")
        os.read(reader, 1)
    os._exit(0)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that everybody can write to, as /scratch often is."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@ROOT
def test_another_users_live_run_is_left_alone_and_its_dead_one_is_named(xget: Xget, shared: Path) -> None:
    xget.folder = shared
    path = shared / PARTS[()]
    child, end = locked_by_another(path)
    try:
        wait_for(lambda: path.exists() and path.stat().st_size)
        outcome = finish(launch(xget, "plain", *SCANS))
        assert outcome.status == 1
        assert_lines(outcome, path.name)
    finally:
        os.close(end)
        os.waitpid(child, 0)
    assert path.read_bytes() == b"PK\x03\x04" and path.stat().st_uid == OTHER
    outcome = finish(launch(xget, "plain", *SCANS))
    assert outcome.status == 1
    assert_lines(outcome, path.name)
    assert "remove it" in outcome.err
    path.unlink()
    assert finish(launch(xget, "plain", *SCANS)).status == 0


def test_an_archive_of_thousands_of_bytes_of_comment_is_no_trap(xget: Xget, victim: Path) -> None:
    """A file at the target that says of itself whatever it likes is compared, not obeyed."""
    target = xget.folder / "sess_1_acq.zip"
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("x", b"x")
        archive.comment = json.dumps(
            {"xget": "2.0.0", "server": "[", "id": {}, "asked": [], "constraints": 1}
        ).encode()
    outcome = xget(*SCANS)
    assert outcome.status == 1
    assert_lines(outcome, "sess_1_acq.zip: exists")
    assert re.search("-overwrite", outcome.err)


def test_ctrl_c_while_a_name_takes_long_to_be_looked_up(
    xget: Xget, server: XnatServer, machine: Callable[[str], None], tmp_path: Path
) -> None:
    """A network that is gone: the log-out needs a connection, and its name may take a minute."""
    gone = tmp_path / "gone"
    machine(
        "import os, socket, time\n"
        "real = socket.getaddrinfo\n"
        "def slow(*args, **more):\n"
        f"    time.sleep(12 if os.path.exists({str(gone)!r}) else 0)\n"
        "    return real(*args, **more)\n"
        "socket.getaddrinfo = slow\n"
    )
    server.fault("silence", match="format=zip", seconds=60, times=None)
    process = xget.start(*SCANS)
    end = time.monotonic() + 30
    while not any("format=zip" in each.path for each in list(server.requests)) and time.monotonic() < end:
        time.sleep(0.02)
    gone.touch()
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "xget: interrupted\n")
    assert time.monotonic() - begun < 2 + 3  # two are promised, the rest is for a machine under load
