"""The fault table: what the server or the network does wrong, and what must come of it.

Each row is one fault, one run of xget, and the verdict: exit status, message, files left; no file
has a name that it has not earned. `python tests/test_faults.py` prints the table as Markdown.
"""

from __future__ import annotations

import io
import os
import re
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Callable, NamedTuple

import lane
import pytest
from conftest import Xget
from truth import assert_earned, hidden, read_tree, read_zip, truth
from xnat_server import File, Scan, Session, Synthetic, World, XnatServer

QUICK = (("-s", "sess_1"), ("-ass", "NONE"), ("-recon", "NONE"), ("-retry", "0.1,0.1,0.1"), ("-timeout", "5"))
ZIP, ONE, LISTING, DOCUMENT = "format=zip", r"/files/\w", r"/files\?format=json", r"\?format=xml"
ALWAYS: dict[str, Any] = {"times": None}
WHOLE, REST, NOTHING = ["sess_1_acq.zip"], ["sess_1_acq.incomplete.zip"], list[str]()

SOME = ("some",)  # not known which

AGAIN = "asks again; complete"
LACKS = "asks for what is missing alone; complete"
NAMED = "names what is missing, keeps the rest as `.incomplete.zip`; status 1"
FAILS = "says why, leaves no file; status 1"


class Strike(NamedTuple):
    """One fault of the test XNAT: its kind, the requests that it strikes, its details."""

    kind: str
    match: str
    details: dict[str, Any]


def on(match: str, kind: str, **details: Any) -> Strike:
    return Strike(kind, match, details)


class Row(NamedTuple):
    """A row of the table; `says` are regular expressions, all of which standard error matches."""

    id: str
    fault: str
    does: str
    strikes: tuple[Strike, ...] = ()
    world: Callable[[World], object] = lambda world: None
    during: Callable[[XnatServer], object] = lambda server: None  # while xget runs
    args: tuple[str, ...] = ()
    status: int = 0
    says: tuple[str, ...] = ()
    files: list[str] = WHOLE
    lost: tuple[str, ...] = ()  # what the incomplete archive lacks, by the end of the name
    disk: Callable[[Path], object] = lambda folder: None  # what lies in the output directory before
    extract: bool = False  # a row for -z alone


def scan(world: World, number: int = 0) -> Scan:
    return session_of(world).scans[number]


def session_of(world: World) -> Session:
    return world.sessions()[0]


def change(name: str, **oddities: Any) -> Callable[[World], object]:
    """A change to a file of scan 1."""

    def edit(world: World) -> None:
        files = scan(world).resources[0].files
        files[name] = File(files[name].data, **oddities)

    return edit


def switch(**values: Any) -> Callable[[World], object]:
    """A change to the site."""
    return lambda world: [setattr(world, name, value) for name, value in values.items()]


def both(*edits: Callable[[World], object]) -> Callable[[World], object]:
    return lambda world: [edit(world) for edit in edits]


def large(world: World) -> None:
    """Make the files of scan 1 so large that some have arrived for certain when a transfer breaks."""
    for number in range(1, 5):
        scan(world).resources[0].add(f"{number}.dcm", Synthetic(600_000, seed=number))


def restart(server: XnatServer) -> None:
    """Wait for the stop that a fault brings, and start again."""
    if server.stopped.wait(20):
        time.sleep(0.3)
        server.start()


OLD = {"version": "1.7.4.1"}
WAYS: list[tuple[str, dict[str, Any]]] = [
    ("1.8, stored", {}),
    ("1.8, deflated", {"compression": 8}),
    ("1.7.4, stored", OLD),
    ("1.7.4, deflated", {**OLD, "compression": 8}),
]


def midstream() -> Iterable[Row]:
    """Every error in mid-stream that XNAT ends as if all were well."""
    for way, site in WAYS:
        id = way.replace(", ", "-")
        for kind, what in [
            ("vanish", "a file vanishes from the server's disk in mid-stream"),
            ("unreadable", "a read error inside a file in mid-stream"),
            ("duplicate", "a path comes twice, and XNAT gives up there"),
        ]:
            yield Row(f"{kind}-{id}", f"{what} ({way})", LACKS, (on(ZIP, kind),), switch(**site))
        first = (on(ZIP, "vanish", member="scans/1-TSE/.*/1.dcm"),)
        yield Row(f"vanish-first-{id}", f"the very first file vanishes ({way})", LACKS, first, switch(**site))
        gone = both(switch(**site), change("2.dcm", vanishes=True))
        yield Row(
            f"lost-{id}", f"a listed file vanishes each time, and singly is 404 ({way})", NAMED
        )._replace(
            world=both(gone, change("2.dcm", vanishes=True, on_disk=True)),
            strikes=(on(r"/files/2\.dcm", "status", status=404, **ALWAYS),),
            status=1,
            says=("2.dcm: missing", "404"),
            files=REST,
            lost=("1-TSE/resources/DICOM/files/2.dcm",),
        )
        yield Row(f"bad-disk-{id}", f"a file that can never be read to its end ({way})", NAMED)._replace(
            world=both(switch(**site), change("2.dcm", fails_at=500)),
            status=1,
            says=("2.dcm: missing",),
            files=REST,
            lost=("1-TSE/resources/DICOM/files/2.dcm",),
        )


