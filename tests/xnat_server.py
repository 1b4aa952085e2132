"""A stand-in for an XNAT server, for tests: a real HTTP/1.1 server on loopback.

It imitates XNAT 1.8 (read in the sources of 1.8.11; 1.10-RC2 reads alike) and, where
a switch says so, 1.7.4, as a client that downloads sees them: the Restlet engine
1.1.10 behind `/data` and `/REST`, Tomcat 9's error pages, XNAT's log-in answers,
listings, session documents, file listings, single files, and the archives that it
writes while it sends them, including how those end when something goes wrong.

    world = World()
    scan = world.project("p").session("s", subject="subj").scan("1", type="T1")
    scan.resource("DICOM", {"a.dcm": b"..."})
    with XnatServer(world) as server:
        server.fault("vanish", match="format=zip", member="a.dcm")
        ...  # point a client at server.url, log in as admin/admin

`World` says who may see what and holds the site's switches, `XnatServer.fault` makes
chosen requests fail (`FAULTS` lists the kinds), `XnatServer.requests` is the record.

Unconfirmed in XNAT, and so a choice: a date filter in ISO form finds nothing; a range
beyond a file's end is 500. Left out: writing of any kind, the prearchive, search
documents other than what listings need, `/xapi/archive`, DICOMDIR, `/DIR`, reading
inside stored ZIPs, `accept-not-found`, sharing of scans, HTTP/2, and the HTML pages
(one short page stands for each).

As a program: `python tests/xnat_server.py --port 8080` serves a small demonstration
site (user admin, password admin) with the images of pydicom.
"""

# ruff: noqa: RUF001  - Tomcat's dash

from __future__ import annotations

import argparse
import base64
import csv
import functools
import hashlib
import html
import io
import itertools
import json
import random
import re
import signal
import socket
import ssl
import struct
import sys
import threading
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Any, Callable, Union
from urllib.parse import parse_qsl, unquote_plus

MIB = 1 << 20
BUFFER = 8192  # Tomcat's response buffer, and so the size of its chunks
GUEST = "guest"
ZIP32, ZIP16 = 0xFFFFFFFF, 0xFFFF

FAULTS = {
    # The answer is another one.
    "status": "status=, message='', retry_after=None, page='restlet'|'tomcat'|'nginx'",
    "html": "body='<html>..': a web page with status 200",
    "redirect": "location= ({path} in it: the path asked for, with the query), status=302",
    "answer": "status=200, headers={}, body=b'': anything",
    "fallback": "files are looked for at the session's subject, as for an unmatched list",
    # Something happens before the answer.
    "expire": "all sessions of the server end first",
    "call": "action=: a function without arguments, called first",
    # A listing says something else.
    "listing": "edit=: a function from the rows (dicts) to other rows",
    # An archive goes wrong; member= is a regular expression, None the middle member.
    "missing": "member=: gone from the disk when the archive is prepared",
    "vanish": "member=: gone from the disk in mid-stream",
    "unreadable": "member=, after=half: a read error in it after so many bytes",
    "duplicate": "member=: its path comes a second time, right after it",
    "flip": "member=, at=middle: a byte of its data is inverted (the CRC is of the true one)",
    "add": "name=, data=b'', mode=0, compression=None, first=False: a member XNAT never had",
    # The connection goes wrong; after= counts bytes of the body.
    "cut": "after=0: the connection breaks, inside a chunk",
    "truncate": "after=0: the body ends there, cleanly",
    "silence": "seconds=, after=None (before the status line) | bytes, between=False: members",
    "slow": "rate=: bytes a second",
    "stop": "after=0: the whole server stops, as by XnatServer.stop()",
}


# --- Contents -------------------------------------------------------------------------


class ReadError(Exception):
    """The disk fails under a file that is being sent."""


@functools.lru_cache(maxsize=64)
def pattern(seed: int | None) -> bytes:
    """A MiB of noise that is the same for the same seed; of zeros for None."""
    return bytes(MIB) if seed is None else random.Random(seed).randbytes(MIB)


@functools.lru_cache(maxsize=64)
def deflated_pattern(seed: int | None) -> bytes:
    """The MiB of `pattern`, deflated so that copies of it can be joined."""
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    return deflater.compress(pattern(seed)) + deflater.flush(zlib.Z_FULL_FLUSH)


@functools.lru_cache(maxsize=256)
def deflated_rest(size: int, seed: int | None) -> bytes:
    """The end of a deflate stream: the first bytes of the pattern."""
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    return deflater.compress(pattern(seed)[:size]) + deflater.flush()


def gf2_times(matrix: Sequence[int], vector: int) -> int:
    """Multiply a 32 x 32 bit matrix by a vector, over GF(2)."""
    total, row = 0, 0
    while vector:
        if vector & 1:
            total ^= matrix[row]
        vector >>= 1
        row += 1
    return total


def crc_repeated(crc: int, length: int, count: int) -> int:
    """The CRC-32 of `count` copies of data that has this CRC and length."""
    shift = [0xEDB88320] + [1 << bit for bit in range(31)]  # what one zero bit does
    bits, total = length * 8, 0
    operator, power = [1 << bit for bit in range(32)], shift
    while bits:
        if bits & 1:
            operator = [gf2_times(power, row) for row in operator]
        power = [gf2_times(power, row) for row in power]
        bits >>= 1
    while count:
        if count & 1:
            total = gf2_times(operator, total) ^ crc
        crc = gf2_times(operator, crc) ^ crc
        operator = [gf2_times(operator, row) for row in operator]
        count >>= 1
    return total


