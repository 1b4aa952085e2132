"""However the body of a ZIP is damaged or crafted, what is proven is what is listed, byte for byte.

The reader and the prover are driven alone, without a server, a run or options: a listing, a body in
pieces of any size, and a part or a tree in an empty folder as the store. They end, raise nothing and
stay small; a second, sound body heals what the first one left open. XGET_PROPERTY_CASES sets how many
bodies there are.

What comes out as an archive is read by others: Python's zipfile, unzip, and bsdtar, which goes by the
local headers.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import itertools
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import XGET, Xget
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from truth import assert_earned, truth
from xnat_server import Synthetic, World, XnatServer

CASES = int(os.environ.get("XGET_PROPERTY_CASES", "5000"))
LOADER = SourceFileLoader("xget_script", str(XGET))
xget_script: Any = importlib.util.module_from_spec(
    importlib.util.spec_from_loader(LOADER.name, LOADER)  # type: ignore[arg-type]
)
sys.modules[LOADER.name] = xget_script
LOADER.exec_module(xget_script)

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # for thousands of small folders
noise = random.Random(1).randbytes
TOP = "s/scans/1-T1/resources/DICOM/files/"
OTHER = "s/scans/2/resources/Größe Ω/files/"
EMPTY_ZIP = b"PK\x05\x06" + bytes(18)
ZIP32 = 0xFFFFFFFF
DOCUMENT = """\
<xnat:MRSession ID="X_E1" project="p" label="s" xmlns:xnat="http://nrg.wustl.edu/xnat">
  <xnat:scans>
    <xnat:scan ID="1" type="T1">
      <xnat:file label="DICOM" format="DICOM"><!--hidden_fields[xnat_abstractResource_id="101"]--></xnat:file>
    </xnat:scan>
    <xnat:scan ID="2">
      <xnat:file label="Größe Ω"><!--hidden_fields[xnat_abstractResource_id="102"]--></xnat:file>
    </xnat:scan>
  </xnat:scans>
</xnat:MRSession>"""
SESSION = xget_script.parse_session(DOCUMENT.encode())
ACQ = xget_script.KINDS[0]


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
    OTHER + "ä/d.dcm": b"PK\x03\x04" + noise(90),
    OTHER + "e.zip": EMPTY_ZIP,
    OTHER + "日本.dcm": noise(450),
    OTHER + "pk": b"PK\x07\x08PK\x01\x02PK\x03\x04" * 3,
}
SIZES = [len(data) for data in FILES.values()]
assert len(set(SIZES)) == len(SIZES), "no two files may pass for each other by size alone"


def row(name: str, size: Any, md5: str) -> tuple[str, str, str, str]:
    """A row of XNAT's listing, as `parse_file_rows` reads it."""
    scan, path = ("1", name[len(TOP) :]) if name.startswith(TOP) else ("2", name[len(OTHER) :])
    return f"/data/experiments/X_E1/scans/{scan}/resources/10{scan}/files/{path}", f"10{scan}", str(size), md5


def make_listing(rows: Iterable[tuple[str, str, str, str]], flat: bool = False) -> Any:
    files = xget_script.list_files(SESSION.of(ACQ), rows)
    xget_script.name_files(SESSION, files, flat)
    return xget_script.Listing(SESSION, ACQ, files)


class Bench:
    """A listing and a store for what of it is proven; `listed` says how much the listing tells."""

    def __init__(self, top: str, listed: str, kind: str) -> None:
        self.top, self.listed, self.kind, self.unlisted = Path(top), listed, kind, set[str]()
        self.begin()

    def begin(self) -> None:
        """List, and open the store, as a run does."""
        sizes = {name: len(data) if self.listed != "nothing" else "" for name, data in FILES.items()}
        digests = {name: hashlib.md5(data).hexdigest() for name, data in FILES.items()}
        rows = [row(name, sizes[name], digests[name] if self.listed == "all" else "") for name in FILES]
        self.listing = make_listing(rows, flat=self.kind == "flat")
        self.names = dict(zip((file.name for file in self.listing.files), FILES))  # -> XNAT's own
        if self.kind == "zip":
            self.store = xget_script.ZipPart(str(self.top / ".a.zip.part"), b"{}")
        else:
            self.store = xget_script.Tree(str(self.top), str(self.top / ".s_acq.part"), False)
            self.store.stage({file.folder for file in self.listing.files})

    def arrives(self, pieces: Iterable[Any], among: Any = None) -> None:
        """Let a body arrive."""
        body = xget_script.ZipBody(pieces)
        self.unlisted |= set(xget_script.prove(body, self.listing, self.store, among))

    def close(self) -> None:
        self.store.close()

    def proven(self) -> set[str]:
        """The files that are called proven, by XNAT's names."""
        return {self.names[file.name] for file in self.listing.files if file.here}

    def kept(self) -> dict[str, bytes]:
        """What is kept, read by others than xget, by XNAT's names. The next run goes on from there."""
        if self.kind != "zip":
            found = {path.relative_to(self.top).as_posix(): path for path in self.top.rglob("*")}
            files = {name: path.read_bytes() for name, path in found.items() if path.is_file()}
            files.pop(".s_acq.part")
            return {self.names[name]: data for name, data in files.items()}
        if not self.proven():
            return {}
        self.store.finish(self.listing.files, b"{}", True)
        self.store.close()
        found = read_agreed((self.top / ".a.zip.part").read_bytes())
        before = self.proven()
        self.begin()
        assert self.store.adopt(self.listing, True) == set()
        assert self.proven() == before, "what was kept is not taken over"
        return found