def statuses() -> Iterable[Row]:
    """Answers that say `later` or `no`."""
    for status in (429, 500, 502, 503, 504):
        once = (on(ZIP, "status", status=status),)
        yield Row(f"{status}-zip", f"{status} for the archive, once", AGAIN, once)
        listed = (on(LISTING, "status", status=status),)
        yield Row(f"{status}-listing", f"{status} for the file listing, once", AGAIN, listed)
        single = (on(ZIP, "missing"), on(ONE, "status", status=status))
        yield Row(f"{status}-file", f"{status} for a single file, once", AGAIN, single)
    for status in (429, 503):
        later = (on(ZIP, "status", status=status, retry_after=1),)
        yield Row(f"{status}-later", f"{status} with Retry-After, once", "waits that long; complete", later)
    for status in (429, 502, 503, 504):
        always = (on(ZIP, "status", status=status, **ALWAYS), on(ONE, "status", status=status, **ALWAYS))
        yield Row(f"{status}-always", f"{status} for every transfer, always", FAILS, always)._replace(
            status=1, says=(str(status),), files=NOTHING
        )
    denied = (on(ZIP, "status", status=403, **ALWAYS),)
    yield Row(
        "403-zip-always", "403 for every ZIP, always", "is not asked again; named, status 1", denied
    )._replace(status=1, says=("403",), files=NOTHING)
    for status in (404, 500):
        always = (on(ZIP, "status", status=status, **ALWAYS),)
        yield Row(
            f"{status}-zip-always", f"{status} for every ZIP, always", "asks file by file; complete", always
        )
    broken = (on(LISTING, "status", status=500, message="Out of <memory>", **ALWAYS),)
    yield Row("500-listing-always", "500 for the file listing, always", FAILS, broken)._replace(
        status=1, says=("500: Out of", "sess_1"), files=NOTHING
    )


