"""Several runs on one directory, and what else a disk can do to a run.

Runs side by side fetch nothing twice and spoil nothing; a full disk, a directory that goes away or
turns read-only, and a file system without locks leave no name that is not earned.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import Outcome, Xget
from truth import assert_earned, hidden, read_tree, read_zip, truth
from xnat_server import Synthetic, World, XnatServer

FLAGS = ("-ass", "NONE", "-recon", "NONE", "-retry", "0.1,0.1", "-timeout", "5")
PATIENT = (*FLAGS[:-1], "60")
ZIP = "format=zip"


@pytest.fixture
def world() -> World:
    """Four sessions of two scans, 600 kB each."""
    world = World()
    project = world.project("p")
    for number in range(4):
        session = project.session(f"s{number}", subject="subj")
        for scan in ("1", "2"):
            files = {f"{n}.dcm": Synthetic(100_000, seed=number * 100 + n) for n in range(3)}
            session.scan(scan, type="T1").resource("DICOM", files, format="DICOM")
    return world


def finish(process: Any, timeout: float = 60) -> Outcome:
    out, err = process.communicate(timeout=timeout)
    return Outcome(process.returncode, out, err)


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this did not come about"
        time.sleep(0.01)


def transfers(server: XnatServer) -> list[str]:
    """The requests for files, in their order."""
    return [each.path for each in list(server.requests) if re.search(r"format=zip|/files/\w", each.path)]


def expected(world: World) -> dict[str, bytes]:
    return {name: data for each in world.sessions() for name, data in truth(each, "acq").items()}


LOCKLESS = """
import errno, fcntl
def flock(descriptor, operation):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""


