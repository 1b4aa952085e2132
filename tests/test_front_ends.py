"""What stands in front of an XNAT: URLs that are refused, gateways, caches, and answers without an end."""

from __future__ import annotations

import os
import re
import time
import zlib
from typing import Any

import lane
import pytest
from conftest import Outcome, Xget
from truth import assert_earned, hidden, read_tree, read_zip, truth
from xnat_server import File, Session, World, XnatServer

QUICK = ("-ass", "NONE", "-recon", "NONE", "-retry", "0.1,0.1,0.1")
SCANS = ("-s", "sess_1", *QUICK)
ZIP, ONE, LISTING, DOCUMENT = "format=zip", r"/files/[^?]", r"/files\?format=json", r"XNAT_E\d+\?format=xml"
ALWAYS: dict[str, Any] = {"times": None}


def first(world: World) -> Session:
    return world.sessions()[0]


def safe(session: Session, kind: str = "acq") -> dict[str, bytes]:
    """What an archive holds: the truth, but that a slash in a scan's ID is `_` there."""
    names = {f"/scans/{scan.id}": f"/scans/{scan.id.replace('/', '_')}" for scan in session.scans}
    found = {}
    for name, data in truth(session, kind).items():
        odd = next((id for id in names if name.startswith(f"{session.label}{id}")), "")
        found[name.replace(odd, names.get(odd, ""), 1)] = data
    return found


def assert_whole(xget: Xget, world: World, outcome: Outcome) -> None:
    """The scans of the first session came, whole, and nothing else is there."""
    assert outcome == (0, "./sess_1_acq.zip\n", "")
    assert xget.files() == ["sess_1_acq.zip"]
    assert read_zip(xget.folder / "sess_1_acq.zip") == safe(first(world))


def assert_told(outcome: Outcome, *texts: str) -> None:
    """The run failed, and said so in lines of its own, without a traceback; each text is in one of them."""
    assert outcome.status == 1 and outcome.out == ""
    lines = outcome.err.splitlines()
    assert all(line.startswith("xget: ") for line in lines), outcome.err
    assert all(len(line) < 1000 for line in lines)
    assert all(any(text in line for line in lines) for text in texts), outcome.err


# --- names that a URL, or a firewall in front of it, does not take ---------------------------

IDS = ["4/2", "5%", "50%25", "6;7", "8,9", "10 b", "11+", "12#", "13?", "Bär", "a&b", "x..y", "~1"]


@pytest.mark.parametrize("id", IDS)
def test_a_scan_comes_whatever_its_id(xget: Xget, world: World, id: str) -> None:
    scan = first(world).scan(id, type="T1")
    scan.resource("DICOM", {"a.dcm": b"a" * 900, "b.dcm": b"b" * 800}, format="DICOM")
    assert_whole(xget, world, xget(*SCANS))


@pytest.mark.parametrize("firewall", [500, 400, 0])
def test_all_odd_ids_come_together_whatever_the_firewall_says(
    xget: Xget, world: World, firewall: int
) -> None:
    world.firewall = firewall
    for number, id in enumerate(IDS):
        scan = first(world).scan(id, type=f"T{number}")
        scan.resource("DICOM", {"a.dcm": bytes([number]) * 900}, format="DICOM")
    assert xget(*SCANS, "-z") == (0, "./sess_1\n", "")
    assert read_tree(xget.folder) == safe(first(world))


def test_only_the_odd_scan_that_was_chosen_comes(xget: Xget, world: World) -> None:
    for id in ("4/2", "6;7"):
        first(world).scan(id, type="T1").resource("DICOM", {"a.dcm": id.encode()}, format="DICOM")
    assert xget(*SCANS, "-acq", "6;7").status == 0
    assert list(read_zip(xget.folder / "sess_1_acq.zip")) == [
        "sess_1/scans/6;7-T1/resources/DICOM/files/a.dcm"
    ]


