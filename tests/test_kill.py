"""Stopped at any moment: what has a final name is whole, what was proven stays, the next run brings the rest.

Ctrl-C, SIGTERM, SIGHUP and SIGKILL strike at random moments, half of them right after a transfer. Apart from
that a run is killed before each of its calls that change something on the disk, so that no moment of a
replacement is left out. XGET_KILLS=N makes it so many of each kind; the gate has a few.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import lane
import pytest
from conftest import Xget
from truth import hidden, read_tree, read_zip, truth
from xnat_server import Session, Synthetic, World, XnatServer

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")

KILLS = int(os.environ.get("XGET_KILLS", "32"))
MODES = {
    "archives": (),
    "archives-overwrite": ("-overwrite",),
    "extract": ("-z",),
    "extract-overwrite": ("-z", "-overwrite"),
}
SIGNALS = ("SIGKILL", "SIGINT", "SIGTERM", "SIGHUP")
STRIKES = list(itertools.product(MODES, SIGNALS))
PROMPT = 2 + 3 * lane.PATIENCE  # seconds: two are promised, the rest is for a machine under load
QUICK = ("-proj", "p", "-retry", "0.1,0.1", "-timeout", "5")
Found = dict[str, dict[str, bytes]]


def fill(sessions: list[Session], seed: int, count: int = 30) -> None:
    """Give each scan and reconstruction of these sessions its files, their bytes those of this seed."""
    for number, session in enumerate(sessions):
        for holder in (*session.scans, *session.reconstructions):
            for place in range(count):
                size = 9000 + 1000 * place + seed  # sizes differ too, so that -z sees what is old
                content = Synthetic(size, seed=seed * 1000 + number * 100 + place)
                holder.resources[0].add(f"{place:02}.dcm", content)


@pytest.fixture
def world() -> World:
    world = World()
    project = world.project("p")
    for label in ("one", "two"):
        session = project.session(label, subject=label)
        for scan in ("1", "2"):
            session.scan(scan, type="T1").resource("DICOM", format="DICOM")
        session.reconstruction("R", type="A").resource("DICOM", format="DICOM")
    fill(world.sessions(), 1)
    return world


@pytest.fixture
def server(world: World) -> Iterator[XnatServer]:
    with XnatServer(world, rate=6_000_000) as server:
        yield server


def expected(sessions: list[Session]) -> Found:
    """What is to be there in the end, by archive."""
    kinds = ("acq", "recon")
    return {f"{each.label}_{kind}.zip": truth(each, kind) for each in sessions for kind in kinds}


def contents(version: Found) -> dict[str, bytes]:
    return {name: data for archive in version.values() for name, data in archive.items()}


def assert_whole(top: Path, *versions: Found) -> None:
    """Every final name is whole: an archive of one version, a file of one version."""
    for path in top.glob("*.zip"):
        if path.name.endswith(".incomplete.zip"):
            kept, archive = read_zip(path), path.name.replace(".incomplete", "")
            assert kept.items() <= versions[-1][archive].items(), f"{path.name} is spoilt"
            assert list(members(path)) == list(kept.values()), f"{path.name} holds what is not proven"
        elif not path.name.startswith("."):
            assert read_zip(path) in [version[path.name] for version in versions], f"{path.name} is spoilt"
    for name, data in read_tree(top).items():
        if not re.search(r"(^|/)\.", name):
            assert data in [contents(version).get(name) for version in versions], f"{name} is spoilt"


def assert_finished(top: Path, version: Found, extracted: bool) -> None:
    if extracted:
        assert read_tree(top) == contents(version)
        assert {path.name for path in top.iterdir()} == {"one", "two"}
    else:
        assert {path.name: read_zip(path) for path in top.iterdir()} == version
    assert hidden(top) == []


def members(path: Path) -> Iterator[Optional[bytes]]:
    """The contents in a part, by its local headers; None where one is not whole."""
    data, at = path.read_bytes(), 0
    while data[at : at + 4] == b"PK\x03\x04":
        crc, packed, _, name, extra = struct.unpack("<3I2H", data[at + 14 : at + 30])
        at += 30 + name + extra
        content = data[at : at + packed]
        yield content if zlib.crc32(content) == crc else None
        at += packed


def proven(top: Path, version: Found, mode: str) -> list[bytes]:
    """What a stopped run had proven, so that the next need not ask; -overwrite begins with what is hidden."""
    known = set(contents(version).values())
    found = [data for path in top.glob(".*.zip.part") for data in members(path) if data is not None]
    for path in top.glob("*.zip"):
        finished = "overwrite" not in mode and not path.name.startswith(".")
        if finished or path.name.endswith(".incomplete.zip"):
            found += read_zip(path).values()
    for name, data in read_tree(top).items():
        new = re.search(r"/\.xget-new-[^/]+/", name) and not re.search(r"/\.xget-\d+-\d+$", name)
        if new or ("overwrite" not in mode and not re.search(r"(^|/)\.", name)):
            found.append(data)
    return [data for data in found if data in known]


def wait_for_moment(moment: random.Random, process: Any, server: XnatServer) -> None:
    """Wait for a random moment of a run that has begun to ask, or one soon after a transfer."""
    end = time.monotonic() + 20
    while not server.requests and process.poll() is None and time.monotonic() < end:
        time.sleep(0.001)
    if moment.random() < 0.5:
        time.sleep(moment.uniform(0, 1.2))
        return
    wanted = moment.randint(1, 4)
    while process.poll() is None and time.monotonic() < end:
        ended = [each for each in list(server.requests) if "format=zip" in each.path and each.end_time]
        if len(ended) >= wanted:
            break
        time.sleep(0.001)
    time.sleep(moment.uniform(0, 0.15))


def strike(process: Any, number: signal.Signals) -> float:
    """Send a signal; returns how many seconds the end took."""
    begun = time.monotonic()
    process.send_signal(number)
    process.communicate(timeout=30)
    return time.monotonic() - begun


def assert_ended(process: Any, number: signal.Signals, server: XnatServer) -> bool:
    """The status is that of the signal, and xget has logged out; returns whether it was done before that.

    A signal that comes when Python itself is ending, which xget has left by then, kills as by default.
    """
    if number == signal.SIGKILL:
        assert process.returncode in (0, -number)
        return bool(process.returncode == 0)
    assert process.returncode in (0, 128 + number, -number)
    assert server.site.logins.sessions == {}, "still logged in"
    return bool(process.returncode in (0, -number))


@pytest.mark.parametrize("seed", range(KILLS), ids=lambda seed: f"{seed}-{STRIKES[seed % len(STRIKES)][1]}")
def test_stopped_at_any_moment(seed: int, xget: Xget, world: World, server: XnatServer) -> None:
    """What bears a final name is whole; it is prompt and logs out; the next run asks for the rest alone."""
    mode, name = STRIKES[seed % len(STRIKES)]
    moment, number = random.Random(seed), getattr(signal, name)
    extract = ("-z",) if "-z" in MODES[mode] else ()
    versions = [expected(world.sessions())]
    if "overwrite" in mode:
        server.rate = None
        assert xget(*QUICK, *extract).status == 0
        server.rate = 6_000_000
        fill(world.sessions(), 2)
        versions.append(expected(world.sessions()))
        server.clear()
    process = xget.start(*QUICK, *MODES[mode])
    wait_for_moment(moment, process, server)
    assert strike(process, number) < PROMPT
    if assert_ended(process, number, server):
        assert_finished(xget.folder, versions[-1], bool(extract))
    assert_whole(xget.folder, *versions)
    there = proven(xget.folder, versions[-1], mode)
    server.clear()
    server.rate = None
    done = xget(*QUICK, *MODES[mode])
    assert (done.status, done.err) == (0, "")
    asked = sum(each.bytes_sent for each in server.requests if each.transfer)
    lacking = [*contents(versions[-1]).values()]
    for data in there:
        lacking.remove(data)
    assert asked <= sum(map(len, lacking)) + 300 * len(lacking) + 1000, "what was there came again"
    assert_whole(xget.folder, versions[-1])
    assert_finished(xget.folder, versions[-1], bool(extract))


# --- at every moment of a replacement ---------------------------------------------------------------

DIE = """
import os, sys
top, mark, left = os.path.realpath(os.getcwd()), os.environ["XGET_DIE_MARK"], int(os.environ["XGET_DIE_AT"])