def read_agreed(archive: bytes) -> dict[str, bytes]:
    """Read an archive by its directory and by its local headers; both say the same, with nothing between."""
    with zipfile.ZipFile(io.BytesIO(archive)) as zip:
        found = {info.filename: zip.read(info) for info in zip.infolist()}
        assert len(found) == len(zip.infolist())
        start = zip.start_dir
    at, names = 0, []
    while at < start:
        flags, method, _, _, crc, packed, size, name, extra = struct.unpack(
            "<4H3I2H", archive[at + 6 : at + 30]
        )
        assert archive[at : at + 4] == b"PK\x03\x04" and flags == 0x800
        names.append(archive[at + 30 : at + 30 + name].decode())
        at += 30 + name + extra
        raw = archive[at : at + packed]
        data = zlib.decompress(raw, -15) if method else raw
        assert (data, zlib.crc32(data), len(data)) == (found[names[-1]], crc, size)
        at += packed
    assert (at, sorted(names)) == (start, sorted(found)), "something lies between the files"
    return found


# --- bodies ------------------------------------------------------------------------------

XNAT_FORMS = ("stored", "descriptor")
SOUND_FORMS = (*XNAT_FORMS, "stored-64", "descriptor-8", "deflated")  # each a way to write it rightly
ODD_FORMS = ("stored-descriptor", "no-mark", "bzip2", "no-sizes")
PATHS = struct.pack("<2HBI", 0x7075, 5 + 16, 1, 0) + b"../../../evil.sh"  # a Unicode path, its CRC a lie


class Craft(NamedTuple):
    """A member to write: a form, and what is told of it instead of the truth."""

    name: bytes
    data: bytes
    form: str = "stored"
    flag: bool = True  # that the name is UTF-8
    extra: bytes = b""
    lies: tuple[tuple[str, int], ...] = ()  # (crc, packed or size; added to the truth)

    def parts(self) -> tuple[bytes, bytes]:
        """Its local entry and its entry of the directory, the offset left open."""
        deflater, raw = zlib.compressobj(6, zlib.DEFLATED, -15), self.data
        if self.form in ("descriptor", "descriptor-8", "deflated", "no-mark"):
            raw = deflater.compress(self.data) + deflater.flush()
        truth = {"crc": zlib.crc32(self.data), "packed": len(raw), "size": len(self.data)}
        for field, by in self.lies:
            truth[field] = (truth[field] + by) % (1 << 32)
        crc, packed, size = truth.values()
        behind = self.form in ("descriptor", "descriptor-8", "no-mark", "stored-descriptor")
        method = (
            12
            if self.form == "bzip2"
            else 8
            if self.form in ("deflated", "no-mark") or raw is not self.data
            else 0
        )
        method = 8 if self.form in ("descriptor", "descriptor-8") else method
        flags = 8 * behind | 0x800 * self.flag
        extra, told = self.extra, (0, 0, 0) if behind or self.form == "no-sizes" else (crc, packed, size)
        if self.form == "stored-64":
            extra, told = struct.pack("<2H2Q", 1, 16, size, packed) + extra, (crc, ZIP32, ZIP32)
        form = {"descriptor-8": "<4sIQQ", "no-mark": "<0s3I"}.get(self.form, "<4s3I")
        tail = struct.pack(form, b"PK\x07\x08", crc, packed, size) if behind else b""
        head = struct.pack("<5H3I2H", 20, flags, method, 0, 33, *told, len(self.name), len(extra))
        entry = struct.pack(
            "<6H3I5HI", 20, 20, flags, method, 0, 33, crc, packed, size, len(self.name), 0, 0, 0, 0, 0
        )
        return b"PK\x03\x04" + head + self.name + extra + raw + tail, b"PK\x01\x02" + entry


