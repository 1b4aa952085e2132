"""The test XNAT when something is to go wrong, and its connections."""

from __future__ import annotations

import gzip
import http.client
import io
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import ADMIN, E, Reply, ask, basic, full_world, session_of
from xnat_server import FAULTS, File, Synthetic, World, XnatServer

NS = {"xnat": "http://nrg.wustl.edu/xnat"}


@pytest.fixture()
def server() -> Iterator[XnatServer]:
    with XnatServer(full_world(), context="/xnat") as server:
        yield server


# Failures

ZIP = E + "/scans/1,3-OT/files?format=zip"
FOLDER = "MR1/scans/1-T1_MPRAGE/resources/DICOM/files/"


def short(names: list[str]) -> list[str]:
    return [name.rsplit("/", 1)[1] for name in names]


@pytest.mark.parametrize(
    ("fault", "compression", "names"),
    [
        (("missing", r"b c\.dcm"), 0, ["a.dcm", "n.dcm", "x.gif", "c.dcm"]),
        (("vanish", r"n\.dcm"), 0, ["a.dcm", "b c.dcm"]),
        (("vanish", r"n\.dcm"), 8, ["a.dcm", "b c.dcm"]),
        (("vanish", r"a\.dcm"), 0, []),  # before 8 KB: a short ZIP all the same
        (("unreadable", r"c\.dcm$"), 8, ["a.dcm", "b c.dcm"]),
        (("duplicate", r"n\.dcm"), 0, ["a.dcm", "b c.dcm", "n.dcm"]),
    ],
)
def test_short_but_valid_archives(server: XnatServer, fault: Any, compression: int, names: list[str]) -> None:
    server.fault(fault[0], match="format=zip", member=fault[1])
    reply = ask(server, f"{ZIP}&compression={compression}")
    assert (reply.status, reply.whole, short(reply.names)) == (200, True, names)
    assert len(ask(server, ZIP).names) == 5  # once only


def test_read_error_in_a_stored_member(server: XnatServer) -> None:
    server.fault("unreadable", match="format=zip", member=r"n\.dcm", after=100)
    reply = ask(server, ZIP)
    assert (reply.status, reply.whole, b"PK\x01\x02" in reply.body) == (200, True, False)


@pytest.mark.parametrize("kind", ["vanish", "unreadable", "duplicate"])
@pytest.mark.parametrize("compression", [0, 8])
def test_old_xnat_leaves_archives_open(server: XnatServer, kind: str, compression: int) -> None:
    server.world.version = "1.7.4.1"
    server.fault(kind, match="format=zip", member=r"/3-OT.*c\.dcm")
    reply = ask(server, f"{ZIP}&compression={compression}")
    assert (reply.status, reply.whole, b"PK\x05\x06" in reply.body) == (200, True, False)


def test_old_xnat_fails_early_with_a_page(server: XnatServer) -> None:
    server.world.version = "1.7.4.1"
    server.fault("vanish", match="format=zip", member=r"a\.dcm")
    reply = ask(server, ZIP)
    assert (reply.status, b"writing the response entity" in reply.body) == (500, True)


def test_broken_connections(server: XnatServer) -> None:
    for kind in ("zip", "tar"):
        server.fault("cut", match="files", after=20000)
        reply = ask(server, ZIP.replace("zip", kind))
        assert (reply.status, reply.whole, len(reply.body) <= 20000) == (200, False, True)
    server.fault("cut", match="files", after=10)
    reply = ask(server, ZIP)
    assert (reply.status, reply.whole, server.requests[-1].bytes_sent) == (200, False, 10)
    server.fault("cut", match="files", after=1 << 30)  # at the end, then
    assert ask(server, ZIP).whole is False
    server.fault("cut", match=r"a\.dcm", after=10)
    assert ask(server, E + "/scans/1/files/a.dcm").whole is False
    server.fault("truncate", match=r"a\.dcm", after=10)
    reply = ask(server, E + "/scans/1/files/a.dcm")
    assert (reply.whole, reply.headers["Content-Length"]) == (True, "10")
    server.fault("truncate", match="format=xml", after=300)
    with pytest.raises(ElementTree.ParseError):
        ElementTree.fromstring(ask(server, E + "?format=xml").body)
    session_of(server).scans[0].resources[0].files["a.dcm"].fails_at = 7
    assert ask(server, E + "/scans/1/files/a.dcm").body == b"a" * 7


