"""However a ZIP is damaged, `complete` means that every listed file is there, byte for byte.

In-process, for thousands of cases: the proof itself is driven (`Archive.accept` with a ZipStore or
a TreeStore), with archives as XNAT writes them, damaged at random. Afterwards a sound archive arrives,
as on a second try: it must heal what the damaged one left open, and spoil nothing.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import importlib.util
import io
import os
import random
import shutil
import struct
import sys
import tempfile
import types
import zipfile
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest
from conftest import XGET, Xget
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from truth import assert_earned
from xnat_server import Bytes, Member, World, XnatServer, ZipWriter

CASES = int(os.environ.get("XGET_PROPERTY_CASES", "1500"))
LOADER = SourceFileLoader("xget_script", str(XGET))
xget_script: Any = importlib.util.module_from_spec(
    importlib.util.spec_from_loader(LOADER.name, LOADER)  # type: ignore[arg-type]
)
sys.modules[LOADER.name] = xget_script
LOADER.exec_module(xget_script)
xget_script.load_libraries()

noise = random.Random(1).randbytes
TOP = "s/scans/1-T1/resources/DICOM/files/"
OTHER = "s/scans/2/resources/DICOM/files/"
EMPTY_ZIP = b"PK\x05\x06" + bytes(18)


def inner_zip() -> bytes:
    """A sound ZIP with a member, such as a resource may hold."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("inside.txt", b"inside")
    return stream.getvalue()


FILES = {
    TOP + "a.dcm": noise(300),
    TOP + "b.dcm": b"b" * 700,  # deflates well
    TOP + "sub/c.dcm": noise(1),
    TOP + "empty": b"",
    TOP + "in.zip": inner_zip(),
    OTHER + "d.dcm": b"PK\x03\x04" + noise(90),
    OTHER + "e.zip": EMPTY_ZIP,
    OTHER + "f.dcm": noise(450),
}
SIZES = [len(data) for data in FILES.values()]
assert len(set(SIZES)) == len(SIZES), "no two files may pass for each other by size alone"


def row(name: str, sizes: bool, digests: bool) -> dict[str, str]:
    """What XNAT lists for a file."""
    scan, path = ("1", name[len(TOP) :]) if name.startswith(TOP) else ("2", name[len(OTHER) :])
    return {
        "URI": f"/data/experiments/X_E1/scans/{scan}/resources/10{scan}/files/{path}",
        "Name": path.rpartition("/")[2],
        "Size": str(len(FILES[name])) if sizes else "",
        "digest": hashlib.md5(FILES[name]).hexdigest() if digests else "",
        "cat_ID": f"10{scan}",
        "collection": "DICOM",
    }


class Bench:
    """One archive on its way, in a folder of its own, with no server behind it."""

    def __init__(self, top: str, sizes: bool, digests: bool, extract: bool) -> None:
        script, self.top = xget_script, top
        self.rows = [row(name, sizes, digests) for name in FILES]
        folders = {id: script.Resource(f"10{id}", "DICOM", "DICOM", None, None) for id in "12"}
        items = tuple(
            script.Item(id=id, label="", type=type, description="", quality="", resources=(folders[id],))
            for id, type in (("1", "T1"), ("2", ""))
        )
        session = script.Session("X_E1", "s", "p", {}, "", "", True, {"acq": items})
        server = types.SimpleNamespace(
            check_stopped=lambda: None,
            query_sure=lambda uri, parse: self.rows,
            timeout=5,
            host=script.parse_host("http://127.0.0.1"),
        )
        nothing = lambda *_, **__: None  # noqa: E731
        report = types.SimpleNamespace(warn=nothing, error=nothing, detail=nothing, notice=nothing)
        options = argparse.Namespace(z=extract, overwrite=False, o=top, proj="")
        run: Any = types.SimpleNamespace(
            server=server, report=report, options=options, processors=1, provers=POOL, fatal=None
        )
        order = script.Order("s", session, "", script.KINDS[0], items, os.path.join(top, "s_acq.zip"))
        self.archive = script.Archive(run, order)
        self.folder: Any = types.SimpleNamespace(file=lambda name: os.path.join(top, name))
        self.archive.folder = self.folder
        self.archive.listing = self.archive.list_files()
        self.archive.store = (script.TreeStore if extract else script.ZipStore)(self.folder)

    def arrives(self, data: bytes) -> None:
        """Let a ZIP arrive."""
        path = self.folder.file("incoming.zip")
        Path(path).write_bytes(data)
        if data:
            self.archive.accept(path)

    def complete(self) -> bool:
        return not self.archive.missing() and not self.archive.strangers

    def arrived(self) -> set[str]:
        return set(self.archive.arrived.values())

    def kept(self) -> dict[str, bytes]:
        """What is kept as proven, read by others than xget."""
        if self.archive.options.z:
            return {name: Path(self.archive.store.staging, name).read_bytes() for name in self.arrived()}
        if self.archive.store.zip is None:
            return {}
        self.archive.store.close(b"{}")
        with zipfile.ZipFile(self.folder.file("archive.zip")) as archive:
            assert len(archive.namelist()) == len(set(archive.namelist()))
            return {info.filename: archive.read(info) for info in archive.infolist()}


