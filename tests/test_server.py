"""The test XNAT against XNAT's own bytes (`golden/`), and the traps it must hold."""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
import time
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import E, Reply, ask, full_world, session_of
from xnat_server import File, World, XnatServer

GOLDEN = Path(__file__).parent / "golden"
NS = {"xnat": "http://nrg.wustl.edu/xnat"}


@pytest.fixture()
def server() -> Iterator[XnatServer]:
    with XnatServer(full_world(), context="/xnat") as server:
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

TOKENS = "/data/services/tokens/"


def cookie_of(reply: Reply) -> str:
    return reply.headers["Set-Cookie"].split(";")[0]


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
    cookie = cookie_of(ask(server, "/data/auth"))
    for _ in range(20):
        assert ask(server, "/data/auth", user=("admin", "wrong")).status == 401
    assert ask(server, "/data/auth").status == 401
    assert ask(server, "/data/auth", Cookie=cookie).status == 200  # the header is not even read
    assert ask(server, "/data/auth", user=("bob", "pass:word")).status == 200
    assert server.refused_logins == ["admin"] * 21
    server.world.lock_minutes = 0
    assert ask(server, "/data/auth").status == 200
    assert server.site.logins.failures == {}


def test_a_right_password_forgives_earlier_failures(server: XnatServer) -> None:
    for _ in range(2):
        for _ in range(15):
            ask(server, "/data/auth", user=("admin", "wrong"))
        assert ask(server, "/data/auth").status == 200


def test_too_many_sessions_are_refused_and_registered(server: XnatServer) -> None:
    server.world.max_sessions = 2
    assert [ask(server, "/data/auth").status for _ in "123"] == [200, 200, 401]
    assert (server.sessions_opened, server.refused_logins) == (2, ["admin"])
    assert server.site.logins.failures == {}  # nothing that locks


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
    token = json.loads(ask(server, TOKENS + "issue").body)
    account = (token["alias"], token["secret"])
    days = (token["estimatedExpirationTime"] / 1000 - time.time()) / 86400
    assert (token["xdatUserId"], token["singleUse"], round(days, 1)) == ("admin", False, 2)
    assert ask(server, "/data/auth", user=account).body == b"User 'admin' is logged in"
    shown = json.loads(ask(server, TOKENS + "show", user=account).body)
    assert [each["alias"] for each in shown] == [account[0]]
    assert json.loads(ask(server, TOKENS + "validate/{}/{}".format(*account)).body) == {"valid": "admin"}
    assert ask(server, f"{TOKENS}invalidate/{account[0]}", user=("bob", "pass:word")).status == 403
    assert ask(server, f"{TOKENS}invalidate/{account[0]}").body == b'{"result": "OK"}'
    assert ask(server, f"{TOKENS}invalidate/{account[0]}").status == 404
    assert ask(server, "/data/auth", user=account).status == 401


def test_tokens_that_last_and_that_do_not(server: XnatServer) -> None:
    lasting, moment = server.world.token("bob", seconds=None), server.world.token("bob", seconds=0.2)
    for token in (lasting, moment):
        reply = ask(server, "/data/auth", user=(token.alias, token.secret))
        assert reply.body == b"User 'bob' is logged in"
    time.sleep(0.2)
    assert ask(server, "/data/auth", user=(moment.alias, moment.secret)).status == 401
    assert ask(server, "/data/auth", user=(lasting.alias, lasting.secret)).status == 200
    assert ask(server, "/data/auth", user=(lasting.alias, "wrong")).status == 401
    assert server.site.logins.failures["bob"] == 1