@functools.lru_cache(maxsize=1024)
def synthetic_crc(size: int, seed: int | None) -> int:
    """The CRC-32 of a Synthetic, without going through its bytes."""
    block = pattern(seed)
    crc = crc_repeated(zlib.crc32(block), MIB, size // MIB)
    return zlib.crc32(block[: size % MIB], crc)


@functools.lru_cache(maxsize=1024)
def synthetic_md5(size: int, seed: int | None) -> str:
    """The MD5 of a Synthetic: about two seconds a GiB, once."""
    digest = hashlib.md5()
    for _ in range(size // MIB):
        digest.update(pattern(seed))
    digest.update(pattern(seed)[: size % MIB])
    return digest.hexdigest()


@dataclass(frozen=True)
class Synthetic:
    """Contents of any size, made of a MiB of noise over and over (zeros: seed=None)."""

    size: int
    seed: int | None = 0

    @property
    def crc(self) -> int:
        return synthetic_crc(self.size, self.seed)

    @property
    def md5(self) -> str:
        return synthetic_md5(self.size, self.seed)

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """The bytes from `start` to `stop`, in pieces."""
        block = memoryview(pattern(self.seed))
        stop = self.size if stop is None else min(stop, self.size)
        while start < stop:
            offset = start % MIB
            piece = block[offset : offset + stop - start]
            yield piece
            start += len(piece)

    def deflated(self) -> Iterator[bytes]:
        """A raw deflate stream of the whole, at the price of its last MiB."""
        yield from itertools.repeat(deflated_pattern(self.seed), self.size // MIB)
        yield deflated_rest(self.size % MIB, self.seed)


class Bytes:
    """Contents that are held in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.crc = zlib.crc32(data)

    @functools.cached_property
    def md5(self) -> str:
        return hashlib.md5(self.data).hexdigest()

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """The bytes from `start` to `stop`, in pieces."""
        yield memoryview(self.data)[start:stop]

    @functools.cached_property
    def packed(self) -> bytes:
        deflater = zlib.compressobj(-1, zlib.DEFLATED, -15)
        return deflater.compress(self.data) + deflater.flush()

    def deflated(self) -> Iterator[bytes]:
        """A raw deflate stream of the whole, as Java's default makes it."""
        yield self.packed


Content = Union[Bytes, Synthetic]


def as_content(data: bytes | Content) -> Content:
    return Bytes(bytes(data)) if isinstance(data, (bytes, bytearray)) else data


# --- The world ------------------------------------------------------------------------


@dataclass
class File:
    """One file of a resource, and what the catalog says of it, rightly or wrongly."""

    data: Any  # bytes or Synthetic
    size_listed: Any | None = None  # what the listing says; None: the truth; "": nothing
    md5: str | None = None  # the same for the digest
    on_disk: bool = True  # False: listed but gone
    vanishes: bool = False  # there when an archive is prepared, gone in mid-stream
    fails_at: int | None = None  # a read error after so many bytes
    format: str | None = None  # of the catalog entry; None: the resource's if DICOM, or ""
    content: str | None = None
    tags: str = ""
    modified: float = 1551784333.0  # 2019-03-05 11:12:13 UTC

    def __post_init__(self) -> None:
        self.data = as_content(self.data)


class Holder:
    """What can hold resources: a session, scan, assessor, reconstruction or subject."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.resources: list[Resource] = []

    def resource(
        self,
        label: str,
        files: dict[str, Any] | None = None,
        format: str = "",
        content: str = "",
        where: str = "out",
        **oddities: Any,
    ) -> Resource:
        """Add a resource. `where` is for assessors and reconstructions: out, in, resources."""
        resource = Resource(self, label, format, content, where, **oddities)
        for name, value in (files or {}).items():
            resource.add(name, value)
        self.resources.append(resource)
        return resource


class Resource:
    """A folder of files with a numeric id; `file_count`, `file_size` None: the truth."""

    def __init__(
        self,
        holder: Holder,
        label: str,
        format: str = "",
        content: str = "",
        where: str = "out",
        file_count: Any | None = None,
        file_size: Any | None = None,
    ) -> None:
        self.holder, self.label, self.format = holder, label, format
        self.content, self.where = content, where
        self.id = holder.world.next_number("resource", 101)
        self.files: dict[str, File] = {}
        self._count, self._size = file_count, file_size

    def add(self, name: str, value: Any) -> Resource:
        """Add a file (bytes, Synthetic or File)."""
        self.files[name] = value if isinstance(value, File) else File(value)
        return self

    @property
    def file_count(self) -> str:
        return str(len(self.files) if self._count is None else self._count)

    @property
    def file_size(self) -> str:
        total = sum(file.data.size for file in self.files.values())
        return str(total if self._size is None else self._size)


class Scan(Holder):
    """A scan of a session; `extra` adds elements, e.g. extra={"fieldStrength": "3.0"}."""

    def __init__(self, session: Session, id: str, type: str, quality: str, **more: Any) -> None:
        super().__init__(session.world)
        self.session, self.id, self.type, self.quality = session, id, type, quality
        self.number = session.world.next_number("scan", 71)
        self.description: str = more.get("description", "")
        self.note: str = more.get("note", "")
        self.condition: str = more.get("condition", "")
        self.uid: str = more.get("uid", "")
        self.frames: str = str(more.get("frames", ""))
        self.xsi_type: str = more.get("xsi_type") or scan_type(session.type)
        self.extra: dict[str, str] = more.get("extra", {})


class Reconstruction(Holder):
    """A reconstruction of a session."""

    def __init__(self, session: Session, id: str, type: str) -> None:
        super().__init__(session.world)
        self.session, self.id, self.type = session, id, type
        self.number = session.world.next_number("reconstruction", 31)
        self.xsi_type = "xnat:reconstructedImageData"


class Experiment(Holder):
    """What has an accession id, a label and a project."""

    def __init__(self, project: Project, label: str, type: str, id: str | None) -> None:
        super().__init__(project.world)
        self.project, self.label, self.type = project, label, type
        self.id = id or project.world.accession("E")
        self.inserted = "2018-05-14 15:17:57.815"
        self.shares: dict[str, str] = {}  # project id: label there
        self.date = self.time = self.note = ""

    def share(self, project: Project, label: str | None = None) -> Experiment:
        """Show it in another project too, under this label."""
        self.shares[project.id] = label or self.label
        return self

    def label_in(self, project_id: str) -> str:
        return self.shares.get(project_id, self.label)

    def fields(self) -> dict[str, str]:
        """What listings can show of it, by XNAT's short names."""
        return {
            "ID": self.id,
            "project": self.project.id,
            "date": self.date,
            "xsiType": self.type,
            "label": self.label,
            "insert_date": self.inserted,
            "URI": "/data/experiments/" + self.id,
            "time": self.time,
            "note": self.note,
            "insert_user": "admin",
            "last_modified": self.inserted,
        }


class Session(Experiment):
    """An image session, or another experiment of a subject (a questionnaire)."""

    def __init__(self, project: Project, label: str, subject: Subject, **more: Any) -> None:
        super().__init__(project, label, more.get("type") or "xnat:mrSessionData", more.get("id"))
        self.subject = subject
        self.date = str(more.get("date") or "")
        self.time = more.get("time", "")
        self.note = more.get("note", "")
        self.scanner = more.get("scanner", "")
        self.modality = more.get("modality", "MR" if self.type == "xnat:mrSessionData" else "")
        self.uid = more.get("uid", "")
        self.inserted = more.get("inserted", self.inserted)
        self.extra: dict[str, str] = more.get("extra", {})
        self.scans: list[Scan] = []
        self.assessors: list[Assessor] = []
        self.reconstructions: list[Reconstruction] = []

    def scan(self, id: str, type: str = "", quality: str = "usable", **more: Any) -> Scan:
        """Add a scan; more: description, note, condition, uid, frames, xsi_type, extra."""
        self.scans.append(Scan(self, id, type, quality, **more))
        return self.scans[-1]

    def assessor(
        self, label: str, type: str = "xnat:qcManualAssessorData", id: str | None = None
    ) -> Assessor:
        """Add an assessor, an experiment of its own."""
        self.assessors.append(Assessor(self, label, type, id))
        self.world.experiments.append(self.assessors[-1])
        return self.assessors[-1]

    def reconstruction(self, id: str, type: str = "") -> Reconstruction:
        """Add a reconstruction."""
        self.reconstructions.append(Reconstruction(self, id, type))
        return self.reconstructions[-1]

    def fields(self) -> dict[str, str]:
        return {
            **super().fields(),
            "subject_ID": self.subject.id,
            "subject_label": self.subject.label,
            "subject_project": self.subject.project.id,
            "modality": self.modality,
            "scanner": self.scanner,
            "UID": self.uid,
            "fieldStrength": "",
            **self.extra,
        }


class Assessor(Experiment):
    """An assessor of a session."""

    def __init__(self, session: Session, label: str, type: str, id: str | None) -> None:
        super().__init__(session.project, label, type, id)
        self.session = session
        self.date = session.date

    def fields(self) -> dict[str, str]:
        more = {"session_ID": self.session.id, "session_label": self.session.label}
        return {**super().fields(), **more}


class Subject(Holder):
    """A subject of a project."""

    def __init__(self, project: Project, label: str, id: str | None = None) -> None:
        super().__init__(project.world)
        self.project, self.label = project, label
        self.id = id or project.world.accession("S")

    def fields(self) -> dict[str, str]:
        return {
            "ID": self.id,
            "project": self.project.id,
            "label": self.label,
            "insert_date": "2018-05-14 15:10:01.5",
            "insert_user": "admin",
            "URI": "/data/subjects/" + self.id,
        }


class Project:
    """A project. `hidden_from` do not see it; `unreadable` (to users) shows no experiments."""

    def __init__(self, world: World, id: str, name: str, **more: Any) -> None:
        self.world, self.id, self.name = world, id, name
        self.secondary_id: str = more.get("secondary_id") or id
        self.aliases: Sequence[str] = more.get("aliases", ())
        self.hidden_from: Sequence[str] = more.get("hidden_from", ())
        self.unreadable: Sequence[str] = more.get("unreadable", ())
        self.public: bool = more.get("public", False)
        self.subjects: list[Subject] = []

    def subject(self, label: str, id: str | None = None) -> Subject:
        """The subject with this label, new if need be."""
        for subject in self.subjects:
            if subject.label == label:
                return subject
        self.subjects.append(Subject(self, label, id))
        return self.subjects[-1]

    def session(self, label: str, subject: str = "", **more: Any) -> Session:
        """Add a session; more: id, date, type, time, note, scanner, modality, uid, inserted,
        extra."""
        session = Session(self, label, self.subject(subject or "subject_1"), **more)
        self.world.experiments.append(session)
        return session

    def visible_to(self, user: str) -> bool:
        return user not in self.hidden_from and (self.public or user != GUEST)

    def readable_by(self, user: str) -> bool:
        return self.visible_to(user) and user not in self.unreadable

    def fields(self) -> dict[str, str]:
        return {
            "ID": self.id,
            "secondary_ID": self.secondary_id,
            "name": self.name,
            "description": "",
            "pi_firstname": "",
            "pi_lastname": "",
            "URI": "/data/projects/" + self.id,
        }


@dataclass
class World:
    """What the site holds, and its switches."""

    users: dict[str, str] = field(default_factory=lambda: {"admin": "admin"})
    site_id: str = "XNAT"
    version: str = "1.8.11"  # "1.7.4.1": archives and unmatched lists fail as they did then
    digests: str = "md5"  # "empty": always ""; "none": no such column (before 1.7.3)
    listed_sizes: bool = True  # False: "Size" is ""
    hidden_fields: bool = True  # comments with numeric ids in documents
    compression: int = 0  # of a ZIP without `compression=`: 0 stored, 8 deflated
    require_login: bool = True  # False: an open site; no log-in means guest
    session_requests: int | None = None  # a session ends after so many requests
    session_minutes: float = 15  # ... and after so long without any
    max_sessions: int = 1000  # of one user; then log-in is refused
    max_failed_logins: int = 20  # then the account is locked
    expired_passwords: set[str] = field(default_factory=set)  # users who are sent to UpdateUser
    inactive: set[str] = field(default_factory=set)  # users who are sent to InactiveAccount
    site: str = "ready"  # "not configured": 403 to all; "setup": 302 to /setup
    login_failure: str = "Login attempt failed. Please try again."
    wildcards: str = "contains"  # "anchored": before 1.8.5
    old_assessor_layout: bool = False  # assessors inside the session's folder
    keep_alive: float = 20  # seconds until an idle connection is closed
    projects: list[Project] = field(default_factory=list)
    experiments: list[Experiment] = field(default_factory=list)  # sessions and assessors, in order
    _numbers: dict[str, int] = field(default_factory=dict)

    def project(self, id: str, name: str = "", **more: Any) -> Project:
        """Add a project; more: aliases, secondary_id, public, hidden_from, unreadable."""
        self.projects.append(Project(self, id, name or id, **more))
        return self.projects[-1]

    def next_number(self, kind: str, first: int = 1) -> int:
        self._numbers[kind] = self._numbers.get(kind, first - 1) + 1
        return self._numbers[kind]

    def accession(self, letter: str) -> str:
        """The next accession id: XNAT_E00001, XNAT_S00001, ..."""
        return f"{self.site_id}_{letter}{self.next_number(letter):05}"

    @property
    def old(self) -> bool:
        return self.version.startswith("1.7.")

    def sessions(self) -> list[Session]:
        return [each for each in self.experiments if isinstance(each, Session)]

    def find_project(self, name: str) -> Project | None:
        """The project with this ID, else with this alias."""
        by_id = [each for each in self.projects if each.id == name]
        by_alias = [each for each in self.projects if name in each.aliases]
        return next(iter(by_id + by_alias), None)

    def find_experiment(self, id: str) -> Any | None:
        return next((each for each in self.experiments if each.id == id), None)

    def readable_by(self, user: str, experiment: Experiment) -> bool:
        """Whether one of the projects that show the experiment lets the user read it."""
        home = experiment.session if isinstance(experiment, Assessor) else experiment
        ids = {experiment.project.id, *experiment.shares, *home.shares}
        return any(each.readable_by(user) for each in self.projects if each.id in ids)


def is_image_session(type: str) -> bool:
    return type.endswith("SessionData")


def scan_type(session_type: str) -> str:
    """The scans' type in a session of this type: xnat:mrSessionData has xnat:mrScanData."""
    return session_type.replace("SessionData", "ScanData")


def is_of_type(experiment: Any, type: str) -> bool:
    """Whether a listing of `type` shows the experiment; abstract types show their kinds."""
    session = isinstance(experiment, Session)
    abstract = {
        "xnat:experimentData": True,
        "xnat:subjectAssessorData": session,
        "xnat:imageSessionData": session and is_image_session(experiment.type),
        "xnat:imageAssessorData": not session,
    }
    return abstract.get(type, bool(experiment.type == type))


# --- Listings -------------------------------------------------------------------------


@dataclass
class Table:
    """A listing: what XNAT calls a ResultSet."""

    columns: list[str]
    rows: list[dict[str, str]]
    title: str | None = None
    total: bool = True  # whether it says totalRecords
    server_root: str | None = None  # file listings only: the context path

    def json(self) -> bytes:
        """Every value a string; totalRecords, also a string, after the rows."""
        rows = [{key: row.get(key, "") for key in self.columns} for row in self.rows]
        text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
        text = text.replace("/", "\\/")
        columns = [{"key": "URI", "serverRoot": self.server_root}]
        head = "" if self.server_root is None else f'"Columns":{json.dumps(columns)},'
        tail = [f'"totalRecords": "{len(rows)}"'] if self.total else []
        tail += [f'"title": {json.dumps(self.title)}'] if self.title else []
        after = ", " + ",".join(tail) if tail else ""
        return f'{{"ResultSet":{{{head}"Result":{text}{after}}}}}'.encode()

    def csv(self) -> bytes:
        """A header line, quotes where needed, blanks for line breaks."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.columns)
        for row in self.rows:
            writer.writerow([row.get(key, "").replace("\n", " ") for key in self.columns])
        return stream.getvalue().encode()

    def xml(self) -> bytes:
        """A table in XML that escapes < and > only, so that & makes it ill-formed."""

        def cell(tag: str, text: str) -> str:
            return f"<{tag}>{text.replace('<', '&lt;').replace('>', '&gt;')}</{tag}>"

        total = f' totalRecords="{len(self.rows)}"' if self.total else ""
        head = "".join(cell("column", key) for key in self.columns)
        rows = ""
        for row in self.rows:
            cells = "".join(cell("cell", row.get(key, "")) for key in self.columns)
            rows += f"<row>{cells}</row>"
        results = f"<results><columns>{head}</columns><rows>{rows}</rows></results>"
        return f"<ResultSet{total}>{results}</ResultSet>".encode()


def like(pattern: str, anchored: bool) -> re.Pattern[str]:
    """A wildcard value as SQL's LIKE reads it: * and % any text, _ any character."""
    parts = {"*": ".*", "%": ".*", "_": "."}
    text = "".join(parts.get(char) or re.escape(char) for char in pattern)
    return re.compile(f"^{text}$" if anchored else text, re.IGNORECASE | re.DOTALL)


def matches_text(value: str, wanted: str, anchored: bool) -> bool:
    """Compare as XNAT does: exactly unless wanted has a wildcard; escaped first."""
    wanted = html.escape(wanted).replace("&#x27;", "&#39;")
    if "*" in wanted or "%" in wanted:
        return bool(like(wanted, anchored).search(value))
    return value == wanted


def parse_date(text: str) -> str | None:
    """The ISO form of MM/dd/yyyy, MM.dd.yyyy or yyyyMMdd, else None."""
    match = re.fullmatch(r"(\d\d?)[/.](\d\d?)[/.](\d{4})", text)
    if match:
        return f"{match[3]}-{int(match[1]):02}-{int(match[2]):02}"
    match = re.fullmatch(r"(\d{4})(\d\d)(\d\d)", text)
    return f"{match[1]}-{match[2]}-{match[3]}" if match else None


def matches_date(value: str, wanted: str) -> bool:
    """One day or a range with `-` between; both ends included."""
    ends = [parse_date(part) for part in wanted.split("-")]
    if len(ends) > 2 or None in ends or not value:
        return False
    return str(ends[0]) <= value[:10] <= str(ends[-1])


FILTERS = [
    "ID",
    "label",
    "project",
    "date",
    "time",
    "insert_date",
    "last_modified",
    "insert_user",
    "note",
    "modality",
    "session_type",
    "scanner",
    "UID",
    "subject_ID",
    "subject_label",
    "session_ID",
    "session_label",
    "secondary_ID",
    "name",
]


ABSTRACT = "experiment subjectassessor imagesession imageassessor imagescan project subject"
ABSTRACT_PREFIXES = {f"xnat:{name}data" for name in ABSTRACT.split()}


def field_of(fields: dict[str, str], key: str) -> str | None:
    """A field by its short name, or by an XPath (xnat:mrSessionData/coil), else None.

    An XPath of another type than the record's is empty.
    """
    if "/" not in key:
        return fields.get(key)
    known = {short.lower(): value for short, value in fields.items()}
    path = key.lower()
    if path in known:
        return known[path]
    prefix, name = path.split("/", 1)
    if prefix not in (*ABSTRACT_PREFIXES, fields.get("xsiType", "").lower()):
        return ""
    return known.get(name)


def column_name(key: str) -> str:
    """The name that a column has in the answer: XPaths in lower case, or their short name."""
    if key.lower() == "xnat:subjectassessordata/subject_id":
        return "subject_ID"
    return key.lower() if "/" in key else key


def passes(fields: dict[str, str], query: Query, anchored: bool) -> bool:
    """Whether a row passes the filters: keys AND, commas OR."""
    for key, wanted in query.pairs:
        if key not in FILTERS and "/" not in key:
            continue
        value = field_of(fields, key) or ""
        if not wanted:
            continue
        dated = key.rsplit("/", 1)[-1] in ("date", "insert_date", "last_modified")
        options = wanted.split(",")
        if dated and not any(matches_date(value, each) for each in options):
            return False
        if not dated and not any(matches_text(value, each, anchored) for each in options):
            return False
    return True


def columns_of(rows: Iterable[dict[str, str]], query: Query, defaults: list[str]) -> list[str]:
    """The columns that the query asks for; unknown short names are skipped."""
    wanted = query.get("columns")
    if not wanted or wanted == "DEFAULT":
        return defaults
    known = {key for row in rows for key in row} | set(defaults)
    names = [name for name in wanted.split(",") if name in known or "/" in name]
    return [column_name(name) for name in names]


def page_of(rows: list[Any], query: Query) -> tuple[list[Any], bool]:
    """The rows of the page, and whether paging is on; the cut precedes the rights."""
    if not (query.get("limit") or query.get("offset")):
        return rows, False
    limit = query.get("limit") or "100"
    offset = int(query.get("offset") or 0)
    stop = None if limit == "*" else offset + int(limit)
    return rows[offset:stop], True


def sorted_rows(rows: list[dict[str, str]], query: Query) -> list[dict[str, str]]:
    """The rows in the order that sortBy and sortOrder ask for."""
    keys = [key for key in query.get("sortBy").split(",") if key]
    if not keys:
        return rows
    down = query.get("sortOrder").upper() == "DESC"
    return sorted(rows, key=lambda row: [row.get(key, "") for key in keys], reverse=down)


# --- Documents ------------------------------------------------------------------------


@dataclass
class Node:
    """A record as XNAT's documents show it, in the schema's order.

    `parts` are ("@name", text) for attributes, ("path", text) for elements, and
    ("wrapper/name", [nodes]) for lists of records.
    """

    type: str
    parts: list[tuple[str, str | list[Node]]]
    hidden: dict[str, str] = field(default_factory=dict)
    untyped: bool = False  # no xsi:type


def resource_node(resource: Resource, world: World) -> Node:
    holder: Any = resource.holder
    folder = f"scan_{holder.id}" if isinstance(holder, Scan) else resource.label or "resource"
    uri = f"/data/xnat/archive/{path_on_disk(resource)}/{folder}_catalog.xml"
    owner = str(holder.number) if isinstance(holder, Scan) else "null"
    hidden = {"xnat_abstractResource_id": str(resource.id)}
    return Node(
        "xnat:resourceCatalog",
        [
            ("@label", resource.label),
            ("@file_count", resource.file_count),
            ("@file_size", resource.file_size),
            ("@URI", uri),
            ("@format", resource.format),
            ("@content", resource.content),
        ],
        {**hidden, "xnat_imageScanData_xnat_imagescandata_id": owner},
    )


def resource_nodes(holder: Holder, world: World, where: str = "") -> list[Node]:
    chosen = [each for each in holder.resources if not where or each.where == where]
    return [resource_node(each, world) for each in chosen]


def share_nodes(experiment: Experiment) -> list[Node]:
    return [
        Node(
            "xnat:experimentData_share",
            [("@label", label), ("@project", project)],
            {
                "xnat_experimentData_share_id": str(number),
                "sharing_share_xnat_experimentDa_id": experiment.id,
            },
            untyped=True,
        )
        for number, (project, label) in enumerate(experiment.shares.items(), 1)
    ]


def scan_node(scan: Scan, world: World) -> Node:
    return Node(
        scan.xsi_type,
        [
            ("@ID", scan.id),
            ("@type", scan.type),
            ("@UID", scan.uid),
            ("image_session_ID", scan.session.id),
            ("note", scan.note),
            ("quality", scan.quality),
            ("condition", scan.condition),
            ("series_description", scan.description),
            ("frames", scan.frames),
            ("file", resource_nodes(scan, world)),
            *scan.extra.items(),
        ],
        {"xnat_imageScanData_id": str(scan.number)},
    )


def reconstruction_node(recon: Reconstruction, world: World) -> Node:
    return Node(
        recon.xsi_type,
        [
            ("@ID", recon.id),
            ("@type", recon.type),
            ("image_session_ID", recon.session.id),
            ("in/file", resource_nodes(recon, world, "in")),
            ("out/file", resource_nodes(recon, world, "out")),
        ],
        {"xnat_reconstructedImageData_id": str(recon.number)},
        untyped=True,
    )


def assessor_node(assessor: Assessor, world: World) -> Node:
    return Node(
        assessor.type,
        [
            ("@ID", assessor.id),
            ("@project", assessor.project.id),
            ("@label", assessor.label),
            ("sharing/share", share_nodes(assessor)),
            ("date", assessor.date),
            ("resources/resource", resource_nodes(assessor, world, "resources")),
            ("in/file", resource_nodes(assessor, world, "in")),
            ("out/file", resource_nodes(assessor, world, "out")),
            ("imageSession_ID", assessor.session.id),
        ],
    )


def session_node(session: Session, world: World) -> Node:
    return Node(
        session.type,
        [
            ("@ID", session.id),
            ("@project", session.project.id),
            ("@label", session.label),
            ("@modality", session.modality),
            ("@UID", session.uid),
            ("sharing/share", share_nodes(session)),
            ("date", session.date),
            ("time", session.time),
            ("note", session.note),
            ("resources/resource", resource_nodes(session, world)),
            ("subject_ID", session.subject.id),
            ("scanner", session.scanner),
            ("scans/scan", [scan_node(each, world) for each in session.scans]),
            (
                "reconstructions/reconstructedImage",
                [reconstruction_node(each, world) for each in session.reconstructions],
            ),
            ("assessors/assessor", [assessor_node(each, world) for each in session.assessors]),
            *session.extra.items(),
        ],
    )


def project_node(project: Project, world: World) -> Node:
    aliases = [Node("xnat:projectData_alias", [("alias", alias)], untyped=True) for alias in project.aliases]
    return Node(
        "xnat:projectData",
        [
            ("@ID", project.id),
            ("@secondary_ID", project.secondary_id),
            ("name", project.name),
            ("aliases/alias", aliases),
        ],
    )


def subject_node(subject: Subject, world: World) -> Node:
    sessions = [each for each in world.sessions() if each.subject is subject]
    return Node(
        "xnat:subjectData",
        [
            ("@ID", subject.id),
            ("@project", subject.project.id),
            ("@label", subject.label),
            ("resources/resource", resource_nodes(subject, world)),
            ("experiments/experiment", [session_node(each, world) for each in sessions]),
        ],
    )


def node_of(record: Any, world: World) -> Node:
    """The document of a session, assessor, scan, reconstruction, subject or project."""
    makers: dict[type, Callable[[Any, World], Node]] = {
        Session: session_node,
        Assessor: assessor_node,
        Scan: scan_node,
        Reconstruction: reconstruction_node,
        Subject: subject_node,
        Project: project_node,
    }
    return makers[type(record)](record, world)


SCHEMAS = {"xnat": "http://nrg.wustl.edu/xnat", "xsi": "http://www.w3.org/2001/XMLSchema-instance"}


def root_name(type: str) -> str:
    """The element of a type's documents: xnat:mrSessionData is in xnat:MRSession."""
    prefix, name = type.split(":", 1)
    name = name.removesuffix("Data")
    match = re.match(r"(mr|ct|petmr|pet|us|xa|mg|nm|cr|dx|qc)(?=[A-Z])", name)
    head = match[1] if match else name[:1]
    return f"{prefix}:{head.upper()}{name[len(head) :]}"


def attribute(name: str, text: str) -> str:
    return f' {name}="{html.escape(text)}"'


def comment(node: Node, world: World) -> str:
    pairs = ",".join(f'{name}="{value}"' for name, value in node.hidden.items())
    return f"<!--hidden_fields[{pairs}]-->" if pairs and world.hidden_fields else ""


def lines_of(node: Node, tag: str, world: World, more: str = "") -> Iterator[str]:
    """The lines of an element; elements without text are left out, as by XNAT."""
    texts = [(name, text) for name, text in node.parts if isinstance(text, str) and text]
    pairs = [attribute(name[1:], text) for name, text in texts if name.startswith("@")]
    xsi = "" if node.untyped else attribute("xsi:type", node.type)
    yield f"<{tag}{''.join(pairs)}{more or xsi}>"
    if comment(node, world):
        yield comment(node, world)
    for name, value in node.parts:
        if isinstance(value, str):
            if value and not name.startswith("@"):
                yield f"<xnat:{name}>{html.escape(value, False)}</xnat:{name}>"
        elif value:
            yield from list_lines(name, value, world)
    yield f"</{tag}>"


def list_lines(path: str, nodes: list[Node], world: World) -> Iterator[str]:
    """The lines of a list of records, inside its wrapper where it has one."""
    wrapper, _, name = path.rpartition("/")
    if wrapper:
        yield f"<xnat:{wrapper}>"
    for node in nodes:
        yield from lines_of(node, f"xnat:{name}", world)
    if wrapper:
        yield f"</xnat:{wrapper}>"


def indented(lines: Iterable[str]) -> Iterator[str]:
    """The lines with two blanks for each element that is open."""
    depth = 0
    for line in lines:
        depth -= line.startswith("</")
        yield "  " * depth + line
        depth += line[1] not in "/!" and "</" not in line


def xml_document(node: Node, world: World) -> bytes:
    """The document, with every schema's namespace on its root element."""
    prefixes = dict(SCHEMAS)
    for type in re.findall(r"\b([A-Za-z]\w*):\w+Data\b", node.type + " " + types_in(node)):
        prefixes.setdefault(type, f"http://nrg.wustl.edu/{type}")
    declared = "".join(attribute("xmlns:" + name, uri) for name, uri in prefixes.items())
    lines = lines_of(node, root_name(node.type), world, declared)
    head = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
    return (head + "\n".join(indented(lines)) + "\n").encode()


def types_in(node: Node) -> str:
    """All types of the records inside, blank-separated."""
    inner = [each for _, value in node.parts if not isinstance(value, str) for each in value]
    return " ".join([node.type, *(types_in(each) for each in inner)])


def json_item(node: Node) -> dict[str, Any]:
    """One record in the shape of XNAT's JSON items."""
    fields: dict[str, Any] = {}
    children = []
    for name, value in node.parts:
        if isinstance(value, str) and value:
            fields[name.lstrip("@")] = value
        elif value:
            children.append({"field": name, "items": [json_item(each) for each in value]})
    fields.update({name: int(text) for name, text in node.hidden.items() if text.isdigit()})
    meta = {"isHistory": False, "xsi:type": node.type, "start_date": "Mon May 14 15:17:57 UTC 2018"}
    return {"children": children, "meta": meta, "data_fields": fields}


def json_document(node: Node) -> bytes:
    return json.dumps({"items": [json_item(node)]}).encode()


# --- Files and their names in archives --------------------------------------------------


def sanitised(type: str) -> str:
    """A type as folder names have it: one `_` for each character but A-Z a-z 0-9 _."""
    return re.sub(r"[^A-Za-z0-9_]", "_", type)


def numbered(id: str, type: str) -> str:
    """The folder of a scan or reconstruction: its id, and its type if it has one."""
    return f"{id}-{sanitised(type)}" if type else id


def resource_name(resource: Resource) -> str:
    return resource.label or str(resource.id)


def path_on_disk(resource: Resource) -> str:
    """The folder of a resource in the archive: project, arc001, session, kind, ..."""
    holder: Any = resource.holder
    name = resource_name(resource)
    if isinstance(holder, Subject):
        return f"{holder.project.id}/subjects/{holder.label}/{name}"
    session = holder if isinstance(holder, Session) else holder.session
    top = f"{session.project.id}/arc001/{session.label}"
    if isinstance(holder, Scan):
        return f"{top}/SCANS/{holder.id}/{name}"
    if isinstance(holder, Reconstruction):
        return f"{top}/PROCESSED/{holder.id}/{name}"
    if isinstance(holder, Assessor):
        return f"{top}/ASSESSORS/{holder.label}/{name}"
    return f"{top}/RESOURCES/{name}"


def resource_uri(resource: Resource) -> str:
    """The path of a resource below /data, as listings of several holders show it."""
    holder: Any = resource.holder
    if isinstance(holder, Subject):
        base = f"/projects/{holder.project.id}/subjects/{holder.id}"
    elif isinstance(holder, Session):
        base = f"/experiments/{holder.id}"
    else:
        kinds = {Scan: "scans", Assessor: "assessors", Reconstruction: "reconstructions"}
        where = "" if isinstance(holder, Scan) else f"/{resource.where}"
        where = "" if where == "/resources" else where
        session, id = holder.session, holder.id
        base = f"/experiments/{session.id}/{kinds[type(holder)]}/{id}{where}"
    return f"{base}/resources/{resource.id}"


@dataclass
class Entry:
    """A file of the answer: where it is, and what is asked of it."""

    resource: Resource
    name: str  # path below the resource
    file: File
    base: str  # the URI of its resource

    def format_and_content(self) -> tuple[str, str]:
        """Of the catalog entry: those of DICOM have them, others lack them as a rule."""
        resource, file = self.resource, self.file
        dicom = resource.format == "DICOM"
        format = (resource.format if dicom else "") if file.format is None else file.format
        content = (resource.content if dicom else "") if file.content is None else file.content
        return format, content

    def row(self, world: World) -> dict[str, str]:
        """Its row in a file listing."""
        file = self.file
        size = str(file.data.size if file.size_listed is None else file.size_listed)
        digest = file.md5
        if digest is None:
            digest = file.data.md5 if world.digests == "md5" else ""
        row = {
            "Name": self.name.rsplit("/", 1)[-1],
            "Size": size if world.listed_sizes else "",
            "URI": f"{self.base}/files/{self.name}",
            "collection": self.resource.label,
            "file_tags": file.tags,
            "file_format": self.format_and_content()[0],
            "file_content": self.format_and_content()[1],
            "cat_ID": str(self.resource.id),
            "digest": digest,
        }
        if world.digests == "none":
            del row["digest"]
        return row


@dataclass
class Naming:
    """How an archive names its members: the parameters of the request that matter."""

    structure: str = "default"
    suffixes: bool = True  # types behind scan ids; not with all=true
    project_included: bool = False
    subject_included: bool = False
    tar: bool = False
    old_assessors: bool = False
    holders: Sequence[Any] = ()  # what was asked for; their ids are replaced by text
    top: str = ""  # the folder of a subject's resources

    def path(self, entry: Entry) -> str:
        """The member path of a file."""
        if self.structure == "improved":
            return self.improved(entry)
        if self.structure == "legacy":
            path = path_on_disk(entry.resource).split("/arc001/", 1)[-1] + "/" + entry.name
        else:
            path = self.default(entry)
        return self.prefix(entry) + path

    def prefix(self, entry: Entry) -> str:
        session = session_of(entry.resource.holder)
        project = f"{session.project.id}/" if session and self.project_included else ""
        subject = f"{session.subject.label}/" if session and self.subject_included else ""
        return project + subject

    def default(self, entry: Entry) -> str:
        """The URI of the file, with ids replaced wherever in the path they stand."""
        holder, resource = entry.resource.holder, entry.resource
        path = re.sub(r"/resources/\d+$", f"/resources/{resource_name(resource)}", resource_uri(resource))
        path = f"{path.replace('/experiments/', '', 1)}/files/{entry.name}"
        if isinstance(holder, Subject):
            path = self.top + path
        session = session_of(holder)
        if isinstance(holder, Assessor) and not self.old_assessors:
            path = path.split("/assessors/", 1)[1].replace(holder.id, holder.label)
        if session:
            path = path.replace(session.id, session.label)
        if self.structure == "simplified":
            return path.replace("/resources", "").replace("/files", "")
        for each in self.holders if self.suffixes else ():
            if isinstance(each, (Scan, Reconstruction)) and each.session is session:
                path = path.replace(f"/{each.id}/", f"/{numbered(each.id, each.type)}/")
        return path

    def improved(self, entry: Entry) -> str:
        """Without the session's folder, and with the type nearly as it is."""
        holder, resource = entry.resource.holder, entry.resource
        kind = {Scan: "scans", Reconstruction: "reconstructions", Assessor: "assessors"}
        top = [kind.get(type(holder), "resources")]
        if isinstance(holder, Assessor):
            top.append(holder.label)
        elif isinstance(holder, (Scan, Reconstruction)):
            suffix = "_" + holder.type if holder.type and not self.tar else ""
            top.append(re.sub(r'[/\\:*?"<>|]', "_", holder.id + suffix))
        return "/".join([*top, resource_name(resource), entry.name.rsplit("/files/", 1)[-1]])


def session_of(holder: Any) -> Session | None:
    """The session that a holder belongs to; None for a subject."""
    return holder if isinstance(holder, Session) else getattr(holder, "session", None)


# --- Archives, written while they are sent ------------------------------------------------


@dataclass
class Member:
    """A member to write: its path, contents, and what is wrong with it."""

    path: str
    data: Content
    modified: float = 1551784333.0
    vanishes: bool = False
    fails_at: int | None = None
    flip: int | None = None  # offset of the byte to invert
    mode: int = 0  # unix mode, which XNAT never sets
    compression: int | None = None  # other than the archive's
    forced: bool = False  # written though its path was there already
    silence: float = 0  # seconds before it

    def blocks(self) -> Iterator[memoryview]:
        """Its bytes, up to the read error if there is one."""
        if self.flip is not None:
            yield from self.data.blocks(0, self.flip)
            byte = bytes(next(self.data.blocks(self.flip, self.flip + 1)))
            yield memoryview(bytes([byte[0] ^ 0xFF]))
            yield from self.data.blocks(self.flip + 1)
        else:
            yield from self.data.blocks(0, self.fails_at)
        if self.fails_at is not None:
            raise ReadError(self.path)

    def deflated(self) -> Iterator[bytes]:
        """A raw deflate stream of what could be read; ends well after a read error too."""
        if self.fails_at is None and self.flip is None:
            yield from self.data.deflated()
            return
        deflater = zlib.compressobj(-1, zlib.DEFLATED, -15)
        with suppress(ReadError):
            for block in self.blocks():
                yield deflater.compress(block)
        yield deflater.flush()


@dataclass
class Silence:
    """Among the pieces of a body: nothing is sent for so many seconds."""

    seconds: float


Piece = Union[bytes, memoryview, Silence]


class BrokenBodyError(Exception):
    """The writing of a body failed, and the server ends it as if it were whole."""


def dos_time(seconds: float) -> tuple[int, int]:
    """Time and date of a ZIP entry, in local time as Java has it."""
    t = time.localtime(seconds)
    return (
        t.tm_hour << 11 | t.tm_min << 5 | t.tm_sec // 2,
        (t.tm_year - 1980) << 9 | t.tm_mon << 5 | t.tm_mday,
    )


class ZipWriter:
    """Writes a ZIP as Java's ZipOutputStream under XNAT's ZipRepresentation does."""

    def __init__(self, compression: int, closes_well: bool) -> None:
        self.compression = compression
        self.closes_well = closes_well  # since 1.7.6: the archive is closed after an error
        self.offset = 0
        self.directory: list[bytes] = []
        self.paths: set[Any] = set()

    def pieces(self, members: Iterable[Member]) -> Iterator[Piece]:
        """The archive; after an error it ends as XNAT of that time ends it."""
        try:
            for member in members:
                yield from self.member(member)
        except ReadError:
            if not self.closes_well:
                raise BrokenBodyError() from None
        except BrokenBodyError:
            return  # in a stored member: even closing fails
        yield self.end()

    def member(self, member: Member) -> Iterator[Piece]:
        if member.silence:
            yield Silence(member.silence)
        if member.vanishes or (member.path in self.paths and not member.forced):
            raise ReadError(member.path)
        self.paths.add(member.path)
        deflate = member.compression or (member.compression is None and self.compression)
        write = self.deflated_member if deflate else self.stored_member
        for piece in write(member):
            self.offset += len(piece)
            yield piece

    def stored_member(self, member: Member) -> Iterator[bytes | memoryview]:
        """Sizes and CRC in the local header; XNAT has read the file once before."""
        size = member.data.size
        start = self.offset
        yield self.local_header(member, 0x800, 0, member.data.crc, size)
        try:
            yield from member.blocks()
        except ReadError:
            if self.closes_well:
                raise BrokenBodyError() from None
            raise
        self.note(member, 0x800, 0, member.data.crc, size, size, start)

    def deflated_member(self, member: Member) -> Iterator[bytes | memoryview]:
        """Sizes and CRC in a descriptor behind it, of what could be read."""
        start, packed = self.offset, 0
        yield self.local_header(member, 0x808, 8, 0, 0)
        for piece in member.deflated():
            packed += len(piece)
            yield piece
        size, crc = member.data.size, member.data.crc
        if member.fails_at is not None:
            size = min(size, member.fails_at)
            crc = functools.reduce(lambda total, b: zlib.crc32(b, total), member.data.blocks(0, size), 0)
            if not self.closes_well:
                raise ReadError(member.path)
        large = max(size, packed) >= ZIP32
        yield struct.pack("<4sIQQ" if large else "<4sIII", b"PK\x07\x08", crc, packed, size)
        self.note(member, 0x808, 8, crc, packed, size, start)
        if member.fails_at is not None:
            raise ReadError(member.path)

    def local_header(self, member: Member, flags: int, method: int, crc: int, size: int) -> bytes:
        name = member.path.encode()
        large = size >= ZIP32
        extra = struct.pack("<HHQQ", 1, 16, size, size) if large else b""
        size = ZIP32 if large else size
        version = 45 if large else 20 if method else 10
        head = (b"PK\x03\x04", version, flags, method, *dos_time(member.modified))
        sizes = (crc, size, size, len(name), len(extra))
        return struct.pack("<4s5H3I2H", *head, *sizes) + name + extra

    def note(
        self, member: Member, flags: int, method: int, crc: int, packed: int, size: int, start: int
    ) -> None:
        """Remember a member's entry for the central directory."""
        name = member.path.encode()
        large = [value for value in (size, packed, start) if value >= ZIP32]
        extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        version = 45 if large else 20 if method else 10
        made_by = version | (0x300 if member.mode else 0)
        head = (b"PK\x01\x02", made_by, version, flags, method, *dos_time(member.modified))
        sizes = (crc, min(packed, ZIP32), min(size, ZIP32), len(name), len(extra), 0, 0, 0)
        tail = (member.mode << 16, min(start, ZIP32))
        self.directory.append(struct.pack("<4s6H3I5H2I", *head, *sizes, *tail) + name + extra)

    def end(self) -> bytes:
        """The central directory and the end records."""
        directory, count = b"".join(self.directory), len(self.directory)
        size, start = len(directory), self.offset
        large = b""
        if count >= ZIP16 or size >= ZIP32 or start >= ZIP32:
            sizes = (44, 45, 45, 0, 0, count, count, size, start)
            large = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", *sizes)
            large += struct.pack("<4sIQI", b"PK\x06\x07", 0, start + size, 1)
        short = min(count, ZIP16)
        ends = (0, 0, short, short, min(size, ZIP32), min(start, ZIP32), 0)
        return directory + large + struct.pack("<4s4H2IH", b"PK\x05\x06", *ends)


def tar_header(path: str, size: int, modified: float, type: bytes = b"0") -> bytes:
    """A header as Apache's TarArchiveOutputStream under XNAT's TarUtils writes it."""

    def octal(value: int, width: int) -> bytes:
        return b"%0*o" % (width, value)

    name = path.encode()[:100].ljust(100, b"\0")
    numbers = b"0000060 " + b"0000000 " * 2 + octal(size, 11) + b" " + octal(int(modified), 11) + b" "
    names = type + bytes(100) + b"ustar\x0000" + b"root".ljust(32, b"\0") + bytes(32)
    rest = (names + b"0000000 0000000 ").ljust(356, b"\0")
    total = sum(name + numbers + b" " * 8 + rest)
    return name + numbers + octal(total, 6) + b"\0 " + rest


def tar_pieces(members: Iterable[Member]) -> Iterator[Piece]:
    """A tar in records of 10,240 bytes; an error leaves the last of them out."""
    size = 0
    for member in members:
        if member.vanishes:
            raise BrokenBodyError()
        long = member.path.encode() + b"\0"
        if len(long) > 101:
            yield tar_header("././@LongLink", len(long), 0, b"L")
            yield long + bytes(-len(long) % 512)
            size += 512 + len(long) + -len(long) % 512
        yield tar_header(member.path, member.data.size, member.modified)
        try:
            yield from member.blocks()
        except ReadError:
            raise BrokenBodyError() from None
        yield bytes(-member.data.size % 512)
        size += 512 + member.data.size + -member.data.size % 512
    yield bytes(1024 + -(size + 1024) % 10240)


def in_records(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The same bytes in whole tar records: what is not a record is lost in an error."""
    pending = bytearray()
    for piece in pieces:
        if isinstance(piece, Silence):
            yield piece
            continue
        pending += piece
        whole = len(pending) - len(pending) % 10240
        if whole:
            yield bytes(pending[:whole])
            del pending[:whole]
    if pending:
        yield bytes(pending)


def gzipped(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """A gzip stream as Java's GZIPOutputStream writes it; an error cuts it."""
    yield b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    deflater, crc, size = zlib.compressobj(-1, zlib.DEFLATED, -15), 0, 0
    for piece in pieces:
        if isinstance(piece, Silence):
            yield piece
            continue
        crc, size = zlib.crc32(piece, crc), size + len(piece)
        yield deflater.compress(piece)
    yield deflater.flush() + struct.pack("<II", crc, size & ZIP32)


# --- Requests and answers -----------------------------------------------------------------


@dataclass
class Request:
    """One request on the record; times are of time.monotonic(), header names in lower case."""

    time: float
    method: str
    path: str  # as it came, with the query
    headers: dict[str, str]
    body: bytes = b""
    end_time: float | None = None  # None while the answer is being sent
    status: int = 0
    bytes_sent: int = 0  # of the body, without framing
    transfer: bool = False  # of files: counted in most_transfers


class Query:
    """The parameters of a request, in order."""

    def __init__(self, text: str) -> None:
        self.pairs = parse_qsl(text, keep_blank_values=True)

    def get(self, name: str) -> str:
        """The first value, else an empty string."""
        return next((value for key, value in self.pairs if key == name), "")

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.pairs if key == name]

    def is_true(self, name: str) -> bool:
        return self.get(name).lower() in ("true", "1")


@dataclass
class Answer:
    """What to send. A body of bytes has its length known; pieces are framed as they come."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | Iterator[Piece] = b""
    length: int | None = None  # of pieces, where XNAT knows it
    chunked: bool = False  # even where the body is short
    transfer: bool = False  # files: counted in most_transfers
    closes: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.body, bytes):
            self.length = len(self.body)


class RefusedError(Exception):
    """The request is answered with an error page."""

    def __init__(self, status: int, message: str = "", page: str = "restlet") -> None:
        super().__init__(status, message)
        self.answer = error_page(status, message, page)


REASONS = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    429: "Too Many Requests",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
RESTLET_MESSAGES = {
    400: "The request could not be understood by the server due to malformed syntax",
    404: "The server has not found anything matching the request URI",
    405: "The method specified in the request is not allowed for the resource identified by the request URI",
    500: "The server encountered an unexpected condition which prevented it from fulfilling the request",
    501: "The server does not support the functionality required to fulfill the request",
    503: "The server is currently unable to handle the request due to a temporary overloading or"
    " maintenance of the server",
}
CLOSING = (400, 500, 501, 503)  # Tomcat closes the connection after these
RESTLET_PAGE = """<html>
<head>
   <title>Status page</title>
</head>
<body>
<h3>{message}</h3><p>You can get technical details <a href="http://www.w3.org/Protocols/rfc2616/\
rfc2616-sec10.html#sec10.{section}">here</a>.<br>
Please continue your visit at our <a href="/">home page</a>.
</p>
</body>
</html>
"""
TOMCAT_PAGE = """<!doctype html><html lang="en"><head><title>HTTP Status {status} – {reason}\
</title><style type="text/css">body {{font-family:Tahoma,Arial,sans-serif;}}</style></head><body>\
<h1>HTTP Status {status} – {reason}</h1><hr class="line" /><p><b>Type</b> Status Report</p>\
<p><b>Message</b> {message}</p><p><b>Description</b> The request was not answered.</p>\
<hr class="line" /><h3>Apache Tomcat/9.0.70</h3></body></html>"""
NGINX_PAGE = """<html>\r
<head><title>{status} {reason}</title></head>\r
<body>\r
<center><h1>{status} {reason}</h1></center>\r
<hr><center>nginx/1.18.0 (Ubuntu)</center>\r
</body>\r
</html>\r
"""
WEB_PAGE = "<!DOCTYPE html>\n<html><head><title>XNAT</title></head><body>{text}</body></html>\n"
LOGIN_FORM = '<form id="login_form" action="/login" method="post"><h3>Log In</h3></form>'


def error_page(status: int, message: str = "", page: str = "restlet") -> Answer:
    """An error as Restlet, Tomcat or a proxy in front words it."""
    reason = REASONS.get(status, "Error")
    text = html.escape(message, False)
    if page == "nginx":
        body, kind = NGINX_PAGE.format(status=status, reason=reason), "text/html"
    elif page == "tomcat":
        body = TOMCAT_PAGE.format(status=status, reason=reason, message=text)
        kind = "text/html;charset=utf-8"
    else:
        section = f"4.{status - 399}" if status < 500 else f"5.{status - 499}"
        text = message or RESTLET_MESSAGES.get(status, reason)
        body = RESTLET_PAGE.format(message=text, section=section)
        kind = "text/html;charset=ISO-8859-1"
    first = restlet_headers() if page == "restlet" else []
    if page == "nginx":
        first = [("Server", "nginx/1.18.0 (Ubuntu)"), ("Date", formatdate(usegmt=True))]
    answer = Answer(status, [*first, ("Content-Type", kind)], body.encode("utf-8"))
    answer.closes = status in CLOSING
    return answer


def restlet_headers(*more: tuple[str, str], first: Sequence[tuple[str, str]] = ()) -> list[Any]:
    """The headers of whatever Restlet answers, in its order."""
    vary = "Accept-Charset, Accept-Encoding, Accept-Language, Accept"
    head = [*first, ("Date", formatdate(usegmt=True)), ("Vary", vary), ("Accept-Ranges", "bytes")]
    return [*head, *more, ("Server", "Noelios-Restlet-Engine/1.1.10")]


def restlet_answer(body: Any, kind: str, *more: tuple[str, str], **rest: Any) -> Answer:
    headers = [*restlet_headers(*more), ("Content-Type", kind)]
    return Answer(200, headers, body, **rest)


def web_page(text: str, status: int = 200) -> Answer:
    body = WEB_PAGE.format(text=text).encode()
    return Answer(status, [("Content-Type", "text/html;charset=UTF-8")], body)


def json_answer(value: Any) -> Answer:
    """An answer of the XAPI."""
    return Answer(200, [("Content-Type", "application/json")], json.dumps(value).encode())


def text_answer(text: str) -> Answer:
    return restlet_answer(text.encode(), "text/plain;charset=ISO-8859-1")


def table_answer(table: Table, query: Query, accept: str = "") -> Answer:
    """A listing in the format asked for; JSON unless something else is."""
    format = query.get("format").lower()
    if not format and "json" not in accept:
        format = "csv" if "text/csv" in accept else "xml" if accept.endswith("/xml") else ""
    if format in ("", "json"):
        return restlet_answer(table.json(), "application/json", chunked=True)
    if format == "csv":
        return restlet_answer(table.csv(), "text/csv", chunked=True)
    if format == "xml":
        return restlet_answer(table.xml(), "text/xml", chunked=True)
    return restlet_answer(table.csv(), "text/html", chunked=True)


# --- Log-in -------------------------------------------------------------------------------


@dataclass
class Login:
    """A server session: whose, and when it was used last."""

    user: str
    used: float
    requests: int = 0


class Logins:
    """The sessions, the failures and the alias tokens of a site."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lock = threading.Lock()
        self.sessions: dict[str, Login] = {}
        self.opened = 0
        self.failures: dict[str, int] = {}
        self.tokens: dict[str, tuple[str, str]] = {}  # alias: secret, user

    def find(self, id: str) -> Login | None:
        """The session with this id if it is alive; counts the request."""
        with self.lock:
            login = self.sessions.get(id)
            if login is None:
                return None
            limit = self.world.session_requests
            idle = time.monotonic() - login.used > self.world.session_minutes * 60
            if idle or (limit is not None and login.requests >= limit):
                del self.sessions[id]
                return None
            login.requests += 1
            login.used = time.monotonic()
            return login

    def open(self, user: str) -> str:
        """A new session's id; refused where the user has too many."""
        with self.lock:
            count = sum(each.user == user for each in self.sessions.values())
            if user != GUEST and count >= self.world.max_sessions:
                raise RefusedError(401, self.world.login_failure, "tomcat")
            id = uuid.uuid4().hex.upper()
            self.sessions[id] = Login(user, time.monotonic(), 1)
            self.opened += 1
            return id

    def close(self, id: str) -> None:
        with self.lock:
            self.sessions.pop(id, None)

    def expire(self) -> None:
        with self.lock:
            self.sessions.clear()

    def check(self, name: str, password: str) -> str:
        """The user whose name, or alias token, and password these are; else 401."""
        name = name.split("/", 1)[-1]  # a provider's id may stand before
        with self.lock:
            secret, user = self.tokens.get(name, (None, name))
            if secret is None:
                secret = self.world.users.get(name)
            locked = self.failures.get(user, 0) >= self.world.max_failed_logins
            if secret is not None and secret == password and not locked:
                self.failures.pop(user, None)
                return user
            self.failures[user] = self.failures.get(user, 0) + 1
        raise RefusedError(401, self.world.login_failure, "tomcat")

    def issue(self, user: str) -> dict[str, Any]:
        """A new alias token."""
        alias, secret = str(uuid.uuid4()), uuid.uuid4().hex * 2
        with self.lock:
            self.tokens[alias] = (secret, user)
        expires = int(time.time() * 1000) + 2 * 86400 * 1000
        more = {"singleUse": False, "estimatedExpirationTime": expires, "xdatUserId": user}
        return {"alias": alias, "secret": secret, **more}


def basic_credentials(header: str) -> tuple[str, str] | None:
    """Name and password of a Basic header; without a colon an error page, as in XNAT."""
    if not header.startswith("Basic "):
        return None
    name, colon, password = base64.b64decode(header[6:]).decode("utf-8", "replace").partition(":")
    if not colon:
        raise RefusedError(500, "", "tomcat")
    return name, password


def is_browser(agent: str) -> bool:
    return bool(re.search("MSIE|Mozilla|AppleWebKit|Opera", agent))


def cookie_of(headers: dict[str, str], name: str) -> str:
    match = re.search(rf'(?:^|;\s*){name}="?([^;"]*)', headers.get("cookie", ""))
    return match[1] if match else ""


# --- The site -----------------------------------------------------------------------------


@dataclass
class Call:
    """A request on its way through the site."""

    method: str
    path: str  # below the context path, as it came
    query: Query
    headers: dict[str, str]
    faults: list[Fault]
    url: str  # of the site
    body: bytes = b""
    user: str = GUEST
    session_id: str = ""
    new_session: bool = False
    route: dict[str, str] = field(default_factory=dict)  # parts of the path, by name

    def part(self, name: str) -> str:
        return self.route.get(name) or ""


@dataclass
class Selection:
    """What a path asks for: the holders of resources, or the sessions themselves."""

    sessions: list[Session]
    holders: list[Holder]
    top: str  # the label that names the archive


PROJECT = r"/projects/(?P<project>[^/]+)"
SUBJECT = r"/subjects/(?P<subject>[^/]+)"
EXPERIMENT = rf"(?:{PROJECT}{SUBJECT})?/experiments/(?P<experiment>[^/]+)"
INNER = r"/(?P<kind>assessors|reconstructions)/(?P<list>[^/]+)"
HELD = rf"(?:/scans/(?P<scans>[^/]+)|{INNER}(?:/(?P<where>in|out))?)"
FILES = r"(?:/resources/(?P<resource>[^/]+))?/files(?:/(?P<file>.+))?"
ROUTES = [
    (r"/JSESSION", "jsession"),
    (r"/auth", "auth"),
    (r"/services/auth", "services_auth"),
    (r"/services/tokens/(?P<action>\w+)(?P<rest>.*)", "tokens"),
    (r"/search/elements(?:/(?P<type>[^/]+))?", "search_elements"),
    (PROJECT, "project"),
    (r"/projects", "project_list"),
    (PROJECT + r"/subjects", "subject_list"),
    (r"/subjects", "subject_list"),
    (rf"(?:{PROJECT})?{SUBJECT}", "subject"),
    (rf"{PROJECT}{SUBJECT}{FILES}", "subject_files"),
    (r"/experiments", "experiment_list"),
    (rf"(?:{PROJECT})?(?:{SUBJECT})?/experiments", "experiment_list"),
    (rf"{PROJECT}/experiments/(?P<experiment>[^/]+)", "experiment"),
    ((rf"{PROJECT}/experiments/(?P<experiment>[^/]+)/resources/(?P<resource>[^/]+)"
     r"/files(?:/(?P<file>.+))?"), "files"),
    (EXPERIMENT, "experiment"),
    (EXPERIMENT + r"/scans", "scan_list"),
    (EXPERIMENT + r"/assessors", "assessor_list"),
    (EXPERIMENT + r"/reconstructions", "reconstruction_list"),
    (EXPERIMENT + r"/scans/(?P<scans>[^/]+)", "held"),
    (EXPERIMENT + INNER, "held"),
    (rf"{EXPERIMENT}(?:{HELD})?/resources", "resource_list"),
    (rf"{EXPERIMENT}(?:{HELD})?/resources/(?P<resource>[^/]+)", "catalog"),
    (rf"{EXPERIMENT}(?:{HELD})?{FILES}", "files"),
]  # fmt: skip
COMPILED = [(re.compile(pattern), name) for pattern, name in ROUTES]
LIST_ROUTES = ("project_list", "subject_list", "experiment_list", "scan_list", "assessor_list",
               "reconstruction_list", "resource_list")  # fmt: skip
TYPES_BY_ENDING = {
    ".txt": "text/plain",
    ".csv": "text/csv",
    ".xml": "text/xml",
    ".json": "application/json",
    ".gif": "image/gif",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".pdf": "application/pdf",
    ".zip": "application/zip",
    ".gz": "application/x-gzip",
}
ARCHIVES = {"zip": "application/zip", "tar": "application/x-tar", "tar.gz": "application/x-gtar"}


class Site:
    """XNAT's answers about a world, without the connections."""

    def __init__(self, world: World, context: str) -> None:
        self.world, self.context = world, context
        self.logins = Logins(world)

    # Who asks

    def answer(self, call: Call) -> Answer:
        """The answer, with its cookies and security headers."""
        try:
            answer = self.admit(call) or self.routed(call)
        except RefusedError as refused:
            answer = refused.answer
        except ValueError:  # what the database, or Java, would not take either
            answer = error_page(500)
        return self.with_cookies(call, answer)

    def with_cookies(self, call: Call, answer: Answer) -> Answer:
        idle = int(self.world.session_minutes * 60000)
        expires = f"{int(time.time() * 1000)},{idle}"
        more = []
        if call.new_session:
            path = self.context or "/"
            path += "; Secure" if call.url.startswith("https:") else ""
            more.append(("Set-Cookie", f"JSESSIONID={call.session_id}; Path={path}; HttpOnly"))
        expiry = f'SESSION_EXPIRATION_TIME="{expires}"; Version=1; Path=/'
        more.append(("Set-Cookie", expiry))
        more += [
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "SAMEORIGIN"),
            ("Content-Security-Policy", "frame-ancestors 'self'"),
        ]
        answer.headers[:0] = more
        return answer

    def admit(self, call: Call) -> Answer | None:
        """Find out who asks; an answer if that is as far as it goes."""
        if self.world.site != "ready":
            if self.world.site == "setup":
                return self.redirect(call, "/setup")
            raise RefusedError(403, "Site has not yet been configured.", "tomcat")
        self.log_in(call)
        free = call.path.startswith(("/app/", "/xapi/siteConfig/buildInfo"))
        closed = self.world.require_login and not self.is_open(call.path)
        if call.user == GUEST and closed and not free:
            return self.ask_for_login(call)
        if call.user in self.world.expired_passwords and not free:
            return self.redirect(call, "/app/template/XDATScreen_UpdateUser.vm")
        if call.user in self.world.inactive and not free:
            return self.redirect(call, "/app/template/InactiveAccount.vm")
        return None

    def log_in(self, call: Call) -> None:
        """Set the user from the cookie and the Basic header; open a session if need be."""
        call.session_id = cookie_of(call.headers, "JSESSIONID")
        login = self.logins.find(call.session_id)
        credentials = basic_credentials(call.headers.get("authorization", ""))
        if credentials:
            name = credentials[0].split("/", 1)[-1]
            owner = self.logins.tokens.get(name, ("", name))[1]
            if not login or login.user != owner:
                user = self.logins.check(*credentials)
                call.session_id, call.new_session = self.logins.open(user), True
                call.user = user
                return
        if login is None:
            call.session_id, call.new_session = self.logins.open(GUEST), True
        call.user = login.user if login else GUEST

    def ask_for_login(self, call: Call) -> Answer:
        """401 with a realm to tools; browsers are sent to the log-in page."""
        data = call.path.startswith(("/data", "/REST", "/xapi", "/fs"))
        if not data or is_browser(call.headers.get("user-agent", "")):
            return self.redirect(call, "/app/template/Login.vm")
        answer = error_page(401, "Full authentication is required to access this resource", "tomcat")
        answer.headers.append(("WWW-Authenticate", f'Basic realm="{self.world.site_id}"'))
        return answer

    def is_open(self, path: str) -> bool:
        return bool(re.match(r"/(data|REST)/(JSESSION|services/auth)", path))

    def redirect(self, call: Call, path: str) -> Answer:
        return Answer(302, [("Location", call.url + path)], b"")

    # Where to

    def routed(self, call: Call) -> Answer:
        """The answer of the longest route that the path begins with."""
        if call.path.startswith("/xapi/"):
            return self.xapi(call)
        match = re.match(r"/(?:data|REST)(?:/archive)?(?=/)", call.path)
        if not match:
            return web_page(LOGIN_FORM)
        path = call.path[match.end() :].rstrip("/")
        found = [(pattern.match(path), name) for pattern, name in COMPILED]
        best = max(((m.end(), m, name) for m, name in found if m), key=lambda t: t[0], default=None)
        if best is None:
            raise RefusedError(404)
        call.route, name = best[1].groupdict(), best[2]
        self.check_method(call, name)
        handler: Callable[[Call], Answer] = getattr(self, "get_" + name)
        return handler(call)

    def check_method(self, call: Call, name: str) -> None:
        if call.method == "HEAD" and name in LIST_ROUTES:
            raise RefusedError(404)
        more = {"jsession": ("POST", "DELETE"), "services_auth": ("POST", "PUT")}
        allowed = ("GET", "HEAD", *more.get(name, ()))
        if call.method not in allowed:
            refused = RefusedError(405)
            refused.answer.headers.append(("Allow", ", ".join(allowed)))
            raise refused

    def xapi(self, call: Call) -> Answer:
        """The few parts of the XAPI that downloading clients ask for."""
        name = call.path[len("/xapi/") :].rstrip("/")
        if name == "siteConfig/buildInfo":
            return json_answer(build_info(self.world.version))
        if name == "users/username":
            return Answer(200, [("Content-Type", "text/plain")], call.user.encode())
        if name == "schemas":
            return json_answer(["xnat"])
        if name in ("schemas/xnat", "schemas/xnat/xnat"):
            xml = [("Content-Type", "application/xml;charset=UTF-8")]
            return Answer(200, xml, schema_document())
        raise RefusedError(404, "", "tomcat")

    def get_jsession(self, call: Call) -> Answer:
        if call.method == "DELETE":
            self.logins.close(call.session_id)
            return Answer(200, restlet_headers(), b"")
        more = f"; XNAT_CSRF={uuid.uuid4()}" if call.query.is_true("CSRF") else ""
        return text_answer(call.session_id + more)

    def get_services_auth(self, call: Call) -> Answer:
        """Log in with a form's username and password; the answer is the session's id."""
        form = Query(call.body.decode("utf-8", "replace"))
        user = self.logins.check(form.get("username"), form.get("password"))
        call.session_id, call.new_session = self.logins.open(user), True
        return text_answer(call.session_id)

    def get_auth(self, call: Call) -> Answer:
        return text_answer(f"User '{call.user}' is logged in")

    def get_tokens(self, call: Call) -> Answer:
        """Alias tokens: issue, show, validate/{alias}/{secret}, invalidate/{alias}."""
        if call.user == GUEST:
            raise RefusedError(403)
        action, names = call.part("action"), call.part("rest").strip("/").split("/")
        tokens = self.logins.tokens
        if action == "issue":
            value: Any = self.logins.issue(call.user)
        elif action == "show":
            value = [{"alias": alias} for alias, (_, user) in tokens.items() if user == call.user]
        elif names[0] not in tokens:
            raise RefusedError(404)
        elif action == "validate":
            secret, user = tokens[names[0]]
            value = {"valid": user} if names[1:] == [secret] else {}
        else:
            tokens.pop(names[0])
            value = {}
        return restlet_answer(json.dumps(value).encode(), "application/json", chunked=True)

    # Listings

    def find_project(self, call: Call) -> Project:
        """The project of the path, if the user sees it; else 404."""
        project = self.world.find_project(call.part("project"))
        if project is None or not project.visible_to(call.user):
            raise RefusedError(404, f"Unable to identify project {call.part('project')}")
        return project

    def find_subject(self, call: Call, project: Project) -> Subject:
        """The subject of the path: a label of the project, or an ID; else 404."""
        name = call.part("subject")
        found = [each for each in project.subjects if each.label == name]
        found += [each for p in self.world.projects for each in p.subjects if each.id == name]
        if not found:
            raise RefusedError(404, f"Unable to identify subject {name}")
        return found[0]

    def listed(self, call: Call, rows: list[dict[str, str]], defaults: list[str], **more: Any) -> Answer:
        """A listing of rows that have passed everything but order and columns."""
        columns = columns_of(rows, call.query, defaults)
        if "URI" in defaults and "URI" not in columns:
            columns = [*columns, "URI"]
        extra = more.pop("extra", "")
        columns = [*columns, extra] if extra and extra not in columns else columns
        shown = [{key: field_of(row, key) or "" for key in columns} for row in sorted_rows(rows, call.query)]
        return table_answer(Table(columns, shown, **more), call.query, call.headers.get("accept", ""))

    def filtered(self, call: Call, records: Iterable[Any]) -> tuple[list[Any], bool]:
        """The records on the page that the query asks for, and whether it pages."""
        anchored = self.world.wildcards == "anchored"
        return page_of([r for r in records if passes(r.fields(), call.query, anchored)], call.query)

    def get_project_list(self, call: Call) -> Answer:
        records, paged = self.filtered(call, self.world.projects)
        rows = [each.fields() for each in records if each.visible_to(call.user)]
        defaults = ["ID", "secondary_ID", "name", "description", "pi_firstname", "pi_lastname", "URI"]
        return self.listed(call, rows, defaults, title="Projects", total=not paged)

    def get_subject_list(self, call: Call) -> Answer:
        projects = [self.find_project(call)] if call.part("project") else self.world.projects
        subjects = [each for p in projects if p.readable_by(call.user) for each in p.subjects]
        records, paged = self.filtered(call, subjects)
        rows = [each.fields() for each in records]
        defaults = ["ID", "project", "label", "insert_date", "insert_user", "URI"]
        return self.listed(call, rows, defaults, title="Subjects", total=not paged)

    def get_experiment_list(self, call: Call) -> Answer:
        """Experiments of the site, of a project (shared ones too) or of a subject."""
        type = call.query.get("xsiType")
        type = "" if "," in type else type
        inside = bool(call.part("project"))
        records = self.experiments_of(call, type or "xnat:subjectAssessorData") if inside else [
            each for each in self.world.experiments if is_of_type(each, type or "xnat:experimentData")
        ]  # fmt: skip
        records, paged = self.filtered(call, records)
        readable = [each for each in records if self.world.readable_by(call.user, each)]
        readable = readable if inside else self.as_first_row(records, readable)
        defaults = ["ID", "project", "date", "xsiType", "label", "insert_date", "URI"]
        if not inside and type:
            owner = "subject" if is_image_session(type) or "subject" in type else "session"
            defaults += [f"{owner}_ID", f"{owner}_label"]
        extra = f"{type or 'xnat:subjectAssessorData'}/id".lower() if inside or type else ""
        here = self.find_project(call).id if inside else ""
        rows = [row_in(each, here, extra) for each in readable]
        if "scandata/" in call.query.get("columns").lower():
            rows = [row for pair in zip(readable, rows) for row in by_scan(*pair)]
        title = None if inside else "Matching experiments"
        return self.listed(call, rows, defaults, title=title, total=not paged, extra=extra)

    def as_first_row(self, records: list[Any], readable: list[Any]) -> list[Any]:
        """The rows that XNAT shows of the site: it asks for the right to read the first of a type
        and project only, so that who has single sessions by sharing may see too few."""
        first: dict[tuple[str, str], Any] = {}
        for each in records:
            first.setdefault((each.type, each.project.id), each)
        return [each for each in readable if first[each.type, each.project.id] in readable]

    def experiments_of(self, call: Call, type: str) -> list[Any]:
        """The experiments that the path's project shows, its own and shared ones."""
        project = self.find_project(call)
        if not project.readable_by(call.user):
            raise RefusedError(403, f"Unable to read experiments for Project: {project.id}")
        found = [
            each
            for each in self.world.experiments
            if is_of_type(each, type) and project.id in (each.project.id, *each.shares)
        ]
        if not call.part("subject"):
            return found
        subject = self.find_subject(call, project)
        return [each for each in found if getattr(each, "subject", None) is subject]

    def get_search_elements(self, call: Call) -> Answer:
        """The types that can be searched, or a type's fields; little more than names."""
        if call.part("type"):
            rows = [{"FIELD_ID": name} for name in ("LABEL", "PROJECT", "DATE")]
            return self.listed(call, rows, ["FIELD_ID"])
        types = [each.type for each in self.world.experiments]
        names = sorted({"xnat:projectData", "xnat:subjectData", *types})
        rows = [{"ELEMENT_NAME": name, "COUNT": str(types.count(name))} for name in names]
        return self.listed(call, rows, ["ELEMENT_NAME", "COUNT"])

    def get_scan_list(self, call: Call) -> Answer:
        """Filters do nothing here, in XNAT as well."""
        session = self.one_session(call)
        rows = [
            {
                "xnat_imagescandata_id": str(scan.number),
                "ID": scan.id,
                "type": scan.type,
                "quality": scan.quality,
                "xsiType": scan.xsi_type,
                "note": scan.note,
                "series_description": scan.description,
                "URI": f"/data/experiments/{session.id}/scans/{scan.id}",
                "condition": scan.condition,
                "frames": scan.frames,
                "UID": scan.uid,
                **scan.extra,
            }
            for scan in session.scans
        ]
        names = "xnat_imagescandata_id ID type quality xsiType note series_description URI"
        return self.listed(call, rows, names.split())

    def get_assessor_list(self, call: Call) -> Answer:
        session = self.one_session(call)
        rows = [row_in(each, "", "xnat:imageassessordata/id") for each in session.assessors]
        names = "ID project label date xsiType insert_date session_ID session_label URI"
        return self.listed(call, rows, names.split(), extra="xnat:imageassessordata/id")

    def get_reconstruction_list(self, call: Call) -> Answer:
        session = self.one_session(call)
        base = f"/data/experiments/{session.id}/reconstructions/"
        rows = [
            {
                "xnat_reconstructedimagedata_id": str(each.number),
                "ID": each.id,
                "type": each.type,
                "baseScanType": "",
                "xsiType": each.xsi_type,
                "URI": base + each.id,
            }
            for each in session.reconstructions
        ]
        names = "xnat_reconstructedimagedata_id ID type baseScanType URI"
        return self.listed(call, rows, names.split())

    def get_resource_list(self, call: Call) -> Answer:
        """The resources of the holders; with all=true of everything in the session."""
        selection = self.select(call)
        resources = [each for holder in selection.holders for each in holder.resources]
        if call.part("kind"):
            where = call.part("where") or "out"
            resources = [each for each in resources if each.where == where]
        elif not call.part("scans") and call.query.is_true("all"):
            resources = [each for s in selection.sessions for each in all_resources(s)]
        rows = [resource_row(each) for each in resources]
        names = "xnat_abstractresource_id label element_name category cat_id cat_desc file_count"
        names += " file_size tags content format"
        table = Table(names.split(), rows, title="Resources")  # whatever columns= says
        return table_answer(table, call.query, call.headers.get("accept", ""))

    # One record

    def find_session(self, call: Call, name: str) -> Any | None:
        """The experiment of a path segment, if the user may read it."""
        found = self.world.find_experiment(name)
        if found is None and call.part("project"):
            found = self.find_label(self.find_project(call), name)
        if found is not None and not self.world.readable_by(call.user, found):
            return None
        return found

    def find_label(self, project: Project, label: str) -> Any | None:
        """By the label in its own project, else by that of a share."""
        own = [e for e in self.world.experiments if e.project is project and e.label == label]
        shared = [e for e in self.world.experiments if e.shares.get(project.id) == label]
        return next(iter(own + shared), None)

    def one_session(self, call: Call) -> Session:
        """The session of the path; unknown is 500, or 404 where a project is named."""
        found = self.find_session(call, call.part("experiment"))
        if isinstance(found, Session):
            return found
        raise RefusedError(404 if call.part("project") else 500)

    def get_experiment(self, call: Call) -> Answer:
        if call.part("project"):
            self.find_project(call)
        found = self.find_session(call, call.part("experiment"))
        if found is None:
            raise RefusedError(404, "Unable to find the specified experiment.")
        return self.document(call, found)

    def get_project(self, call: Call) -> Answer:
        return self.document(call, self.find_project(call))

    def get_subject(self, call: Call) -> Answer:
        projects = [self.find_project(call)] if call.part("project") else self.world.projects
        subjects = [each for p in projects if p.readable_by(call.user) for each in p.subjects]
        by_label = call.part("project") and call.part("subject")
        for subject in subjects:
            if call.part("subject") == subject.id or by_label == subject.label:
                return self.document(call, subject)
        raise RefusedError(404, "Unable to find the specified subject.")

    def get_held(self, call: Call) -> Answer:
        """One scan, assessor or reconstruction."""
        session = self.one_session(call)
        found = self.held_by(call, session)
        if not found:
            raise RefusedError(404)
        return self.document(call, found[0])

    def document(self, call: Call, record: Any) -> Answer:
        """A record as XML or JSON; without a format it is a web page."""
        format, accept = call.query.get("format"), call.headers.get("accept", "")
        if format == "json" or (not format and accept.startswith("application/json")):
            body = json_document(node_of(record, self.world))
            return restlet_answer(body, "application/json", chunked=True)
        if format == "xml" or (not format and accept in ("text/xml", "application/xml")):
            node = node_of(record, self.world)
            if call.query.is_true("concealHiddenFields"):
                conceal(node)
            return restlet_answer(xml_document(node, self.world), "text/xml", chunked=True)
        return web_page("A page about it.")

    # Files

    def held_by(self, call: Call, session: Session) -> list[Any]:
        """The scans, assessors or reconstructions of a session that the path asks for."""
        if call.part("scans"):
            return by_id_or_type(session.scans, call.part("scans"))
        if call.part("kind") == "reconstructions":
            return by_id_or_type(session.reconstructions, call.part("list"))
        wanted = call.part("list").split(",")
        if "ALL" in wanted or "*" in wanted:
            return list(session.assessors)
        mine = [e for e in session.assessors if {e.label, e.type} & set(wanted)]
        anywhere = [e for e in self.world.experiments if isinstance(e, Assessor) and e.id in wanted]
        return mine + [each for each in anywhere if each not in mine]

    def select(self, call: Call) -> Selection:
        """The holders that the path asks for: what is not there is left out silently."""
        project = self.find_project(call) if call.part("project") else None
        subject = self.find_subject(call, project) if project and call.part("subject") else None
        names = call.part("experiment").split(",")
        found = [self.find_session(call, name) for name in names]
        sessions = [each for each in found if isinstance(each, Session)]
        inner = bool(call.part("scans") or call.part("kind"))
        holders = [h for s in sessions for h in (self.held_by(call, s) if inner else [s])]
        forced = any(fault.kind == "fallback" for fault in call.faults)
        if forced and sessions:
            subject, holders = sessions[0].subject, []
        top = sessions[0].label if sessions else names[0]
        if not holders:
            return self.unmatched(call, subject, top)
        return Selection(sessions, holders, top)

    def unmatched(self, call: Call, subject: Subject | None, top: str) -> Selection:
        """Nothing matched: the subject's own resources, or an error."""
        if subject is not None:
            return Selection([], [subject], top)
        if call.part("project"):
            raise RefusedError(404)
        if not self.world.old:
            raise RefusedError(500)
        if call.query.get("format") in ARCHIVES:
            raise RefusedError(404)
        return Selection([], [], top)

    def get_subject_files(self, call: Call) -> Answer:
        subject = self.find_subject(call, self.find_project(call))
        return self.files(call, Selection([], [subject], subject.label))

    def get_catalog(self, call: Call) -> Answer:
        """One resource's catalog, whatever the format asked for."""
        selection = self.select(call)
        entries = self.entries(call, selection)
        lines = [
            f"<cat:entry{attribute('URI', each.name)}{attribute('name', each.name)}/>" for each in entries
        ]
        head = '<?xml version="1.0" encoding="UTF-8"?>\n<cat:Catalog xmlns:cat='
        body = f'{head}"http://nrg.wustl.edu/catalog">\n<cat:entries>\n'
        body += "\n".join(lines) + "\n</cat:entries>\n</cat:Catalog>\n"
        return restlet_answer(body.encode(), "text/xml", chunked=True)

    def get_files(self, call: Call) -> Answer:
        return self.files(call, self.select(call))

    def files(self, call: Call, selection: Selection) -> Answer:
        """A listing, an archive or a file."""
        if call.method == "HEAD" and len(selection.holders) != 1:
            raise RefusedError(404)
        entries = self.entries(call, selection)
        if call.part("file") or call.query.get("index"):
            return self.one_file(call, self.pick_file(call, entries))
        format = call.query.get("format").lower()
        if format in ARCHIVES:
            return self.archive(call, selection, entries, format)
        if call.method == "HEAD":
            raise RefusedError(404)
        return self.file_list(call, entries)

    def entries(self, call: Call, selection: Selection) -> list[Entry]:
        """The files of the resources that the path and the filters ask for."""
        holders = selection.holders
        resources = [each for holder in holders for each in holder.resources]
        if call.part("kind"):
            where = call.part("where") or "out"
            resources = [each for each in resources if each.where == where]
        elif not call.part("scans") and call.query.is_true("all"):
            resources = [each for s in selection.sessions for each in all_resources(s)]
        if call.part("resource"):
            resources = self.by_label_or_number(call, resources)
        base = "/data"
        if len(resources) == 1 and call.part("project") and call.part("subject"):
            base += f"/projects/{call.part('project')}/subjects/{call.part('subject')}"
        entries = [
            Entry(each, name, file, base + resource_uri(each))
            for each in resources
            for name, file in each.files.items()
        ]
        return [each for each in entries if passes_file_filters(each, call.query)]

    def by_label_or_number(self, call: Call, resources: list[Resource]) -> list[Resource]:
        """Resources by a comma list of labels or numbers; 404 where none is one."""
        wanted = [name.strip() for name in call.part("resource").split(",")]
        for name in wanted:
            self.check_number(call, name)
        chosen = [
            each
            for each in resources
            if str(each.id) in wanted
            or (each.label and each.label in wanted)
            or (not each.label and "NULL" in wanted)
        ]
        if not chosen:
            raise RefusedError(404)
        return chosen

    def check_number(self, call: Call, name: str) -> None:
        """A resource's number that the user may not read makes the whole request 404."""
        for experiment in self.world.sessions() if name.isdigit() else ():
            hidden = not self.world.readable_by(call.user, experiment)
            if hidden and any(str(each.id) == name for each in all_resources(experiment)):
                raise RefusedError(404)

    def file_list(self, call: Call, entries: list[Entry]) -> Answer:
        rows = [entry.row(self.world) for entry in entries]
        for fault in call.faults:
            if fault.kind == "listing":
                rows = fault.details["edit"](rows)
        names = [
            "Name",
            "Size",
            "URI",
            "collection",
            "file_tags",
            "file_format",
            "file_content",
            "cat_ID",
            "digest",
        ]
        names = names[:-1] if self.world.digests == "none" else names
        table = Table(names, rows, "Files", total=False, server_root=self.context)
        return table_answer(table, call.query, call.headers.get("accept", ""))

    def pick_file(self, call: Call, entries: list[Entry]) -> Entry:
        """The file of the path, of which only %20 and %2B are decoded; else 404."""
        name = call.part("file")
        if not self.world.old:
            name = name.replace("%20", " ").replace("%2B", "+").replace("%2b", "+")
        found = [each for each in entries if each.name == name] if name else entries
        found = [each for each in found if each.file.on_disk]
        index = int(call.query.get("index") or 0)
        if index >= len(found):
            raise RefusedError(404, "Unable to find file.", "tomcat")
        return found[index]

    def one_file(self, call: Call, entry: Entry) -> Answer:
        """A file, or the part of it that Range asks for."""
        name = entry.name.rsplit("/", 1)[-1]
        if call.query.get("format") == "zip" and not name.endswith(".zip"):
            member = Member(name, entry.file.data, entry.file.modified)
            return self.zip_answer(call, [member], name + ".zip", "zip")
        file = entry.file
        check_conditions(call.headers, file.modified)
        start, stop = range_of(call.headers.get("range", ""), file.data.size)
        modified = ("Last-Modified", formatdate(file.modified, usegmt=True))
        part = ("Content-Range", f"bytes {start}-{stop - 1}/{file.data.size}")
        ranged = "range" in call.headers
        more = [("Cache-Control", "must-revalidate"), disposition(name)]
        headers = restlet_headers(*more, first=[modified, part] if ranged else [modified])
        kind = TYPES_BY_ENDING.get(Path(name).suffix.lower(), "application/octet-stream")
        body = failing(file, start, stop)
        headers.append(("Content-Type", kind))
        status = 206 if ranged else 200
        return Answer(status, headers, body, length=stop - start, transfer=True)

    def archive(self, call: Call, selection: Selection, entries: list[Entry], format: str) -> Answer:
        """The files in one archive: those that the disk has when it is prepared."""
        entries = [each for each in entries if each.file.on_disk]
        naming = self.naming(call, selection, format)
        members = [
            Member(
                naming.path(each), each.file.data, each.file.modified, each.file.vanishes, each.file.fails_at
            )
            for each in entries
        ]
        for fault in call.faults:
            members = spoil(members, fault)
        if not members:
            raise RefusedError(404)
        return self.zip_answer(call, members, f"{selection.top}.{format}", format)

    def naming(self, call: Call, selection: Selection, format: str) -> Naming:
        query = call.query
        inner = bool(call.part("scans") or call.part("kind"))
        return Naming(
            query.get("structure") or "default",
            inner and not query.is_true("all"),
            query.is_true("projectIncludedInPath"),
            query.is_true("subjectIncludedInPath"),
            format != "zip",
            self.world.old_assessor_layout,
            selection.holders,
            selection.top,
        )

    def zip_answer(self, call: Call, members: list[Member], name: str, format: str) -> Answer:
        """An archive as it is written; an open range makes Restlet fail."""
        compression = self.compression(call.query)
        if re.fullmatch(r"bytes=(-\d+|\d+-)", call.headers.get("range", "")):
            refused = RefusedError(500)
            refused.answer.headers.insert(3, disposition(name))
            raise refused
        if format == "zip":
            pieces = ZipWriter(compression, not self.world.old).pieces(members)
        else:
            pieces = in_records(tar_pieces(members))
            pieces = gzipped(pieces) if format == "tar.gz" else pieces
        chunked = format != "zip" and not self.world.old
        more = {"chunked": chunked, "transfer": True}
        return restlet_answer(pieces, ARCHIVES[format], disposition(name), **more)

    def compression(self, query: Query) -> int:
        text = query.get("compression")
        if not text:
            return self.world.compression
        if not text.isdigit():
            raise RefusedError(400)
        if text not in ("0", "8"):
            raise RefusedError(500)
        return int(text)


# What the site's answers are made of


def row_in(experiment: Any, project_id: str, extra: str) -> dict[str, str]:
    """An experiment's row; in a project that it is shared into, with its names there."""
    row: dict[str, str] = experiment.fields()
    if extra:
        row[extra] = experiment.id
    if project_id and project_id != experiment.project.id:
        row.update(project=project_id, label=experiment.label_in(project_id))
    return row


def by_scan(experiment: Any, row: dict[str, str]) -> list[dict[str, str]]:
    """A row for each scan, as a column of scans makes the listing of sessions give."""
    return [
        {**row, "xnat:imagescandata/id": scan.id, "xnat:imagescandata/type": scan.type}
        for scan in getattr(experiment, "scans", [])
    ]


def by_id_or_type(records: Sequence[Any], segment: str) -> list[Any]:
    """Scans or reconstructions by a decoded list: IDs, types, ALL, * or NULL (no type)."""
    text = unquote_plus(segment).replace("[SLASH]", "/")
    if text in ("ALL", "*"):
        return list(records)
    wanted = {name.replace("[COMMA]", ",") for name in text.split(",")}
    wanted = {name for name in wanted if html.escape(name) == name}
    empty = "NULL" in wanted
    return [
        each
        for each in records
        if each.id in wanted or (each.type and each.type in wanted) or (empty and not each.type)
    ]


def all_resources(session: Session) -> list[Resource]:
    """Everything that all=true shows: not what assessors and reconstructions hold as `in`."""
    inner = [*session.reconstructions, *session.assessors]
    resources = [each for holder in [session, *session.scans] for each in holder.resources]
    return resources + [r for holder in inner for r in holder.resources if r.where != "in"]


def resource_row(resource: Resource) -> dict[str, str]:
    """A resource's row in `resources`: category, and id and type of its holder."""
    kinds = {Scan: "scans", Assessor: "assessors", Reconstruction: "reconstructions"}
    holder: Any = resource.holder
    inner = type(holder) in kinds
    return {
        "xnat_abstractresource_id": str(resource.id),
        "label": resource.label,
        "element_name": "xnat:resourceCatalog",
        "category": kinds.get(type(holder), "resources"),
        "cat_id": holder.id if inner else "",
        "cat_desc": holder.type if inner else "",
        "file_count": resource.file_count,
        "file_size": resource.file_size,
        "tags": "",
        "content": resource.content,
        "format": resource.format,
    }


def conceal(node: Node) -> None:
    """Take the comments with numeric ids out of a document."""
    node.hidden = {}
    for _, value in node.parts:
        for each in value if not isinstance(value, str) else ():
            conceal(each)


def passes_file_filters(entry: Entry, query: Query) -> bool:
    """Whether file_format and file_content, of the entry itself, are as asked."""
    formats, contents = query.all("file_format"), query.all("file_content")
    row_format, row_content = entry.format_and_content()
    return (not formats or row_format in formats) and (not contents or row_content in contents)


def check_conditions(headers: dict[str, str], modified: float) -> None:
    """304 or 412 where the request's conditions on the file's time say so."""
    since, until = headers.get("if-modified-since"), headers.get("if-unmodified-since")
    with suppress(ValueError, TypeError):
        if since and int(modified) <= parsedate_to_datetime(since).timestamp():
            refused = RefusedError(304)
            refused.answer = Answer(304, restlet_headers())
            raise refused
        if until and int(modified) > parsedate_to_datetime(until).timestamp():
            raise RefusedError(412)


def range_of(header: str, size: int) -> tuple[int, int]:
    """Start and stop of the range; several are 501, one beyond the end 500."""
    if not header:
        return 0, size
    if "," in header:
        raise RefusedError(501)
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    if not match or not (match[1] or match[2]):
        raise RefusedError(400)
    if not match[1]:
        return max(0, size - int(match[2])), size
    start, stop = int(match[1]), min(size, int(match[2] or size) + 1)
    if start >= stop:
        raise RefusedError(500)
    return start, stop


def disposition(name: str) -> tuple[str, str]:
    return "Content-Disposition", f'attachment; filename="{name}";'


def failing(file: File, start: int, stop: int) -> Iterator[Piece]:
    """The bytes of a single file, up to its read error if it has one."""
    end = stop if file.fails_at is None else min(stop, file.fails_at)
    yield from file.data.blocks(start, end)
    if end < stop:
        raise ReadError()


# The part of XNAT's schema that clients build their classes from: each type's base, its
# attributes, and its elements (`name`, `list/name:type`, or `name*:type` without a wrapper).
SCHEMA_TYPES = {
    "projectData": ("", "ID secondary_ID", "name description"),
    "subjectData": (
        "",
        "ID project label",
        "resources/resource:abstractResource experiments/experiment:experimentData",
    ),
    "abstractResource": ("", "label file_count file_size", "note"),
    "resource": ("abstractResource", "URI format description content", ""),
    "resourceCatalog": ("resource", "", ""),
    "experimentData": ("", "ID project label", "date time note resources/resource:abstractResource"),
    "subjectAssessorData": ("experimentData", "", "subject_ID age"),
    "imageSessionData": (
        "subjectAssessorData",
        "modality UID",
        """scanner operator scans/scan:imageScanData
        reconstructions/reconstructedImage:reconstructedImageData
        assessors/assessor:imageAssessorData""",
    ),
    "imageScanData": (
        "",
        "ID type UID",
        """image_session_ID note quality condition series_description frames
        file*:abstractResource""",
    ),
    "reconstructedImageData": (
        "",
        "ID type baseScanType",
        "image_session_ID in/file:abstractResource out/file:abstractResource",
    ),
    "derivedData": (
        "experimentData",
        "",
        "in/file:abstractResource out/file:abstractResource imageSession_ID",
    ),
    "imageAssessorData": ("derivedData", "", ""),
    "qcManualAssessorData": ("imageAssessorData", "", ""),
    **{
        f"{kind}{of}Data": (f"image{of}Data", "", "")
        for kind in ("mr", "pet", "ct", "otherDicom")
        for of in ("Session", "Scan")
    },
}
SCHEMA_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<xs:schema targetNamespace="http://nrg.wustl.edu/xnat" xmlns:xnat="http://nrg.wustl.edu/xnat" \
xmlns:xs="http://www.w3.org/2001/XMLSchema" elementFormDefault="qualified">
"""


def schema_element(text: str) -> str:
    """One element of a type, from its short form in SCHEMA_TYPES."""
    path, _, kind = text.partition(":")
    wrapper, _, name = path.rpartition("/")
    if not kind:
        type = "date" if name == "date" else "string"
        return f'<xs:element name="{name}" type="xs:{type}" minOccurs="0"/>'
    many = 'minOccurs="0" maxOccurs="unbounded"'
    element = f'<xs:element name="{name.rstrip("*")}" type="xnat:{kind}" {many}/>'
    if not wrapper:
        return element
    inner = f"<xs:complexType><xs:sequence>{element}</xs:sequence></xs:complexType>"
    return f'<xs:element name="{wrapper}" minOccurs="0">{inner}</xs:element>'


def schema_type(name: str) -> str:
    """One complex type of the schema."""
    base, attributes, elements = SCHEMA_TYPES[name]
    inner = "".join(map(schema_element, elements.split()))
    text = f"<xs:sequence>{inner}</xs:sequence>"
    for each in attributes.split():
        text += f'<xs:attribute name="{each}" type="xs:string"/>'
    if base:
        text = f'<xs:extension base="xnat:{base}">{text}</xs:extension>'
        text = f"<xs:complexContent>{text}</xs:complexContent>"
    return f'<xs:complexType name="{name}">{text}</xs:complexType>\n'


def schema_document() -> bytes:
    """A reduced xnat.xsd."""
    roots = [
        f'<xs:element name="{root_name("xnat:" + name)[5:]}" type="xnat:{name}"/>\n' for name in SCHEMA_TYPES
    ]
    types = [schema_type(name) for name in SCHEMA_TYPES]
    return (SCHEMA_HEAD + "".join(roots + types) + "</xs:schema>\n").encode()


def build_info(version: str) -> dict[str, str]:
    return {
        "version": version,
        "buildNumber": "Manual",
        "buildDate": "2024-06-12 09:00:00",
        "isDirty": "false",
        "commit": "v" + version,
        "shortHash": "93d33cb",
        "hostName": "localhost",
    }


# --- Faults -------------------------------------------------------------------------------


@dataclass
class Fault:
    """A failure that waits for the requests whose `METHOD path?query` match."""

    kind: str
    match: re.Pattern[str]
    times: int | None
    skip: int
    details: dict[str, Any]

    def takes(self, line: str) -> bool:
        """Whether it strikes this request; counts."""
        if self.times == 0 or not self.match.search(line):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True

    def get(self, name: str, default: Any = None) -> Any:
        return self.details.get(name, default)


def chosen_members(members: list[Member], fault: Fault) -> list[Member]:
    """The members that a fault means: those that match, or the middle one."""
    pattern = fault.get("member")
    if pattern is None:
        return members[len(members) // 2 :][:1]
    return [each for each in members if re.search(pattern, each.path)]


def spoil(members: list[Member], fault: Fault) -> list[Member]:
    """The members of an archive with the fault in them."""
    chosen = chosen_members(members, fault)
    if fault.kind == "missing":
        return [each for each in members if each not in chosen]
    if fault.kind == "duplicate":
        return [each for m in members for each in ([m, m] if m in chosen else [m])]
    if fault.kind == "add":
        return added(members, fault)
    for member in chosen if fault.kind in ("vanish", "unreadable", "flip") else ():
        half = member.data.size // 2
        member.vanishes = member.vanishes or fault.kind == "vanish"
        if fault.kind == "unreadable":
            member.fails_at = min(fault.get("after", half), member.data.size)
        if fault.kind == "flip":
            member.flip = fault.get("at", half)
    if fault.kind == "silence" and fault.get("between"):
        for member in members[1:]:
            member.silence = fault.get("seconds", 0)
    return members


def added(members: list[Member], fault: Fault) -> list[Member]:
    """The members and one that XNAT never had, whatever its name."""
    data, mode = as_content(fault.get("data", b"")), fault.get("mode", 0)
    compression = fault.get("compression")
    extra = Member(fault.get("name", "extra"), data, mode=mode, compression=compression, forced=True)
    return [extra, *members] if fault.get("first") else [*members, extra]


def replaced(fault: Fault, path: str) -> Answer | None:
    """The answer that a fault gives instead of the site's, if it does."""
    if fault.kind == "html":
        return web_page(fault.get("body", "<h1>Welcome</h1>"))
    if fault.kind == "redirect":
        location = fault.get("location", "/").replace("{path}", path)
        return Answer(fault.get("status", 302), [("Location", location)], b"")
    if fault.kind == "answer":
        headers = list(fault.get("headers", {}).items())
        return Answer(fault.get("status", 200), headers, fault.get("body", b""))
    if fault.kind != "status":
        return None
    status = fault.get("status", 503)
    usual = {401: "tomcat", 403: "tomcat", 429: "nginx", 502: "nginx", 503: "nginx", 504: "nginx"}
    page = fault.get("page") or usual.get(status, "restlet")
    answer = error_page(status, fault.get("message", ""), page)
    if fault.get("retry_after") is not None:
        answer.headers.append(("Retry-After", str(fault.get("retry_after"))))
    return answer


class ConnectionCutError(Exception):
    """The connection is to break here."""


class ServerStopsError(ConnectionCutError):
    """All connections are."""


def interrupted(pieces: Iterable[Piece], fault: Fault) -> Iterator[Piece]:
    """A body to which something happens after so many bytes, or at its end if it is shorter."""
    left = fault.get("after") or 0
    pieces = iter(pieces)
    for piece in pieces:
        if isinstance(piece, Silence):
            yield piece
        elif len(piece) <= left:
            left -= len(piece)
            yield piece
        else:
            yield piece[:left]
            if fault.kind == "truncate":
                return
            if fault.kind == "silence":
                yield Silence(fault.get("seconds", 0))
                yield piece[left:]
                yield from pieces
                return
            break
    if fault.kind == "silence":
        yield Silence(fault.get("seconds", 0))
    if fault.kind == "stop":
        raise ServerStopsError()
    if fault.kind == "cut":
        raise ConnectionCutError()


# --- Sending ------------------------------------------------------------------------------


class Wire:
    """Sends one answer: frames its body, and keeps to a rate if there is one."""

    BATCH = 500  # chunks handed to the system at once; it takes 1024 buffers

    def __init__(self, sock: Any, record: Request, framed: bool, rate: float | None) -> None:
        self.sock, self.record, self.framed, self.rate = sock, record, framed, rate
        self.buffers: list[Any] = []
        self.pending = bytearray()
        self.queued = 0  # bytes of the body in self.buffers
        self.first = True
        self.limit = self.BATCH * BUFFER if not rate else max(BUFFER, int(rate / 50))
        self.started = time.monotonic()

    def head(self, data: bytes) -> None:
        self.buffers.append(data)

    def write(self, piece: bytes | memoryview) -> None:
        """Take a piece of the body; what fills chunks goes out, the rest waits."""
        view = memoryview(piece)
        if not self.framed:
            self.queue(view)
            return
        if self.pending:
            room = BUFFER - len(self.pending)
            self.pending += view[:room]
            view = view[room:]
            if len(self.pending) == BUFFER:
                self.chunk(bytes(self.pending))
                self.pending.clear()
        whole = len(view) - len(view) % BUFFER
        for start in range(0, whole, BUFFER):
            self.chunk(view[start : start + BUFFER])
        self.pending += view[whole:]

    def chunk(self, data: bytes | memoryview) -> None:
        self.buffers.append(b"2000\r\n" if self.first else b"\r\n2000\r\n")
        self.first = False
        self.queue(data)

    def queue(self, data: bytes | memoryview) -> None:
        self.buffers.append(data)
        self.queued += len(data)
        if self.queued >= self.limit or len(self.buffers) >= 1000:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the system, waiting as the rate demands."""
        self.record.bytes_sent += self.queued
        if self.buffers:
            self.send()
        self.queued = 0
        self.buffers = []
        if self.rate:
            due = self.started + self.record.bytes_sent / self.rate
            time.sleep(max(0.0, due - time.monotonic()))

    def send(self) -> None:
        if isinstance(self.sock, ssl.SSLSocket) or not hasattr(self.sock, "sendmsg"):
            self.sock.sendall(b"".join(self.buffers))
            return
        total = sum(map(len, self.buffers))
        sent = self.sock.sendmsg(self.buffers)
        if sent < total:
            self.sock.sendall(b"".join(self.buffers)[sent:])

    def finish_body(self) -> None:
        """Send what is left of a whole body, but for its last line."""
        if self.framed and self.pending:
            self.buffers.append(b"" if self.first else b"\r\n")
            self.buffers.append(b"%x\r\n" % len(self.pending))
            self.first = False
            self.queue(bytes(self.pending))
        if self.framed:
            self.flush()

    def finish(self) -> None:
        """Send the last line, or what has a length."""
        if self.framed:
            self.buffers.append(b"0\r\n\r\n" if self.first else b"\r\n0\r\n\r\n")
        self.flush()

    def break_off(self) -> None:
        """Send what there is, the last chunk shorter than it says."""
        if self.framed and self.pending:
            self.buffers.append(b"2000\r\n" if self.first else b"\r\n2000\r\n")
            self.queue(bytes(self.pending))
        self.flush()


def head_start(pieces: Iterator[Piece]) -> tuple[list[Piece], bool]:
    """The first pieces, more than Tomcat's buffer holds; and whether that was all."""
    start: list[Piece] = []
    size = 0
    for piece in pieces:
        start.append(piece)
        size += 0 if isinstance(piece, Silence) else len(piece)
        if isinstance(piece, Silence):
            time.sleep(piece.seconds)
            start.pop()
        if size > BUFFER:
            return start, False
    return start, True


ILLEGAL = re.compile(r'[^!-~]|["<>\\^`{|}\[\]]')  # what Tomcat refuses in a request line


class Connection:
    """One client's connection: its requests, one after the other."""

    def __init__(self, server: XnatServer, sock: Any) -> None:
        self.server, self.sock = server, sock
        self.input = sock.makefile("rb")

    def run(self) -> None:
        """Answer requests until either side has enough."""
        with suppress(OSError, ConnectionCutError, ValueError):
            while self.one_request():
                pass

    def one_request(self) -> bool:
        """Read and answer a request; false when the connection is to end."""
        self.sock.settimeout(self.server.world.keep_alive)
        line = self.input.readline(65536)
        if not line.strip():
            return False
        parts = line.decode("latin-1").split()
        headers = self.read_headers()
        body = self.input.read(int(headers.get("content-length") or 0))
        self.sock.settimeout(None)
        method, target, version = [*parts, "", "", ""][:3]
        record = self.server.arrived(method, target, headers, body)
        try:
            keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
            return self.reply(record, version, keep, len(line))
        finally:
            self.server.ended(record)

    def read_headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        while True:
            line = self.input.readline(65536).decode("latin-1").strip()
            if not line:
                return headers
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()

    def reply(self, record: Request, version: str, keep: bool, length: int) -> bool:
        """Find the answer and send it."""
        faults = self.server.struck(record)
        for fault in faults:
            if fault.kind == "silence" and fault.get("after") is None and not fault.get("between"):
                self.server.wait(fault.get("seconds", 0))
        self.server.wait(self.server.latency)
        if length > BUFFER or ILLEGAL.search(record.path):
            answer = error_page(400, "Invalid character found in the request target", "tomcat")
        else:
            answer = self.server.answer_to(record, faults)
        return self.send(record, answer, faults, version, keep and not answer.closes)

    def send(self, record: Request, answer: Answer, faults: list[Fault], version: str, keep: bool) -> bool:
        """Send an answer, as the faults want it; false when the connection is to end."""
        body: Iterator[Piece] = iter([answer.body] if isinstance(answer.body, bytes) else answer.body)
        if record.method != "HEAD" and answer.length is None and not answer.chunked:
            answer, body = self.buffered(answer, body)
            keep = keep and not answer.closes
        for fault in faults:
            timed = fault.kind == "silence" and fault.get("after") is not None
            if timed or fault.kind in ("cut", "truncate", "stop"):
                body = interrupted(body, fault)
            if fault.kind == "truncate" and answer.length is not None:
                answer.length = min(answer.length, fault.get("after") or 0)
        framed = answer.chunked or answer.length is None
        keep = keep and not (framed and version != "HTTP/1.1")
        rate = next((f.get("rate") for f in faults if f.kind == "slow"), self.server.rate)
        wire = Wire(self.sock, record, framed and version == "HTTP/1.1", rate)
        wire.head(self.head(record, answer, framed, version, keep))
        if answer.transfer:
            self.server.began(record)
        if record.method == "HEAD":
            wire.flush()
            return keep
        return self.send_body(wire, body) and keep

    def buffered(self, answer: Answer, body: Iterator[Piece]) -> tuple[Answer, Iterator[Piece]]:
        """As Tomcat does: a short body gets a length, an early failure its own page."""
        try:
            start, whole = head_start(body)
        except BrokenBodyError:
            text = "An exception occured writing the response entity"
            failed = error_page(500, text, "tomcat")
            return failed, iter([failed.body])  # type: ignore[list-item]
        if whole:
            answer.length = sum(len(piece) for piece in start)  # type: ignore[arg-type, misc]
        return answer, itertools.chain(start, body)

    def head(self, record: Request, answer: Answer, framed: bool, version: str, keep: bool) -> bytes:
        """The status line, without a reason, and the headers."""
        record.status = answer.status
        headers = list(answer.headers)
        if framed and version == "HTTP/1.1":
            headers.append(("Transfer-Encoding", "chunked"))
        elif not framed and answer.status != 304:
            headers.append(("Content-Length", str(answer.length)))
        if not keep:
            headers.append(("Connection", "close"))
        lines = [f"HTTP/1.1 {answer.status} ", *(f"{name}: {value}" for name, value in headers)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")

    def send_body(self, wire: Wire, body: Iterator[Piece]) -> bool:
        """Send the pieces; false where the connection cannot be used any more."""
        try:
            for piece in body:
                if isinstance(piece, Silence):
                    wire.flush()
                    self.server.wait(piece.seconds)
                else:
                    wire.write(piece)
        except BrokenBodyError:
            pass  # XNAT ends it as if it were whole
        except (ConnectionCutError, ReadError) as error:
            wire.break_off()
            if isinstance(error, ServerStopsError):
                self.server.stop()
            return False
        wire.finish_body()
        self.server.ended(wire.record)
        wire.finish()
        return True


class XnatServer:
    """A World on a loopback port; a context manager.

    `latency` is slept before each answer (seconds), `rate` limits each connection (bytes a
    second). `stop()` breaks every connection, `start()` listens on the same port again.
    """

    def __init__(
        self,
        world: World,
        context: str = "",
        certificate: tuple[str, str] | None = None,
        port: int = 0,
        latency: float = 0,
        rate: float | None = None,
    ) -> None:
        self.world, self.context = world, context.rstrip("/")
        self.port, self.latency, self.rate = port, latency, rate
        self.site = Site(world, self.context)
        self.requests: list[Request] = []
        self.most_transfers = self.open_transfers = 0
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self.switch = threading.Lock()  # one start or stop at a time
        self.connections: set[Any] = set()
        self.stopped = threading.Event()
        self.tls: ssl.SSLContext | None = None
        if certificate:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*certificate)

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}{self.context}"

    @property
    def sessions_opened(self) -> int:
        """How many server sessions log-ins (and guests) have opened."""
        return self.site.logins.opened

    def __enter__(self) -> XnatServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> XnatServer:
        """Listen; after a stop on the same port, with no session left."""
        with self.switch:
            self.listener = socket.socket()
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind(("127.0.0.1", self.port))
            self.listener.listen(128)
            self.listener.settimeout(0.2)
            self.port = self.listener.getsockname()[1]
            self.site.logins.expire()
            self.stopped = threading.Event()
            self.thread = threading.Thread(target=self.accept, args=(self.listener,), daemon=True)
            self.thread.start()
        return self

    def stop(self) -> None:
        """Stop in the middle of whatever is going on."""
        with self.switch:
            self.stopped.set()
            with suppress(OSError):
                self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.thread.join()
            with self.lock:
                connections = list(self.connections)
            for sock in connections:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def accept(self, listener: socket.socket) -> None:
        while not self.stopped.is_set():
            try:
                sock, _ = listener.accept()
            except socket.timeout:
                continue
            except OSError:
                return
            with self.lock:
                self.connections.add(sock)
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock: Any) -> None:
        """Serve a connection to its end."""
        raw = sock
        with suppress(OSError):
            sock.settimeout(self.world.keep_alive)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls:
                sock = self.tls.wrap_socket(sock, server_side=True)
                with self.lock:
                    self.connections.add(sock)
            Connection(self, sock).run()
        with self.lock:
            self.connections -= {raw, sock}
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()

    def wait(self, seconds: float) -> None:
        """Sleep, but not beyond a stop."""
        if seconds:
            self.stopped.wait(seconds)

    # The record

    def arrived(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Request:
        record = Request(time.monotonic(), method, target, headers, body)
        with self.lock:
            self.requests.append(record)
        return record

    def began(self, record: Request) -> None:
        """Count a transfer of files."""
        with self.lock:
            record.transfer = True
            self.open_transfers += 1
            self.most_transfers = max(self.most_transfers, self.open_transfers)

    def ended(self, record: Request) -> None:
        """Note the end of an answer, before its last bytes: a client that has it all may
        already ask for more on another connection."""
        with self.lock:
            if record.end_time is None:
                record.end_time = time.monotonic()
                self.open_transfers -= record.transfer

    def clear(self) -> None:
        """Forget the record and the faults."""
        with self.lock:
            self.requests = []
            self.faults = []
            self.most_transfers = self.open_transfers

    def expire_sessions(self) -> None:
        """End every log-in session."""
        self.site.logins.expire()

    # Faults

    def fault(
        self, kind: str, match: str = "", times: int | None = 1, skip: int = 0, **details: Any
    ) -> Fault:
        """Let requests whose `METHOD path?query` match fail; FAULTS has kinds and details."""
        if kind not in FAULTS:
            raise ValueError(f"no such fault: {kind}")
        known = set(re.findall(r"\b(\w+)=", FAULTS[kind]))
        if set(details) - known:
            raise ValueError(f"{kind} takes {sorted(known)}, not {sorted(set(details) - known)}")
        fault = Fault(kind, re.compile(match), times, skip, details)
        with self.lock:
            self.faults.append(fault)
        return fault

    def struck(self, record: Request) -> list[Fault]:
        """The faults that strike this request."""
        with self.lock:
            line = f"{record.method} {record.path}"
            return [fault for fault in self.faults if fault.takes(line)]

    def answer_to(self, record: Request, faults: list[Fault]) -> Answer:
        """The site's answer, or that of a fault."""
        for fault in faults:
            if fault.kind == "expire":
                self.expire_sessions()
            if fault.kind == "call":
                fault.details["action"]()
        for fault in faults:
            answer = replaced(fault, record.path)
            if answer:
                return answer
        path, _, query = record.path.partition("?")
        if re.search("%2F", path, re.IGNORECASE):
            return error_page(400, "Invalid URI: noSlash", "tomcat")
        inside = path[len(self.context) :]
        if not path.startswith(self.context) or (inside and not inside.startswith("/")):
            return error_page(404, "", "tomcat")
        asked = (record.method, inside, Query(query), record.headers)
        call = Call(*asked, faults, self.url, body=record.body)
        return self.site.answer(call)


# --- As a program -------------------------------------------------------------------------


def dicom_images(name: str, count: int) -> dict[str, bytes]:
    """Instances of one of pydicom's own images, each with a UID and number of its own."""
    import pydicom

    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    files = {}
    for number in range(1, count + 1):
        image = pydicom.dcmread(folder / name)
        image.SOPInstanceUID = f"{image.SOPInstanceUID}.{number}"
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.InstanceNumber = number
        stream = io.BytesIO()
        image.save_as(stream)
        files[f"IM{number:04}.dcm"] = stream.getvalue()
    return files


def demo_world() -> World:
    """Two projects with a few sessions, the images in them real."""
    world = World()
    project = world.project("proj_3", name="Project 3", aliases=("p3",))
    session = project.session("sess_1", subject="subj_1", date="2011-11-17", time="14:23:50")
    scan = session.scan("1", type="TSE", quality="usable", description="TSE", frames=6)
    scan.resource("DICOM", dicom_images("MR_small.dcm", 6), format="DICOM", content="RAW")
    scan = session.scan("2", type="PIB 336mtx", quality="questionable", description="PIB 336mtx")
    scan.resource("DICOM", dicom_images("CT_small.dcm", 4), format="DICOM", content="RAW")
    text = {"qc.txt": b"passed\n"}
    session.assessor("sess_1_QC").resource("DATA", text, format="TXT")
    session.reconstruction("R1", type="RECON A").resource("NIFTI", {"r1.nii": bytes(700)})
    session.resource("NOTES", {"n.txt": b"a calm subject\n"}, format="TXT")
    other = world.project("proj_1", name="Project 1")
    for number, date in ((1, "2010-02-01"), (2, "2012-06-30")):
        id, label = f"xnat_E000{number}", f"visit_{number}"
        visit = other.session(label, subject="subj_7", date=date, id=id)
        scan = visit.scan("1", type="T1", description="t1_mprage_sag")
        scan.resource("DICOM", dicom_images("MR_small.dcm", 2), format="DICOM", content="RAW")
    return world


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the demonstration until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description="A small demonstration XNAT (admin/admin).")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--context", default="", help="a path in front, such as /xnat")
    options = parser.parse_args(argv)
    done = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: done.set())
    with XnatServer(demo_world(), options.context, port=options.port) as server:
        print(server.url, flush=True)
        while not done.wait(0.5):
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