POOL = concurrent.futures.ThreadPoolExecutor(1)


def write(members: list[tuple[str, bytes]], compression: int) -> bytes:
    """A ZIP as XNAT writes it; names may come several times."""
    writer = ZipWriter(compression, closes_well=True)
    each = [Member(name, Bytes(data), forced=True) for name, data in members]
    return b"".join(bytes(piece) for piece in writer.pieces(each))  # type: ignore[arg-type]


@st.composite
def damaged(draw: Any, content: bool) -> bytes:
    """A damaged archive; with `content`, also one that is sound but holds other contents."""
    members = list(FILES.items())
    names = [*FILES, TOP + "unlisted", "s/scans/3/resources/DICOM/files/x", "../a", "s/scans/1-T1"]
    moves = ["drop", "double", "shuffle"] + (["rename", "shorten", "swap", "change"] if content else [])
    for move in draw(st.lists(st.sampled_from(moves), max_size=3)):
        if not members:
            break
        at = draw(st.integers(0, len(members) - 1))
        name, data = members[at]
        if move == "drop":
            stop = draw(st.sampled_from([at + 1, len(members)]))
            del members[at:stop]
        elif move == "double":
            members.insert(draw(st.integers(0, len(members))), members[at])
        elif move == "shuffle":
            members = draw(st.permutations(members))
        elif move == "rename":
            members[at] = draw(st.sampled_from(names)), data
        elif move == "shorten":
            members[at] = name, data[: draw(st.integers(0, len(data)))]
        elif move == "swap":
            members[at] = name, draw(st.sampled_from(list(FILES.values())))
        else:
            members.insert(at, (name, draw(st.binary(max_size=8))))
    data = bytearray(write(members, draw(st.sampled_from([0, 8]))))
    for _ in range(draw(st.integers(0, 4))):
        spoil(data, draw)
    return bytes(data)