@pytest.mark.parametrize("id", ["R/2", "R%", "R;7", "R,9", "R 1", "R+"])
def test_a_reconstruction_comes_whatever_its_id_but_for_a_slash(xget: Xget, world: World, id: str) -> None:
    first(world).reconstruction(id, type="A").resource("NIFTI", {"r.nii": b"r" * 500})
    outcome = xget("-s", "sess_1", "-acq", "NONE", "-ass", "NONE", "-retry", "0.1")
    found = read_zip(xget.folder / "sess_1_recon.zip")
    expected = truth(first(world), "recon")
    assert outcome.status == 0
    assert found == {name.replace("R/2", "R_2"): data for name, data in expected.items()}


FILES = [
    *("a%b.dcm", "100%25.dcm", "a;b.dcm", "a#b.dcm", "ä ö.dcm", "a b.dcm", "a+b.dcm", "a,b.dcm"),
    *("a&b.dcm", "a?b.dcm", "[x].dcm", "a=b.dcm", "a'b.dcm", '"q".dcm', "a|b.dcm", "<a>.dcm"),
    *("a^b.dcm", "sub dir/a b.dcm", "sub;dir/a.dcm", ".hidden", "漢字.dcm", "%20.dcm", "%2B+ .dcm", "~a.dcm"),
]


@pytest.fixture
def odd(world: World) -> None:
    """Scan 1 has the odd files beside its own."""
    for number, name in enumerate(FILES):
        first(world).scans[0].resources[0].add(name, bytes([number]) * (500 + number))


@pytest.mark.usefixtures("odd")
def test_all_odd_files_come_also_those_that_the_first_zip_lacked(
    xget: Xget, world: World, server: XnatServer
) -> None:
    """Those that a URL can name are asked for by it, the others with the ZIP of their resource."""
    server.fault("missing", ZIP, member="|".join(f"{re.escape(name)}$" for name in FILES))
    assert_whole(xget, world, xget(*SCANS))
    zips = [each.path for each in server.requests if "format=zip" in each.path]
    singles = [each.path for each in server.requests if re.search(r"/files/\S", each.path)]
    assert len(zips) == 2 and zips[1].startswith(zips[0].partition(",")[0])
    assert len(singles) == len([name for name in FILES if not re.search("[%;]", name)])


@pytest.mark.usefixtures("odd")
def test_all_odd_files_come_extracted(xget: Xget, world: World) -> None:
    assert xget(*SCANS, "-z") == (0, "./sess_1\n", "")
    assert read_tree(xget.folder) == safe(first(world))


def test_what_no_url_can_name_and_no_zip_brings_is_named(
    xget: Xget, world: World, server: XnatServer
) -> None:
    first(world).scans[0].resources[0].add("a;b.dcm", b"odd" * 300)
    server.fault("missing", ZIP, member="a;b.dcm$", **ALWAYS)
    outcome = xget(*SCANS)
    assert_told(outcome, "sess_1 acq: 1 DICOM a;b.dcm", "1 of 8 files are missing")
    assert_earned(xget.folder, world)
    assert xget.files() == ["sess_1_acq.incomplete.zip"]


# --- the site's own ways ------------------------------------------------------------------------


def test_labels_are_asked_for_where_numbers_are_refused(xget: Xget, world: World) -> None:
    world.labels_only = True
    assert_whole(xget, world, xget(*SCANS))


def test_labels_serve_file_by_file_too(xget: Xget, world: World, server: XnatServer) -> None:
    world.labels_only = True
    server.fault("missing", ZIP, member="2.dcm$", **ALWAYS)
    assert_whole(xget, world, xget(*SCANS))


def test_restlet_2_is_quoted(xget: Xget, world: World, server: XnatServer) -> None:
    world.restlet = 2
    server.fault("status", LISTING, status=400, message="The catalog is on fire", page="restlet", **ALWAYS)
    assert_told(xget(*SCANS), "the server answered 400: The catalog is on fire")


@pytest.mark.parametrize("digests", ["md5", "none"])
def test_an_empty_file_whose_size_is_not_listed_may_be_a_204(
    xget: Xget, world: World, server: XnatServer, digests: str
) -> None:
    world.restlet, world.listed_sizes, world.digests = 2, False, digests
    first(world).scans[0].resources[0].add("0.dcm", b"")
    server.fault("missing", ZIP, member="0.dcm$", **ALWAYS)
    assert_whole(xget, world, xget(*SCANS))
    assert any(each.status == 204 for each in server.requests)