def write(members: Sequence[Craft]) -> bytes:
    """A ZIP of these members."""
    body, directory = bytearray(), bytearray()
    for member in members:
        local, entry = member.parts()
        directory += entry + struct.pack("<I", len(body)) + member.name
        body += local
    end = struct.pack("<4H2IH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    return bytes(body + directory + b"PK\x05\x06" + end)


def crafts(form: str, flag: bool = True) -> list[Craft]:
    """All files in one form; an empty one with sizes of 8 bytes behind it cannot be told from one with 4."""
    forms = {
        name: "descriptor" if form == "descriptor-8" and not data else form for name, data in FILES.items()
    }
    return [Craft(name.encode(), data, forms[name], flag) for name, data in FILES.items()]


def sound(form: str, flag: bool = True) -> bytes:
    return write(crafts(form, flag))


SOUND = sound("stored")


def in_pieces(data: bytes, seed: int) -> Iterator[Any]:
    """The bytes in pieces of random sizes, some of them empty, of every kind that bytes come in."""
    chance, at = random.Random(seed), 0
    most = chance.choice([2, *[29, 100, 1000, len(data) + 1] * 3])
    kinds = (bytes, bytearray, memoryview)
    while at < len(data):
        size = int(chance.random() * (most + 1))
        yield kinds[size % 3](data[at : at + size])
        at += size


@st.composite
def damaged(draw: Any, content: bool) -> bytes:
    """A body, damaged and crafted; with `content`, also one whose contents are others than listed."""
    members = [Craft(name.encode(), data) for name, data in FILES.items()]
    names = [TOP + "unlisted", "s/scans/3/resources/DICOM/files/x", "../a", "/a", "C:\\a", "s/scans/1-T1", ""]
    moves = ["drop", "double", "shuffle", "lie"] + (
        ["rename", "shorten", "swap", "change"] if content else []
    )
    odd = ODD_FORMS[: None if content else -1]  # "no-sizes" makes a sound member that is empty
    forms = draw(st.sampled_from([XNAT_FORMS[:1], XNAT_FORMS[1:], SOUND_FORMS, SOUND_FORMS + odd]))
    for move in draw(st.lists(st.sampled_from(moves), max_size=3)):
        if not members:
            break
        at = draw(st.integers(0, len(members) - 1))
        member = members[at]
        if move == "drop":
            del members[at : draw(st.sampled_from([at + 1, len(members)]))]
        elif move == "double":
            members.insert(draw(st.integers(0, len(members))), member)
        elif move == "shuffle":
            members = draw(st.permutations(members))
        elif move == "lie":
            field = draw(st.sampled_from(["crc", "packed", "size"]))
            members[at] = member._replace(
                lies=((field, draw(st.sampled_from([1, -1, 90, 1 << 20, -1 << 20]))),)
            )
        elif move == "rename":
            members[at] = member._replace(name=draw(st.sampled_from([*FILES, *names])).encode())
        elif move == "shorten":
            members[at] = member._replace(data=member.data[: draw(st.integers(0, len(member.data)))])
        elif move == "swap":
            members[at] = member._replace(data=draw(st.sampled_from(list(FILES.values()))))
        else:
            members.insert(at, Craft(draw(st.sampled_from(names)).encode(), draw(st.binary(max_size=8))))
    chance = random.Random(draw(st.integers(0, 1 << 16)))
    body = [
        each._replace(
            form=chance.choice(forms),
            flag=chance.random() < 0.7,
            extra=PATHS if chance.random() < 0.2 else b"",
        )
        for each in members
    ]
    data = bytearray(write(body))
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
                value = draw(st.sampled_from([0, 1, 90, 300, 450, 700, ZIP32, 0x7FFFFFFF]))
                data[start + offset : start + offset + 4] = struct.pack("<I", value)
    elif how == "hole":
        del data[at : at + length]
    elif how == "again":
        data[at:at] = data[at : at + length]
    elif how == "more":
        data += data[at : at + length]
    else:
        data[0:0] = data[at : at + length]


def places(data: bytes, mark: bytes) -> Iterator[int]:
    at = data.find(mark)
    while at >= 0:
        yield at
        at = data.find(mark, at + 1)


# --- what holds of every body --------------------------------------------------------------


@pytest.mark.parametrize("extract", [False, True], ids=["archive", "tree"])
@settings(
    max_examples=CASES // 2,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    data=st.data(),
    flat=st.booleans(),
    listed=st.sampled_from(["all", "sizes", "nothing"]),
    asked=st.sampled_from([None, {"101", "102"}, {"101"}]),
    seed=st.integers(0, 1 << 16),
)
def test_proven_is_what_is_listed(
    extract: bool, data: Any, flat: bool, listed: str, asked: Any, seed: int
) -> None:
    """Nothing that a listing can contradict gets through, nothing raises, and a second body heals."""
    kind = ("flat" if flat else "tree") if extract else "zip"
    verdict(data.draw(damaged(content=listed != "nothing")), listed, kind, asked, seed)


def verdict(body: bytes, listed: str, kind: str, asked: Any = None, seed: int = 0) -> None:
    """Let a body arrive, then a sound one; check what is kept after each."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as top:
        bench = Bench(top, listed, kind)
        with closing(bench):
            bench.arrives(in_pieces(body, seed), asked)
            check(bench)
            if asked == {"101"}:
                assert all(name.startswith(TOP) for name in bench.proven()), "not asked for"
            bench.arrives(in_pieces(SOUND, seed + 1))
            check(bench)
            assert bench.proven() == set(FILES), "a sound body did not heal it"


def check(bench: Bench) -> None:
    proven, kept = bench.proven(), bench.kept()
    assert proven <= set(FILES), "a file is kept under a name that XNAT never gave it"
    assert kept == {name: FILES[name] for name in proven}, "what is kept is not what is listed"
    assert not bench.unlisted & set(FILES)


@pytest.mark.parametrize("kind", ["zip", "tree", "flat"])
@pytest.mark.parametrize("listed", ["all", "sizes", "nothing"])
@pytest.mark.parametrize("flag", [True, False], ids=["utf-8", "no-flag"])
@pytest.mark.parametrize("form", SOUND_FORMS)
@pytest.mark.parametrize("seed", range(3))
def test_a_sound_body_proves_everything(form: str, flag: bool, listed: str, kind: str, seed: int) -> None:
    """In XNAT's forms and their neighbours, with names in UTF-8 whether or not they say so.

    Without size and MD5, the last one of a body with descriptors could be the one in which XNAT stopped.
    """
    body = sound(form, flag)
    with tempfile.TemporaryDirectory(dir=MEMORY) as top:
        bench = Bench(top, listed, kind)
        with closing(bench):
            bench.arrives(in_pieces(body, seed))
            check(bench)
            doubtful = {list(FILES)[-1]} if listed == "nothing" and form.startswith("desc") else set()
            assert bench.proven() == set(FILES) - doubtful and not bench.unlisted


@pytest.mark.parametrize("listed", ["sizes", "all"])
@pytest.mark.parametrize("kind", ["zip", "tree"])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(EMPTY_ZIP, id="empty-zip"),
        pytest.param(SOUND[: SOUND.index(b"PK\5\6") + 22], id="cut-behind-an-inner-zip"),
        pytest.param(SOUND[: SOUND.index(EMPTY_ZIP) + 22], id="cut-behind-an-inner-empty-zip"),
        pytest.param(SOUND + b"\0" * 10, id="more-behind-it"),
        pytest.param(b"junk" + SOUND, id="junk-before-it"),
        pytest.param(SOUND + SOUND, id="twice"),
        pytest.param(b"PK\3\4" * 1000, id="marks-alone"),
        pytest.param(b"PK\3\4" + b"\xff" * 26 + b"x" * 200_000, id="all-ones"),
        pytest.param(sound("descriptor")[:-30] + b"\xff" * 100, id="damaged-directory"),
    ],
)
def test_known_damages(body: bytes, kind: str, listed: str) -> None:
    verdict(body, listed, kind)


@pytest.mark.parametrize("form", XNAT_FORMS)
def test_cut_at_every_byte_keeps_each_file_that_had_come(form: str) -> None:
    """Wherever a body breaks off, the files before that are proven, and none behind it."""
    members = crafts(form)
    ends = list(itertools.accumulate(len(member.parts()[0]) for member in members))
    body = write(members)
    for cut in range(len(body)):
        listing = make_listing(row(name, len(data), "") for name, data in FILES.items())
        xget_script.prove(xget_script.ZipBody([body[:cut]]), listing, None)
        assert [file.here for file in listing.files] == [end <= cut for end in ends], cut


@pytest.mark.parametrize("whole", [True, False], ids=["ended", "stopped"])
def test_gaps_are_closed(whole: bool, tmp_path: Path) -> None:
    """Where members failed and nothing took their places, the others move together; the end is cut off."""
    body = bytearray(SOUND)
    names = [TOP + "a.dcm", TOP + "in.zip", list(FILES)[-1]]
    for name in names:
        body[body.index(name.encode()) + len(name.encode())] ^= 1
    bench = Bench(str(tmp_path), "all", "zip")
    bench.arrives([body])
    bench.store.finish(bench.listing.files, b"", whole)
    bench.close()
    found = read_agreed((tmp_path / ".a.zip.part").read_bytes())
    assert found == {name: data for name, data in FILES.items() if name not in names}


@pytest.mark.parametrize("method", [12, 14, 99], ids=["bzip2", "lzma", "unknown"])
@pytest.mark.parametrize("kind", ["zip", "tree"])
def test_a_member_of_another_method_costs_no_other(method: int, kind: str) -> None:
    """A member that says it is compressed otherwise than it is: that one is damaged, the rest is kept."""
    body = bytearray(SOUND)
    body[8:10] = struct.pack("<H", method)
    with tempfile.TemporaryDirectory(dir=MEMORY) as top:
        bench = Bench(top, "all", kind)
        with closing(bench):
            bench.arrives([body])
            assert set(bench.kept()) == set(FILES) - {TOP + "a.dcm"}


# --- sizes ----------------------------------------------------------------------------------

LARGE = (4 << 30) + 12_345


def member_of(content: Synthetic, name: str, deflated: bool) -> Iterator[Any]:
    """A body with one member, in the form that XNAT gives to one of over 4 GiB."""
    data, size = name.encode(), content.size
    if deflated:
        yield b"PK\3\4" + struct.pack("<5H3I2H", 20, 0x808, 8, 0, 33, 0, 0, 0, len(data), 0) + data
        packed = 0
        for piece in content.deflated():
            packed += len(piece)
            yield piece
        yield struct.pack("<4sI2Q", b"PK\7\x08", content.crc, packed, size)
    else:
        head = struct.pack("<5H3I2H", 45, 0x800, 0, 0, 33, content.crc, ZIP32, ZIP32, len(data), 20)
        yield b"PK\3\4" + head + data + struct.pack("<2H2Q", 1, 16, size, size)
        yield from content.blocks()
    yield EMPTY_ZIP


@pytest.mark.parametrize(
    ("deflated", "lie"),
    [(False, 0), (True, 0), (False, -1 << 32)],
    ids=["stored", "deflated", "stored, listed with 4 GiB less"],
)
def test_a_member_of_over_4_gib(deflated: bool, lie: int) -> None:
    """Its sizes of 8 bytes are read; one of another size than listed is none, and it stays small."""
    content = Synthetic(LARGE, None)
    listing = make_listing([row(TOP + "a.dcm", LARGE + lie, "")])
    tracemalloc.start()
    body = xget_script.ZipBody(member_of(content, TOP + "a.dcm", deflated))
    assert xget_script.prove(body, listing, None) == set()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (body.flaw, listing.files[0].here) == ("", lie == 0)
    assert peak < 10_000_000


def test_an_archive_of_over_4_gib(tmp_path: Path) -> None:
    """A file of over 4 GiB, and others behind it: others read it, and so does xget (the disk holds holes)."""
    content = Synthetic(LARGE, None)
    listing = make_listing([row(TOP + "a.dcm", LARGE, ""), row(TOP + "b.dcm", 700, "")])
    part = xget_script.ZipPart(str(tmp_path / ".a.zip.part"), b"{}")
    sink = part.open(listing.files[0], LARGE)  # nothing is written: a hole is full of zeros
    os.truncate(tmp_path / ".a.zip.part", sink.end)
    xget_script.keep(listing.files[0], sink.finish(LARGE, content.crc))
    body = xget_script.ZipBody([write([Craft((TOP + "b.dcm").encode(), b"b" * 700)])])
    xget_script.prove(body, listing, part)
    part.finish(listing.files, b"{}", True)
    part.place(str(tmp_path / "a.zip"))
    with zipfile.ZipFile(tmp_path / "a.zip") as zip:
        assert {info.filename: info.file_size for info in zip.infolist()} == {
            TOP + "a.dcm": LARGE,
            TOP + "b.dcm": 700,
        }
        assert zip.infolist()[1].header_offset > LARGE and zip.read(TOP + "b.dcm") == b"b" * 700
    with (tmp_path / "a.zip").open("rb") as file:
        member = next(xget_script.ZipBody([file.read(1000)]).members())
    assert (member.entry.size, member.entry.packed, member.sized) == (LARGE, LARGE, True)


@pytest.mark.parametrize("form", XNAT_FORMS)
def test_seventy_thousand_members(form: str, tmp_path: Path) -> None:
    """More than an end record of 16 bits counts; each is proven, and others find all of them."""
    names = [f"{TOP}{number}.dcm" for number in range(70_000)]
    listing = make_listing(row(name, len(name), "") for name in names)
    part = xget_script.ZipPart(str(tmp_path / ".a.zip.part"), b"{}")
    store = part if form == "stored" else None
    members = (Craft(name.encode(), name.encode(), form).parts()[0] for name in names)
    body = xget_script.ZipBody(itertools.chain(members, [EMPTY_ZIP]))
    assert xget_script.prove(body, listing, store) == set()
    assert body.flaw == "" and all(file.here for file in listing.files)
    if store is part:
        part.finish(listing.files, b"{}", True)
        part.place(str(tmp_path / "a.zip"))
        with zipfile.ZipFile(tmp_path / "a.zip") as zip:
            assert zip.namelist() == names
            assert zip.testzip() is None


def endless(start: bytes, piece: bytes, total: int) -> Iterator[bytes]:
    yield start
    for _ in range(total // len(piece)):
        yield piece


def deflate_bomb() -> bytes:
    """A deflate stream of 256 MB of zeros in 255 kB, without an end."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(256))
    return data + deflater.flush(zlib.Z_SYNC_FLUSH)


NAME = (TOP + "a.dcm").encode()
HEAD = struct.pack("<5H3I2H", 20, 0x800, 0, 0, 33, 0, 0xFFFFFFF0, 0xFFFFFFF0, len(NAME), 0)
BOMB = struct.pack("<5H3I2H", 20, 0x808, 8, 0, 33, 0, 0, 0, len(NAME), 0)
LONG = b"PK\3\4" + struct.pack("<5H3I2H", 20, 0x800, 0, 0, 33, 0, 0, 0, 0xFFFF, 0xFFFF) + b"n" * 0xFFFF * 2


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(
            lambda: endless(b"PK\3\4" + HEAD + NAME, bytes(1 << 20), 300 << 20), id="endless-member"
        ),
        pytest.param(lambda: [b"PK\3\4" + BOMB + NAME, deflate_bomb()], id="bomb"),
        pytest.param(lambda: endless(b"", LONG, 200 << 20), id="names-of-64-kB"),
        pytest.param(lambda: endless(b"PK\1\2", bytes(1 << 20), 300 << 20), id="endless-directory"),
        pytest.param(lambda: endless(b"", b"PK\3\4" + bytes(26), 1 << 20), id="members-without-names"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tree"])
def test_memory_is_bounded(pieces: Any, kind: str, tmp_path: Path) -> None:
    """Whatever comes, however much of it: a few MB are held, and no more written than is listed."""
    bench = Bench(str(tmp_path), "sizes", kind)
    tracemalloc.start()
    bench.arrives(pieces())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30_000_000, peak
    assert bench.proven() == set()
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 10_000
    bench.arrives([SOUND])
    check(bench)
    assert bench.proven() == set(FILES)
    bench.close()


# --- what others read ----------------------------------------------------------------------------


def told(*command: Any, given: bytes = b"") -> bytes:
    """What a program says on standard output; it has to succeed, and to say nothing else."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, input=given, capture_output=True, check=True, env=environment)
    assert done.stderr == b""
    return done.stdout


def read_by_others(archive: bytes, folder: Path) -> dict[str, bytes]:
    """Read an archive with zipfile, unzip and bsdtar, which have to agree; returns its files.

    From a pipe, bsdtar (of the package libarchive-tools) goes by the local headers.
    """
    path = folder / "read.zip"
    path.write_bytes(archive)
    found = read_agreed(archive)
    if shutil.which("unzip"):
        assert told("unzip", "-tqq", path) == b""
    if shutil.which("bsdtar"):
        for names in (told("bsdtar", "-tf", path), told("bsdtar", "-tf", "-", given=archive)):
            assert names.decode().splitlines() == list(found)
        assert told("bsdtar", "-xOf", "-", given=archive) == b"".join(found.values())
    return found


def headers(archive: bytes) -> list[int]:
    """The offsets of the bytes of an archive that are not content: headers, descriptors, directory."""
    with zipfile.ZipFile(io.BytesIO(archive)) as zip:
        content = set[int]()
        for info in zip.infolist():
            name, extra = struct.unpack("<2H", archive[info.header_offset + 26 : info.header_offset + 30])
            start = info.header_offset + 30 + name + extra
            content.update(range(start, start + info.compress_size))
    return [at for at in range(len(archive)) if at not in content]


SCANS = "/data/experiments/XNAT_E00001/scans/1,2/resources/101,102/files"


def answers(world: World, *uris: str) -> list[bytes]:
    """What the test XNAT answers."""
    import urllib.request
    from base64 import b64encode

    headers = {"Authorization": f"Basic {b64encode(b'admin:admin').decode()}"}
    with XnatServer(world) as server:
        requests = [urllib.request.Request(server.url + uri, headers=headers) for uri in uris]
        return [bytes(urllib.request.urlopen(request, timeout=20).read()) for request in requests]


def served(world: World, compression: int) -> bytes:
    """The archive of the first session's scans, as the test XNAT sends it."""
    return answers(world, f"{SCANS}?format=zip&compression={compression}")[0]


@pytest.mark.parametrize("compression", [0, 8], ids=["stored", "deflated"])
def test_each_byte_of_the_headers_inverted(compression: int, world: World, tmp_path: Path) -> None:
    """Whatever the server's headers and directory say: all readers agree on the archive, or it is not there.

    After each body with an inverted byte a sound one comes; what both have brought is read by others.
    """
    body, expected = served(world, compression), truth(world.sessions()[0], "acq")
    document, rows = answers(world, "/data/experiments/XNAT_E00001?format=xml", f"{SCANS}?format=json")
    session, rows = xget_script.parse_session(document), xget_script.parse_file_rows(rows)
    known: dict[bytes, dict[str, bytes]] = {}
    whole = 0
    path = tmp_path / ".a.zip.part"
    for at in [None, *headers(body)]:
        spoilt = body if at is None else body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 :]
        for bodies in ([spoilt], [spoilt, body]):
            files = xget_script.list_files(session.of(ACQ), rows)
            xget_script.name_files(session, files, False)
            listing = xget_script.Listing(session, ACQ, files)
            part = xget_script.ZipPart(str(path), b"{}")
            for each in bodies:
                xget_script.prove(xget_script.ZipBody([each]), listing, part)
            whole += all(file.here for file in files)
            part.finish(files, b"", True)
            archive = path.read_bytes()
            if archive not in known:
                known[archive] = read_by_others(archive, tmp_path) if len(archive) > 22 else {}
            assert known[archive] == {f.name: expected[f.name] for f in files if f.here}, at
            part.close(remove=True)
        assert all(file.here for file in files), at
    assert whole > len(headers(body)), "the directory and the dates of the server play no part"


@pytest.mark.parametrize("seed", range(20))
def test_a_byte_of_the_headers_inverted_in_a_run(
    seed: int, xget: Xget, world: World, server: XnatServer, tmp_path: Path
) -> None:
    """The same as whole runs, of which every answer to the archive has that byte inverted."""
    body = served(world, 8 * (seed % 2))
    at = random.Random(seed).choice(headers(body))
    body = body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 :]
    match = r"scans/1,2/.*format=zip"
    server.fault("answer", match=match, body=body, headers={"Content-Type": "application/zip"}, times=None)
    done = xget("-s", "sess_1", "-ass", "NONE", "-recon", "NONE", "-retry", "0.1,0.1")
    assert "Traceback" not in done.err
    assert_earned(xget.folder, world)
    for path in xget.folder.iterdir():
        found = read_by_others(path.read_bytes(), tmp_path)
        if not path.name.endswith(".incomplete.zip"):
            assert (done.status, found) == (0, truth(world.sessions()[0], "acq"))
    assert len(list(xget.folder.iterdir())) == 1


GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["session.zip", "session_stored.zip"])
def test_xnats_own_archive_comes_out_under_xnats_own_names(name: str, tmp_path: Path) -> None:
    """Of a ZIP that XNAT 1.8.11 itself wrote: the same names, the same contents, by headers of xget's own."""
    body = (GOLDEN / name).read_bytes()
    with zipfile.ZipFile(io.BytesIO(body)) as zip:
        expected = {info.filename: zip.read(info) for info in zip.infolist()}
    session, rows = golden_listing(expected)
    files = xget_script.list_files(session.of(ACQ), rows)
    xget_script.name_files(session, files, False)
    listing = xget_script.Listing(session, ACQ, files)
    part = xget_script.ZipPart(str(tmp_path / ".a.zip.part"), b"{}")
    assert xget_script.prove(xget_script.ZipBody(in_pieces(body, 1)), listing, part) == set()
    part.finish(files, b"", True)
    part.place(str(tmp_path / "a.zip"))
    assert read_by_others((tmp_path / "a.zip").read_bytes(), tmp_path) == expected


def test_xnats_own_broken_archive_gives_what_is_whole_in_it(tmp_path: Path) -> None:
    """A ZIP of XNAT 1.8.11 that opens well, though a file could not be read half-way: the listing tells."""
    with zipfile.ZipFile(GOLDEN / "session.zip") as zip:
        expected = {info.filename: zip.read(info) for info in zip.infolist()}
    body = (GOLDEN / "midstream_failure_but_valid.zip").read_bytes()
    session, rows = golden_listing(expected)
    files = xget_script.list_files(session.of(ACQ), rows)
    xget_script.name_files(session, files, False)
    listing = xget_script.Listing(session, ACQ, files)
    xget_script.prove(xget_script.ZipBody([body]), listing, None)
    with zipfile.ZipFile(io.BytesIO(body)) as zip:
        whole = {info.filename for info in zip.infolist() if zip.read(info) == expected.get(info.filename)}
    assert {file.name for file in files if file.here} == whole < set(expected)