def connections() -> Iterable[Row]:
    """The network, and what stands in it."""
    yield Row(
        "cut-at-once", "the connection breaks before the first byte of the archive", AGAIN, (on(ZIP, "cut"),)
    )
    cut = (on(ZIP, "cut", after=3500),)
    yield Row(
        "cut", "the connection breaks inside the archive", "keeps the whole files, asks for the rest", cut
    )
    always = (on(ZIP, "cut", after=3500, **ALWAYS),)
    yield Row(
        "cut-always", "every archive is cut, always", "keeps the whole files, asks for the rest", always
    )
    none = (on(ZIP, "cut", after=500, **ALWAYS),)
    yield Row(
        "cut-early-always", "every archive is cut in its first file", "asks file by file; complete", none
    )
    short = (on(ZIP, "cut", after=500, **ALWAYS), on(ONE, "cut", after=1500, **ALWAYS))
    yield Row("cut-everything", "every transfer breaks after 1,500 bytes", NAMED, short)._replace(
        status=1,
        says=(*(f"2 DICOM {n}.dcm: missing" for n in (1, 2, 3)), "connection lost"),
        files=REST,
        lost=tuple(f"2-PIB_336mtx/resources/DICOM/files/{n}.dcm" for n in (1, 2, 3)),
    )
    clean = (on(ZIP, "truncate", after=3500),)
    yield Row(
        "truncated",
        "the archive ends cleanly, but too early",
        "keeps the whole files, asks for the rest",
        clean,
    )
    end = (on(ZIP, "truncate", after=10400),)
    yield Row("truncated-directory", "the archive ends inside its directory", "keeps the whole files", end)
    dead = (on(ZIP, "silence", seconds=30),)
    wait = ("-timeout", "0.5")
    yield Row("silence-first", "silence before the first byte, beyond -timeout", AGAIN, dead, args=wait)
    mid = (on(ZIP, "silence", seconds=30, after=3500),)
    text = "keeps the whole files, asks for the rest"
    yield Row("silence-mid", "silence in mid-stream, beyond -timeout", text, mid, args=wait)
    forever = (on(ZIP, "silence", seconds=30, **ALWAYS), on(ONE, "silence", seconds=30, **ALWAYS))
    yield Row("silence-always", "silence for ever", FAILS, forever, args=("-timeout", "0.3"))._replace(
        status=1, says=("no byte for 0.3 s",), files=NOTHING
    )
    slow = (on(ZIP, "slow", rate=8000),)
    yield Row("slow", "slow, but never silent as long as -timeout", "waits for it; complete", slow, args=wait)
    gaps = (on(ZIP, "silence", seconds=0.2, between=True),)
    text = "silence before each file, shorter than -timeout"
    yield Row("silence-between", text, "waits for it; complete", gaps, args=wait)
    empty = (on(ZIP, "truncate"),)
    yield Row("empty-body", "an archive of no bytes at all", AGAIN, empty)
    empty = (on(ZIP, "answer", status=204),)
    yield Row("204", "204 instead of the archive", AGAIN, empty)
    once = (on(ZIP, "cut", after=500, **ALWAYS), on(ONE, "cut", **ALWAYS))
    yield Row("no-retry", "the connection breaks, with `-retry NONE`", FAILS, once)._replace(
        args=("-retry", "NONE"), status=1, says=("connection lost",), files=NOTHING
    )
    listing = (on(LISTING, "silence", seconds=30),)
    yield Row("silence-listing", "silence before the file listing", AGAIN, listing, args=wait)
    single = (on(ZIP, "missing"), on(ONE, "cut", after=100))
    yield Row("single-cut", "a file that is fetched singly is cut short", AGAIN, single)
    single = (on(ZIP, "missing"), on(ONE, "truncate", after=100))
    yield Row("single-short", "a file that is fetched singly is short, and says so itself", AGAIN, single)
    page = (on(ZIP, "html"),)
    yield Row("html-zip", "a web page with status 200 instead of the archive", AGAIN, page)
    page = (on(ZIP, "html", **ALWAYS),)
    yield Row("html-zip-always", "a web page instead of every archive", "asks file by file; complete", page)
    page = (on(ZIP, "missing", member="1-TSE/.*/2.dcm"), on(ONE, "html", **ALWAYS))
    yield Row(
        "html-file-always", "a web page with status 200 instead of a file, always", NAMED, page
    )._replace(status=1, says=("2.dcm: missing",), files=REST, lost=("1-TSE/resources/DICOM/files/2.dcm",))
    page = (on(ZIP, "missing"), on(ONE, "html"))
    bare = switch(listed_sizes=False, digests="none")
    text = "a web page with status 200 instead of a file, once, without sizes and MD5s"
    yield Row("html-file-bare", text, AGAIN, page, bare)
    page = (on(LISTING, "html"),)
    yield Row("html-listing", "a web page with status 200 instead of the file listing", AGAIN, page)
    page = (on(LISTING, "html", **ALWAYS),)
    yield Row("html-listing-always", "a web page instead of every file listing", FAILS, page)._replace(
        status=1, says=("sess_1", "unreadable answer"), files=NOTHING
    )
    for name, match in (("listing", LISTING), ("document", DOCUMENT)):
        for kind in ("truncate", "cut"):
            how = "cleanly" if kind == "truncate" else "with the connection"
            strike = (on(match, kind, after=300),)
            yield Row(f"{name}-{kind}", f"the {name} ends in the middle, {how}", AGAIN, strike)
        strike = (on(match, "truncate", after=300, **ALWAYS),)
        yield Row(
            f"{name}-truncate-always", f"the {name} ends in the middle, always", FAILS, strike
        )._replace(status=1, says=("sess_1", "unreadable answer"), files=NOTHING)


def servers() -> Iterable[Row]:
    """The server as a whole."""
    waits = ("-retry", ",".join(["0.2"] * 20))
    stop = (on(ZIP, "stop", after=3500),)
    yield Row("stop-start", "the server stops in mid-stream, and comes back", AGAIN, stop)._replace(
        during=restart, args=waits
    )
    stop = (on(LISTING, "stop"),)
    yield Row("stop-listing", "the server stops at the file listing, and comes back", AGAIN, stop)._replace(
        during=restart, args=waits
    )
    stop = (on(ZIP, "stop", after=2_000_000),)
    yield Row("stop", "the server stops in mid-stream, for good", "keeps what came; status 3", stop)._replace(
        status=3, says=("no connection",), files=REST, lost=SOME, world=large
    )
    yield Row("expire", "the log-in ends before the archive is asked for", AGAIN, (on(ZIP, "expire"),))
    yield Row("401", "401 in mid-run, once", AGAIN, (on(ZIP, "status", status=401),))
    cut = (on(ZIP, "cut", after=2_000_000), on(f"{ZIP}|{ONE}", "status", status=401, skip=1, **ALWAYS))
    yield Row(
        "401-always", "401 in mid-run, again and again", "ends the run, keeps what came; status 3", cut
    )._replace(status=3, says=("refused",), files=REST, lost=SOME, world=large)
    guest = switch(require_login=False)
    yield Row(
        "guest",
        "the log-in ends on an open site, which then says 404",
        AGAIN,
        (on(LISTING, "expire"),),
        guest,
    )
    back = (on(ZIP, "fallback"),)
    yield Row("fallback", "XNAT takes the scans for unmatched, and fails over that", AGAIN, back)
    away = (on(ZIP, "redirect", location="http://127.0.0.1:9/elsewhere", **ALWAYS),)
    yield Row(
        "redirect", "the archive is redirected to another place", "does not follow; named, status 1", away
    )._replace(status=1, says=("redirected to http://127.0.0.1:9/elsewhere",), files=NOTHING)
    app = (on(ZIP, "redirect", location="/app/template/XDATScreen_UpdateUser.vm", **ALWAYS),)
    yield Row(
        "expired-password", "the account needs attention in mid-run", "says so; status 3", app
    )._replace(status=3, says=("browser",), files=NOTHING)