def test_204_in_the_place_of_a_file_that_holds_something_is_a_failure(
    xget: Xget, world: World, server: XnatServer
) -> None:
    server.fault("missing", ZIP, member="1.dcm$", **ALWAYS)
    server.fault("answer", r"/files/1\.dcm", status=204, **ALWAYS)
    assert_told(xget(*SCANS), "1.dcm")
    assert_earned(xget.folder, world)


def test_listings_in_latin_1_are_read(xget: Xget, world: World, server: XnatServer) -> None:
    world.charset = "latin-1"
    session = world.projects[0].session("Müller", subject="Jörg")
    resource = session.scan("1", type="Schädel").resource("DICOM", format="DICOM")
    resource.add("ö.dcm", b"o" * 500).add("übrig/ß.dcm", b"s" * 400)
    outcome = xget("-proj", "proj_3", "-subj", "Jörg", *QUICK)
    assert outcome == (0, "./Müller_acq.zip\n", "")
    assert read_zip(xget.folder / "Müller_acq.zip") == truth(session, "acq")


def test_a_size_of_0_beside_the_md5_of_a_file_that_is_not_empty_is_not_believed(
    xget: Xget, world: World
) -> None:
    content = b"content"
    md5 = "9a0364b9e99bb480dd25e1f0284c8555"
    first(world).scans[0].resources[0].add("0.dcm", File(content, size_listed="0", md5=md5))
    assert_told(xget(*SCANS), "1 DICOM 0.dcm: missing")
    assert_earned(xget.folder, world)


SITES = {"UTF-8": {}, "Latin-1": {"charset": "latin-1"}, "1.7": {"version": "1.7.4.1"}}


@pytest.mark.parametrize("site", SITES)
def test_a_file_with_umlauts_comes_in_a_zip_where_its_url_is_decoded_in_another_way(
    xget: Xget, world: World, server: XnatServer, site: str
) -> None:
    vars(world).update(SITES[site])
    first(world).scans[0].resources[0].add("ö ß+.dcm", b"o" * 500)
    server.fault("missing", ZIP, member="ö")
    assert_whole(xget, world, xget(*SCANS))
    zips = [each.path for each in server.requests if "format=zip" in each.path]
    assert len(zips) == (1 if site == "UTF-8" else 2)


def test_a_file_with_umlauts_that_is_lost_is_asked_for_twice(
    xget: Xget, world: World, server: XnatServer
) -> None:
    first(world).scans[0].resources[0].add("ö.dcm", File(b"o" * 500, on_disk=False))
    assert_told(xget(*SCANS), "1 DICOM ö.dcm: missing: the server answered 404")
    assert xget.files() == ["sess_1_acq.incomplete.zip"]
    asked = [each.path for each in server.requests if re.search(r"format=zip|/files/\S", each.path)]
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("match", "args"),
    [
        (r"/projects/proj_3/experiments", ("-proj", "proj_3")),
        (r"/data/projects\?format=json", ("-proj", "Project 3")),
        (r"/data/experiments\?", ("-s", "sess_1")),
        (r"resources\?all=true", ("-s", "sess_1")),
        (LISTING, ("-s", "sess_1")),
    ],
)
def test_an_empty_body_in_the_place_of_a_listing(
    xget: Xget, world: World, server: XnatServer, match: str, args: tuple[str, ...]
) -> None:
    """200 without a body is a listing that failed inside: asked for again, and never `nothing there`."""
    world.hidden_fields = "resources" not in match
    fault = server.fault("empty", match, times=1)
    assert_whole(xget, world, xget(*args, *QUICK))
    assert fault.struck == 1
    (xget.folder / "sess_1_acq.zip").unlink()
    server.fault("empty", match, **ALWAYS)
    assert_told(xget(*args, *QUICK), "an empty answer")
    assert xget.files() == []