def test_token_for_a_single_use_is_spent_by_its_first_check(server: XnatServer) -> None:
    once = server.world.token(single_use=True)
    account = (once.alias, once.secret)
    first = ask(server, "/data/auth", user=account)
    assert first.status == 200
    cookie = cookie_of(first)
    assert ask(server, "/data/auth", user=None, Cookie=cookie).body == b"User 'admin' is logged in"
    assert ask(server, "/data/auth", user=account, Cookie=cookie).status == 401
    assert ask(server, "/data/auth", user=account).status == 401
    assert server.refused_logins == [once.alias] * 2
    wrong = server.world.token(single_use=True)
    assert ask(server, "/data/auth", user=(wrong.alias, "wrong")).status == 401
    assert ask(server, "/data/auth", user=(wrong.alias, wrong.secret)).status == 401
    seen = server.world.token(single_use=True)
    assert b"admin" in ask(server, f"{TOKENS}validate/{seen.alias}/{seen.secret}").body
    assert ask(server, "/data/auth", user=(seen.alias, seen.secret)).status == 401


def test_a_lasting_token_goes_with_its_cookie(server: XnatServer) -> None:
    token = server.world.token()
    account = (token.alias, token.secret)
    cookie = cookie_of(ask(server, "/data/auth", user=account))
    assert ask(server, "/data/auth", user=account, Cookie=cookie).status == 200
    assert ask(server, "/data/auth", Cookie=cookie).status == 200  # the same user's by name
    assert server.sessions_opened == 1


def test_site_without_passwords_takes_tokens(server: XnatServer) -> None:
    server.world.passwords = False
    reply = ask(server, "/data/auth")
    assert (reply.status, "WWW-Authenticate" in reply.headers) == (401, False)
    token = server.world.token()
    assert ask(server, "/data/auth", user=(token.alias, token.secret)).status == 200


def test_secure_cookies_over_plain_http() -> None:
    with XnatServer(full_world(), secure_cookies=True, expiration_numbers=1) as server:
        cookies = ask(server, "/data/auth").headers.get_all("Set-Cookie")
        assert re.fullmatch(r"JSESSIONID=\w{32}; Path=/; Secure; HttpOnly", cookies[0])
        assert re.fullmatch(r"SESSION_EXPIRATION_TIME=\d{13}; Path=/", cookies[1])
    with pytest.raises(TypeError, match="no such switch"):
        XnatServer(full_world(), cookies="none")


def test_log_in_by_basic_may_not_last(server: XnatServer) -> None:
    server.world.basic_lasts = False
    first = ask(server, "/data/auth")
    cookie = cookie_of(first)
    assert ask(server, "/data/auth", user=None, Cookie=cookie).status == 401
    assert ask(server, "/data/auth", Cookie=cookie).status == 200
    assert server.sessions_opened == 1


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


@pytest.mark.parametrize("bad", [";", ";v=1", "%3B", "%3b", "%25", "%5C", "%5c", "%2E", "//"])
def test_urls_that_springs_firewall_refuses(server: XnatServer, bad: str) -> None:
    path = f"{E}/scans/1{bad}/files"
    reply = ask(server, path)
    assert (reply.status, "Set-Cookie" in reply.headers) == (500, False)
    assert b"<b>Message</b> The request was rejected because the URL contained" in reply.body
    server.world.firewall = 400
    assert ask(server, path).status == 400
    assert ask(server, f"{E}?format=json&note={bad}").status == 200  # a query may have them
    server.world.firewall = 0
    assert b"rejected" not in ask(server, path).body


def test_scans_that_no_url_can_name_come_by_their_resources(server: XnatServer) -> None:
    session = session_of(server)
    odd = session.scan("50%;", type="a/b").resource("DICOM", {"p%.dcm": b"p"})
    assert ask(server, f"{E}/scans/50%25%3B/files").status == 500
    path = f"{E}/scans/ALL/resources/{odd.id},102/files"
    assert sorted(row["Name"] for row in ask(server, path).rows) == ["p%.dcm", "x.gif"]
    assert ask(server, path + "?format=zip").names == [
        "MR1/scans/1-T1_MPRAGE/resources/102/files/x.gif",
        "MR1/scans/50%;-a_b/resources/DICOM/files/p%.dcm",
    ]
    others = f"{E}/scans/ALL/resources/{session.assessors[0].resources[0].id}/files"
    assert ask(server, others).status == 404  # these resources, and of a scan