def spoil(data: bytearray, draw: Any) -> None:
    """Damage the bytes of a ZIP: cut, flip, leave out, repeat, lie about a size or a place."""
    if len(data) < 2:
        return
    how = draw(st.sampled_from(["cut", "flip", "flip", "head", "lie", "hole", "again", "more", "before"]))
    at = draw(st.integers(0, len(data) - 1))
    length = draw(st.sampled_from([1, 2, 4, 40, 400]))
    if how == "cut":
        del data[at:]
    elif how == "flip":
        data[at] ^= draw(st.integers(1, 255))
    elif how in ("head", "lie"):  # in a header, where it hurts most
        marks = [b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\7\x08"]
        starts = [i for mark in marks for i in places(data, mark)]
        if starts:
            start = draw(st.sampled_from(starts))
            at = min(start + draw(st.integers(4, 45)), len(data) - 1)
            if how == "head":
                data[at] = draw(st.integers(0, 255))
            elif len(data) > start + 30:
                offset = {1: draw(st.sampled_from([16, 20, 24, 42])), 3: 18, 5: 12, 7: 8}[data[start + 2]]
                value = draw(st.sampled_from([0, 1, 90, 300, 450, 700, 0xFFFFFFFF, 0x7FFFFFFF]))
                data[start + offset : start + offset + 4] = struct.pack("<I", value)
    elif how == "hole":
        del data[at : at + length]
    elif how == "again":
        data[at:at] = data[at : at + length]
    elif how == "more":
        data += data[at : at + length]
    else:
        data[0:0] = data[at : at + length]


def places(data: bytearray, mark: bytes) -> Iterator[int]:
    at = data.find(mark)
    while at >= 0:
        yield at
        at = data.find(mark, at + 1)


def lied(field: str, value: int) -> bytes:
    """An archive whose directory lies about the size of the deflated b.dcm."""
    archive = bytearray(write([(n, d[:200] if n == TOP + "b.dcm" else d) for n, d in FILES.items()], 8))
    at = archive.rfind((TOP + "b.dcm").encode()) - 46
    assert archive[at : at + 4] == b"PK\1\2"
    offset = {"packed": 20, "size": 24}[field]
    archive[at + offset : at + offset + 4] = struct.pack("<I", value)
    return bytes(archive)


SOUND = write(list(FILES.items()), 0)


@settings(
    max_examples=CASES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data(), extract=st.booleans(), listed=st.sampled_from(["all", "sizes", "nothing"]))
def test_complete_means_byte_identical(data: Any, extract: bool, listed: str) -> None:
    """Nothing that a listing can contradict gets through, nothing raises, and a second try heals."""
    archive = data.draw(damaged(content=listed != "nothing"))
    verdict(archive, listed, extract)


@pytest.mark.parametrize("listed", ["sizes", "all"])
@pytest.mark.parametrize("extract", [False, True], ids=["zip", "tree"])
@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(lied("size", 700), id="short-member-of-listed-size"),
        pytest.param(lied("packed", 3), id="packed-size-too-small"),
        pytest.param(lied("packed", 0x7FFFFFFF), id="packed-size-too-large"),
        pytest.param(b"", id="empty"),
        pytest.param(EMPTY_ZIP, id="empty-zip"),
        pytest.param(SOUND[: SOUND.index(b"PK\5\6") + 22], id="cut-behind-an-inner-zip"),
        pytest.param(SOUND[: SOUND.index(EMPTY_ZIP) + 22], id="cut-behind-an-inner-empty-zip"),
        pytest.param(SOUND + b"\0" * 10, id="more-behind-it"),
        pytest.param(b"junk" + SOUND, id="junk-before-it"),
        pytest.param(SOUND + SOUND, id="twice"),
    ],
)
def test_known_damages(archive: bytes, extract: bool, listed: str) -> None:
    verdict(archive, listed, extract)


@pytest.mark.parametrize("mark", [b"PK\5\6", EMPTY_ZIP], ids=["zip", "empty-zip"])
def test_cut_behind_an_inner_zip_keeps_what_came(mark: bytes) -> None:
    """A file that is itself a ZIP makes a cut archive look whole; what came is kept."""
    archive = SOUND[: SOUND.index(mark) + 22]
    with tempfile.TemporaryDirectory() as top:
        bench = Bench(top, True, True, False)
        bench.arrives(archive)
        came = {name for name, data in FILES.items() if 0 <= SOUND.find(name.encode()) < len(archive) - 120}
        assert came <= set(bench.kept())
        assert not bench.archive.strangers


@pytest.mark.parametrize("method", [12, 14, 99], ids=["bzip2", "lzma", "unknown"])
@pytest.mark.parametrize("extract", [False, True], ids=["zip", "tree"])
def test_member_of_another_method_costs_no_other(method: int, extract: bool) -> None:
    """A member that says it is compressed otherwise than it is: that one is damaged, the rest is kept."""
    archive = bytearray(SOUND)
    at = archive.rfind((TOP + "a.dcm").encode()) - 46
    archive[at + 10 : at + 12] = struct.pack("<H", method)
    with tempfile.TemporaryDirectory() as top:
        bench = Bench(top, True, True, extract)
        bench.arrives(bytes(archive))
        assert set(bench.kept()) == set(FILES) - {TOP + "a.dcm"}


