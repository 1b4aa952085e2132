"""`-z -flat`: short paths, of which no two files ever share one, whatever a session's parts are called."""

from __future__ import annotations

import importlib.util
import json
import sys
import unicodedata
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest
from conftest import XGET, Xget
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from truth import hidden, read_tree
from xnat_server import World, XnatServer

LOADER = SourceFileLoader("xget_names", str(XGET))
script: Any = importlib.util.module_from_spec(
    importlib.util.spec_from_loader(LOADER.name, LOADER)  # type: ignore[arg-type]
)
sys.modules[LOADER.name] = script
LOADER.exec_module(script)

FLAT = ("-z", "-flat")
SHORT = [
    "sess_1/1-TSE/1.dcm",
    "sess_1/1-TSE/2.dcm",
    "sess_1/1-TSE/3.dcm",
    "sess_1/1-TSE/4.dcm",
    "sess_1/2-PIB_336mtx/1.dcm",
    "sess_1/2-PIB_336mtx/2.dcm",
    "sess_1/2-PIB_336mtx/3.dcm",
    "sess_1/R1-RECON_A/r1.nii",
    "sess_1/sess_1_QC/qc.txt",
]


def transfers(server: XnatServer) -> list[str]:
    return [request.path for request in server.requests if request.transfer]


# --- the names, over random listings --------------------------------------------------------

# Names that coincide as soon as something is taken off them: case, Unicode form, a folder, the kind.
NAMES = (
    *("1-TSE", "1-tse", "1", "scans", "Scans", "resources", "assessors", "DICOM", "dicom", ".xget", "a b"),
    *("\u00e4", "a\u0308", "A\u0308", "\u00df", "ss", "\u212a", "k", "101", "102"),
)
TYPES = ("", "", "TSE", "tse", "T/SE", "T_SE")
PATHS = (
    *("a", "A", "a/b", "a/B/c", "a/B", "b", "\u00e4", "a\u0308", "101/a", "102/a", "DICOM/a", "dicom/a/b"),
    *("1-TSE/a", "scans/1-TSE/a", "1/DICOM/a", ".xget", ".xget-1-1", "x" * 300, "con", "e.", "\u00df", "SS"),
)
HOSTILE = ("..", "../a", "/a", "a/../../b", "./a", "a//b", "C:/a", "a\\..\\b", "a\n", "", "a/")


@st.composite
def sessions(draw: st.DrawFn) -> Any:
    """A session of up to eight parts with up to three resources each, and the listing of their files."""
    numbers = iter(range(101, 200))
    items, files, seen = [], [], set()
    for _ in range(draw(st.integers(1, 8))):
        kind, name = draw(st.sampled_from(script.KINDS)), draw(st.sampled_from(NAMES))
        if (kind.name, name) in seen:
            continue
        seen.add((kind.name, name))
        type = draw(st.sampled_from(TYPES)) if kind.name in ("acq", "recon") else ""
        label = name if kind.name in ("ass", "res") else ""
        id = f"X_E{len(seen)}" if kind.name == "ass" else name
        most = 1 if kind.name == "res" else 3
        resources = tuple(
            script.Resource(
                str(next(numbers)), label or draw(st.sampled_from((*NAMES, ""))), "DICOM", None, None
            )
            for _ in range(draw(st.integers(1, most)))
        )
        item = script.Item(kind, id, label, type, "", "", "", False, resources)
        items.append(item)
        for each in resources:
            paths = draw(st.sets(st.sampled_from((*PATHS, *HOSTILE)), max_size=6))
            files += [(item, each, path) for path in sorted(paths)]
    return script.Session("X_E0", "s", "p", "", "", "", items=tuple(items)), files


def named(session: Any, files: Any) -> dict[tuple[str, str], Any]:
    """The records of the listed files, named, by resource and path."""
    records = [script.ListedFile(item, resource, path, 1, "") for item, resource, path in files]
    script.name_files(session, records, True)
    return {(file.resource.id, file.path): file for file in records}