def drop(name: str) -> Callable[[list[dict[str, str]]], list[dict[str, str]]]:
    return lambda rows: [row for row in rows if row["Name"] != name]


def listings() -> Iterable[Row]:
    """The listing against which an archive is proven is wrong itself."""
    damaged = "names it as damaged on the server, keeps the rest; status 1"
    for id, what, oddity in [
        ("size", "a listed size that the file has not, others agree", {"size_listed": 999}),
        ("md5", "a listed MD5 that the file has not, others agree", {"md5": "0" * 32}),
        (
            "size-md5",
            "listed size and MD5 that the file has not, others agree",
            {"size_listed": 1001, "md5": "f" * 32},
        ),
    ]:
        instead = "another MD5 than listed" if id == "md5" else "1,000 bytes instead of"
        yield Row(f"stale-{id}", what, damaged, world=change("3.dcm", **oddity))._replace(
            status=1,
            says=(f"3.dcm: missing: {instead}",),
            files=REST,
            lost=("1-TSE/resources/DICOM/files/3.dcm",),
        )
    every = both(*(change(f"{number}.dcm", md5="0" * 32) for number in range(1, 5)))
    stale = "fetches each file again, the same each time: complete, with a warning"
    yield Row(
        "stale-all",
        "the listed MD5s of a whole resource are stale",
        stale,
        world=every,
        says=("listing is stale",),
    )
    yield Row("no-size", "the listing has no sizes", "goes by MD5 and CRC", world=switch(listed_sizes=False))
    yield Row("no-md5", "the listing has empty MD5s", "goes by size and CRC", world=switch(digests="empty"))
    yield Row(
        "md5-unknown", "XNAT before 1.7.3: no MD5s", "goes by size and CRC", world=switch(digests="none")
    )
    bare = switch(listed_sizes=False, digests="none")
    yield Row("bare", "the listing has neither sizes nor MD5s", "goes by CRC; complete", world=bare)
    for kind in ("vanish", "unreadable"):
        for member, which in (("1-TSE/.*/4.dcm", "one of the files"), ("2-PIB.*/3.dcm", "the last file")):
            strike = (on(ZIP, kind, member=member),)
            text = f"no sizes, no MD5s, deflated, and {which} fails in mid-stream ({kind})"
            id = f"bare-deflated-{kind}{'' if '4' in member else '-last'}"
            yield Row(id, text, LACKS, strike, switch(listed_sizes=False, digests="none", compression=8))
    yield Row("gone", "a file is listed, but gone from the server's disk", NAMED)._replace(
        world=change("2.dcm", on_disk=False),
        status=1,
        says=("2.dcm: missing", "404"),
        files=REST,
        lost=("1-TSE/resources/DICOM/files/2.dcm",),
    )
    everything = both(*(change(f"{n}.dcm", on_disk=False) for n in range(1, 5)))
    yield Row("gone-scan", "all files of a scan are gone from the server's disk", NAMED)._replace(
        world=everything,
        status=1,
        says=tuple(f"{n}.dcm: missing" for n in range(1, 5)),
        files=REST,
        lost=tuple(f"1-TSE/resources/DICOM/files/{n}.dcm" for n in range(1, 5)),
    )
    grows = (on(LISTING, "listing", edit=drop("4.dcm")),)
    yield Row("upload", "a file appears after the listing (an upload)", "lists again; complete", grows)
    hides = (on(LISTING, "listing", edit=drop("4.dcm"), **ALWAYS),)
    yield Row(
        "unlisted", "a member that the listing lacks", "lists again, then names it; status 1", hides
    )._replace(
        status=1,
        says=("4.dcm: not listed",),
        files=REST,
        lost=("1-TSE/resources/DICOM/files/4.dcm",),
    )
    twice = (on(LISTING, "listing", edit=lambda rows: rows + rows, **ALWAYS),)
    yield Row("rows-twice", "the listing names everything twice", "counts it once; complete", twice)