def verdict(archive: bytes, listed: str, extract: bool) -> None:
    """Let a damaged archive arrive, then a sound one; check what is kept after each."""
    sizes, digests = listed != "nothing", listed == "all"
    for second in (False, True):
        with tempfile.TemporaryDirectory() as top:
            bench = Bench(top, sizes, digests, extract)
            bench.arrives(archive)
            if second:
                bench.arrives(SOUND)
            complete, kept = bench.complete(), bench.kept()
            bench.archive.store.discard()
        assert bench.arrived() <= set(FILES), "a file is kept under a name that XNAT never gave it"
        assert kept == {name: FILES[name] for name in bench.arrived()}, "what is kept is not what is listed"
        if complete:
            assert kept == FILES, "complete, and yet something is missing"
        if second:
            spoilt = {id for id in bench.archive.seen if bench.archive.seen[id] == (-1, 0)}
            assert len(kept) + len(spoilt) >= len(FILES), "a sound archive did not heal it"


@pytest.mark.parametrize("seed", range(24))
def test_damaged_on_the_way(seed: int, xget: Xget, world: World, server: XnatServer) -> None:
    """The same, with xget run as users run it: a spoilt ZIP comes first, sound answers after it."""
    chance = random.Random(seed)
    uri = r"scans/1,2/.*format=zip"
    with XnatServer(world) as other:
        sound = fetch_sound(other, world)
    data = bytearray(sound)
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(len(data))
        if chance.random() < 0.6:
            data[at] ^= chance.randint(1, 255)
        elif chance.random() < 0.5:
            del data[at : at + chance.choice([1, 30, 1100])]
        else:
            data[at:at] = data[at : at + chance.choice([1, 46, 1100])]
    if chance.random() < 0.3:
        del data[chance.randrange(len(data)) :]
    server.fault("answer", match=uri, body=bytes(data), headers={"Content-Type": "application/zip"})
    extract = ("-z",) if seed % 3 == 0 else ()
    done = xget("-s", "sess_1", "-ass", "NONE", "-recon", "NONE", "-retry", "0.1,0.1,0.1", *extract)
    assert "Traceback" not in done.err
    assert_earned(xget.folder, world)
    if done.status == 0:
        assert xget.files() == ["sess_1_acq.zip"] or extract
    else:  # a name that was never listed; the rest is there
        assert done.status == 1
        assert "not listed" in done.err or "leads out" in done.err or "a link" in done.err


@pytest.mark.parametrize("again", [(), ("-z",), ("-z", "-overwrite")], ids=["zip", "tree", "overwrite"])
def test_archive_of_another_top_folder(
    again: tuple[str, ...], xget: Xget, world: World, server: XnatServer
) -> None:
    """An archive whose files would land in another session's folder does not put them there."""
    other = xget.folder / "sess_2/scans/1-TSE/resources/DICOM/files/1.dcm"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"another session's")
    with XnatServer(world) as donor:
        body = fetch_sound(donor, world).replace(b"sess_1/", b"sess_2/")
    server.fault("answer", match=r"scans/1,2/.*format=zip", body=body)
    done = xget("-s", "sess_1", "-ass", "NONE", "-recon", "NONE", "-retry", "0.1,0.1,0.1", *again)
    assert "Traceback" not in done.err
    assert [path for path in (xget.folder / "sess_2").rglob("*") if path.is_file()] == [other]
    assert other.read_bytes() == b"another session's"
    shutil.rmtree(xget.folder / "sess_2")
    assert_earned(xget.folder, world)


def fetch_sound(server: XnatServer, world: World) -> bytes:
    """The archive as the test XNAT sends it."""
    import urllib.request
    from base64 import b64encode

    path = "/data/experiments/XNAT_E00001/scans/1,2/resources/101,102/files?format=zip"
    token = b64encode(b"admin:admin").decode()
    request = urllib.request.Request(server.url + path, headers={"Authorization": f"Basic {token}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return bytes(answer.read())