@pytest.fixture
def lockless(xget: Xget, tmp_path: Path) -> None:
    """A file system without locks, as far as Python's standard library tells."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(LOCKLESS)
    xget.env["PYTHONPATH"] = str(tmp_path / "site")


@pytest.fixture
def gate(server: XnatServer) -> Iterator[threading.Event]:
    """Holds the next two archives back until it is set."""
    gate = threading.Event()
    server.fault("call", match=ZIP, times=2, action=lambda: gate.wait(60))
    yield gate
    gate.set()


@pytest.mark.parametrize("extract", [(), ("-z",)], ids=["archives", "extract"])
def test_two_runs_on_the_same_sessions(
    extract: tuple[str, ...], xget: Xget, server: XnatServer, world: World, gate: threading.Event
) -> None:
    """What one run is fetching, the other leaves alone, named and failed; nothing comes twice."""
    first = xget.start("-s", "s0,s1", *PATIENT, *extract)
    wait_for(lambda: len(transfers(server)) == 2)
    second = xget("-s", "s0,s1,s2", *PATIENT, *extract)
    gate.set()
    done = finish(first)
    assert (done.status, done.err) == (0, "")
    assert second.status == 1
    assert re.search("s0 acq: .*another run", second.err)
    assert re.search("s1 acq: .*another run", second.err)
    assert_earned(xget.folder, world)
    assert max(Counter(transfers(server)).values()) == 1
    assert hidden(xget.folder) == []
    assert xget("-s", "s0,s1,s2", *FLAGS, *extract).status == 0
    assert max(Counter(transfers(server)).values()) == 1


@pytest.mark.parametrize("extract", [(), ("-z",)], ids=["archives", "extract"])
@pytest.mark.parametrize("locks", ["locks", "lockless"])
def test_eight_runs_on_overlapping_lists(
    locks: str, extract: tuple[str, ...], xget: Xget, server: XnatServer, world: World, request: Any
) -> None:
    """As under GNU parallel: eight processes started at once, nothing spoilt; with locks nothing comes twice.

    Without locks each run works on a part of its own, and all end well.
    """
    if locks == "lockless":
        request.getfixturevalue("lockless")
    server.rate = 2_000_000
    lists = ["s0,s1,s2,s3", "s3,s2,s1,s0", "s0,s1", "s2,s3", "s1,s2", "s0", "s3,s0", "s1"]
    runs = [xget.start("-s", each, *FLAGS, *extract) for each in lists]
    done = [finish(each) for each in runs]
    assert {each.status for each in done} <= ({0, 1} if locks == "locks" else {0}), done
    for each in done:
        lines = [line for line in each.err.splitlines() if not re.match(r"xget: \d+ session", line)]
        assert all("another run" in line for line in lines), each.err
    assert_earned(xget.folder, world)
    if locks == "locks":
        assert max(Counter(transfers(server)).values()) == 1
    came = len(transfers(server))
    assert xget("-s", "s0,s1,s2,s3", *FLAGS, *extract).status == 0
    if extract:
        assert read_tree(xget.folder) == expected(world)
    assert hidden(xget.folder) == []
    if locks == "locks":
        assert max(Counter(transfers(server)).values()) == 1
    else:
        assert len(transfers(server)) == came, "all was there"


def test_busy_is_a_status_of_its_own(xget: Xget, server: XnatServer, gate: threading.Event) -> None:
    first = xget.start("-s", "s0", *PATIENT)
    wait_for(lambda: transfers(server))
    second = xget("-s", "s0", *PATIENT, "-json")
    gate.set()
    assert [json.loads(line)["status"] for line in second.out.splitlines()] == ["busy"]
    assert second.status == 1
    assert finish(first).status == 0


def test_same_session_by_id_and_by_label_extracted(xget: Xget, server: XnatServer, world: World) -> None:
    """Two runs extract into one folder, under two names of the session: neither fails or spoils."""
    server.rate = 1_000_000
    runs = [xget.start("-s", name, *FLAGS, "-z") for name in ("s0", "XNAT_E00001")]
    done = [finish(each) for each in runs]
    for each in done:
        assert each.status == 0 or "another run" in each.err, each.err
    assert_earned(xget.folder, world)
    assert xget("-s", "s0", *FLAGS, "-z").status == 0
    assert read_tree(xget.folder) == truth(world.sessions()[0], "acq")
    assert hidden(xget.folder) == []


# What a killed run left


def part_of(xget: Xget, server: XnatServer, *flags: str, after: int = 350_000) -> list[str]:
    """Kill a run of s0 when `after` bytes of it have been sent; names what it left hidden."""
    fault = server.fault("silence", match=ZIP, after=after, seconds=60)
    process = xget.start("-s", "s0", *PATIENT, *flags)
    wait_for(lambda: fault.struck and any(r.bytes_sent >= after - 20_000 for r in list(server.requests)))
    time.sleep(0.3)
    process.kill()
    finish(process)
    server.clear()
    return hidden(xget.folder)


def proven(xget: Xget) -> int:
    """Count the files that a killed run had proven: in its tree, or whole in its part, by their CRC."""
    parts = list(xget.folder.glob(".s0_acq.zip.*part"))
    if not parts:
        return len([name for name in read_tree(xget.folder) if not name.startswith(".") and "/." not in name])
    data, at, count = parts[0].read_bytes(), 0, 0
    while data[at : at + 4] == b"PK\x03\x04":
        crc, packed, _, name, extra = struct.unpack("<3I2H", data[at + 14 : at + 30])
        at += 30 + name + extra
        count += zlib.crc32(data[at : at + packed]) == crc
        at += packed
    return count


def age(path: Path, hours: float) -> None:
    then = time.time() - hours * 3600
    os.utime(path, (then, then))


@pytest.mark.parametrize("locks", ["locks", "lockless"])
@pytest.mark.parametrize("extract", [(), ("-z",)], ids=["archives", "extract"])
def test_part_of_a_killed_run_is_taken_over(
    locks: str, extract: tuple[str, ...], xget: Xget, server: XnatServer, world: World, request: Any
) -> None:
    """However young it is it stops nobody, and with locks what it holds is not asked for again.

    Without locks nobody can tell that it is dead: it stays for a day, and is cleared then.
    """
    if locks == "lockless":
        request.getfixturevalue("lockless")
    left = part_of(xget, server, *extract)
    whole = proven(xget)
    assert 0 < whole < 6
    assert [name for name in left if re.fullmatch(r"\.s0_acq(\.zip)?\.(\d+-\d+\.)?part", name)], left
    assert xget("-s", "s0", *FLAGS, *extract).status == 0
    sent = sum(each.bytes_sent for each in server.requests if each.transfer)
    there = whole if extract or locks == "locks" else 0
    assert (6 - there) * 100_000 <= sent < (6 - there) * 100_000 + 2000
    assert_earned(xget.folder, world)
    again = hidden(xget.folder)
    if locks == "locks":
        assert again == []
    elif not extract:
        assert again == left
        age(xget.folder / left[0], 23)
        assert xget("-s", "s0", *FLAGS, "-overwrite").status == 0 and hidden(xget.folder) == left
        age(xget.folder / left[0], 25)
        assert xget("-s", "s0", *FLAGS, "-overwrite").status == 0 and hidden(xget.folder) == []


@pytest.mark.usefixtures("lockless")
def test_lockless_half_written_files_stay_for_a_day(xget: Xget, server: XnatServer, world: World) -> None:
    """They may be those of a run that is alive."""
    left = part_of(xget, server, "-z")
    [half] = [xget.folder / name for name in left if re.search(r"/\.xget-\d+-\d+$", name)]
    gone = world.sessions()[0].scans[0].resources[0].files.pop("0.dcm")
    assert xget("-s", "s0", *FLAGS, "-z").status == 0 and half.exists()
    age(half, 25)
    world.sessions()[0].scans[0].resources[0].files["0.dcm"] = gone
    assert xget("-s", "s0", *FLAGS, "-z").status == 0 and not half.exists()


@pytest.mark.usefixtures("lockless")
def test_lockless_incomplete_archive_is_the_beginning_of_the_next_run(
    xget: Xget, server: XnatServer, world: World
) -> None:
    """Also where it is older than the day after which what nobody writes to is cleared."""
    gone = world.sessions()[0].scans[0].resources[0].files["1.dcm"]
    gone.on_disk = False
    assert xget("-s", "s0", *FLAGS).status == 1
    age(xget.folder / "s0_acq.incomplete.zip", 30)
    gone.on_disk = True
    server.clear()
    assert xget("-s", "s0", *FLAGS).status == 0
    assert [each.bytes_sent for each in server.requests if each.transfer] == [100_000]
    assert xget.files() == ["s0_acq.zip"]


@pytest.mark.usefixtures("lockless")
@pytest.mark.parametrize(
    "extract", [(), ("-z",), ("-z", "-overwrite")], ids=["archives", "extract", "replace"]
)
def test_lockless_runs_side_by_side(
    extract: tuple[str, ...], xget: Xget, server: XnatServer, world: World
) -> None:
    """Two runs of one session, the second one from beginning to end while the first waits: both end well."""
    if "-overwrite" in extract:
        assert xget("-s", "s0", *FLAGS, "-z").status == 0
    gate = threading.Event()
    fault = server.fault("call", match=ZIP, times=1, action=lambda: gate.wait(60))
    first = xget.start("-s", "s0", *PATIENT, *extract)
    wait_for(lambda: fault.struck)
    second = xget("-s", "s0", *PATIENT, *extract)
    gate.set()
    done = finish(first)
    assert (done.status, second.status) == (0, 0), (done, second)
    assert_earned(xget.folder, world)
    assert hidden(xget.folder) == []


# The disk


@contextlib.contextmanager
def mounted(options: str) -> Iterator[Path]:
    """A tmpfs with these options, for as long as it takes; skips the test where it may not be mounted."""
    folder = Path(tempfile.mkdtemp())
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        folder.rmdir()
        pytest.skip("no right to mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


@pytest.fixture
def small_disk(xget: Xget, request: Any) -> Iterator[Path]:
    """An output directory on a file system of 1 MiB, or so many."""
    with mounted(f"size={getattr(request, 'param', 1)}m") as folder:
        xget.folder = folder
        yield folder


def test_no_room(xget: Xget, server: XnatServer, world: World, small_disk: Path) -> None:
    """What does not fit is refused before its first byte; what fits is fetched all the same."""
    files = world.sessions()[0].scans[0].resources[0].files
    files["huge.dcm"] = type(files["0.dcm"])(Synthetic(3_000_000))
    done = xget("-s", "s0,s1", *FLAGS)
    assert (done.status, xget.files()) == (1, ["s1_acq.zip"])
    assert re.search("s0 acq: .*no room: 3.6 MB needed", done.err), done.err
    assert not [each for each in transfers(server) if "XNAT_E00001" in each]
    assert_earned(small_disk, world)


@pytest.fixture
def five_percent(xget: Xget, world: World) -> Iterator[int]:
    """An output directory on a file system with room for s0 and 5 % more; s0 has 8 MB in 16 files then."""
    session = world.sessions()[0]
    for number, scan in enumerate(session.scans):
        for place in range(8):
            scan.resources[0].add(f"{place}.dcm", Synthetic(500_000, seed=number * 10 + place))
    with mounted(f"size={8_000_000 * 105 // 100}") as folder:
        xget.folder = folder
        yield 8_000_000


@pytest.mark.usefixtures("five_percent")
def test_extraction_needs_the_room_of_the_files_alone(xget: Xget, server: XnatServer, world: World) -> None:
    """No ZIP is written on the way: the files appear one by one while the body is still coming."""
    server.rate = 4_000_000
    process = xget.start("-s", "s0", *FLAGS, "-z")
    seen: list[int] = []
    while process.poll() is None:
        seen.append(len(list(xget.folder.rglob("*.dcm"))))
        assert not list(xget.folder.rglob("*.zip"))
        time.sleep(0.02)
    done = finish(process)
    assert (done.status, done.out, done.err) == (0, "./s0\n", "")
    assert len(transfers(server)) == 1
    assert seen == sorted(seen) and len(set(seen)) > 6, seen
    assert read_tree(xget.folder) == truth(world.sessions()[0], "acq")
    assert hidden(xget.folder) == []


def test_room_for_transfers_in_flight(xget: Xget, server: XnatServer, world: World, small_disk: Path) -> None:
    """Two archives, each of which fits alone: one is fetched, the other refused, none torn."""
    server.rate = 1_000_000
    done = xget("-s", "s0,s1", *FLAGS, "-j", "2")
    assert (done.status, len(xget.files())) == (1, 1), done.err
    assert "no room" in done.err
    assert_earned(small_disk, world)


@pytest.mark.parametrize("small_disk", [2], indirect=True, ids=["2MiB"])
@pytest.mark.parametrize("extract", [(), ("-z",)], ids=["archives", "extract"])
def test_full_disk(
    extract: tuple[str, ...], xget: Xget, server: XnatServer, world: World, small_disk: Path
) -> None:
    """A disk that fills up in mid-stream: what is whole is kept; the next run asks for the rest."""
    server.fault("call", match=ZIP, action=lambda: (small_disk / "filler").write_bytes(bytes(1_650_000)))
    done = xget("-s", "s0", *FLAGS, *extract)
    assert done.status == 1 and "Traceback" not in done.err
    assert "No space left" in done.err
    assert not (small_disk / "s0_acq.zip").exists()
    (small_disk / "filler").unlink()
    assert_earned(small_disk, world)
    server.clear()
    assert xget("-s", "s0", *FLAGS, *extract).status == 0
    assert sum(each.bytes_sent for each in server.requests if each.transfer) < 410_000
    assert hidden(small_disk) == []
    assert_earned(small_disk, world)


@pytest.mark.parametrize("small_disk", [2], indirect=True, ids=["2MiB"])
@pytest.mark.parametrize("extract", [(), ("-z",)], ids=["archives", "extract"])
def test_full_disk_without_listed_sizes(
    extract: tuple[str, ...], xget: Xget, server: XnatServer, world: World, small_disk: Path
) -> None:
    """A listing without sizes promises room: the room that there is is the limit, and is said."""
    world.listed_sizes = False
    (small_disk / "filler").write_bytes(bytes(1_650_000))
    done = xget("-s", "s0", *FLAGS, *extract)
    assert done.status == 1 and re.search("no room: more than|No space left", done.err), done.err
    assert len(transfers(server)) == 1, "asking again would not make room"
    (small_disk / "filler").unlink()
    assert_earned(small_disk, world)
    assert xget("-s", "s0", *FLAGS, *extract).status == 0
    assert hidden(small_disk) == []


def test_directory_that_goes_away(xget: Xget, server: XnatServer) -> None:
    """A directory that is removed in mid-run is not made anew; the run says so and ends."""
    server.rate = 300_000
    process = xget.start("-s", "s0,s1,s2", *FLAGS, "-o", str(xget.folder), cwd="/")
    wait_for(lambda: transfers(server))
    shutil.rmtree(xget.folder)
    done = finish(process)
    assert done.status == 1
    assert "Traceback" not in done.err
    assert str(xget.folder) in done.err
    assert not xget.folder.exists()


def without_override() -> None:
    """Take from root, in a child before it starts, the right to write where nobody may (Linux)."""
    bounding_set_drop, dac_override = 24, 1
    ctypes.CDLL(None).prctl(bounding_set_drop, dac_override, 0, 0, 0)


@pytest.mark.parametrize("extract", [(), ("-z",)], ids=["archives", "extract"])
def test_directory_that_turns_read_only(
    extract: tuple[str, ...], xget: Xget, server: XnatServer, world: World
) -> None:
    """No name is earned without the right to write it; once the right is back, the next run finishes."""
    options: dict[str, Any] = {}
    if os.geteuid() == 0:
        if not sys.platform.startswith("linux"):
            pytest.skip("root may write everywhere")
        options["preexec_fn"] = without_override
    server.rate = 500_000
    process = xget.start("-s", "s0", *FLAGS, *extract, **options)
    wait_for(lambda: transfers(server) and (not extract or read_tree(xget.folder)))
    folders = [xget.folder, *(path for path in xget.folder.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    try:
        done = finish(process)
    finally:
        for folder in folders:
            folder.chmod(0o700)
    assert (done.status, "Traceback" in done.err) == (1, False), done.err
    assert "Permission denied" in done.err
    assert not (xget.folder / "s0_acq.zip").exists()
    assert_earned(xget.folder, world)
    server.rate = None
    assert xget("-s", "s0", *FLAGS, *extract).status == 0
    assert hidden(xget.folder) == []
    assert_earned(xget.folder, world)


def test_folders_in_the_place_of_archives(xget: Xget) -> None:
    """What is no file is no archive: a failure that says so, and no traceback."""
    (xget.folder / "s0_acq.zip").mkdir()
    done = xget("-s", "s0", *FLAGS)
    assert (done.status, "Traceback" in done.err, xget.files()) == (1, False, ["s0_acq.zip/"])
    assert "s0_acq.zip" in done.err


# What a run kept


def names(path: Path) -> set[str]:
    return set(read_zip(path))


def test_next_run_asks_only_for_what_lacks(xget: Xget, server: XnatServer, world: World) -> None:
    """An incomplete archive is the start of the next run: one listing, one file, the bytes of that file."""
    gone = world.sessions()[0].scans[0].resources[0].files["1.dcm"]
    gone.on_disk = False
    assert xget("-s", "s0", *FLAGS).status == 1
    assert len(names(xget.folder / "s0_acq.incomplete.zip")) == 5
    gone.on_disk = True
    server.clear()
    assert xget("-s", "s0", *FLAGS).status == 0
    assert xget.files() == ["s0_acq.zip"]
    assert_earned(xget.folder, world)
    asked = [each for each in server.requests if re.search(ZIP + r"|/files/\w", each.path)]
    assert [re.search(r"/files/1\.dcm", each.path) is not None for each in asked] == [True]
    assert asked[0].bytes_sent == 100_000


def test_one_bad_file_costs_no_other(xget: Xget, server: XnatServer, world: World) -> None:
    """One byte inverted: one file more is asked for, none of the others again."""
    server.fault("flip", match=ZIP, member="1-T1/.*/1.dcm")
    assert xget("-s", "s0", *FLAGS).status == 0
    asked = [each for each in server.requests if re.search(ZIP + r"|/files/\w", each.path)]
    assert len(asked) == 2
    assert asked[1].bytes_sent == 100_000


def test_cut_costs_what_had_not_come(xget: Xget, server: XnatServer, world: World) -> None:
    """A broken connection: the files that were whole by then are not asked for again."""
    server.fault("cut", match=ZIP, after=550_000)
    assert xget("-s", "s0", *FLAGS).status == 0
    asked = [each for each in server.requests if re.search(ZIP + r"|/files/\w", each.path)]
    assert sum(each.bytes_sent for each in asked[1:]) <= 150_000, [each.path for each in asked]
    assert_earned(xget.folder, world)


def test_short_archive_costs_one_more(xget: Xget, server: XnatServer, world: World) -> None:
    """A valid ZIP without its later half: those files alone are asked for."""
    server.fault("vanish", match=ZIP, member="1-T1/.*/2.dcm")
    assert xget("-s", "s0", *FLAGS).status == 0
    asked = [each for each in server.requests if re.search(ZIP + r"|/files/\w", each.path)]
    assert sum(each.bytes_sent for each in asked[1:]) <= 410_000
    assert_earned(xget.folder, world)


def test_incomplete_of_more_scans_serves_for_fewer(xget: Xget, server: XnatServer, world: World) -> None:
    """Who gives up a broken scan gets a complete archive of the rest, from what is there already."""
    world.sessions()[0].scans[0].resources[0].files["1.dcm"].on_disk = False
    assert xget("-s", "s0", *FLAGS).status == 1
    server.clear()
    done = xget("-s", "s0", "-acq", "2", *FLAGS)
    assert (done.status, xget.files(), transfers(server)) == (0, ["s0_acq.zip"], []), done.err
    assert names(xget.folder / "s0_acq.zip") == {
        n for n in truth(world.sessions()[0], "acq") if "/2-T1/" in n
    }


def test_incomplete_with_a_file_that_left_the_server(xget: Xget, server: XnatServer, world: World) -> None:
    """A file that the server no longer lists does not stay in the way."""
    files = world.sessions()[0].scans[0].resources[0].files
    files["1.dcm"].on_disk = False
    assert xget("-s", "s0", *FLAGS).status == 1
    files["1.dcm"].on_disk = True
    del files["0.dcm"]
    done = xget("-s", "s0", *FLAGS)
    assert (done.status, xget.files()) == (0, ["s0_acq.zip"]), done.err
    assert_earned(xget.folder, world)


def test_damaged_incomplete_archive(xget: Xget, server: XnatServer, world: World) -> None:
    """What is kept is proven anew: a byte that the disk lost is fetched again, not passed on."""
    gone = world.sessions()[0].scans[0].resources[0].files["1.dcm"]
    gone.on_disk = False
    assert xget("-s", "s0", *FLAGS).status == 1
    gone.on_disk = True
    path = xget.folder / "s0_acq.incomplete.zip"
    data = bytearray(path.read_bytes())
    data[50_000] ^= 0xFF
    path.write_bytes(data)
    assert xget("-s", "s0", *FLAGS).status == 0
    assert xget.files() == ["s0_acq.zip"]
    assert_earned(xget.folder, world)


def test_many_unlisted_members_do_not_block_the_next_run(
    xget: Xget, server: XnatServer, world: World
) -> None:
    """A ZIP full of strangers: kept apart, and its incomplete archive can still be read by the next run."""
    for number in range(500):
        name = f"s0/scans/9-X/resources/DICOM/files/{'x' * 120}{number}.dcm"
        server.fault("add", match=ZIP, name=name, data=b"", times=1)
    assert xget("-s", "s0", *FLAGS).status == 1
    server.clear()
    done = xget("-s", "s0", *FLAGS)
    assert "unknown origin" not in done.err


@pytest.mark.parametrize("extract", [("-z",), ("-z", "-overwrite")], ids=["extract", "overwrite"])
def test_extracts_what_is_whole(
    extract: tuple[str, ...], xget: Xget, server: XnatServer, world: World
) -> None:
    """A lost file costs no other: the rest is extracted, the next run asks for that file alone."""
    gone = world.sessions()[0].scans[0].resources[0].files["1.dcm"]
    gone.on_disk = False
    assert xget("-s", "s0", *FLAGS, *extract).status == 1
    assert len(read_tree(xget.folder)) == 5
    gone.on_disk = True
    server.clear()
    assert xget("-s", "s0", *FLAGS, "-z").status == 0
    assert [each for each in transfers(server) if not each.endswith("/files/1.dcm")] == []
    assert read_tree(xget.folder) == truth(world.sessions()[0], "acq")


@pytest.mark.parametrize("extract", [(), ("-z",)], ids=["archives", "extract"])
def test_two_archives_when_the_server_goes(
    extract: tuple[str, ...], xget: Xget, server: XnatServer, world: World
) -> None:
    """Every archive in flight keeps what had arrived when the server went away, not only the first."""
    for session in world.sessions()[:2]:
        session.scans[1].resources[0].files["2.dcm"].data = Synthetic(3_000_000)
    server.rate = 1_500_000
    process = xget.start("-s", "s0,s1", *FLAGS, *extract, "-j", "2")
    wait_for(lambda: sum(each.bytes_sent > 900_000 for each in list(server.requests)) == 2)
    server.stop()
    done = finish(process)
    assert done.status == 3, done.err
    if extract:
        assert len(read_tree(xget.folder)) >= 6
        assert {name.partition("/")[0] for name in read_tree(xget.folder)} == {"s0", "s1"}
    else:
        assert xget.files() == ["s0_acq.incomplete.zip", "s1_acq.incomplete.zip"], done.err
    assert hidden(xget.folder) == []
    assert_earned(xget.folder, world)
