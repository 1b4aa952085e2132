"""The test XNAT against XNAT's own bytes (`golden/`), and the traps it must hold."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from xnat_server import FAULTS, File, Session, Synthetic, World, XnatServer

GOLDEN = Path(__file__).parent / "golden"
ADMIN = ("admin", "admin")
E = "/data/experiments/XNAT_E00001"
NS = {"xnat": "http://nrg.wustl.edu/xnat"}


@dataclass
class Reply:
    """What came back; `whole` is false where the connection broke."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    whole: bool = True

    @property
    def rows(self) -> list[dict[str, str]]:
        return json.loads(self.body)["ResultSet"]["Result"]

    @property
    def names(self) -> list[str]:
        """The members of a ZIP that is sound."""
        with zipfile.ZipFile(io.BytesIO(self.body)) as archive:
            assert archive.testzip() is None
            return archive.namelist()


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def ask(server: XnatServer, path: str, method: str = "GET", user: Any = ADMIN, **headers: str) -> Reply:
    """One request on a connection of its own; no cookie unless one is given."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    head = {"Authorization": basic(*user)} if user else {}
    head.update({name.replace("_", "-"): value for name, value in headers.items()})
    connection.request(method, server.context + path, headers=head)
    response = connection.getresponse()
    try:
        return Reply(response.status, response.headers, response.read())
    except http.client.IncompleteRead as error:
        return Reply(response.status, response.headers, error.partial, False)
    finally:
        connection.close()


def session_of(server: XnatServer) -> Session:
    return server.world.sessions()[0]


@pytest.fixture()
def server() -> Iterator[XnatServer]:
    """Two projects; a session with everything, a shared one, a questionnaire."""
    world = World(users={"admin": "admin", "bob": "pass:word", "eve": "eve"})
    first = world.project("P1", name="Project 1", aliases=("alias_1",), hidden_from=("bob",))
    second = world.project("P2", unreadable=("eve",))
    session = first.session("MR1", subject="subj_1", date="2011-11-17")
    scan = session.scan("1", type="T1 MPRAGE", description="t1_mprage_sag")
    files = {"a.dcm": b"a" * 5000, "sub/b c.dcm": b"b" * 6000, "1/n.dcm": Synthetic(9000)}
    scan.resource("DICOM", files, format="DICOM", content="RAW")
    scan.resource("", {"x.gif": b"x"})
    other = session.scan("3-OT", type="t2/tse, sag", quality="questionable")
    other.resource("DICOM", {"c.dcm": b"c" * 20000}, format="DICOM")
    session.scan("4")
    qc = session.assessor("MR1_QC")
    qc.resource("DATA", {"qc.txt": b"out"})
    qc.resource("LOG", {"log.txt": b"in"}, where="in")
    session.reconstruction("R1", type="RECON A").resource("NIFTI", {"r.nii": b"r" * 700})
    session.resource("NOTES", {"n.txt": b"note"})
    session.subject.resource("CONSENT", {"consent.pdf": b"yes"})
    session.share(second, "Shared_01")
    second.session("MR2", subject="subj_2", date="2012-06-30", type="xnat:petSessionData")
    second.session("Q1", subject="subj_2", type="xnat:demographicForm")
    with XnatServer(world, context="/xnat") as server:
        yield server


# Against XNAT's own bytes


@pytest.fixture()
def golden(monkeypatch: pytest.MonkeyPatch) -> Iterator[XnatServer]:
    """The session that the golden files are of."""
    monkeypatch.setenv("TZ", "UTC")
    if sys.platform != "win32":
        time.tzset()
    session = World().project("P").session("MR_Session_01", subject="s")
    with zipfile.ZipFile(GOLDEN / "session_stored.zip") as archive:
        data = {name.rsplit("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    scan = session.scan("1", type="t1_mprage_sag")
    images = {name: data[name] for name in ("img-1.dcm", "img-2.dcm", "img-3.dcm")}
    scan.resource("DICOM", images, format="DICOM", content="RAW")
    scan.resource("SNAPSHOTS", {"s.gif": data["s.gif"]})
    other = session.scan("2", type="localizer (3 plane)")
    other.resource("DICOM", {"a b ü.dcm": data["a b ü.dcm"]})
    with XnatServer(session.world) as server:
        yield server
    monkeypatch.undo()
    if sys.platform != "win32":
        time.tzset()


def golden_headers(name: str) -> tuple[int, dict[str, str]]:
    lines = (GOLDEN / f"{name}.headers").read_text().strip().splitlines()
    return int(lines[0].split()[1]), dict(line.split(": ", 1) for line in lines[1:])


ABOVE = {"set-cookie", "x-content-type-options", "x-frame-options", "content-security-policy"}


@pytest.mark.parametrize(
    ("name", "path", "method", "part"),
    [
        ("session.zip", "/scans/1,2/files?format=zip&compression=8", "GET", ""),
        ("session_stored.zip", "/scans/ALL/files?format=zip", "GET", ""),
        ("session.tar", "/scans/ALL/files?format=tar", "GET", ""),
        ("session.tar.gz", "/scans/ALL/files?format=tar.gz", "GET", ""),
        ("open_range_on_zip_500", "/scans/ALL/files?format=zip", "GET", "bytes=9-"),
        ("HEAD_zip", "/scans/1/files?format=zip", "HEAD", ""),
        ("files.json", "/scans/ALL/files?format=json", "GET", ""),
        ("files.csv", "/scans/ALL/files?format=csv", "GET", ""),
        ("single.dcm", "/scans/1/files/img-1.dcm", "GET", ""),
        ("single_range.dcm", "/scans/1/files/img-1.dcm", "GET", "bytes=1000-"),
    ],
)
def test_headers_are_xnats(golden: XnatServer, name: str, path: str, method: str, part: str) -> None:
    reply = ask(golden, E + path, method, **({"Range": part} if part else {}))
    status, headers = golden_headers(name)
    ours = {key: value for key, value in reply.headers.items() if key.lower() not in ABOVE}
    assert (reply.status, list(ours)) == (status, list(headers))
    assert {**ours, "Date": ""} == {**headers, "Date": ""}


def test_archives_are_xnats(golden: XnatServer) -> None:
    stored = ask(golden, E + "/scans/ALL/files?format=zip").body
    assert stored == (GOLDEN / "session_stored.zip").read_bytes()
    tar = ask(golden, E + "/scans/ALL/files?format=tar").body
    assert tar == (GOLDEN / "session.tar").read_bytes()
    packed = ask(golden, E + "/scans/ALL/files?format=tar.gz").body
    assert packed[:10] == (GOLDEN / "midstream_failure.tar.gz").read_bytes()
    assert gzip.decompress(packed) == tar


def entries(data: bytes) -> list[tuple[Any, ...]]:
    """What a ZIP says of its members, apart from how well they were deflated."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return [
            (
                *(i.filename, i.compress_type, i.flag_bits, i.create_version, i.extract_version),
                *(i.create_system, i.external_attr, i.extra, i.file_size, i.CRC, i.date_time),
            )
            for i in archive.infolist()
        ]