def test_paths_in_an_archive_are_rewritten_by_all_scans_asked_for(server: XnatServer) -> None:
    scan = session_of(server).scan("7", type="T2")
    resource = scan.resource("DICOM", {"1/a.dcm": b"a"})
    by_id = ask(server, f"{E}/scans/7/files?format=zip").names
    assert by_id == ["MR1/scans/7-T2/resources/DICOM/files/1/a.dcm"]
    by_resource = ask(server, f"{E}/scans/ALL/resources/{resource.id}/files?format=zip").names
    assert by_resource == ["MR1/scans/7-T2/resources/DICOM/files/1-T1_MPRAGE/a.dcm"]


def test_brackets_in_paths(server: XnatServer) -> None:
    session = session_of(server)
    session.scan("a/b").resource("DICOM", {"slash.dcm": b"s"})
    session.scan("a,b").resource("DICOM", {"comma.dcm": b"c"})
    session.reconstruction("r/1", "x/y").resource("NIFTI", {"slash.nii": b"s"})
    session.reconstruction("r2", "x,y").resource("NIFTI", {"comma.nii": b"c"})

    def names(path: str) -> list[str]:
        reply = ask(server, E + path)
        return [row["Name"] for row in reply.rows] if reply.status == 200 else []

    assert names("/scans/a%5BSLASH%5Db/files") == ["slash.dcm"]
    assert names("/scans/a%5BCOMMA%5Db/files") == []  # for types only
    assert names("/reconstructions/x%5BSLASH%5Dy/files") == []  # for scans only
    assert names("/reconstructions/x%5BCOMMA%5Dy/files") == []  # in lists only
    assert names("/reconstructions/x%5BCOMMA%5Dy,R9/files") == ["comma.nii"]


def test_resources_by_number_and_by_label(server: XnatServer) -> None:
    session = session_of(server)
    scan = session.scans[0]
    scan.resource("102", {"labelled.txt": b"l"})
    names = [row["Name"] for row in ask(server, f"{E}/scans/1/resources/102/files").rows]
    assert names == ["x.gif", "labelled.txt"]
    assert ask(server, f"{E}/scans/1/resources/DICOM,9999/files").status == 404  # no resource's
    server.world.labels_only = True
    assert ask(server, f"{E}/scans/1/resources/101/files").status == 404
    assert ask(server, f"{E}/scans/1/resources/DICOM,101/files?format=zip").status == 404
    assert len(ask(server, f"{E}/scans/1/resources/DICOM/files").rows) == 3
    assert ask(server, f"{E}?format=xml").status == 200


def test_whole_paths_are_decoded(server: XnatServer) -> None:
    names = ["a b#ü.dcm", "c+d.dcm", "e f+g.dcm", "h%20i.dcm", "j#k.dcm", "l+m n.dcm", "l m n.dcm"]
    session_of(server).scans[0].resource("ODD", {name: name.encode() for name in names})
    found = {
        "a%20b%23%C3%BC.dcm": "a b#ü.dcm",
        "c+d.dcm": "c+d.dcm",
        "c%2Bd.dcm": "c+d.dcm",
        "c%2bd.dcm": "c+d.dcm",
        "e%20f%2Bg.dcm": "e f+g.dcm",
        "j%23k.dcm": "j#k.dcm",  # though nothing decodes the path as a whole
        "l+m%20n.dcm": "l m n.dcm",  # Java takes + for a blank
        "h%20i.dcm": None,
    }
    for path, name in found.items():
        reply = ask(server, f"{E}/scans/1/resources/ODD/files/{path}")
        assert reply.status == (200 if name else 404)
        assert name is None or reply.body == name.encode()
    server.world.version = "1.7.4.1"
    assert ask(server, f"{E}/scans/1/resources/ODD/files/j%23k.dcm").status == 404


def test_listings_that_fail_inside(server: XnatServer) -> None:
    assert ask(server, "/data/experiments?date=2011-11-17").status == 500
    reply = ask(server, "/data/projects/P1/experiments?date=2011-11-17")
    assert (reply.status, reply.body, reply.headers["Content-Type"]) == (200, b"", None)
    assert len(ask(server, "/data/projects/P1/experiments?date=11/17/2011").rows) == 1
    for path in ("/scans", "/resources", "/scans/1/files"):
        server.fault("empty", match=path)
        reply = ask(server, E + path)
        assert (reply.status, reply.body) == (200, b"")
        assert ask(server, E + path).rows