def forms(names: list[str]) -> list[list[str]]:
    """The names as disks of several kinds compare them."""
    folds = (str, str.lower, str.upper, str.casefold)
    return [
        [fold(unicodedata.normalize(form, n)) for n in names] for fold in folds for form in ("NFC", "NFD")
    ]


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(sessions(), st.randoms(use_true_random=False))
def test_no_two_files_meet_and_nothing_leads_out(listing: Any, random: Any) -> None:
    session, files = listing
    found = named(session, files)
    names = [file.name for file in found.values()]

    for same in forms(names):
        assert len(set(same)) == len(files), "two files have one path on some disk"
        folders = {name[:at] for name in same for at, c in enumerate(name) if c == "/"}
        assert not folders & set(same), "a file stands where another one has its folder"

    owners: dict[str, set[str]] = {}
    for file in found.values():
        assert file.name.startswith(f"{file.folder}/") and file.name.endswith(f"/{file.path}")
        assert file.folder.count("/") in (1, 2) and file.folder.startswith("s/")
        owners.setdefault(f"{file.folder}/", set()).add(f"{file.item.kind.name} {file.item.id}")
        good = script.refusal(file.name, True) == ""
        assert good == (file.path not in HOSTILE), "refused without need, or not refused"
    for fold in (str.lower, str.upper, str.casefold):
        parts = sorted(fold(folder) for folder in owners)
        assert not any(later.startswith(earlier) for earlier, later in zip(parts, parts[1:])), "folders meet"
    assert all(len(items) == 1 for items in owners.values()), "two parts of a session share a folder"

    # The order of the listing and of the document plays no part, nor does what else is asked for.
    shuffled, parts = list(files), list(session.items)
    random.shuffle(shuffled)
    random.shuffle(parts)
    again = named(session._replace(items=tuple(parts)), shuffled)
    assert {key: file.name for key, file in again.items()} == {key: file.name for key, file in found.items()}
    alone = {item: [file for file in files if file[0] == item] for item in session.items}
    for some in alone.values():
        assert all(file.name == found[key].name for key, file in named(session, some).items())


# --- whole runs -----------------------------------------------------------------------------


def test_paths_are_short_and_the_note_tells_the_layout(xget: Xget, server: XnatServer) -> None:
    """Section 6: <session>/<ID>-<type>/<path> and <session>/<assessor's label>/<path>."""
    assert xget("-s", "XNAT_E00001", *FLAT) == (0, "./sess_1\n", "")
    assert sorted(read_tree(xget.folder)) == SHORT
    note = json.loads((xget.folder / "sess_1" / ".xget").read_text())
    assert note == {
        "server": server.url,
        "project": "proj_3",
        "label": "sess_1",
        "id": "XNAT_E00001",
        "layout": "flat",
    }
    assert [name for name in xget.files() if name.count("/.") or name.startswith(".")] == ["sess_1/.xget"]


def test_session_level_resources_lie_by_their_label(xget: Xget, world: World) -> None:
    world.sessions()[0].resource("", {"x/y.txt": b"of a resource without a label"})
    assert (
        xget("-s", "sess_1", *FLAT, "-acq", "NONE", "-ass", "NONE", "-recon", "NONE", "-res", "ALL")[0] == 0
    )
    number = world.sessions()[0].resources[1].id
    assert sorted(read_tree(xget.folder)) == [f"sess_1/{number}/x/y.txt", "sess_1/NOTES/n.txt"]