def test_deflated_archive_is_xnats(golden: XnatServer) -> None:
    ours = ask(golden, E + "/scans/ALL/files?format=zip&compression=8").body
    theirs = (GOLDEN / "session.zip").read_bytes()
    assert entries(ours) == entries(theirs)
    assert ours[:30] == theirs[:30]  # sizes are in the descriptor behind


def test_failed_archives_are_xnats(golden: XnatServer) -> None:
    files = session_of(golden).scans[0].resources[0].files
    last = files.pop("img-3.dcm")
    files["img-2b.dcm"] = File(b"?" * 5000, fails_at=0, modified=1795346404)
    files["img-3.dcm"] = last
    for name, kind in (
        ("midstream_failure_but_valid.zip", "zip&compression=8"),
        ("midstream_failure.tar", "tar"),
        ("midstream_failure.tar.gz", "tar.gz"),
    ):
        reply = ask(golden, f"{E}/scans/ALL/files?format={kind}")
        theirs = (GOLDEN / name).read_bytes()
        assert (reply.status, reply.whole) == (200, True)
        if name.endswith(".zip"):
            assert entries(reply.body) == entries(theirs)
        else:
            assert reply.body == theirs


# Log-in


def test_wrong_password_is_a_page_without_a_realm(server: XnatServer) -> None:
    reply = ask(server, "/data/auth", user=("admin", "wrong"))
    assert reply.status == 401
    assert "WWW-Authenticate" not in reply.headers
    assert b"<b>Message</b> Login attempt failed. Please try again." in reply.body
    server.world.login_failure = "No way in."
    assert b"No way in." in ask(server, "/data/auth", user=("nobody", "")).body