def test_catalog_that_waits_for_its_refresh(server: XnatServer) -> None:
    resource = session_of(server).scan("8").resource("DICOM", {"a.dcm": b"a"}, unlisted=True)
    files = f"{E}/scans/8/resources/DICOM/files"
    assert ask(server, files).rows == []
    assert [row["file_count"] for row in ask(server, f"{E}/scans/8/resources").rows] == ["1"]
    assert ask(server, files + "?format=zip").status == 404
    assert ask(server, files + "/a.dcm").status == 404
    resource.unlisted = False
    assert len(ask(server, files).rows) == 1


def test_latin_1_listings(server: XnatServer) -> None:
    server.world.charset = "latin-1"
    session_of(server).note = "für – später"  # noqa: RUF001
    session_of(server).scans[0].resources[1].add("ü.txt", b"u")
    for format in ("json", "csv", "xml"):
        body = ask(server, f"/data/experiments?columns=ID,note&format={format}").body
        assert b"f\xfcr ? sp\xe4ter" in body
    assert b'"\xfc.txt"' in ask(server, f"{E}/scans/1/resources/102/files").body
    assert "für – später".encode() in ask(server, f"{E}?format=xml").body  # noqa: RUF001
    assert ask(server, f"{E}/scans/1/resources/102/files/%FC.txt").body == b"u"
    assert "MR1/scans/1-T1_MPRAGE/resources/102/files/ü.txt" in (
        ask(server, f"{E}/scans/1/resources/102/files?format=zip").names
    )


def test_rights_by_the_first_column(server: XnatServer) -> None:
    both = [
        f"/data/experiments?columns={columns}&xsiType={type}"
        for columns, type in (("label,ID", "xnat:imageSessionData"), ("label,ID", "xnat:mrSessionData"))
    ]
    assert [len(ask(server, path).rows) for path in both] == [2, 1]
    server.world.first_column_rights = True
    assert [len(ask(server, path).rows) for path in both] == [0, 1]
    assert len(ask(server, "/data/experiments?columns=ID,label").rows) == 4
    assert len(ask(server, "/data/experiments").rows) == 4


def test_xnat_1_11(server: XnatServer) -> None:
    server.world.restlet = 2
    session_of(server).scans[0].resource("EMPTY", {"none.txt": b""})
    page = ask(server, "/data/experiments/nowhere").body
    assert b"<title>Status page</title>" in page
    assert b"<h3>" not in page
    reason, message = re.findall(rb"<p[^>]*>([^<]*)</p>", page)
    assert (reason, message) == (b"Not Found", b"Unable to find the specified experiment.")
    path = f"{E}/scans/1/resources/EMPTY/files/none.txt"
    empty = ask(server, path)
    assert (empty.status, empty.body) == (204, b"")
    assert [name for name in empty.headers if name.startswith(("Content-", "Transfer"))] == [
        "Content-Security-Policy"
    ]
    assert ask(server, f"{E}/scans/1%zz/files").status == 500
    assert ask(server, f"{E}/scans/1/files?format=zip").names
    server.fault("empty", match="scans")
    assert ask(server, f"{E}/scans").status == 204
    server.fault("status", match="scans", status=500, message="Out of order")
    assert b"<p>Out of order</p>" in ask(server, f"{E}/scans").body
    assert ask(server, "/data/JSESSION", "DELETE").status == 200
    server.world.restlet = 1
    assert (ask(server, path).status, ask(server, path).headers["Content-Length"]) == (200, "0")


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
    alone = ask(server, E + "/resources?columns=label").rows
    assert [(row["cat_id"], row["label"]) for row in alone] == [("XNAT_E00001", "NOTES")]
    every = ask(server, E + "/resources?all=true").rows
    assert [(row["category"], row["cat_id"], row["label"]) for row in every] == [
        ("resources", "", "NOTES"),  # its session only without all=true
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