def test_each_night_brings_only_what_is_new(xget: Xget, world: World, server: XnatServer) -> None:
    flags = ("-proj", "proj_3", *FLAT)
    assert xget(*flags) == (0, "./sess_1\n", "")
    server.clear()
    assert xget(*flags) == (0, "", "")
    assert transfers(server) == []
    session = world.sessions()[0]
    session.scan("3", type="T1").resource("DICOM", {"late.dcm": b"late"}, format="DICOM")
    session.scans[0].resources[0].add("5.dcm", b"fifth")
    assert xget(*flags) == (0, "./sess_1\n", "")
    assert sorted(read_tree(xget.folder)) == sorted([*SHORT, "sess_1/1-TSE/5.dcm", "sess_1/3-T1/late.dcm"])
    assert all("/scans/" in path for path in transfers(server)) and len(transfers(server)) == 2


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (("-z",), FLAT, "laid out without -flat; leave out -flat, or give it its own -o"),
        (FLAT, ("-z",), "laid out with -flat; add -flat, or give it its own -o"),
        (FLAT, ("-z", "-overwrite"), "laid out with -flat; add -flat, or give it its own -o"),
        (("-z",), (*FLAT, "-verify"), "laid out without -flat; leave out -flat, or give it its own -o"),
    ],
    ids=["short after long", "long after short", "long over short", "short proof of long"],
)
def test_a_folder_of_the_other_layout_fails_named(
    xget: Xget, server: XnatServer, first: tuple[str, ...], second: tuple[str, ...], says: str
) -> None:
    flags = ("-s", "sess_1", "-ass", "NONE", "-recon", "NONE")
    assert xget(*flags, *first)[0] == 0
    before = xget.files()
    server.clear()
    status, out, err = xget(*flags, *second)
    assert (status, out, err.splitlines()[0]) == (1, "", f"xget: sess_1 acq: the folder sess_1 is {says}")
    assert transfers(server) == [] and xget.files() == before


def awkward(world: World) -> dict[str, set[bytes]]:
    """Fill a session with parts that would meet on some disk; returns each kind's contents."""
    session = world.project("odd").session("clash", date="2020-01-01")
    number = iter(range(1000))

    def fill(holder: Any, label: str, *paths: str) -> None:
        holder.resource(label, {path: b"content %d" % next(number) for path in paths}, format="DICOM")

    one = session.scan("1", type="TSE")
    fill(one, "DICOM", "a.dcm", "b.dcm", "d")
    fill(one, "SECONDARY", "a.dcm", "d/e.dcm")
    fill(one, "THUMBS", "A.dcm")
    fill(session.scan("scans"), "DICOM", "1-TSE/a.dcm", "1-TSE/z.dcm")
    fill(session.scan("MR1", type="T1"), "DICOM", "x.dcm")
    fill(session.scan("mr1", type="T1"), "DICOM", "x.dcm", "y.dcm")
    fill(session.scan("2-T1"), "DICOM", "x.dcm")
    fill(session.scan("2", type="T1"), "DICOM", "y.dcm")
    fill(session.scan("3", type="T2"), "DICOM", "u\u0308.dcm", "\u00fc.dcm", "U\u0308.dcm", "plain.dcm")
    fill(session.assessor("1-tse"), "DATA", "a.dcm", "q.txt")
    fill(session.reconstruction("1", type="TSE"), "NIFTI", "a.dcm")
    fill(session, "1-TSE", "notes.txt")
    fill(session, ".xget", "notes.txt")
    parts = {
        "acq": session.scans,
        "ass": session.assessors,
        "recon": session.reconstructions,
        "res": [session],
    }
    return {
        kind: {
            b"".join(file.data.blocks())
            for holder in holders
            for resource in holder.resources
            for file in resource.files.values()
        }
        for kind, holders in parts.items()
    }


ONLY = {"acq": "-acq", "ass": "-ass", "recon": "-recon", "res": "-res"}


def one_kind(kind: str) -> list[str]:
    flags = ["-acq=NONE", "-ass=NONE", "-recon=NONE"]
    return [*(flag for flag in flags if not flag.startswith(ONLY[kind] + "=")), ONLY[kind], "ALL"]


def test_parts_that_would_meet_all_come(xget: Xget, world: World, server: XnatServer) -> None:
    """Nothing is lost, nor asked for again, and what else is asked for does not change a path."""
    contents = awkward(world)
    flags = ("-s", "clash", *FLAT, "-res", "ALL")
    assert xget(*flags) == (0, "./clash\n", "")
    tree = read_tree(xget.folder)
    assert set(tree.values()) == set.union(*contents.values())
    assert len(tree) == sum(map(len, contents.values()))
    for same in forms(list(tree)):
        assert len(set(same)) == len(tree)
    server.clear()
    assert xget(*flags) == (0, "", "")
    assert transfers(server) == []
    for kind in contents:
        assert xget("-s", "clash", *FLAT, *one_kind(kind)) == (0, "", "")
    assert transfers(server) == [] and read_tree(xget.folder) == tree