def test_no_credentials(server: XnatServer) -> None:
    reply = ask(server, "/data/auth", user=None)
    assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, 'Basic realm="XNAT"')
    browser = ask(server, "/data/auth", user=None, User_Agent="Mozilla/5.0")
    assert (browser.status, browser.headers["Location"]) == (302, f"{server.url}/app/template/Login.vm")
    assert ask(server, "/app/template/Login.vm", user=None).status == 200
    assert ask(server, "/data/JSESSION", user=None).status == 200  # proves nothing
    assert ask(server, "/data/JSESSION", user=("admin", "wrong")).status == 401
    assert ask(server, "/xapi/siteConfig/buildInfo", user=None).status == 200


def test_cookie_serves_until_log_out(server: XnatServer) -> None:
    first = ask(server, "/data/auth")
    cookies = first.headers.get_all("Set-Cookie")
    assert re.fullmatch(r"JSESSIONID=\w{32}; Path=/xnat; HttpOnly", cookies[0])
    assert re.fullmatch(r'SESSION_EXPIRATION_TIME="\d+,900000"; Version=1; Path=/', cookies[1])
    cookie = cookies[0].split(";")[0]
    assert ask(server, "/data/auth", user=None, Cookie=cookie).body == (b"User 'admin' is logged in")
    assert ask(server, "/data/auth", Cookie=cookie).headers["Set-Cookie"][:3] == "SES"
    assert server.sessions_opened == 1
    assert ask(server, "/data/JSESSION", "DELETE", user=None, Cookie=cookie).status == 200
    assert ask(server, "/data/auth", user=None, Cookie=cookie).status == 401
    healed = ask(server, "/data/auth", Cookie=cookie)
    assert (healed.status, healed.headers["Set-Cookie"][:3]) == (200, "JSE")


def test_session_ends_after_requests_and_on_demand(server: XnatServer) -> None:
    server.world.session_requests = 2
    cookie = ask(server, "/data/auth").headers["Set-Cookie"].split(";")[0]
    statuses = [ask(server, "/data/auth", user=None, Cookie=cookie).status for _ in "12"]
    assert statuses == [200, 401]
    server.world.session_requests = None
    cookie = ask(server, "/data/auth").headers["Set-Cookie"].split(";")[0]
    server.expire_sessions()
    assert ask(server, "/data/auth", user=None, Cookie=cookie).status == 401


def test_failures_lock_the_account(server: XnatServer) -> None:
    server.world.max_failed_logins = 2
    for _ in "12":
        ask(server, "/data/auth", user=("admin", "wrong"))
    assert ask(server, "/data/auth").status == 401
    assert ask(server, "/data/auth", user=("bob", "pass:word")).status == 200


def test_accounts_that_need_attention(server: XnatServer) -> None:
    server.world.expired_passwords.add("bob")
    reply = ask(server, E + "/scans", user=("bob", "pass:word"))
    assert (reply.status, reply.headers["Location"].rsplit("/", 1)[1]) == (302, "XDATScreen_UpdateUser.vm")
    server.world.inactive.add("eve")
    reply = ask(server, E, user=("eve", "eve"))
    assert reply.headers["Location"].endswith("/app/template/InactiveAccount.vm")
    server.world.max_sessions = 0
    assert ask(server, "/data/auth").status == 401


def test_site_that_is_not_ready(server: XnatServer) -> None:
    server.world.site = "not configured"
    assert ask(server, "/data/auth").status == 403
    server.world.site = "setup"
    assert ask(server, "/data/auth").headers["Location"] == server.url + "/setup"


def test_open_site_makes_guests(server: XnatServer) -> None:
    server.world.require_login = False
    server.world.projects[1].public = True
    assert ask(server, "/data/auth", user=None).body == b"User 'guest' is logged in"
    assert ask(server, E, user=None).status == 200  # shared into a public project
    labels = [row["label"] for row in ask(server, "/data/experiments", user=None).rows]
    assert "MR2" in labels
    assert [row["ID"] for row in ask(server, "/data/projects", user=None).rows] == ["P2"]


def test_alias_tokens(server: XnatServer) -> None:
    token = json.loads(ask(server, "/data/services/tokens/issue").body)
    account = (token["alias"], token["secret"])
    assert ask(server, "/data/auth", user=account).body == b"User 'admin' is logged in"
    assert ask(server, f"/data/services/tokens/invalidate/{account[0]}").status == 200
    assert ask(server, "/data/auth", user=account).status == 401