def members() -> Iterable[Row]:
    """An archive that holds what it should not."""
    flip = (on(ZIP, "flip"),)
    yield Row("flip", "a byte of a file is inverted on the way", "asks for that file alone; complete", flip)
    flip = (on(ZIP, "flip", **ALWAYS),)
    yield Row(
        "flip-always", "a byte is inverted in every archive", "asks for that file alone; complete", flip
    )
    name = "sess_1/scans/1-TSE/resources/DICOM/files/1.dcm"
    for id, data, first in [
        ("equal", b"\1" * 1000, False),
        ("other", b"\7" * 1000, False),
        ("other-first", b"\7" * 1000, True),
        ("longer", b"\1" * 1001, True),
    ]:
        strike = (on(ZIP, "add", name=name, data=data, first=first),)
        text = f"two members of one name ({id})"
        yield Row(f"twin-{id}", text, "an equal one counts once, else asks singly; complete", strike)
    hostile = "refuses and names it, keeps the rest as `.incomplete.zip`; status 1"
    for id, bad, mode in [
        ("parent", "../evil", 0),
        ("deep-parent", "sess_1/scans/1-TSE/resources/DICOM/files/../../../../../../evil", 0),
        ("absolute", "/tmp/xget_evil", 0),
        ("drive", "C:/evil", 0),
        ("backslash", "..\\evil", 0),
        ("link", "sess_1/scans/1-TSE/resources/DICOM/files/link", 0o120777),
        ("unlisted-name", "sess_1/scans/9/resources/DICOM/files/x.dcm", 0),
        ("own-note", "sess_1/.xget", 0),
        ("control", "sess_1/scans/1-TSE/resources/DICOM/files/a\x1b[2Jb", 0),
    ]:
        strike = (on(ZIP, "add", name=bad, data=b"/etc/passwd", mode=mode, first=True),)
        shown = re.escape(lane.plain(bad.replace("\x1b", "\\x1b")))
        yield Row(f"hostile-{id}", f"a member with a hostile name ({id})", hostile, strike)._replace(
            status=1, says=(shown,), files=REST
        )
    link = (on(ZIP, "add", name=name, data=b"/etc/passwd", mode=0o120777, first=True),)
    text = "takes no content for it but the listed one; complete"
    yield Row("hostile-listed-link", "a link of a listed name, before the file itself", text, link)
    bomb = (on(ZIP, "add", name=name, data=bytes(20_000_000), compression=8, first=True),)
    text = "a member that swells to far more than the listed size"
    yield Row("bomb", text, "leaves it, asks for that file alone; complete", bomb)
    inner = b"PK\x05\x06" + bytes(18)
    nested = both(change("4.dcm"), lambda world: scan(world).resources[0].add("4.dcm", inner))
    strike = (on(ZIP, "cut", after=7000),)
    text = "cut where a file that is a ZIP itself makes the archive look whole"
    yield Row("nested", text, "keeps the whole files, asks for the rest", strike, nested)


def add_other(world: World) -> None:
    """Give the subject a second session."""
    session_of(world).project.session("other", subject="subj_1", date="2011-11-18")


def front_ends() -> Iterable[Row]:
    """What stands between xget and XNAT, and answers that never end."""
    packed = "unpacks it; complete"
    yield Row("gzip-zip", "a front end gzips the archive, unasked", packed, (on(ZIP, "gzip", **ALWAYS),))
    yield Row(
        "gzip-listing", "a front end gzips the listing, unasked", packed, (on(LISTING, "gzip", **ALWAYS),)
    )
    single = (on(ZIP, "missing"), on(ONE, "gzip", **ALWAYS))
    yield Row("gzip-file", "a front end gzips a single file, unasked", packed, single)
    old = (on(".", "http10", **ALWAYS),)
    yield Row("http10", "a front end speaks HTTP/1.0", "takes it; complete", old)
    once = (on(LISTING, "empty"),)
    yield Row("empty-listing", "a listing of no bytes with status 200, once", AGAIN, once)
    other = (on(r"experiments/XNAT_E00001\?format=xml", "document", **ALWAYS),)
    yield Row("document", "a cache answers with another session's document", FAILS, other)._replace(
        world=add_other,
        status=1,
        says=("sess_1", "came in its place"),
        files=NOTHING,
    )
    end = (on(ZIP, "endless", where="end", **ALWAYS),)
    yield Row(
        "endless-zip", "zeros without an end behind the archive's files", "keeps the files; complete", end
    )
    member = (on(ZIP, "endless", where="member", **ALWAYS),)
    yield Row("endless-member", "a file in the archive that never ends", LACKS, member)


def zip_with_paths() -> bytes:
    """The archive of the scans, each member with a Unicode-path field (0x7075) that leads out."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for scan, numbers, size in (("1-TSE", range(1, 5), 1000), ("2-PIB_336mtx", range(1, 4), 2000)):
            for number in numbers:
                info = zipfile.ZipInfo(f"sess_1/scans/{scan}/resources/DICOM/files/{number}.dcm")
                path = f"../../../evil{number}".encode()
                crc = zlib.crc32(info.filename.encode())
                info.extra = struct.pack("<2HBI", 0x7075, 5 + len(path), 1, crc) + path
                archive.writestr(info, bytes([number]) * size)
    return body.getvalue()


def replace_on_disk(size: int) -> Callable[[World], object]:
    """Let a file of 1,000 bytes have another size on the server's disk; the listing says what it was."""

    def edit(world: World) -> None:
        old = scan(world).resources[0].files["2.dcm"].data
        scan(world).resources[0].add("2.dcm", File(b"\2" * size, size_listed=old.size, md5=old.md5))

    return edit