def test_paths_of_parts_that_meet(xget: Xget, world: World) -> None:
    """The kind comes in between for parts of one name, the resource for files of one name."""
    awkward(world)
    assert xget("-s", "clash", *FLAT, "-acq", "1,3", "-recon", "NONE", "-res", ".xget")[0] == 0
    names = sorted(read_tree(xget.folder))
    number = world.sessions()[1].scans[6].resources[0].id
    apart = [name.split("/") for name in names if "/3-T2/" in name]
    assert [steps[:4] for steps in apart] == [["clash", "3-T2", "DICOM", str(number)]] * 4
    assert len({steps[4] for steps in apart}) == 4 and {len(steps) for steps in apart} == {6}
    assert [name for name in names if "/3-T2/" not in name] == [
        "clash/assessors/1-tse/a.dcm",
        "clash/assessors/1-tse/q.txt",
        "clash/resources/.xget/notes.txt",
        "clash/scans/1-TSE/DICOM/a.dcm",
        "clash/scans/1-TSE/DICOM/b.dcm",
        "clash/scans/1-TSE/DICOM/d",
        "clash/scans/1-TSE/SECONDARY/a.dcm",
        "clash/scans/1-TSE/SECONDARY/d/e.dcm",
        "clash/scans/1-TSE/THUMBS/A.dcm",
    ]


@pytest.mark.parametrize("kind", ONLY)
def test_overwrite_replaces_one_kind_and_nothing_of_the_others(xget: Xget, world: World, kind: str) -> None:
    """A replaced folder holds one scan's files alone, so that those of its namesakes stay."""
    awkward(world)
    assert xget("-s", "clash", *FLAT, "-res", "ALL")[0] == 0
    before = read_tree(xget.folder)
    assert xget("-s", "clash", *FLAT, *one_kind(kind), "-overwrite") == (0, "./clash\n", "")
    assert read_tree(xget.folder) == before
    assert hidden(xget.folder) == ["clash/resources/.xget"]


def test_overwrite_replaces_the_folder_of_a_scan_as_a_whole(xget: Xget, world: World) -> None:
    assert xget("-s", "sess_1", *FLAT)[0] == 0
    for scan in "1-TSE", "2-PIB_336mtx":
        (xget.folder / "sess_1" / scan / "mine.txt").write_text("of a person")
        (xget.folder / "sess_1" / scan / "1.dcm").write_bytes(b"changed")
    assert xget("-s", "sess_1", "-acq", "1", "-ass", "NONE", "-recon", "NONE", *FLAT, "-overwrite")[0] == 0
    tree = read_tree(xget.folder)
    assert tree["sess_1/1-TSE/1.dcm"] == b"\1" * 1000 and tree["sess_1/2-PIB_336mtx/1.dcm"] == b"changed"
    assert sorted(tree) == sorted([*SHORT, "sess_1/2-PIB_336mtx/mine.txt"])


def test_a_file_that_differs_is_left_alone_and_fails(xget: Xget) -> None:
    (xget.folder / "sess_1" / "1-TSE").mkdir(parents=True)
    mine = xget.folder / "sess_1" / "1-TSE" / "1.dcm"
    mine.write_bytes(b"of a person")
    status, out, err = xget("-s", "sess_1", *FLAT)
    assert (status, out) == (1, "./sess_1\n")
    assert "sess_1 acq: 1 DICOM 1.dcm: missing: exists, and differs from what arrived" in err
    assert mine.read_bytes() == b"of a person"
    assert sorted(read_tree(xget.folder)) == SHORT