# Listings


@pytest.mark.parametrize(
    ("path", "labels"),
    [
        ("/data/experiments", ["MR1", "MR1_QC", "MR2", "Q1"]),
        ("/REST/archive/experiments/?label=MR1", ["MR1"]),
        ("/data/experiments?label=mr1", []),
        ("/data/experiments?label=MR1,Q1", ["MR1", "Q1"]),
        ("/data/experiments?label=*r1*", ["MR1", "MR1_QC"]),
        ("/data/experiments?label=R1*", ["MR1", "MR1_QC"]),  # contains, since 1.8.5
        ("/data/experiments?label=*M_2", ["MR2"]),
        ("/data/experiments?label=MR1&project=P2", []),
        ("/data/experiments?project=P2", ["MR2", "Q1"]),
        ("/data/experiments?xsiType=xnat:mrSessionData", ["MR1"]),
        ("/data/experiments?xsiType=xnat:imageSessionData", ["MR1", "MR2"]),
        ("/data/experiments?xsiType=xnat:mrSessionData,xnat:petSessionData&label=Q1", ["Q1"]),
        ("/data/experiments?date=11/17/2011", ["MR1", "MR1_QC"]),
        ("/data/experiments?date=11/17/2011-06/30/2012&xsiType=xnat:imageSessionData",
         ["MR1", "MR2"]),
        ("/data/experiments?date=2011-11-17", []),  # read as a range
        ("/data/experiments?subject_label=subj_2", ["MR2", "Q1"]),
        ("/data/experiments?sortBy=label&sortOrder=DESC", ["Q1", "MR2", "MR1_QC", "MR1"]),
        ("/data/experiments?limit=1&offset=2", ["MR2"]),
        ("/data/projects/P2/experiments", ["Shared_01", "MR2", "Q1"]),
        ("/data/projects/alias_1/experiments", ["MR1"]),
        ("/data/projects/P2/experiments?label=Shared_01", []),
        ("/data/projects/P2/experiments?label=MR1", ["Shared_01"]),
        ("/data/projects/P2/subjects/subj_2/experiments", ["MR2", "Q1"]),
    ],
)  # fmt: skip
def test_experiment_lists(server: XnatServer, path: str, labels: list[str]) -> None:
    assert [row["label"] for row in ask(server, path).rows] == labels


def test_anchored_wildcards(server: XnatServer) -> None:
    server.world.wildcards = "anchored"
    assert [r["label"] for r in ask(server, "/data/experiments?label=R1*").rows] == []
    assert [r["label"] for r in ask(server, "/data/experiments?label=mr2*").rows] == ["MR2"]


def test_shape_of_lists(server: XnatServer) -> None:
    result = json.loads(ask(server, "/data/experiments").body)["ResultSet"]
    assert (result["totalRecords"], result["title"]) == ("4", "Matching experiments")
    keys = ["ID", "project", "date", "xsiType", "label", "insert_date", "URI"]
    assert list(result["Result"][0]) == keys
    result = json.loads(ask(server, "/data/projects/P1/experiments").body)["ResultSet"]
    assert list(result["Result"][0]) == [*keys, "xnat:subjectassessordata/id"]
    assert "title" not in result
    paged = json.loads(ask(server, "/data/experiments?limit=*").body)["ResultSet"]
    assert "totalRecords" not in paged
    row = ask(server, "/data/experiments?xsiType=xnat:mrSessionData&columns=label,nonsense").rows
    assert row == [{"label": "MR1", "URI": E, "xnat:mrsessiondata/id": "XNAT_E00001"}]
    shared = ask(server, "/data/projects/P2/experiments?ID=XNAT_E00001").rows[0]
    assert (shared["project"], shared["label"]) == ("P2", "Shared_01")
    text = ask(server, "/data/projects?format=csv&columns=ID,name").body
    assert text == b"ID,name,URI\nP1,Project 1,/data/projects/P1\nP2,P2,/data/projects/P2\n"
    assert b"<cell>P1</cell>" in ask(server, "/data/projects?format=xml").body