def test_one_session_on_the_server_though_its_cookie_is_secure(
    xget: Xget, world: World, server: XnatServer
) -> None:
    world.secure_cookies = True
    assert xget("-s", "sess_1", "-j", "4", "-res", "NOTES").status == 0
    assert server.sessions_opened == 1
    assert server.requests[-1].method == "DELETE"


# --- what stands in front -----------------------------------------------------------------------


@pytest.mark.parametrize("args", [("-s", "sess_1"), ("-s", "XNAT_E00001"), ("-proj", "proj_3")], ids=str)
def test_the_document_of_another_session_is_refused(
    xget: Xget, world: World, server: XnatServer, args: tuple[str, ...]
) -> None:
    other = world.project("other").session("sess_2")
    other.scan("1", type="TSE").resource("DICOM", {"1.dcm": b"another patient"}, format="DICOM")
    server.fault("document", DOCUMENT, id=other.id, **ALWAYS)
    server.fault("document", r"experiments/sess_1\?", id=other.id, **ALWAYS)
    assert_told(xget(*args, *QUICK), other.id)
    assert xget.files() == []


@pytest.mark.parametrize("encoding", ["gzip", "br"])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("match", [LISTING, DOCUMENT, ZIP, ONE, "projects/proj_3/experiments"])
def test_what_was_encoded_unasked_is_decoded_or_asked_for_again(
    xget: Xget, world: World, server: XnatServer, match: str, chunked: bool, encoding: str
) -> None:
    if match == ONE:
        server.fault("missing", ZIP, member="[12].dcm$", **ALWAYS)
    fault = server.fault("gzip", match, times=1, encoding=encoding, chunked=chunked)
    assert_whole(xget, world, xget("-proj", "proj_3", *QUICK))
    assert fault.struck == 1


@pytest.mark.parametrize("match", [LISTING, ZIP, ONE])
@pytest.mark.parametrize("args", [(), ("-z",)], ids=["archive", "extracted"])
def test_gzip_always_is_decoded_always(
    xget: Xget, world: World, server: XnatServer, match: str, args: tuple[str, ...]
) -> None:
    if match == ONE:
        server.fault("status", ZIP, status=404, **ALWAYS)
    server.fault("gzip", match, **ALWAYS)
    assert xget(*SCANS, *args).status == 0
    found = read_tree(xget.folder) if args else read_zip(xget.folder / "sess_1_acq.zip")
    assert found == safe(first(world))


@pytest.mark.parametrize("match", [LISTING, DOCUMENT, ZIP])
def test_an_encoding_that_is_a_lie_is_never_believed(
    xget: Xget, world: World, server: XnatServer, match: str
) -> None:
    server.fault("gzip", match, encoding="br", **ALWAYS)
    outcome = xget(*SCANS)
    if match == ZIP:  # the files come one by one
        assert_whole(xget, world, outcome)
        return
    assert_told(outcome, "br, unasked")
    assert xget.files() == []


def test_a_gzip_stream_that_ends_early_is_lost(xget: Xget, world: World, server: XnatServer) -> None:
    server.fault("gzip", LISTING, chunked=True)
    server.fault("truncate", LISTING, after=30)
    assert_whole(xget, world, xget(*SCANS))


NOTICES = {
    "html": b"<html><body><h3>Closed for maintenance</h3></body></html>",
    "doctype": b"\xef\xbb\xbf\n<!-- portal -->\n<!DOCTYPE html><title>Closed for maintenance</title>",
    "text": b"Closed for maintenance\n",
    "json": b'{"error": "Closed for maintenance"}',
    "xml": b"<error>Closed for maintenance</error>",
}
WORN = [  # which notice comes under which type
    ("html", "text/html"),
    ("html", "application/zip"),
    ("doctype", "application/octet-stream"),
    ("text", "text/plain"),
    ("text", "application/octet-stream"),
    ("json", "application/json"),
    ("xml", "text/xml"),
]