def test_verify_proves_each_file(xget: Xget, server: XnatServer) -> None:
    flags = ("-s", "sess_1", *FLAT, "-verify")
    assert xget("-s", "sess_1", *FLAT)[0] == 0
    server.clear()
    assert xget(*flags) == (0, "./sess_1\n", "")
    folder = xget.folder / "sess_1"
    (folder / "1-TSE" / "2.dcm").write_bytes(b"\3" * 1000)  # of the right size
    (folder / "1-TSE" / "mine.txt").write_text("of a person")
    (folder / "sess_1_QC" / "qc.txt").unlink()
    before = xget.files()
    status, _, err = xget(*flags)
    assert status == 1
    lines = err.splitlines()
    assert [line for line in lines if "1 DICOM 2.dcm" in line and "another MD5 than listed" in line]
    assert [line for line in lines if "sess_1_QC DATA qc.txt" in line and "No such file" in line]
    assert [line for line in lines if "sess_1/1-TSE/mine.txt: not listed" in line]
    assert transfers(server) == [] and xget.files() == before


def test_json_names_the_one_folder(xget: Xget) -> None:
    status, out, err = xget("-s", "sess_1", *FLAT, "-json")
    results = [json.loads(line) for line in out.splitlines()]
    assert (status, err) == (0, "")
    assert [(each["kind"], each["path"], each["files"]) for each in results] == [
        ("acq", ["./sess_1"], 7),
        ("ass", ["./sess_1"], 1),
        ("recon", ["./sess_1"], 1),
    ]


def test_a_short_archive_is_healed(xget: Xget, server: XnatServer) -> None:
    server.fault("vanish", match="format=zip", member="3.dcm")
    assert xget("-s", "sess_1", *FLAT) == (0, "./sess_1\n", "")
    assert sorted(read_tree(xget.folder)) == SHORT


@pytest.mark.parametrize("name", ["../../out", "a/../../../out", "..", "C:/out", "a\\..\\out"])
def test_a_listed_name_never_leads_outside(xget: Xget, world: World, name: str) -> None:
    """The file is refused and named, and the others come."""
    world.sessions()[0].scans[0].resources[0].add(name, b"evil")
    status, out, err = xget("-s", "sess_1", *FLAT)
    assert (status, out) == (1, "./sess_1\n")
    assert "its name is unsafe as a path" in err
    assert sorted(read_tree(xget.folder)) == SHORT
    assert b"evil" not in read_tree(xget.folder.parent).values()


@pytest.mark.parametrize("label", ["..", ".", "../up"])
def test_an_assessors_label_never_leads_outside(xget: Xget, world: World, label: str) -> None:
    world.sessions()[0].assessor(label).resource("DATA", {"evil": b"evil"})
    status, out, _ = xget("-s", "sess_1", *FLAT)
    assert (status, out) == (1, "./sess_1\n")
    assert sorted(read_tree(xget.folder)) == SHORT


def test_windows_takes_paths_that_are_too_long_as_xnat_makes_them(xget: Xget, world: World) -> None:
    """Windows as it is set up takes 259 characters; the folder is one of a person in a hospital."""
    top = r"C:\Users\firstname.lastname\OneDrive - University Hospital\Studies\ageing\data"
    session = world.project("ageing").session("AGEING_0123_20190305_MR_baseline", date="2019-03-05")
    scan = session.scan("1001", type="ep2d_bold_moco_p2_64ch_REST_MB6_TR2000_AP_SBRef")
    uid = "1.3.12.2.1107.5.2.43.167028.2019030511121371234567890.0.0.0"
    files = {f"{uid}-{n}-1x3kq9h.dcm": b"%d" % n for n in range(1, 4)}
    scan.resource("DICOM", files, format="DICOM")
    longest = {}
    for layout, flags in {"long": ["-z"], "short": FLAT}.items():
        (xget.folder / layout).mkdir()
        assert xget("-s", session.label, *flags, "-o", layout)[0] == 0
        names = read_tree(xget.folder / layout)
        assert sorted(names.values()) == [b"1", b"2", b"3"]
        longest[layout] = max(len(f"{top}\\{name}") for name in names)
    assert longest["short"] < 260 <= longest["long"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("-flat",), "xget: -flat: goes with -z: an archive has XNAT's own paths\n"),
    ],
    ids=["-flat without -z"],
)
def test_usage(xget: Xget, server: XnatServer, flags: tuple[str, ...], says: str) -> None:
    assert xget("-s", "sess_1", *flags) == (2, "", says)
    assert server.requests == [] and not list(Path(xget.folder).iterdir())