def test_rights_in_lists(server: XnatServer) -> None:
    bob, eve = ("bob", "pass:word"), ("eve", "eve")
    assert [row["ID"] for row in ask(server, "/data/projects", user=bob).rows] == ["P2"]
    hidden = ask(server, "/data/projects/P1/experiments", user=bob)
    assert (hidden.status, b"Unable to identify project P1" in hidden.body) == (404, True)
    unreadable = ask(server, "/data/projects/P2/experiments", user=eve)
    assert unreadable.status == 403
    assert [row["label"] for row in ask(server, "/data/experiments?project=P2", user=eve).rows] == []


def test_shared_sessions_may_be_missing_in_the_list_of_all(server: XnatServer) -> None:
    bob = ("bob", "pass:word")
    mr1 = session_of(server)
    labels = [row["label"] for row in ask(server, "/data/experiments", user=bob).rows]
    assert labels == ["MR1", "MR1_QC", "MR2", "Q1"]
    server.world.experiments.insert(0, mr1.project.session("MR0"))  # not shared
    labels = [row["label"] for row in ask(server, "/data/experiments", user=bob).rows]
    assert labels == ["MR1_QC", "MR2", "Q1"]
    labels = [row["label"] for row in ask(server, "/data/projects/P2/experiments", user=bob).rows]
    assert labels == ["Shared_01", "MR2", "Q1"]
    assert ask(server, E, user=bob).status == 200


def test_path_segments_are_raw(server: XnatServer) -> None:
    project = server.world.projects[0]
    session = project.session("my session")
    session.scan("1").resource("MY DICOM", {"a.dcm": b"a"})
    assert ask(server, "/data/projects/P1/experiments/my%20session").status == 404
    files = f"/data/experiments/{session.id}/scans/1/resources/MY%20DICOM/files"
    assert ask(server, files).status == 404
    assert len(ask(server, "/data/experiments?label=my%20session").rows) == 1
    both = f"/data/experiments/XNAT_E00001,{session.id}/scans/1/files?format=zip"
    assert {name.split("/")[0] for name in ask(server, both).names} == {"MR1", "my session"}
    assert ask(server, f"{E}/scans/{'1,' * 4096}1/files").status == 400  # Tomcat's 8 KB


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (E, 200),
        ("/data/archive/experiments/XNAT_E00001/scanz", 200),  # routes match by prefix
        ("/data/experiments/MR1", 404),  # a label
        ("/data/projects/P1/experiments/MR1", 200),
        ("/data/projects/P2/experiments/Shared_01", 200),
        ("/data/projects/P2/experiments/MR1", 404),
        ("/data/projects/P2/experiments/XNAT_E00001", 200),
        ("/data/experiments/nowhere/scans", 500),
        ("/data/projects/P1/subjects/subj_1/experiments/nowhere/scans", 404),
        ("/data/version", 404),
        ("/data/experiments/a%2Fb", 400),
        ("/data/nowhere", 404),
    ],
)
def test_statuses(server: XnatServer, path: str, status: int) -> None:
    assert ask(server, path).status == status


def test_session_document(server: XnatServer) -> None:
    assert ask(server, E).headers["Content-Type"].startswith("text/html")  # no format
    document = ask(server, E + "?format=xml").body
    root = ElementTree.fromstring(document)
    assert root.tag == "{http://nrg.wustl.edu/xnat}MRSession"
    assert [child.tag.split("}")[1] for child in root] == [
        *("sharing", "date", "resources", "subject_ID", "scans", "reconstructions", "assessors")
    ]
    scan = root.findall("xnat:scans/xnat:scan", NS)[0]
    assert (scan.get("ID"), scan.get("type")) == ("1", "T1 MPRAGE")
    assert [file.get("file_count") for file in scan.findall("xnat:file", NS)] == ["3", "1"]
    assert b'hidden_fields[xnat_abstractResource_id="101"' in document
    server.world.hidden_fields = False
    assert b"hidden_fields" not in ask(server, E + "?format=xml").body
    item = json.loads(ask(server, E + "?format=json").body)["items"][0]
    assert item["meta"]["xsi:type"] == "xnat:mrSessionData"
    assert item["data_fields"]["label"] == "MR1"