@pytest.mark.parametrize("details", [{}, {"after": 10000}, {"between": True}])
def test_silence(server: XnatServer, details: dict[str, Any]) -> None:
    server.fault("silence", match="format=zip", seconds=0.2, **details)
    start = time.monotonic()
    assert len(ask(server, ZIP).names) == 5
    assert time.monotonic() - start >= 0.2
    assert server.requests[-1].end_time - server.requests[-1].time >= 0.2


def test_other_answers(server: XnatServer) -> None:
    server.fault("status", match="scans", status=503, retry_after=2)
    reply = ask(server, ZIP)
    assert (reply.status, reply.headers["Retry-After"]) == (503, "2")
    server.fault("status", match="scans", status=502)
    assert b"nginx" in ask(server, ZIP).body
    server.fault("status", match="scans", status=500, message="Out of order", skip=1)
    assert ask(server, ZIP).status == 200
    assert b"<h3>Out of order</h3>" in ask(server, ZIP).body
    server.fault("html", match="scans")
    assert ask(server, ZIP).headers["Content-Type"].startswith("text/html")
    server.fault("redirect", match="scans", location="https://elsewhere.example/")
    assert ask(server, ZIP).headers["Location"] == "https://elsewhere.example/"
    server.fault("answer", match="scans", status=418, headers={"X-Tea": "1"}, body=b"pot")
    assert ask(server, ZIP).body == b"pot"
    server.fault("fallback", match="scans")
    assert short(ask(server, ZIP).names) == ["consent.pdf"]
    server.fault("listing", match="json", edit=lambda rows: rows[1:])
    assert len(ask(server, E + "/scans/1/files?format=json").rows) == 3
    called: list[int] = []
    server.fault("call", match="auth", times=None, action=lambda: called.append(1))
    ask(server, "/data/auth")
    ask(server, "/data/auth")
    assert called == [1, 1]
    server.fault("expire", match="auth")
    cookie = ask(server, "/data/JSESSION").headers["Set-Cookie"].split(";")[0]
    assert ask(server, "/data/auth", user=None, Cookie=cookie).status == 401


