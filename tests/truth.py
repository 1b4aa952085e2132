"""What the test XNAT holds, and whether what lies in an output directory is that, byte for byte."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from xnat_server import Resource, Session, World


def contents(resource: Resource, top: str) -> dict[str, bytes]:
    """A resource's files by the names that they have in XNAT's ZIP."""
    prefix = f"{top}/resources/{resource.label or resource.id}/files/"
    return {prefix + name: b"".join(file.data.blocks()) for name, file in resource.files.items()}


def folder(id: str, type: str) -> str:
    return f"{id}-{re.sub('[^A-Za-z0-9_]', '_', type)}" if type else id


def truth(session: Session, kind: str) -> dict[str, bytes]:
    """The files of an archive of this kind as a default run asks for it."""
    found: dict[str, bytes] = {}
    holders = {
        "acq": [(s, f"{session.label}/scans/{folder(s.id, s.type)}") for s in session.scans],
        "ass": [(a, f"{a.label}/out") for a in session.assessors],
        "recon": [
            (r, f"{session.label}/reconstructions/{folder(r.id, r.type)}/out")
            for r in session.reconstructions
        ],
        "res": [(session, session.label)],
    }
    for holder, top in holders[kind]:
        for resource in holder.resources:
            if kind != "acq" or "DICOM" in (resource.label, resource.format):
                found.update(contents(resource, top))
    return found


def read_zip(path: Path) -> dict[str, bytes]:
    """The members of a ZIP, each CRC checked; a name that comes twice is an error."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names)), f"{path} holds a name twice"
        return {name: archive.read(name) for name in names}


def read_tree(top: Path) -> dict[str, bytes]:
    """The extracted files below a folder, xget's own note left out."""
    found = {}
    for path in top.rglob("*"):
        name = path.relative_to(top).as_posix()
        if path.is_file() and path.suffix != ".zip" and not re.fullmatch(r"[^/]+/\.xget", name):
            found[name] = path.read_bytes()
    return found


def hidden(top: Path) -> list[str]:
    """Leftovers: hidden names other than the notes that extracted folders hold."""
    names = [path.relative_to(top).as_posix() for path in top.rglob(".*")]
    return sorted(name for name in names if not re.fullmatch(r"[^/]+/\.xget", name))


def assert_earned(top: Path, world: World) -> None:
    """Every final name is earned: archives hold all that they should, and no file another's bytes."""
    known: dict[str, bytes] = {}
    for session in world.sessions():
        for kind in ("acq", "ass", "recon", "res"):
            there = truth(session, kind)
            known.update(there)
            for asked in (session.label, session.id):
                path = top / f"{asked}_{kind}.zip"
                if path.exists():
                    assert read_zip(path) == there, f"{path.name} is not what the server holds"
                path = top / f"{asked}_{kind}.incomplete.zip"
                if path.exists():
                    kept = read_zip(path)
                    assert kept, f"{path.name} is empty"
                    assert {name: there.get(name) for name in kept} == kept, f"{path.name} holds wrong files"
    for name, data in read_tree(top).items():
        if not any(step.startswith(".") for step in name.split("/")):
            assert known.get(name) == data, f"{name} is not what the server holds"