def test_sub_lists_ignore_filters(server: XnatServer) -> None:
    assert len(ask(server, E + "/scans?quality=usable").rows) == 3
    assert ask(server, E + "/assessors").rows[0]["session_ID"] == "XNAT_E00001"
    assert ask(server, E + "/reconstructions").rows[0]["type"] == "RECON A"
    assert [row["label"] for row in ask(server, E + "/resources").rows] == ["NOTES"]
    every = ask(server, E + "/resources?all=true").rows
    assert [(row["category"], row["cat_id"], row["label"]) for row in every] == [
        ("resources", "", "NOTES"),
        ("scans", "1", "DICOM"),
        ("scans", "1", ""),
        ("scans", "3-OT", "DICOM"),
        ("reconstructions", "R1", "NIFTI"),
        ("assessors", "XNAT_E00002", "DATA"),
    ]


# Files


def test_file_listing(server: XnatServer) -> None:
    reply = ask(server, E + "/scans/1/files")
    result = json.loads(reply.body)["ResultSet"]
    assert result["Columns"] == [{"key": "URI", "serverRoot": "/xnat"}]
    assert "totalRecords" not in result
    row = reply.rows[1]
    assert row["URI"] == E + "/scans/1/resources/101/files/sub/b c.dcm"
    assert (row["Size"], row["collection"]) == ("6000", "DICOM")
    assert re.fullmatch("[0-9a-f]{32}", row["digest"])
    server.world.digests = "empty"
    assert ask(server, E + "/scans/1/files").rows[0]["digest"] == ""
    server.world.digests, server.world.listed_sizes = "none", False
    row = ask(server, E + "/scans/1/files").rows[0]
    assert ("digest" in row, row["Size"]) == (False, "")
    longer = "/data/projects/P1/subjects/subj_1/experiments/MR1/scans/3-OT/files"
    assert ask(server, longer).rows[0]["URI"].startswith("/data/projects/P1/subjects/subj_1/exp")


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/scans/1/resources/NULL/files", ["x.gif"]),
        ("/scans/1/resources/102/files", ["x.gif"]),
        ("/scans/1/resources/DICOM,%4EULL/files", ["a.dcm", "b c.dcm", "n.dcm"]),  # raw
        ("/scans/ALL/resources/DICOM/files", ["a.dcm", "b c.dcm", "n.dcm", "c.dcm"]),
        ("/scans/T1+MPRAGE/resources/DICOM/files", ["a.dcm", "b c.dcm", "n.dcm"]),
        ("/scans/T1%20MPRAGE,9/resources/NULL/files", ["x.gif"]),
        ("/scans/t2%5BSLASH%5Dtse%5BCOMMA%5D%20sag/files", ["c.dcm"]),
        ("/scans/NULL/files", []),
        ("/scans/3-OT/files?file_content=RAW", []),
        ("/assessors/ALL/files", ["qc.txt"]),
        ("/assessors/MR1_QC/in/files", ["log.txt"]),
        ("/assessors/XNAT_E00002/out/resources/DATA/files", ["qc.txt"]),
        ("/assessors/xnat:qcManualAssessorData/files", ["qc.txt"]),
        ("/reconstructions/RECON%20A/files", ["r.nii"]),
        ("/files", ["n.txt"]),
        ("/resources/NOTES/files", ["n.txt"]),
        ("/files?all=true", ["n.txt", "a.dcm", "b c.dcm", "n.dcm", "x.gif", "c.dcm", "r.nii",
                             "qc.txt"]),
    ],
)  # fmt: skip
def test_what_a_path_selects(server: XnatServer, path: str, names: list[str]) -> None:
    assert [row["Name"] for row in ask(server, E + path).rows] == names


MEMBERS = [
    ("/scans/1/resources/DICOM/files?format=zip", [
        "MR1/scans/1-T1_MPRAGE/resources/DICOM/files/a.dcm",
        "MR1/scans/1-T1_MPRAGE/resources/DICOM/files/sub/b c.dcm",
        "MR1/scans/1-T1_MPRAGE/resources/DICOM/files/1-T1_MPRAGE/n.dcm"]),
    ("/scans/3-OT,1/resources/NULL/files?format=zip",
     ["MR1/scans/1-T1_MPRAGE/resources/102/files/x.gif"]),
    ("/scans/3-OT/files?format=zip", ["MR1/scans/3-OT-t2_tse__sag/resources/DICOM/files/c.dcm"]),
    ("/scans/3-OT/files?format=zip&structure=simplified", ["MR1/scans/3-OT/DICOM/c.dcm"]),
    ("/scans/3-OT/files?format=zip&structure=improved", ["scans/3-OT_t2_tse, sag/DICOM/c.dcm"]),
    ("/scans/3-OT/files?format=zip&structure=legacy", ["MR1/SCANS/3-OT/DICOM/c.dcm"]),
    ("/scans/3-OT/files?format=zip&projectIncludedInPath=true&structure=simplified",
     ["P1/MR1/scans/3-OT/DICOM/c.dcm"]),
    ("/assessors/ALL/files?format=zip", ["MR1_QC/out/resources/DATA/files/qc.txt"]),
    ("/reconstructions/R1/files?format=zip",
     ["MR1/reconstructions/R1-RECON_A/out/resources/NIFTI/files/r.nii"]),
    ("/files?format=zip", ["MR1/resources/NOTES/files/n.txt"]),
]  # fmt: skip