@pytest.mark.parametrize(("notice", "type"), WORN)
@pytest.mark.parametrize(
    "match",
    [LISTING, DOCUMENT, "/files", r"/projects/proj_3/exp"],
    ids=["listing", "document", "any", "project"],
)
def test_a_notice_is_never_taken_for_what_it_replaces(
    xget: Xget, world: World, server: XnatServer, match: str, notice: str, type: str
) -> None:
    server.fault("answer", match, headers={"Content-Type": type}, body=NOTICES[notice], **ALWAYS)
    outcome = xget("-proj", "proj_3", *QUICK)
    assert_told(outcome)
    assert xget.files() == [] and hidden(xget.folder) == []


@pytest.mark.parametrize(("notice", "type"), WORN)
@pytest.mark.parametrize("args", [(), ("-z",)], ids=["archive", "extracted"])
def test_a_notice_in_the_place_of_all_files_is_kept_for_none(
    xget: Xget, world: World, server: XnatServer, notice: str, type: str, args: tuple[str, ...]
) -> None:
    """Also in the place of ZIPs; the listing stands."""
    answer = {"headers": {"Content-Type": type}, "body": NOTICES[notice], **ALWAYS}
    server.fault("answer", ZIP, **answer)
    server.fault("answer", ONE, **answer)
    assert_told(xget(*SCANS, *args), "7 of 7 files are missing")
    assert not [name for name in xget.files() if not name.endswith(("/", ".xget"))]


@pytest.mark.parametrize("notice", ["html", "doctype"])
def test_a_web_page_is_no_file_though_nothing_is_known_of_that(
    xget: Xget, world: World, server: XnatServer, notice: str
) -> None:
    world.listed_sizes, world.digests = False, "none"
    answer = {"headers": {"Content-Type": "application/octet-stream"}, "body": NOTICES[notice], **ALWAYS}
    server.fault("answer", ZIP, **answer)
    server.fault("answer", ONE, **answer)
    assert_told(xget(*SCANS), "a web page came in its place: Closed for maintenance")
    assert xget.files() == []


def test_a_web_page_that_is_listed_comes(xget: Xget, world: World, server: XnatServer) -> None:
    first(world).scans[0].resources[0].add("report.html", NOTICES["html"])
    server.fault("missing", ZIP, member="html$", **ALWAYS)
    assert_whole(xget, world, xget(*SCANS))


# --- answers without end ------------------------------------------------------------------------


def timed(xget: Xget, *args: str, most: float = 30) -> Outcome:
    """Run xget, which has to end long before this."""
    begun = time.monotonic()
    outcome = xget(*args, timeout=most + 60)
    assert time.monotonic() - begun < most * lane.PATIENCE
    return outcome


@pytest.mark.parametrize("args", [(), ("-z",)], ids=["archive", "extracted"])
@pytest.mark.parametrize("compression", [0, 8])
@pytest.mark.parametrize("where", ["member", "directory", "end"])
def test_a_zip_without_end_is_left_where_the_listing_is_exceeded(
    xget: Xget, world: World, server: XnatServer, where: str, compression: int, args: tuple[str, ...]
) -> None:
    world.compression = compression
    server.fault("endless", ZIP, where=where)
    outcome = timed(xget, *SCANS, *args)
    found = read_tree(xget.folder) if args else read_zip(xget.folder / "sess_1_acq.zip")
    assert outcome.status == 0 and found == safe(first(world))
    assert max(each.bytes_sent for each in server.requests) < 100_000_000


def test_a_zip_that_never_ends_each_time_is_followed_by_single_files(
    xget: Xget, world: World, server: XnatServer
) -> None:
    server.fault("endless", ZIP, where="member", **ALWAYS)
    assert_whole(xget, world, timed(xget, *SCANS))


def test_a_single_file_without_end_is_named(xget: Xget, world: World, server: XnatServer) -> None:
    server.fault("missing", ZIP, member="2.dcm$", **ALWAYS)
    server.fault("endless", r"1/resources/\d+/files/2\.dcm", **ALWAYS)
    assert_told(timed(xget, *SCANS), "1 DICOM 2.dcm: missing: more than", "than is listed")
    assert_earned(xget.folder, world)