def golden_listing(expected: dict[str, bytes]) -> tuple[Any, list[tuple[str, str, str, str]]]:
    """A session and a listing that have just these files."""
    folders = sorted({name.split("/")[2] for name in expected})
    label = next(iter(expected)).split("/")[0]
    scans, rows = "", []
    for number, folder in enumerate(folders):
        id, _, type = folder.partition("-")
        resources = sorted({n.split("/")[4] for n in expected if n.split("/")[2] == folder})
        files = ""
        for place, resource in enumerate(resources):
            hidden = f'<!--hidden_fields[xnat_abstractResource_id="{number}0{place}"]-->'
            files += f'<xnat:file label="{resource}">{hidden}</xnat:file>'
            top = f"{label}/scans/{folder}/resources/{resource}/files/"
            for name, data in expected.items():
                if name.startswith(top):
                    uri = (
                        f"/data/experiments/X/scans/{id}/resources/{number}0{place}/files/{name[len(top) :]}"
                    )
                    rows.append((uri, f"{number}0{place}", str(len(data)), hashlib.md5(data).hexdigest()))
        scans += f'<xnat:scan ID="{id}" type="{type}">{files}</xnat:scan>'
    root = f'<xnat:MRSession ID="X" label="{label}" xmlns:xnat="http://nrg.wustl.edu/xnat">'
    document = f"{root}<xnat:scans>{scans}</xnat:scans></xnat:MRSession>"
    return xget_script.parse_session(document.encode()), rows


