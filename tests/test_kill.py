"""Killed at any moment: what has a final name is whole, and the next run finishes and clears up.

SIGKILL strikes at random moments, half of them right after the last byte of an archive, when
things are proven and get their names. XGET_KILLS=400 makes it a few hundred.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Xget
from truth import hidden, read_tree, read_zip, truth
from xnat_server import Session, Synthetic, World, XnatServer

KILLS = int(os.environ.get("XGET_KILLS", "24"))
MODES = {
    "archives": (),
    "archives-overwrite": ("-overwrite",),
    "extract": ("-z",),
    "extract-overwrite": ("-z", "-overwrite"),
}
QUICK = ("-proj", "p", "-retry", "0.1,0.1", "-timeout", "5")
Found = dict[str, dict[str, bytes]]


def fill(world: World, seed: int) -> None:
    """Give each of two sessions two scans and a reconstruction, their bytes those of this seed."""
    for number, session in enumerate(world.sessions()):
        for holder in (*session.scans, *session.reconstructions):
            for place in range(30):
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
    fill(world, 1)
    return world


@pytest.fixture
def server(world: World) -> Iterator[XnatServer]:
    with XnatServer(world, rate=6_000_000) as server:
        yield server


def expected(sessions: list[Session]) -> Found:
    """What is to be there in the end, by archive."""
    kinds = ("acq", "recon")
    return {f"{each.label}_{kind}.zip": truth(each, kind) for each in sessions for kind in kinds}


def assert_whole(top: Path, *versions: Found) -> None:
    """Every final name is whole: an archive of one version, a file of one version."""
    for path in top.glob("*.zip"):
        if not path.name.startswith("."):
            assert read_zip(path) in [version[path.name] for version in versions], f"{path.name} is spoilt"
    for name, data in read_tree(top).items():
        if not re.search(r"(^|/)\.", name):
            owners = [
                archive[name] for version in versions for archive in version.values() if name in archive
            ]
            assert data in owners, f"{name} is spoilt"


def assert_finished(top: Path, version: Found, extracted: bool) -> None:
    if extracted:
        assert read_tree(top) == {name: data for each in version.values() for name, data in each.items()}
        assert {path.name for path in top.iterdir()} == {"one", "two"}
    else:
        assert {path.name: read_zip(path) for path in top.iterdir()} == version
    assert hidden(top) == []


def kill_at(moment: random.Random, process: Any, server: XnatServer) -> None:
    """Kill a run at a random moment, or soon after one of its transfers ended."""
    if moment.random() < 0.5:
        time.sleep(moment.uniform(0.2, 1.6))
    else:
        wanted, end = moment.randint(1, 4), time.monotonic() + 10
        while process.poll() is None and time.monotonic() < end:
            ended = [each for each in list(server.requests) if "format=zip" in each.path and each.end_time]
            if len(ended) >= wanted:
                break
            time.sleep(0.001)
        time.sleep(moment.uniform(0, 0.15))
    process.kill()
    process.communicate()


@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_at_any_moment(seed: int, xget: Xget, world: World, server: XnatServer) -> None:
    """Whatever a kill leaves under a final name is whole; the next run ends well and leaves nothing else."""
    mode = list(MODES)[seed % len(MODES)]
    moment = random.Random(seed)
    extract = ("-z",) if "-z" in MODES[mode] else ()
    old = expected(world.sessions())
    versions = [old]
    if "overwrite" in mode:
        server.rate = None
        assert xget(*QUICK, *extract).status == 0
        server.rate = 6_000_000
        fill(world, 2)
        versions.append(expected(world.sessions()))
        server.clear()
    kill_at(moment, xget.start(*QUICK, *MODES[mode]), server)
    assert_whole(xget.folder, *versions)
    server.rate = None
    done = xget(*QUICK, *MODES[mode])
    assert (done.status, done.err) == (0, "")
    assert_whole(xget.folder, versions[-1])
    assert_finished(xget.folder, versions[-1], bool(extract))


def test_an_incomplete_archive_beside_a_whole_one_is_left_alone(xget: Xget) -> None:
    """As `-overwrite` leaves it that did not come to its end: a plain run leaves both."""
    with XnatServer(plain_world()) as other:
        xget.url = other.url
        assert xget("-s", "sess_1").status == 0
        kept = xget.folder / "sess_1_acq.incomplete.zip"
        kept.write_bytes((xget.folder / "sess_1_acq.zip").read_bytes())
        before = xget.files()
        assert xget("-s", "sess_1").status == 0
        assert xget.files() == before


JOURNAL = b'{"xget": "2.0.0", "replacing": ["sess_1/scans/1-TSE"]}'


@pytest.mark.parametrize(
    "again",
    [("-s", "sess_1", "-z"), ("-s", "sess_1", "-z", "-overwrite"), ("-s", "nobody")],
    ids=["extract", "overwrite", "another-session"],
)
@pytest.mark.parametrize("placed", [False, True], ids=["old-moved", "new-placed"])
def test_old_folder_of_a_killed_overwrite(placed: bool, again: tuple[str, ...], xget: Xget) -> None:
    """Killed while a new folder takes the place of the old one: one of the two is back after the next run,
    whatever it asks for."""
    with XnatServer(plain_world()) as other:
        xget.url = other.url
        assert xget("-s", "sess_1", "-z").status == 0
        scan = xget.folder / "sess_1/scans/1-TSE"
        whole = {path.name: path.read_bytes() for path in scan.rglob("*.dcm")}
        old = scan.with_name(f".xget-old-{hashlib.sha256(b'1-TSE').hexdigest()[:8]}")
        if placed:
            shutil.copytree(scan, old)
        else:
            scan.rename(old)
        (xget.folder / ".sess_1_acq.part").write_bytes(JOURNAL)
        xget(*again)
        assert {path.name: path.read_bytes() for path in scan.rglob("*.dcm")} == whole
        assert not old.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
@pytest.mark.parametrize("phase", ["listing", "transfer", "retry"])
def test_interrupted(number: signal.Signals, phase: str, xget: Xget) -> None:
    """An interrupted run removes its unfinished work, wherever it was."""
    world = plain_world()
    with XnatServer(world) as other:
        xget.url = other.url
        match, kind = {
            "listing": (r"/files\?format=json", {"kind": "silence", "seconds": 30}),
            "transfer": ("format=zip", {"kind": "silence", "seconds": 30, "after": 3000}),
            "retry": ("format=zip", {"kind": "status", "status": 503, "retry_after": 30}),
        }[phase]
        other.fault(match=match, times=None, **kind)  # type: ignore[arg-type]
        process = xget.start("-s", "sess_1", "-retry", "30")
        end = time.monotonic() + 10
        while not any(re.search(match, each.path) for each in list(other.requests)):
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(0.2)
        process.send_signal(number)
        process.communicate(timeout=20)
        assert (process.returncode, hidden(xget.folder)) == (128 + number, [])
        assert set(xget.files()) <= {"sess_1_ass.zip", "sess_1_recon.zip"}  # whole before


def plain_world() -> World:
    """One session with two scans and a reconstruction."""
    world = World()
    session = world.project("proj_3").session("sess_1", subject="subj_1")
    session.scan("1", type="TSE").resource("DICOM", {f"{n}.dcm": bytes([n]) * 1000 for n in range(4)})
    session.scan("2", type="PIB").resource("DICOM", {f"{n}.dcm": bytes([n]) * 2000 for n in range(3)})
    session.assessor("sess_1_QC").resource("DATA", {"qc.txt": b"fine"})
    session.reconstruction("R1", type="A").resource("NIFTI", {"r1.nii": b"recon"})
    return world