@pytest.mark.parametrize("args", [("-s", "sess_1"), ("-proj", "proj_3")], ids=str)
@pytest.mark.parametrize("match", [LISTING, DOCUMENT, r"experiments\?format=json"])
def test_a_listing_or_a_document_without_end_fails_that_session(
    xget: Xget, server: XnatServer, match: str, args: tuple[str, ...]
) -> None:
    server.fault("endless", match, **ALWAYS)
    outcome = timed(xget, *args, *QUICK)
    if outcome.status == 0:
        assert match.startswith("experiments") and args[0] == "-s"  # not asked for
        return
    assert_told(outcome, "an answer of more than 256 MB")


def bomb(size: int) -> bytes:
    """So many zeros in gzip; nobody reads on to their CRC."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + block * (size >> 24) + b"\x03\x00" + bytes(8)


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="measures memory as Unix does")
@pytest.mark.parametrize("match", [LISTING, DOCUMENT])
def test_a_gzip_bomb_is_refused_at_the_limit(xget: Xget, server: XnatServer, match: str) -> None:
    server.fault("answer", match, headers={"Content-Encoding": "gzip"}, body=bomb(1 << 30), **ALWAYS)
    process = xget.start(*SCANS)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    out, err = process.communicate()
    assert_told(Outcome(process.returncode, out, err), "an answer of more than 256 MB")
    assert used.ru_maxrss < 450_000  # kilobytes


def test_a_gzip_bomb_in_the_place_of_files_ends_at_what_is_listed(
    xget: Xget, world: World, server: XnatServer
) -> None:
    answer = {"headers": {"Content-Encoding": "gzip"}, "body": bomb(1 << 28), **ALWAYS}
    server.fault("answer", ZIP, **answer)
    server.fault("answer", ONE, **answer)
    assert_told(timed(xget, *SCANS), "7 of 7 files are missing")
    assert xget.files() == []


SLOW: list[tuple[str, dict[str, Any]]] = [
    ("continue", {"seconds": 0.01}),
    ("continue", {"seconds": 0.7}),
    ("drip", {"seconds": 0.05}),
    ("drip", {"seconds": 0.7}),
    ("silence", {"seconds": 60}),
]


@pytest.mark.parametrize(("kind", "details"), SLOW, ids=str)
@pytest.mark.parametrize("match", ["auth", ZIP])
def test_a_head_has_to_come_within_the_time_out_as_a_whole(
    xget: Xget, world: World, server: XnatServer, match: str, kind: str, details: dict[str, Any]
) -> None:
    server.fault(kind, match, **details)
    outcome = timed(xget, *SCANS, "-timeout", "1", most=20)
    assert_whole(xget, world, outcome)


def test_a_head_that_never_comes_is_said(xget: Xget, server: XnatServer) -> None:
    server.fault("continue", LISTING, seconds=0.01, **ALWAYS)
    outcome = timed(xget, *SCANS, "-timeout", "0.5", most=20)
    assert_told(outcome, "no byte for 0.5 s")


@pytest.mark.parametrize(
    "body", [b"<h3>" * 250_000, b"<" * 1_000_000, b"<!--" * 250_000, b"<p>" * 300_000, b"\x9b\x00" * 500_000]
)
@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_error_page_of_a_megabyte_is_read_at_once(
    xget: Xget, server: XnatServer, body: bytes, status: int
) -> None:
    server.fault("answer", LISTING, status=status, headers={"Content-Type": "text/html"}, body=body, **ALWAYS)
    assert_told(timed(xget, *SCANS, most=20))


def xml(before: str, id: str, encoding: str = "UTF-8") -> str:
    """A session document with something in front, and this ID."""
    root = (
        f'<xnat:MRSession xmlns:xnat="http://nrg.wustl.edu/xnat" ID="{id}" label="sess_1" project="proj_3"/>'
    )
    return f'<?xml version="1.0" encoding="{encoding}"?>{before}{root}'


def utf_7(text: str) -> bytes:
    """The same in an encoding in which a DOCTYPE has another look."""
    head, end, rest = text.partition("?>")
    return (head + end + rest.replace("+", "+-").replace("<", "+ADw-").replace("&", "+ACY-")).encode()


LAUGHS = "".join(f'<!ENTITY e{n} "{10 * f"&e{n - 1};"}">' for n in range(1, 9))
DOCTYPE = f'<!DOCTYPE x [<!ENTITY e0 "XNAT">{LAUGHS}]>'
DEEP = {
    "nested entities": xml(DOCTYPE, "&e8;").encode(),
    "an entity": xml(DOCTYPE, "&e0;_E00001").encode(),
    "an entity in UTF-16": xml(DOCTYPE, "&e0;_E00001", "UTF-16").encode("utf-16"),
    "an entity in UTF-7": utf_7(xml(DOCTYPE, "&e0;_E00001", "UTF-7")),
    "an external entity": xml('<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x">', "XNAT_E00001").encode(),
    "a million levels": b"<a>" * 1_000_000,
    "many attributes": b"<a " + b"".join(b'a%d="" ' % n for n in range(30_000)) + b"/>",
}


@pytest.mark.parametrize("case", DEEP)
def test_a_hostile_document_is_refused(xget: Xget, server: XnatServer, case: str) -> None:
    server.fault("answer", r"sess_1\?format=xml|" + DOCUMENT, body=DEEP[case], **ALWAYS)
    assert_told(timed(xget, *SCANS, "-proj", "proj_3", most=20), "unreadable answer")
    assert xget.files() == []


LISTS = [
    b"[" * 200_000,
    b'{"a":' * 200_000,
    b'{"ResultSet":{"Result":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}}",
    b'{"ResultSet":{"Result":[{"URI":"x","Size":' + b"9" * 100_000 + b"}]}}",
    b'{"ResultSet":{"Result":[{"URI":{"a":1},"Size":{}, "cat_ID":[]}]}}',
    b'{"ResultSet":{"Result":"abc"}}',
    b'{"ResultSet":{"Result":[1, null, "a"]}}',
    b'{"ResultSet":[]}',
    b"null",
    b'"',
    b"\xff\xfe",
]


@pytest.mark.parametrize("match", [LISTING, r"projects/proj_3/experiments\?"], ids=["files", "sessions"])
@pytest.mark.parametrize("body", LISTS, ids=lambda body: body[:40].decode("latin-1"))
def test_a_hostile_listing_is_refused(xget: Xget, server: XnatServer, body: bytes, match: str) -> None:
    server.fault("answer", match, body=body, **ALWAYS)
    outcome = timed(xget, "-proj", "proj_3", *QUICK, most=20)
    assert_told(outcome)
    assert "Error" not in outcome.err
    assert xget.files() == []


@pytest.mark.parametrize(
    "pattern", ["*a*a*a*a*a*a*a*a*b", "*" * 50 + "b", "*[!b]*[!b]*[!b]*[!b]*[!b]b", "?*" * 20 + "b"]
)
def test_a_pattern_over_long_names_ends(xget: Xget, world: World, pattern: str) -> None:
    """Python's fnmatch becomes a regular expression, run over what the server says."""
    session = first(world)
    for number in range(20):
        scan = session.scan(str(100 + number), type="a" * 3000, description="a" * 20_000)
        scan.resource("DICOM", {"a.dcm": b"a"}, format="DICOM")
    outcome = timed(xget, "-proj", "proj_3", *QUICK, "-acq", pattern)
    assert outcome.status == 4 and xget.files() == []
    assert timed(xget, "-proj", "proj_3", "-s", pattern, *QUICK).status in (0, 1)


@pytest.mark.parametrize(("kind", "details"), SLOW, ids=str)
def test_a_log_out_ends_within_five_seconds(
    xget: Xget, world: World, server: XnatServer, kind: str, details: dict[str, Any]
) -> None:
    server.fault(kind, "^DELETE", **details)
    assert_whole(xget, world, timed(xget, *SCANS, most=15))


def test_a_log_out_whose_body_drips_is_left(xget: Xget, world: World, server: XnatServer) -> None:
    server.fault("answer", "^DELETE", body=b"x" * 1000)
    server.fault("drip", "^DELETE", head=False, body=True, seconds=0.3)
    assert_whole(xget, world, timed(xget, *SCANS, most=15))
