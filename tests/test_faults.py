"""The fault table: what the server or the network does wrong, and what must come of it.

Each row is one fault, one run of xget, and the verdict: exit status, message, files left; no file
has a name that it has not earned. `python tests/test_faults.py` prints the table as Markdown.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Callable, NamedTuple

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
        yield Row(f"stale-{id}", what, damaged, world=change("3.dcm", **oddity))._replace(
            status=1,
            says=("3.dcm: missing: 1,000 bytes of other content",),
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
        shown = re.escape(bad.replace("\x1b", "\\x1b").replace("\\", "\\"))
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


ROWS = [*midstream(), *statuses(), *connections(), *servers(), *listings(), *members(), *front_ends()]


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


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
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
    return any(strike.match == ZIP for strike in row.strikes) and row.id.startswith(
        (
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
    )


@pytest.mark.parametrize("row", [row for row in ROWS if is_of_archive(row)], ids=lambda row: row.id)
def test_fault_extracted(row: Row, xget: Xget, server: XnatServer) -> None:
    """With -z: each file whole or absent, nothing outside, nothing hidden left behind."""
    prepare(row, server)
    done = run(row, xget, server, "-z")
    assert "Traceback" not in done.err
    assert_earned(xget.folder, server.world)
    listed = set(truth(session_of(server.world), "acq"))
    assert set(read_tree(xget.folder)) == {name for name in listed if not name.endswith(row.lost or ("//",))}
    assert (done.status, hidden(xget.folder)) == (row.status, []), done.err
    assert {path.name for path in xget.folder.iterdir()} == {"sess_1"}
    assert [path.name for path in xget.folder.parent.iterdir() if path.name not in ("home", "out")] == []
    for text in row.says:
        assert re.search(text, done.err), done.err


PAGE = Path(__file__).with_name("FAULTS.md")


def markdown() -> str:
    """The table, as FAULTS.md has it."""
    rows = [f"| {row.fault} | {row.does} | `test_fault[{row.id}]` |" for row in ROWS]
    intro = (
        "What can go wrong on the way, and what xget does then. Each row is a test of `test_faults.py`, which"
    )
    return "\n".join(
        [
            "# Faults",
            "",
            f"{intro}",
            "prints this page: `python tests/test_faults.py > tests/FAULTS.md`. What goes wrong on this side",
            "(locks, disks, kills, signals, other users) is in `test_two_runs.py`, `test_kill.py` and",
            "`test_machines.py`, what else front ends and connections do in `test_front_ends.py` and",
            "`test_connection.py`.",
            "",
            "| what goes wrong | what xget does | shown by |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def test_the_page_is_this_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown()


if __name__ == "__main__":
    print(markdown(), end="")