def identity() -> Iterable[Row]:
    """What comes is not what it says it is."""
    paths = (on(ZIP, "answer", body=zip_with_paths(), headers={"Content-Type": "application/zip"}),)
    text = "members with a second name, of Unicode, that leads out of the folder"
    yield Row("unicode-path", text, "goes by the listing's names; complete", paths)
    odd = both(*(lambda world, n=n: scan(world).resources[0].add(f"a#{n}.dcm", b"%d" % n) for n in (1, 2)))
    short = (on(ZIP, "vanish", member="1-TSE/.*/3.dcm"),)
    text = "a short archive of a resource that has names with `#` too"
    yield Row("short-hash", text, "asks for each file that is missing, once; complete", short, odd)
    for id, kind in (("octets", "application/octet-stream"), ("text", "text/plain")):
        notice = {"body": b"Closed for maintenance\n", "headers": {"Content-Type": kind}, **ALWAYS}
        strikes = (on(ZIP, "answer", **notice), on(ONE, "answer", **notice))
        text = f"a gateway answers every transfer with 200 and one notice, as {kind}"
        yield Row(f"notice-{id}", text, FAILS, strikes)._replace(
            status=1, says=("1.dcm: missing: 23 bytes instead of 1,000",), files=NOTHING
        )
    damaged = "is damaged on the server: names it, keeps the rest as `.incomplete.zip`; status 1"
    for size in (0, 500):
        text = f"a file of 1,000 bytes has {size} on the server's disk, the others are right"
        yield Row(f"damaged-{size}", text, damaged, world=replace_on_disk(size))._replace(
            status=1,
            says=(f"2.dcm: missing: {size} bytes instead of 1,000",),
            files=REST,
            lost=("1-TSE/resources/DICOM/files/2.dcm",),
        )
    broken = both(lambda world: setattr(scan(world).resources[0], "unlisted", True))
    text = "the document counts files of a scan, the listing has none, and the server holds them"
    yield Row(
        "unlisted-scan", text, "names the broken catalog, keeps the rest; status 1", world=broken
    )._replace(
        strikes=(on("resources/101/files.format=zip", "answer", body=zip_with_paths(), **ALWAYS),),
        status=1,
        says=("1 DICOM: has files that are not listed",),
        files=REST,
        lost=tuple(f"1-TSE/resources/DICOM/files/{n}.dcm" for n in range(1, 5)),
    )

    def count(world: World) -> None:
        session_of(world).scan("3", type="T2").resource("DICOM", {}, format="DICOM", file_count=3)

    text = "the document counts files of a scan that has none"
    yield Row("counted", text, "asks, and believes the 404; complete", world=count)


def endings() -> Iterable[Row]:
    """Heads, bodies and pages without an end."""
    short = ("-timeout", "1")
    for id, what, kind in (
        ("drip", "comes a byte at a time", "drip"),
        ("100", "is 100 Continue for ever", "continue"),
    ):
        strike = (on(ZIP, kind, seconds=0.3),)
        yield Row(f"head-{id}", f"the head of an answer {what}", AGAIN, strike, args=short)
    directory = (on(ZIP, "endless", where="directory", **ALWAYS),)
    yield Row(
        "endless-directory",
        "zeros for ever in the place of the directory",
        "keeps the files; complete",
        directory,
    )
    single = (on(ZIP, "missing"), on(ONE, "endless", **ALWAYS))
    yield Row("endless-file", "a single file that never ends", NAMED, single)._replace(
        status=1, says=("4.dcm: missing: more than",), files=REST, lost=("1-TSE/resources/DICOM/files/4.dcm",)
    )
    page = {"status": 500, "body": b"<h3>" * 250_000, "headers": {"Content-Type": "text/html"}}
    strike = (on(ZIP, "answer", **page, **ALWAYS),)
    yield Row(
        "page",
        "a megabyte of `<h3>` with status 500",
        "reads its beginning; asks file by file; complete",
        strike,
    )
    slow = (on("^DELETE", "drip", seconds=1),)
    yield Row(
        "log-out", "the answer to the log-out comes a byte a second", "waits for five seconds; complete", slow
    )


FILES_1 = "sess_1/scans/1-TSE/resources/DICOM/files"