def test_redirect_to_tls(server: XnatServer, tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    files = (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-out", files[0], "-keyout", files[1], *name]
    subprocess.run(command, check=True, capture_output=True)
    with XnatServer(server.world, "/xnat", certificate=files) as safe:
        server.fault("redirect", location=f"https://127.0.0.1:{safe.port}{{path}}")
        location = ask(server, ZIP).headers["Location"]
        assert location == safe.url + ZIP
        trust = ssl.create_default_context(cafile=files[0])
        request = urllib.request.Request(location, headers={"Authorization": basic(*ADMIN)})
        with urllib.request.urlopen(request, context=trust) as response:
            reply = Reply(response.status, response.headers, response.read())
        assert len(reply.names) == 5


def test_unknown_faults_are_refused(server: XnatServer) -> None:
    with pytest.raises(ValueError, match="no such fault"):
        server.fault("earthquake")
    with pytest.raises(ValueError, match="cut takes"):
        server.fault("cut", before=1)
    assert len(FAULTS) > 20


HOSTILE = ["../evil", "/etc/evil", "C:\\evil", "a\\..\\evil", FOLDER + "A.DCM", FOLDER + "a.dcm"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_members(server: XnatServer, name: str) -> None:
    server.fault("add", match="format=zip", name=name, data=b"evil")
    raw = ask(server, ZIP).body
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.infolist()[-1].orig_filename == name


def test_more_hostile_members(server: XnatServer) -> None:
    server.fault("add", match="zip", name="link", data=b"/etc", mode=0o120777, first=True)
    with zipfile.ZipFile(io.BytesIO(ask(server, ZIP).body)) as archive:
        first = archive.infolist()[0]
        assert (first.external_attr >> 16, first.create_system) == (0o120777, 3)
    server.fault("add", match="zip", name="bomb", data=Synthetic(1 << 30, None), compression=8)
    raw = ask(server, ZIP).body
    assert len(raw) < 2_000_000
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.getinfo("bomb").file_size == 1 << 30
    server.fault("flip", match="zip", member=r"n\.dcm")
    with zipfile.ZipFile(io.BytesIO(ask(server, ZIP).body)) as archive:
        assert archive.testzip() == FOLDER + "1-T1_MPRAGE/n.dcm"


def test_stop_and_start(server: XnatServer) -> None:
    server.fault("stop", match="format=zip", after=15000)
    url = server.url
    reply = ask(server, ZIP)
    assert (reply.whole, server.stopped.is_set()) == (False, True)
    with pytest.raises(ConnectionRefusedError):
        ask(server, "/data/auth")
    server.start()
    assert (server.url, ask(server, ZIP).status) == (url, 200)


def test_catalogs_that_are_wrong(server: XnatServer) -> None:
    files = session_of(server).scans[0].resources[0].files
    files["gone.dcm"] = File(b"gone", on_disk=False)
    files["stale.dcm"] = File(b"stale", size_listed=99, md5="0" * 32)
    rows = {row["Name"]: row for row in ask(server, E + "/scans/1/files").rows}
    assert rows["gone.dcm"]["Size"] == "4"
    assert (rows["stale.dcm"]["Size"], rows["stale.dcm"]["digest"]) == ("99", "0" * 32)
    assert "gone.dcm" not in short(ask(server, ZIP).names)
    assert ask(server, E + "/scans/1/files/gone.dcm").status == 404


# What lies in front

XML = E + "?format=xml"
LIST = E + "/scans/1/files?format=json"
FILE = E + "/scans/1/resources/DICOM/files/a.dcm"


@pytest.mark.parametrize("path", [XML, LIST, ZIP, FILE])
@pytest.mark.parametrize("chunked", [False, True])
def test_gzip_that_nobody_asked_for(server: XnatServer, path: str, chunked: bool) -> None:
    plain = ask(server, path)
    server.fault("gzip", match="experiments", chunked=chunked)
    reply = ask(server, path)
    assert (reply.status, reply.headers["Content-Encoding"], reply.whole) == (200, "gzip", True)
    assert reply.headers["Transfer-Encoding"] == ("chunked" if chunked else None)
    length = reply.headers["Content-Length"]
    assert length == (None if chunked else str(len(reply.body)))
    assert gzip.decompress(reply.body) == plain.body


def test_encoding_that_is_a_lie(server: XnatServer) -> None:
    server.fault("gzip", match="format=xml", encoding="br")
    reply = ask(server, XML)
    assert (reply.headers["Content-Encoding"], reply.body[:5]) == ("br", b"<?xml")


def arrivals(server: XnatServer, path: str, seconds: float) -> bytes:
    """What comes in so many seconds, from the first byte of the answer on."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        head = f"GET {server.context}{path} HTTP/1.1\r\nHost: x\r\nAuthorization: {basic(*ADMIN)}\r\n\r\n"
        sock.sendall(head.encode())
        data, end = b"", time.monotonic() + seconds
        while time.monotonic() < end:
            data += sock.recv(65536)
        return data


def test_head_that_drips(server: XnatServer) -> None:
    server.fault("drip", match="xml", seconds=0.02)
    assert b"HTTP/1.1 ".startswith(arrivals(server, XML, 0.12)[:4])
    server.fault("drip", match="xml", seconds=0.0005)
    assert ask(server, XML).body.startswith(b"<?xml")


@pytest.mark.parametrize(("path", "framed"), [(LIST, False), (ZIP, True), (FILE, False)])
def test_body_that_drips(server: XnatServer, path: str, framed: bool) -> None:
    server.fault("drip", match="scans", seconds=0.02, head=False, body=True)
    head, _, body = arrivals(server, path, 0.4).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert 2 < len(body.replace(b"\r\n1\r\n", b"")) < 30
    if framed:
        assert body[:8] == b"1\r\nP\r\n1\r"


def test_continue_for_ever(server: XnatServer) -> None:
    server.fault("continue", match="xml", seconds=0.01)
    lines = set(arrivals(server, XML, 0.2).split(b"\r\n"))
    assert lines - {b"", b"HTTP/1.1 100 Continue"} <= {b"HTTP/1.1 100 Continue"[:n] for n in range(22)}
    server.fault("continue", match="xml", seconds=0.01, count=3)
    assert ask(server, XML).body.startswith(b"<?xml")


@pytest.mark.parametrize(
    ("path", "details", "sound"),
    [
        (LIST, {}, b'"title": "Files"}}'),
        (XML, {}, b"</xnat:MRSession>\n"),
        (FILE, {}, b"a" * 5000),
        (ZIP, {}, b"PK\x05\x06"),
        (ZIP, {"where": "directory"}, b"c" * 20000),
        (ZIP, {"where": "member"}, b"3-OT-t2_tse__sag/resources/DICOM/files/c.dcm"),
        (ZIP + "&compression=8", {"where": "member"}, b"c.dcm"),
    ],
)
def test_bodies_without_end(server: XnatServer, path: str, details: dict[str, Any], sound: bytes) -> None:
    server.fault("endless", match="experiments", **details)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", server.context + path, headers={"Authorization": basic(*ADMIN)})
    response = connection.getresponse()
    assert (response.status, response.headers["Transfer-Encoding"]) == (200, "chunked")
    body = response.read(8 << 20)
    assert len(body) == 8 << 20
    assert sound in body
    if "compression" not in path:
        assert body.endswith(bytes(1 << 20))
        assert (b"PK\x05\x06" in body) == (path == ZIP and not details)
    connection.close()


def test_balancers_cookie_must_come_back(server: XnatServer) -> None:
    server.fault("balancer", times=None)
    first = ask(server, "/data/auth")
    assert first.status == 200
    *_, route = (line.split(";")[0] for line in first.headers.get_all("Set-Cookie"))
    assert route == "ROUTEID=.node1"
    session = first.headers["Set-Cookie"].split(";")[0]
    assert ask(server, "/data/auth", Cookie=session).status == 401
    again = ask(server, "/data/auth", Cookie=f"{session}; {route}")
    assert (again.status, server.sessions_opened) == (200, 1)
    assert "ROUTEID" not in str(again.headers)


def test_document_of_another_session(server: XnatServer) -> None:
    server.fault("document", match="xml")
    assert ElementTree.fromstring(ask(server, XML).body).get("label") == "MR2"
    assert ElementTree.fromstring(ask(server, XML).body).get("label") == "MR1"
    server.fault("document", match="xml", id="XNAT_E00004")
    assert ElementTree.fromstring(ask(server, XML).body).get("label") == "Q1"


@pytest.mark.parametrize(("path", "length"), [(ZIP, None), (FILE, "5000"), (LIST, "")])
def test_answers_as_by_http_1_0(server: XnatServer, path: str, length: str | None) -> None:
    server.fault("http10", match="scans")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", server.context + path, headers={"Authorization": basic(*ADMIN)})
    response = connection.getresponse()
    assert (response.version, response.headers["Connection"]) == (10, "close")
    assert response.headers["Transfer-Encoding"] is None
    assert length == "" or response.headers["Content-Length"] == length
    assert response.read() == ask(server, path).body


@pytest.mark.parametrize("path", [ZIP, FILE])
def test_rate_of_each_stream(path: str) -> None:
    world = full_world()
    resource = world.sessions()[0].scans[0].resources[0]
    resource.files["a.dcm"] = File(Synthetic(6_000_000))
    with XnatServer(world, context="/xnat", rate=30e6) as server:
        used, start = time.process_time(), time.monotonic()
        threads = [threading.Thread(target=ask, args=(server, path)) for _ in "12"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds, used = time.monotonic() - start, time.process_time() - used
    assert 0.17 < seconds < 2  # 0.2 for each of two at a time, the last 0.02 of which nobody sees
    assert used < seconds  # no thread waits by looking at the clock


# The server itself


def test_record(server: XnatServer) -> None:
    server.latency = 0.05
    gate = threading.Barrier(2)

    def fetch() -> None:
        gate.wait()
        ask(server, ZIP)

    server.fault("slow", match="format=zip", times=None, rate=200_000)
    threads = [threading.Thread(target=fetch) for _ in "12"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.most_transfers == 2
    first = server.requests[0]
    assert (first.method, first.path, first.status) == ("GET", "/xnat" + ZIP, 200)
    assert first.headers["authorization"] == basic(*ADMIN)
    assert first.bytes_sent > 40000
    server.clear()
    assert (server.requests, server.most_transfers) == ([], 0)


def test_keep_alive_and_raw_requests(server: XnatServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    head = {"Authorization": basic(*ADMIN)}
    for path in ("/xnat/data/auth", "/xnat" + ZIP, "/xnat/data/experiments?format=json"):
        connection.request("GET", path, headers=head)
        response = connection.getresponse()
        assert (response.status, response.reason) == (200, "")
        response.read()
        sock = connection.sock
    assert connection.sock is sock
    sock.sendall(b"GET /xnat/data/a<b HTTP/1.1\r\nHost: x\r\n\r\n")
    assert sock.recv(100).startswith(b"HTTP/1.1 400 ")
    connection.close()


def test_large_contents_cost_nothing() -> None:
    size = 5 << 30
    world = World(digests="empty")
    session = world.project("P").session("S")
    session.scan("1").resource("DICOM", {"a.dcm": Synthetic(size, 1), "b.dcm": b"b"})
    with XnatServer(world) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        path = E + "/scans/1/files?format=zip"
        connection.request("GET", path, headers={"Authorization": basic(*ADMIN)})
        head = connection.getresponse().read(100)
        connection.close()
        assert head[14:18] == Synthetic(size, 1).crc.to_bytes(4, "little")
        assert (head[4], head[18:26]) == (45, b"\xff" * 8)  # ZIP64
        assert ask(server, E + "/scans/1/files").rows[0]["Size"] == str(size)


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (3 << 20) + 5])
def test_synthetic_contents(size: int) -> None:
    content = Synthetic(size, 7)
    data = b"".join(content.blocks())
    assert (len(data), content.crc) == (size, zlib.crc32(data))
    assert b"".join(content.blocks(5, 50)) == data[5:50]
    packed = zlib.decompressobj(-15).decompress(b"".join(content.deflated()))
    assert packed == data


def test_program_serves_real_images(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    script = Path(__file__).with_name("xnat_server")
    command = [sys.executable, str(script), "--port", "0", "--context", "/xnat"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        url = program.stdout.readline().strip()
        match = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/xnat", url)
        assert match
        served = XnatServer(World(), "/xnat", port=int(match[1]))  # only its address
        reply = ask(served, E + "/scans/1/files?format=zip")
        with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
            images = [pydicom.dcmread(io.BytesIO(archive.read(n))) for n in archive.namelist()]
        program.terminate()
    assert program.returncode == 0
    assert len({image.SOPInstanceUID for image in images}) == 6