def counted(call):
    def change(*args, **more):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), 9)
        with real_open(mark, "a") as file:
            file.write("x")
        return call(*args, **more)
    return change

real_open = open
for name in ("rename", "replace", "remove", "unlink", "rmdir", "mkdir", "ftruncate", "fsync"):
    setattr(os, name, counted(getattr(os, name)))
"""


SLOW = """
import os, time
rename = os.rename
os.rename = lambda *args, **more: (time.sleep(0.1), rename(*args, **more))[1]
"""


class Replacement:
    """A tree of one version, and a server that has another; a run of -z -overwrite dies where it is told."""

    def __init__(self, xget: Xget, world: World, tmp_path: Path) -> None:
        self.xget, self.world, self.mark = xget, world, tmp_path / "calls"
        site = tmp_path / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(DIE)
        self.site = str(site)
        self.versions: list[Found] = []

    def prepare(self) -> None:
        """Extract the first version into an empty folder, and give the server the second one."""
        subprocess.run(["rm", "-rf", str(self.xget.folder)], check=True)
        self.xget.folder.mkdir()
        fill(self.world.sessions(), 1, count=3)
        self.versions = [expected(self.world.sessions())]
        assert self.xget(*QUICK, "-z").status == 0
        fill(self.world.sessions()[:1], 2, count=3)
        self.versions.append(expected(self.world.sessions()))

    def dies(self, at: int) -> int:
        """Let a run die before such a call (0: before none); returns how many calls it made."""
        self.mark.write_text("")
        self.xget.env.update(PYTHONPATH=self.site, XGET_DIE_MARK=str(self.mark), XGET_DIE_AT=str(at))
        done = self.xget(*QUICK, "-z", "-overwrite", "-s", "one", "-j", "1")
        self.xget.env.clear()
        assert done.status in ((-9, 9) if at else (0,))  # 9 is Windows' form of it
        return len(self.mark.read_text())

    def folders(self) -> dict[str, dict[str, bytes]]:
        """The files of each scan and reconstruction of session one that are in view."""
        found: dict[str, dict[str, bytes]] = {}
        for name, data in read_tree(self.xget.folder / "one").items():
            if not re.search(r"(^|/)\.", name):
                scan = "/".join(name.split("/")[:2])
                found.setdefault(scan, {})["one/" + name] = data
        return found

    def assert_in_place(self) -> None:
        """Each scan and reconstruction is there, whole, in one version."""
        found = self.folders()
        assert sorted(found) == ["reconstructions/R-A", "scans/1-T1", "scans/2-T1"], "gone from view"
        for scan, files in found.items():
            whole = [
                {name: data for name, data in contents(v).items() if name.startswith(f"one/{scan}/")}
                for v in self.versions
            ]
            assert files in whole, f"{scan} is neither the old nor the new one"


@pytest.fixture
def replacement(xget: Xget, world: World, server: XnatServer, tmp_path: Path) -> Replacement:
    server.rate = None
    return Replacement(xget, small(world), tmp_path)


def small(world: World) -> World:
    for session in world.sessions():
        for holder in (*session.scans, *session.reconstructions):
            holder.resources[0].files.clear()
    return world


NEXT = {
    "the same again": ("-z", "-overwrite", "-s", "one"),
    "without -overwrite": ("-z", "-s", "one"),
    "another session": ("-z", "-s", "two"),
    "another session's archive": ("-s", "two"),
}


@pytest.mark.parametrize("then", NEXT.values(), ids=NEXT)
def test_killed_before_any_change_of_a_replacement(then: tuple[str, ...], replacement: Replacement) -> None:
    """The old scan or the new one is in place, or comes back with the next run, whatever that asks for."""
    replacement.prepare()
    total = replacement.dies(0)
    assert total > 20
    replacement.assert_in_place()
    assert hidden(replacement.xget.folder) == []
    moments = range(1, total + 1)
    chance = random.Random(str(then))
    for at in moments if total <= KILLS else sorted(chance.sample(moments, KILLS // len(NEXT))):
        replacement.prepare()
        replacement.dies(at)
        assert_whole(replacement.xget.folder, *replacement.versions)
        done = replacement.xget(*QUICK, *then)
        assert "Traceback" not in done.err, at
        replacement.assert_in_place()
        if then[-1] == "one":
            continue
        assert done.status == 0, (at, done)
        last = replacement.xget(*QUICK, *NEXT["the same again"])
        assert (last.status, last.err) == (0, ""), at
        replacement.assert_in_place()
        assert hidden(replacement.xget.folder) == [], at


@pytest.mark.parametrize("name", SIGNALS[1:])
def test_a_signal_while_folders_get_their_places(
    name: str, xget: Xget, world: World, server: XnatServer, tmp_path: Path
) -> None:
    """A rename takes 0.1 s, and a signal comes among these: each scan is the old or the new one, at once."""
    replacement = Replacement(xget, small(world), tmp_path)
    server.rate = None
    (tmp_path / "site" / "sitecustomize.py").write_text(SLOW)
    chance = random.Random(name)
    for _ in range(max(3, KILLS // 10)):
        replacement.prepare()
        xget.env["PYTHONPATH"] = replacement.site
        process = xget.start(*QUICK, "-z", "-overwrite", "-s", "one")
        end = time.monotonic() + 20
        while not list(xget.folder.rglob(".xget-new-*")) and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 2))
        assert strike(process, getattr(signal, name)) < PROMPT
        xget.env.clear()
        assert_ended(process, getattr(signal, name), server)
        replacement.assert_in_place()
        assert xget(*QUICK, "-z", "-overwrite", "-s", "one").status == 0
        replacement.assert_in_place()
        assert hidden(xget.folder) == []


# --- what is left ---------------------------------------------------------------------------------

LEFT = {
    "an empty part beside a finished archive": ".sess_1_acq.zip.part",
    "a part with a whole archive": ".sess_1_acq.zip.part",
    "an incomplete archive beside a finished one": "sess_1_acq.incomplete.zip",
}


@pytest.mark.parametrize("left", LEFT)
def test_leftovers_beside_finished_archives(left: str, xget: Xget) -> None:
    """What a run that was killed in its last steps leaves is cleared, at the latest when it is replaced."""
    ours = ("-s", "sess_1", "-retry", "NONE")
    with XnatServer(plain_world()) as other:
        xget.url = other.url
        assert xget(*ours).status == 0
        before = xget.files()
        whole = (xget.folder / "sess_1_acq.zip").read_bytes()
        (xget.folder / LEFT[left]).write_bytes(b"" if "empty" in left else whole)
        other.clear()
        assert xget(*ours).status == 0
        assert [each for each in other.requests if each.transfer] == []
        assert xget(*ours, "-overwrite").status == 0
        assert xget.files() == before


@pytest.mark.parametrize("phase", ["listing", "transfer", "retry"])
@pytest.mark.parametrize("name", SIGNALS[1:])
def test_a_second_signal_ends_it_on_the_spot(name: str, phase: str, xget: Xget) -> None:
    """Also while it logs out, slowly."""
    number = getattr(signal, name)
    with XnatServer(plain_world()) as other:
        xget.url = other.url
        match, kind = {
            "listing": (r"/files\?format=json", {"kind": "silence", "seconds": 30}),
            "transfer": ("format=zip", {"kind": "silence", "seconds": 30, "after": 3000}),
            "retry": ("format=zip", {"kind": "status", "status": 503, "retry_after": 30}),
        }[phase]
        other.fault(match=match, times=None, **kind)  # type: ignore[arg-type]
        other.fault("drip", match="^DELETE", seconds=1)
        process = xget.start("-s", "sess_1", "-retry", "30")
        wait(lambda: any(re.search(match, each.path) for each in list(other.requests)))
        process.send_signal(number)
        wait(lambda: any(each.method == "DELETE" for each in list(other.requests)))
        assert strike(process, number) < 1
        assert process.returncode == -number
        assert not list(xget.folder.glob("*.zip"))


def wait(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def plain_world() -> World:
    """One session with two scans and a reconstruction."""
    world = World()
    session = world.project("proj_3").session("sess_1", subject="subj_1")
    session.scan("1", type="TSE").resource("DICOM", {f"{n}.dcm": bytes([n]) * 1000 for n in range(4)})
    session.scan("2", type="PIB").resource("DICOM", {f"{n}.dcm": bytes([n]) * 2000 for n in range(3)})
    session.assessor("sess_1_QC").resource("DATA", {"qc.txt": b"fine"})
    session.reconstruction("R1", type="A").resource("NIFTI", {"r1.nii": b"recon"})
    return world