def place(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Something that lies in the output directory."""

    def put(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        make(folder / name)

    return put


def link(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


def trees() -> Iterable[Row]:
    """What lies in the way of extracted files, and names that no disk takes."""
    named = "names that file, the rest comes; status 1"
    for id, what, make in [
        ("dead-link", "a dead link (git-annex after `drop`)", link("gone")),
        ("loop", "a link to itself", link("2.dcm")),
        ("pipe", "a pipe", os.mkfifo),
        ("folder", "a folder", Path.mkdir),
    ]:
        text = f"{what} in the place of a file"
        yield Row(f"tree-{id}", text, named, disk=place(f"{FILES_1}/2.dcm", make), extract=True)._replace(
            status=1, says=("2.dcm: missing: ",), lost=(f"{FILES_1}/2.dcm",)
        )
    every = tuple(f"{FILES_1}/{number}.dcm" for number in range(1, 5))
    for id, what, make in [
        ("dead-folder", "a dead link", link("gone")),
        ("pipe-folder", "a pipe", os.mkfifo),
    ]:
        text = f"{what} in the place of a scan's folder"
        put = place("sess_1/scans/1-TSE", make)
        yield Row(
            f"tree-{id}", text, "names its files, the rest comes; status 1", disk=put, extract=True
        )._replace(status=1, says=tuple(f"{number}.dcm: missing: " for number in range(1, 5)), lost=every)
    loops = [place(f"sess_1/scans/1-TSE/{name}", link(".")) for name in "ab"]
    text = "two links to `.` in a scan's folder"
    yield Row("tree-loops", text, "as if they were not there; complete", extract=True)._replace(
        disk=lambda folder: [put(folder) for put in loops]
    )
    long = "x" * 300
    text = "a file name of 300 bytes"
    yield Row(
        "tree-long-name", text, named, world=lambda world: scan(world).resources[0].add(long, b"x")
    )._replace(extract=True, status=1, says=(f"{long}: missing: ",), lost=(long,))

    def nest(world: World) -> None:
        scan(world).resources[0].add("c", b"c").add("c/d.dcm", b"d")

    text = "files `c` and `c/d.dcm` in one resource"
    yield Row("tree-nested", text, "one of the two is named, the rest comes; status 1", world=nest)._replace(
        extract=True, status=1, says=(r"c(/d.dcm)?: missing: ",), lost=("/c/d.dcm",)
    )


ROWS = [
    *midstream(),
    *statuses(),
    *connections(),
    *servers(),
    *listings(),
    *members(),
    *front_ends(),
    *identity(),
    *endings(),
    *trees(),
]


def prepare(row: Row, server: XnatServer) -> None:
    row.world(server.world)
    for strike in row.strikes:
        server.fault(strike.kind, match=strike.match, **strike.details)


def run(row: Row, xget: Xget, server: XnatServer, *args: str) -> Any:
    """Run xget while the server does what the row says."""
    threading.Thread(target=row.during, args=(server,), daemon=True).start()
    given = {flag for flag in row.args if flag.startswith("-")}  # a flag of one value counts once
    usual = [word for flag, value in QUICK if flag not in given for word in (flag, value)]
    return xget(*usual, *row.args, *args)


@pytest.mark.parametrize("row", [row for row in ROWS if not row.extract], ids=lambda row: row.id)
def test_fault(row: Row, xget: Xget, server: XnatServer) -> None:
    """Exit status, message, files left, and no byte that is not the server's under a final name."""
    prepare(row, server)
    done = run(row, xget, server)
    assert "Traceback" not in done.err
    assert_earned(xget.folder, server.world)
    assert (done.status, xget.files()) == (row.status, row.files), done.err
    assert done.out.splitlines() == (["./sess_1_acq.zip"] if row.files == WHOLE else [])
    for text in row.says:
        assert re.search(text, done.err), done.err
    if row.files == REST:
        listed = set(truth(session_of(server.world), "acq"))
        kept = set(read_zip(xget.folder / REST[0]))
        if row.lost == SOME:
            assert "sess_1/scans/1-TSE/resources/DICOM/files/1.dcm" in kept < listed
        else:
            assert kept == {name for name in listed if not name.endswith(row.lost or ("//",))}


def is_of_archive(row: Row) -> bool:
    """Whether a row is about what an archive holds, so that -z has to show it too."""
    kinds = (
        "vanish-1",
        "unreadable",
        "duplicate",
        "cut",
        "truncated",
        "flip",
        "twin",
        "hostile",
        "bomb",
        "nested",
    )
    more = (
        "unicode",
        "short",
        "notice",
        "damaged",
        "unlisted-scan",
        "endless",
        "gzip",
        "stale",
        "no-",
        "tree",
    )
    return row.id.startswith((*kinds, *more))


@pytest.mark.parametrize("row", [row for row in ROWS if is_of_archive(row)], ids=lambda row: row.id)
def test_fault_extracted(row: Row, xget: Xget, server: XnatServer) -> None:
    """With -z: each file whole or absent, nothing outside, nothing hidden left behind."""
    prepare(row, server)
    row.disk(xget.folder)
    done = run(row, xget, server, "-z")
    assert "Traceback" not in done.err
    assert_earned(xget.folder, server.world)
    listed = set(truth(session_of(server.world), "acq"))
    lost = row.lost or ("//",) if row.files != NOTHING else ("",)
    assert set(read_tree(xget.folder)) == {name for name in listed if not name.endswith(lost)}, done.err
    assert (done.status, hidden(xget.folder)) == (row.status, []), done.err
    assert {path.name for path in xget.folder.iterdir()} <= {"sess_1"}
    assert [path.name for path in xget.folder.parent.iterdir() if path.name not in ("home", "out")] == []
    for text in row.says:
        assert re.search(text, done.err), done.err


# What goes wrong, what xget does, and the module and test that show it.
ELSEWHERE = """\
one byte of a local header or of the directory is inverted, each in turn
    every reader agrees on the archive, or it is not there
    property: each_byte_of_the_headers_inverted
a body is cut, flipped, reordered, crafted, endless
    what is proven is what is listed; a second one heals
    property: proven_is_what_is_listed
names in UTF-8 that do not say so
    taken
    property: a_sound_body_proves_everything
a label, type or name that leads out of the folder, or up in it
    refused, named; nothing is touched
    names: nothing_is_written_or_removed_outside
Ctrl-C, SIGTERM, SIGHUP or SIGKILL at any moment
    keeps what was proven, logs out within two seconds; the next run asks for the rest
    kill: stopped_at_any_moment
killed before any change of a replacement (`-z -overwrite`)
    the old scan or the new one is there, or comes back with the next run
    kill: killed_before_any_change_of_a_replacement
a part that a killed run left
    the next run goes on from there
    two_runs: part_of_a_killed_run_is_taken_over
another run fetches the same archive
    leaves it to that run, says `busy`; status 1
    two_runs: two_runs_on_the_same_sessions
a file system without locks
    each run has a part of its own; nothing is spoilt
    two_runs: lockless_runs_side_by_side
the disk is full
    keeps what is whole; the next run asks for the rest
    two_runs: full_disk
the output directory goes away
    says so, does not make it anew; status 1
    two_runs: directory_that_goes_away
a link, another person's file or a folder at the name of a part
    that archive fails, named; nothing is touched
    machines: what_is_not_ours_at_the_name_of_a_part_is_left_and_named
the part of another user's live run
    `busy`
    machines: a_part_that_another_users_run_holds_is_busy
a rename is refused once
    tries again; complete
    machines: a_rename_that_is_refused_once_is_tried_again
a rename is refused always
    that archive fails and keeps what was proven
    machines: a_rename_that_is_always_refused_fails_and_loses_nothing
a rename between folders is refused (EXDEV)
    needs none; complete
    machines: renames_between_folders_are_not_needed
a file system without fsync
    complete
    machines: a_file_system_without_fsync_serves
no further thread is to be had
    slower; complete
    machines: no_further_thread_makes_it_slower_not_worse
`-overwrite` ends incomplete, then a plain run
    the old archive stays; the next `-overwrite` or `-update` goes on
    asked: the_old_archive_stays_until_the_new_one_is_complete
labels are put right on the server
    an archive of another session fails, with both IDs
    archives: labels_that_were_put_right_on_the_server
a session is deleted and uploaded anew
    fails, with both IDs and the way out
    asked: a_session_uploaded_anew_is_another_one
two XNATs on one host
    are two servers
    asked: a_server_on_another_port_is_another_one
a session document with entities, or in another encoding
    refused
    front_ends: a_hostile_document_is_refused
1 MB of gzip that is 1 GB
    refused at the limit
    front_ends: a_gzip_bomb_is_refused_at_the_limit
the password is changed in mid-run
    three refused log-ins at most; status 3
    connection: a_password_changed_in_mid_run_is_refused_three_times_at_most
"""
INTRO = """\
# Faults

What can go wrong, and what xget does then. `test_fault` is in `test_faults.py`, which prints this page:
`python tests/test_faults.py > tests/FAULTS.md`. The rows at the end are shown by other modules.

| what goes wrong | what xget does | shown by |
|---|---|---|
"""
PAGE = Path(__file__).with_name("FAULTS.md")


def shown_by(row: Row) -> str:
    return f"test_fault{'_extracted' if row.extract else ''}[{row.id}]"


def elsewhere() -> Iterable[tuple[str, str, str]]:
    """What goes wrong, what xget does, and `module: test`."""
    lines = [line.strip() for line in ELSEWHERE.splitlines()]
    return [(what, does, f"test_{by.replace(': ', ': test_')}") for what, does, by in zip(*[iter(lines)] * 3)]


def markdown() -> str:
    """The table, as FAULTS.md has it."""
    rows = [(row.fault, row.does, shown_by(row)) for row in ROWS]
    rows += [(what, does, by.replace(": ", ".py::")) for what, does, by in elsewhere()]
    return INTRO + "".join(f"| {what} | {does} | `{by}` |\n" for what, does, by in rows)


def test_the_page_is_this_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown()


def test_each_row_has_a_test() -> None:
    assert len({shown_by(row) for row in ROWS}) == len(ROWS)
    for _, _, by in elsewhere():
        module, _, name = by.partition(": ")
        assert f"def {name}(" in PAGE.with_name(f"{module}.py").read_text(encoding="utf-8"), by


if __name__ == "__main__":
    print(markdown(), end="")