@pytest.mark.parametrize(("path", "names"), MEMBERS)
def test_member_paths(server: XnatServer, path: str, names: list[str]) -> None:
    assert ask(server, E + path).names == names


def test_everything_at_once(server: XnatServer) -> None:
    names = ask(server, E + "/files?all=true&format=zip").names
    assert "MR1/scans/1/resources/DICOM/files/a.dcm" in names  # no type
    server.world.old_assessor_layout = True
    old = ask(server, E + "/assessors/ALL/files?format=zip").names
    assert old == ["MR1/assessors/XNAT_E00002/out/resources/DATA/files/qc.txt"]


def test_short_archive_has_a_length(server: XnatServer) -> None:
    assert "Content-Length" in ask(server, E + "/files?format=zip").headers
    long = ask(server, E + "/scans/1/files?format=zip").headers
    assert (long["Content-Length"], long["Transfer-Encoding"]) == (None, "chunked")


UNDER = "/data/projects/P1/subjects/subj_1/experiments/MR1"


def test_lists_that_match_nothing(server: XnatServer) -> None:
    assert len(ask(server, E + "/scans/1,99/resources/NULL/files?format=zip").names) == 1
    assert ask(server, E + "/scans/99/files?format=zip").status == 500
    fallen = ask(server, UNDER + "/scans/99/files?format=zip")
    (name,) = fallen.names
    assert name == "MR1/projects/P1/subjects/XNAT_S00001/resources/CONSENT/files/consent.pdf"
    assert ask(server, E + "/scans/4/files?format=zip").status == 404
    assert ask(server, E + "/scans/1/resources/MISSING/files?format=zip").status == 404
    assert ask(server, "/data/projects/P1/subjects/nobody/experiments/MR1/scans/1/files").status == 404
    server.world.version = "1.7.4.1"
    assert ask(server, E + "/scans/99/files?format=zip").status == 404
    assert ask(server, E + "/scans/99/files").rows == []


def test_heads_and_ranges_lie(server: XnatServer) -> None:
    one, both = E + "/scans/1/files?format=zip", E + "/scans/1,3-OT/files?format=zip"
    assert ask(server, both, "HEAD").status == 404
    assert ask(server, one, "HEAD").status == 200
    assert ask(server, E + "/scans", "HEAD").status == 404
    assert ask(server, one, Range="bytes=9-").status == 500
    closed = ask(server, one, Range="bytes=0-99")
    assert (closed.status, len(closed.body) > 100) == (200, True)
    assert ask(server, one + "&compression=x").status == 400
    assert ask(server, one + "&compression=5").status == 500


def test_single_files(server: XnatServer) -> None:
    path = E + "/scans/1/resources/DICOM/files/"
    whole = ask(server, path + "sub/b%20c.dcm")
    assert whole.body == b"b" * 6000
    part = ask(server, path + "a.dcm", Range="bytes=4990-")
    assert (part.status, part.headers["Content-Range"]) == (206, "bytes 4990-4999/5000")
    assert ask(server, path + "a.dcm", Range="bytes=-10").body == b"a" * 10
    assert ask(server, path + "a.dcm", Range="bytes=0-1,4-5").status == 501
    since = whole.headers["Last-Modified"]
    assert ask(server, path + "a.dcm", If_Modified_Since=since).status == 304
    old = "Tue, 05 Mar 2009 11:12:13 GMT"
    assert ask(server, path + "a.dcm", If_Unmodified_Since=old).status == 412
    assert ask(server, path + "sub/b%63.dcm").status == 404  # only %20 and %2B are decoded
    gone = ask(server, path + "none.dcm")
    assert (gone.status, b"Unable to find file." in gone.body) == (404, True)


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
    assert len(FAULTS) > 15


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