# --- bodies in chunks ------------------------------------------------------------------------------


CHUNKED = st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.sampled_from(["", ";a=b", ';a="\\n"'])))
TRAILERS = st.sampled_from([b"", b"A: b\r\n", b"A: b\r\nC: d\r\n"])


def blocks(body: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    """The body as it may come from a socket: cut anywhere."""
    ends = sorted({cut for cut in cuts if 0 < cut < len(body)} | {len(body)})
    return (body[start:end] for start, end in zip([0, *ends], ends) if start < end)


@settings(max_examples=CASES // 5, deadline=None)
@given(CHUNKED, TRAILERS, st.booleans(), st.lists(st.integers(0, 2000)))
def test_chunks_hold_what_was_put_into_them(
    chunks: list[tuple[bytes, str]], trailers: bytes, upper: bool, cuts: list[int]
) -> None:
    """Wherever the network cuts them (RFC 9112 7.1); a body that ends early is one that is refused."""
    form = "%X" if upper else "%x"
    data = b"".join((form % len(data) + more).encode() + b"\r\n" + data + b"\r\n" for data, more in chunks)
    body = data + b"0\r\n" + trailers + b"\r\n"
    whole = b"".join(data for data, _ in chunks)
    came = blocks(body, cuts)
    assert b"".join(xget_script.unchunked(came)) == whole
    assert next(came, None) is None  # the connection is at the end of the answer, and can serve again
    found = bytearray()
    with pytest.raises(OSError, match="ends early"):
        for piece in xget_script.unchunked(blocks(data, cuts)):
            found += piece
    assert found == whole  # what came before is not lost


@settings(max_examples=CASES // 5, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
@example(b"-4\r\nfour\r\n0\r\n\r\n", [])
@example(b"f" * 17 + b"\r\nfour\r\n0\r\n\r\n", [])
def test_what_is_no_chunk_is_refused(noise: bytes, cuts: list[int]) -> None:
    """The connection calls both errors a lost answer, which is asked for again."""
    with suppress(OSError, ValueError):
        found = b"".join(xget_script.unchunked(blocks(noise, cuts)))
        assert len(found) < len(noise)


# --- whole runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(24))
def test_damaged_on_the_way(seed: int, xget: Xget, world: World, server: XnatServer) -> None:
    """xget run as users run it: a spoilt ZIP comes first, sound answers after it."""
    chance = random.Random(seed)
    data = bytearray(served(world, 0))
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
    match = r"scans/1,2/.*format=zip"
    server.fault("answer", match=match, body=bytes(data), headers={"Content-Type": "application/zip"})
    extract = ("-z",) if seed % 3 == 0 else ()
    done = xget("-s", "sess_1", "-ass", "NONE", "-recon", "NONE", "-retry", "0.1,0.1,0.1", *extract)
    assert "Traceback" not in done.err
    assert_earned(xget.folder, world)
    if done.status == 0:
        assert xget.files() == ["sess_1_acq.zip"] or extract
    else:  # a name that was never listed; the rest is there
        assert done.status == 1 and "not listed" in done.err


@pytest.mark.parametrize("again", [(), ("-z",), ("-z", "-overwrite")], ids=["zip", "tree", "overwrite"])
def test_archive_of_another_top_folder(
    again: tuple[str, ...], xget: Xget, world: World, server: XnatServer
) -> None:
    """An archive whose files would land in another session's folder does not put them there."""
    other = xget.folder / "sess_2/scans/1-TSE/resources/DICOM/files/1.dcm"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"another session's")
    body = served(world, 0).replace(b"sess_1/", b"sess_2/")
    server.fault("answer", match=r"scans/1,2/.*format=zip", body=body)
    done = xget("-s", "sess_1", "-ass", "NONE", "-recon", "NONE", "-retry", "0.1,0.1,0.1", *again)
    assert "Traceback" not in done.err
    assert [path for path in (xget.folder / "sess_2").rglob("*") if path.is_file()] == [other]
    assert other.read_bytes() == b"another session's"
    shutil.rmtree(xget.folder / "sess_2")
    assert_earned(xget.folder, world)
