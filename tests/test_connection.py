"""Log-in, log-out, redirects, TLS, proxies, waiting: all that lies between xget and an archive."""

from __future__ import annotations

import contextlib
import email.utils
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

import pytest
from conftest import Xget
from network import Authority, Gate, Proxy, Socks, basic
from truth import read_zip, truth
from xnat_server import Synthetic, World, XnatServer

ALL_THREE = ["sess_1_acq.zip", "sess_1_ass.zip", "sess_1_recon.zip"]
ONE = ("-s", "sess_1", "-acq", "1", "-ass", "NONE", "-recon", "NONE")
LOGIN = "GET .*/data/auth"


def sent(server: XnatServer, pattern: str = "") -> list[str]:
    """Name the requests that a server got, as METHOD path."""
    lines = [f"{r.method} {r.path}" for r in server.requests]
    return [line for line in lines if re.search(pattern, line)]


def clean(text: str) -> bool:
    """Whether every line of standard error is one of xget's."""
    return all(re.fullmatch(r"xget: [^\n]+: [^\n]+", line) for line in text.splitlines())


def one_line(text: str) -> bool:
    return bool(re.fullmatch(r"xget: [^\n]+: [^\n]+\n", text))


# --- log-in -----------------------------------------------------------------------------


def test_one_log_in_serves_queries_and_transfers_and_is_ended(xget: Xget, server: XnatServer) -> None:
    status, _, err = xget("-s", "sess_1", "-j", "4")
    assert (status, err) == (0, "")
    assert xget.files() == ALL_THREE
    assert server.sessions_opened == 1
    assert len(sent(server, LOGIN)) == 1
    assert server.site.logins.sessions == {}
    assert sent(server)[-1] == "DELETE /data/JSESSION"


def test_every_request_names_xget_and_carries_the_credentials_and_the_cookie(
    xget: Xget, server: XnatServer
) -> None:
    assert xget("-s", "sess_1").status == 0
    for number, request in enumerate(server.requests):
        assert re.match(r"xget/\d", request.headers["user-agent"])
        assert request.method == "DELETE" or basic(request.headers["authorization"]) == "admin:admin"
        assert number == 0 or "JSESSIONID=" in request.headers["cookie"]


class Refused(NamedTuple):
    """A log-in that fails: what the server does, what the one line quotes, how often it is tried."""

    says: str
    world: Optional[dict[str, Any]] = None
    fault: Optional[dict[str, Any]] = None
    tries: int = 1


REFUSED = {
    "wrong password": Refused("Login attempt failed. Please try again.", {"users": {"admin": "other"}}),
    "unknown user": Refused("Login attempt failed. Please try again.", {"users": {}}),
    "too many sessions": Refused("Login attempt failed. Please try again.", {"max_sessions": 0}),
    "the site's own words": Refused(
        "Call <the> lab & ask.", {"users": {}, "login_failure": "Call <the> lab & ask."}
    ),
    "expired password": Refused("browser .*UpdateUser", {"expired_passwords": {"admin"}}),
    "inactive account": Refused("browser .*InactiveAccount", {"inactive": {"admin"}}),
    "site not configured": Refused("Site has not yet been configured", {"site": "not configured"}),
    "site to be set up": Refused("/setup", {"site": "setup"}),
    "403": Refused(
        "Your password has expired", fault={"status": 403, "message": "Your password has expired"}
    ),
    "500, once more": Refused("out of order", fault={"status": 500, "message": "out of order"}, tries=2),
    "502 of a proxy, as -retry says": Refused("502", fault={"status": 502, "page": "nginx"}, tries=3),
    "503 of a proxy, as -retry says": Refused("503", fault={"status": 503, "page": "nginx"}, tries=3),
    "a web page with status 200": Refused("XNAT", fault={"kind": "html"}),
    "a portal's web page": Refused("XNAT", fault={"kind": "html", "body": "<html><h1>Wi-Fi</h1></html>"}),
    "an empty answer": Refused("XNAT", fault={"kind": "answer"}),
    "a guest": Refused("guest", fault={"kind": "answer", "body": b"User 'guest' is logged in"}),
    "no answer at all, as -retry says": Refused("connection lost", fault={"kind": "cut"}, tries=3),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_log_in_that_fails_ends_in_status_3_and_one_line(
    case: Refused, world: World, xget: Xget, server: XnatServer
) -> None:
    for name, value in (case.world or {}).items():
        setattr(world, name, value)
    if case.fault:
        details = dict(case.fault)
        server.fault(details.pop("kind", "status"), match=LOGIN, times=None, **details)
    status, out, err = xget("-s", "sess_1", "-retry", "0,0")
    assert (status, out) == (3, "")
    assert one_line(err), err
    assert server.url in err
    assert re.search(case.says, err)
    assert "<h" not in err
    assert len(sent(server, LOGIN)) == case.tries
    assert not sent(server, "GET .*experiments")
    assert len(server.refused_logins) <= 1
    assert xget.files() == []


def test_a_server_too_old_for_the_proof_of_a_log_in_is_asked_for_a_listing(
    xget: Xget, server: XnatServer
) -> None:
    server.fault("status", match=LOGIN, times=None, status=404)
    assert xget(*ONE).status == 0


def test_a_log_in_to_which_no_connection_comes_about_is_tried_as_retry_says(xget: Xget) -> None:
    with socket.socket() as taken:  # bound, not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        account = ("-host", url, "-u", "admin", "-p", "admin", "-retry", "0,0")
        status, out, err = xget(*account, *ONE, login=False)
        assert (status, out) == (3, "")
        assert one_line(err)
        assert url in err
        assert "refused" in err
        said = xget(*account, "-v", *ONE, login=False).err
        assert len(re.findall("refused", said)) == 3
    assert xget.files() == []


def test_a_server_that_comes_back_during_the_log_in_is_found(xget: Xget, server: XnatServer) -> None:
    server.stop()
    process = xget.start(*ONE, "-v", "-retry", "1,1,1,1,1,1,1,1,1,1")
    assert process.stderr
    assert "no connection" in process.stderr.readline()
    server.start()
    process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_log_in_that_a_front_end_refuses_is_tried_again(
    status: int, xget: Xget, server: XnatServer
) -> None:
    server.fault("status", match=LOGIN, times=2, status=status, page="nginx")
    got, _, err = xget(*ONE, "-retry", "0,0")
    assert (got, err) == (0, "")
    assert len(sent(server, LOGIN)) == 3


def test_a_secure_cookie_is_kept_on_http(xget: Xget, world: World, server: XnatServer) -> None:
    """A site with an https address that is reached through a tunnel; accounts have a limit of sessions."""
    world.secure_cookies, world.max_sessions = True, 1
    status, _, err = xget("-s", "sess_1")
    assert (status, err) == (0, "")
    assert server.sessions_opened == 1
    assert server.site.logins.sessions == {}


@pytest.mark.parametrize("jobs", ["1", "16"])
def test_a_site_that_wants_the_password_each_time_gets_it(
    jobs: str, xget: Xget, world: World, server: XnatServer
) -> None:
    """Perhaps XNAT 1.11: a log-in by Basic does not last in its session."""
    world.basic_lasts = False
    for number in range(2, 10):
        scan = world.projects[0].session(f"sess_{number}").scan("1")
        scan.resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    status, out, err = xget("-proj", "proj_3", "-j", jobs, "-retry", "NONE")
    assert (status, err, len(out.splitlines())) == (0, "", 11)
    assert server.sessions_opened == 1
    assert server.refused_logins == []


@pytest.mark.parametrize("jobs", ["1", "16"])
def test_a_token_for_a_single_use_serves_a_run(
    jobs: str, xget: Xget, world: World, server: XnatServer
) -> None:
    world.passwords = False
    token = world.token(single_use=True)
    for number in range(2, 6):
        scan = world.projects[0].session(f"sess_{number}").scan("1")
        scan.resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    account = ("-host", server.url, "-u", token.alias, "-p", token.secret)
    status, _, err = xget(*account, "-proj", "proj_3", "-j", jobs, login=False)
    assert (status, err) == (0, "")
    assert len(server.refused_logins) <= 2
    assert (
        sum(r.status == 200 and r.method == "DELETE" for r in server.requests) == server.sessions_opened == 1
    )


def test_a_token_that_has_just_expired_serves_while_its_cookie_does(
    xget: Xget, world: World, server: XnatServer
) -> None:
    token = world.token()
    server.fault("call", match="format=xml", action=lambda: world.tokens.pop(token.alias, None))
    status, _, err = xget("-host", server.url, "-u", token.alias, "-p", token.secret, *ONE, login=False)
    assert (status, err) == (0, "")
    assert xget.files() == ["sess_1_acq.zip"]


@pytest.mark.parametrize("jobs", ["1", "2", "16"])
def test_a_password_changed_in_mid_run_is_refused_three_times_at_most(
    jobs: str, xget: Xget, world: World, server: XnatServer
) -> None:
    for number in range(2, 40):
        scan = world.projects[0].session(f"sess_{number}").scan("1")
        scan.resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    server.latency = 0.02

    def change() -> None:
        world.users["admin"] = "another"
        server.expire_sessions()

    server.fault("call", match="/files.*format=json", action=change)
    status, _, err = xget("-proj", "proj_3", "-j", jobs, "-retry", "0,0")
    assert status == 3
    assert clean(err), err
    assert "Login attempt failed" in err.splitlines()[-2]
    assert 1 <= len(server.refused_logins) <= 3


def test_a_balancers_cookie_goes_with_every_request_and_with_the_log_out(
    xget: Xget, server: XnatServer
) -> None:
    server.fault("balancer", times=None)
    status, _, err = xget("-s", "sess_1")
    assert (status, err) == (0, "")
    assert all("ROUTEID=.node1" in request.headers["cookie"] for request in server.requests[1:])
    assert sent(server)[-1] == "DELETE /data/JSESSION"
    assert server.site.logins.sessions == {}


def test_a_large_cookie_and_many_of_them_are_not_sent_back(xget: Xget, server: XnatServer) -> None:
    """They would make each request too long for the server."""
    server.fault(
        "answer", match=LOGIN, body=b"User 'admin' is logged in", headers={"Set-Cookie": "x=" + "y" * 5000}
    )
    status, _, err = xget(*ONE)
    assert (status, err) == (0, "")
    assert all(len(request.headers.get("cookie", "")) < 1000 for request in server.requests)


@pytest.mark.parametrize("match", ["", LOGIN, "format=xml", "format=zip"])
def test_a_front_end_of_http_1_0_serves(match: str, xget: Xget, server: XnatServer) -> None:
    server.fault("http10", match=match, times=None)
    status, _, err = xget("-s", "sess_1")
    assert (status, err) == (0, "")
    assert xget.files() == ALL_THREE
    assert server.sessions_opened == 1


# --- a log-in that ends -----------------------------------------------------------------


@pytest.mark.parametrize("open_site", [False, True], ids=["closed site", "open site"])
def test_a_log_in_that_idles_out_is_healed_however_often(
    open_site: bool, world: World, xget: Xget, server: XnatServer
) -> None:
    world.require_login = not open_site
    world.session_requests = 1
    status, _, err = xget("-s", "sess_1", "-j", "1")
    assert (status, err) == (0, "")
    assert xget.files() == ALL_THREE
    assert server.sessions_opened > 4
    assert len(sent(server, LOGIN)) == 1


@pytest.mark.parametrize("match", ["format=xml", "/files.*format=json", "format=zip"])
def test_one_401_in_mid_run_is_asked_once_more_without_the_password(
    match: str, xget: Xget, server: XnatServer
) -> None:
    server.fault("status", match=match, status=401)
    status, _, err = xget(*ONE, "-retry", "NONE")
    assert (status, err) == (0, "")
    assert xget.files() == ["sess_1_acq.zip"]
    _, again = [r for r in server.requests if re.search(match, r.path)][:2]
    assert "authorization" not in again.headers
    assert "JSESSIONID=" in again.headers["cookie"]


def test_a_401_after_another_one_ends_the_run(xget: Xget, server: XnatServer) -> None:
    for match in ("format=xml", "format=zip"):
        server.fault("status", match=match, status=401, message="Who are you?", page="tomcat")
    status, out, err = xget(*ONE, "-retry", "0,0")
    assert (status, out) == (3, "")
    assert "Who are you?" in err
    assert xget.files() == []


@pytest.mark.parametrize("match", ["format=xml", "/files.*format=json", "format=zip"])
def test_a_second_401_for_one_request_ends_the_run(match: str, xget: Xget, server: XnatServer) -> None:
    server.fault("status", match=match, times=None, status=401, message="Who are you?", page="tomcat")
    status, out, err = xget("-s", "XNAT_E00001", *ONE[2:], "-retry", "0,0,0")
    assert (status, out) == (3, "")
    assert clean(err), err
    assert "Who are you?" in err
    assert len(sent(server, match)) == 2
    assert xget.files() == []
    assert sent(server)[-1] == "DELETE /data/JSESSION"


@pytest.mark.parametrize("match", ["GET .*XNAT_E00001.format=xml", "/files.*format=json"])
def test_a_404_to_a_guest_is_not_believed(match: str, xget: Xget, server: XnatServer) -> None:
    server.fault("status", match=match, status=404)
    server.fault("answer", match=LOGIN, skip=1, body=b"User 'guest' is logged in")
    status, _, err = xget("-s", "XNAT_E00001", *ONE[2:], "-retry", "NONE")
    assert (status, err) == (0, "")
    assert xget.files() == ["XNAT_E00001_acq.zip"]


def test_an_empty_listing_to_a_guest_is_not_believed(xget: Xget, server: XnatServer) -> None:
    server.fault("listing", match="GET /data/projects/proj_3/experiments.format=json", edit=lambda rows: [])
    server.fault("answer", match=LOGIN, skip=1, body=b"User 'guest' is logged in")
    status, _, err = xget("-proj", "proj_3", *ONE[2:], "-retry", "NONE")
    assert (status, err) == (0, "")
    assert xget.files() == ["sess_1_acq.zip"]


def test_an_empty_listing_of_files_to_a_guest_is_not_believed(xget: Xget, server: XnatServer) -> None:
    server.fault("listing", match="/files.*format=json", edit=lambda rows: [])
    server.fault("answer", match=LOGIN, skip=1, body=b"User 'guest' is logged in")
    status, _, err = xget(*ONE, "-retry", "NONE")
    assert (status, err) == (0, "")
    assert xget.files() == ["sess_1_acq.zip"]


def test_a_server_that_takes_us_for_a_guest_ever_after_ends_the_run(xget: Xget, server: XnatServer) -> None:
    server.fault("status", match="format=xml", times=None, status=404)
    server.fault("answer", match=LOGIN, skip=1, times=None, body=b"User 'guest' is logged in")
    status, out, err = xget(*ONE, "-retry", "NONE")
    assert (status, out) == (3, "")
    assert one_line(err)
    assert "guest" in err


def test_a_password_that_expires_in_mid_run_ends_it(world: World, xget: Xget, server: XnatServer) -> None:
    server.fault("call", match="/files.*format=json", action=lambda: world.expired_passwords.add("admin"))
    status, out, err = xget(*ONE)
    assert (status, out) == (3, "")
    assert clean(err), err
    assert "browser" in err
    assert xget.files() == []


# --- log-out ----------------------------------------------------------------------------

ENDS = {
    "all is there": (0, ("-s", "sess_1"), {}),
    "a session that is not found": (1, ("-s", "nobody"), {}),
    "a transfer that fails": (1, (*ONE, "-retry", "NONE"), {"kind": "cut", "match": "format=zip|dcm"}),
    "a constraint that matches nothing": (4, ("-s", "sess_1", "-q", "good"), {}),
    "a list": (0, ("-s", "sess_1", "-list"), {}),
    "a redirect in mid-run": (
        1,
        (*ONE, "-retry", "NONE"),
        {"kind": "redirect", "match": "format=zip|dcm", "location": "http://other.example.org/"},
    ),
}


@pytest.mark.parametrize(("status", "argv", "fault"), ENDS.values(), ids=ENDS)
def test_the_log_in_is_ended_when(
    status: int, argv: tuple[str, ...], fault: dict[str, Any], xget: Xget, server: XnatServer
) -> None:
    if fault:
        server.fault(**fault, times=None)
    assert xget(*argv).status == status
    assert server.site.logins.sessions == {}
    assert server.sessions_opened == 1


MOMENTS = {
    "during the log-in": ("silence", LOGIN, {"seconds": 60}),
    "during the look-up": ("silence", "format=xml", {"seconds": 60}),
    "during a listing": ("silence", "/files.*format=json", {"seconds": 60}),
    "before a transfer's first byte": ("silence", "format=zip", {"seconds": 60}),
    "before a transfer's first file": ("silence", "format=zip", {"seconds": 60, "after": 900}),
    "while waiting to try again": ("status", "format=zip", {"status": 503}),
}
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
if os.name == "posix":
    WORDS[signal.SIGHUP] = "hung up"


def stop(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    """Send a signal, and wait for the end."""
    process.send_signal(number)
    try:
        out, err = process.communicate(timeout=15)
    finally:
        process.kill()
    return process.returncode, out, err


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("number", WORDS)
@pytest.mark.parametrize(("kind", "match", "details"), MOMENTS.values(), ids=MOMENTS)
def test_a_signal_before_anything_came_logs_out_and_leaves_nothing_behind(
    kind: str, match: str, details: dict[str, Any], number: signal.Signals, xget: Xget, server: XnatServer
) -> None:
    server.fault(kind, match=match, times=None, **details)
    process = xget.start(*ONE, "-retry", "60")
    wait_until(lambda: sent(server, match))
    time.sleep(0.3)  # let it read, or begin to wait
    assert stop(process, number) == (128 + number, "", f"xget: {WORDS[number]}\n")
    assert xget.files() == []
    if match != LOGIN:
        assert server.site.logins.sessions == {}


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("number", WORDS)
def test_a_signal_keeps_what_was_proven_says_so_in_one_line_and_logs_out(
    number: signal.Signals, world: World, xget: Xget, server: XnatServer
) -> None:
    world.sessions()[0].scans[0].resources[0].add("big.dcm", Synthetic(4_000_000))
    fault = server.fault("slow", match="format=zip", rate=20_000)
    process = xget.start(*ONE)
    wait_until(lambda: any(r.bytes_sent > 8192 for r in server.requests if fault.match.search(r.path)))
    time.sleep(0.5)  # the first files are in these bytes
    status, out, err = stop(process, number)
    assert (status, out) == (128 + number, "")
    kept, *_, last = err.splitlines()
    assert re.fullmatch(r"xget: sess_1 acq: [^\n]*sess_1_acq\.incomplete\.zip", kept), err
    assert last == f"xget: {WORDS[number]}"
    assert xget.files() == ["sess_1_acq.incomplete.zip"]
    assert sorted(os.path.basename(name) for name in read_zip(xget.folder / "sess_1_acq.incomplete.zip")) == [
        f"{n}.dcm" for n in range(1, 5)
    ]
    assert server.site.logins.sessions == {}
    server.clear()
    assert xget(*ONE)[::2] == (0, "")
    assert not sent(server, "format=zip")  # only what was missing is asked for
    assert len(sent(server, "big.dcm")) == 1
    wanted = {name: data for name, data in truth(world.sessions()[0], "acq").items() if "/scans/1-" in name}
    assert read_zip(xget.folder / "sess_1_acq.zip") == wanted


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_what_was_complete_before_a_signal_stays(xget: Xget, server: XnatServer) -> None:
    server.fault("silence", match="reconstructions.*format=zip", seconds=60, after=10)
    process = xget.start("-s", "sess_1")
    wait_until(lambda: set(ALL_THREE[:2]) <= set(xget.files()))
    status, out, _ = stop(process, signal.SIGINT)
    assert status == 130
    assert sorted(os.path.basename(line) for line in out.splitlines()) == ALL_THREE[:2]
    assert xget.files() == ALL_THREE[:2]


def wait_until(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# --- redirects --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def secure(world: World, server: XnatServer, authority: Authority) -> Iterator[XnatServer]:
    """The same site as `server`, with TLS."""
    certificate = authority.issue("127.0.0.1", "localhost", "xnat.example.org")
    with XnatServer(world, certificate=certificate) as secure:
        secure.site = server.site
        yield secure


@pytest.mark.parametrize("match", [LOGIN, "format=xml", "/files.*format=json", "format=zip"])
def test_a_redirect_to_https_on_the_same_host_is_followed(
    match: str, xget: Xget, server: XnatServer, secure: XnatServer, authority: Authority
) -> None:
    server.fault("redirect", match=match, times=None, location=secure.url + "{path}", status=301)
    status, _, err = xget(*ONE, "-cacert", authority.file)
    assert (status, err) == (0, "")
    assert xget.files() == ["sess_1_acq.zip"]
    assert len(sent(server, match)) == 1
    assert not sent(server, "DELETE")
    assert sent(secure)[-1] == "DELETE /data/JSESSION"
    assert server.site.logins.sessions == {}


def test_a_redirect_to_https_is_said_with_v(
    xget: Xget, server: XnatServer, secure: XnatServer, authority: Authority
) -> None:
    server.fault("redirect", times=None, location=secure.url + "{path}")
    err = xget("-v", *ONE, "-cacert", authority.file).err
    assert re.search(rf"^xget: {re.escape(secure.url)}: .*https", err, re.MULTILINE)


@pytest.mark.parametrize("match", [LOGIN, "format=xml", "format=zip|dcm"])
@pytest.mark.parametrize("kind", ["another name", "another port", "another path", "a port that is none"])
def test_any_other_redirect_is_an_error_that_names_its_target(
    kind: str, match: str, world: World, xget: Xget, server: XnatServer
) -> None:
    with XnatServer(world) as other:
        target = {
            "another name": f"http://localhost:{other.port}{{path}}",
            "another port": other.url + "{path}",
            "another path": server.url + "/elsewhere{path}",
            "a port that is none": "http://127.0.0.1:99999{path}",
        }[kind]
        server.fault("redirect", match=match, times=None, location=target)
        status, out, err = xget(*ONE, "-retry", "0")
        assert (status, out) == (3 if match == LOGIN else 1, "")
        assert target.partition("{")[0] in err
        assert "Traceback" not in err
        assert other.requests == []
        assert not sent(server, "elsewhere")
        assert xget.files() == []


def test_a_redirect_from_https_to_http_is_not_followed(
    xget: Xget, server: XnatServer, secure: XnatServer, authority: Authority
) -> None:
    secure.fault("redirect", times=None, location=server.url + "{path}")
    account = ("-host", secure.url, "-u", "admin", "-p", "admin", "-cacert", authority.file)
    status, _, err = xget(*account, *ONE, login=False)
    assert status == 3
    assert one_line(err)
    assert server.url in err
    assert server.requests == []


def test_a_redirect_to_https_on_another_name_is_not_followed(
    xget: Xget, server: XnatServer, secure: XnatServer, authority: Authority
) -> None:
    server.fault("redirect", times=None, location=f"https://localhost:{secure.port}{{path}}")
    status, _, err = xget(*ONE, "-cacert", authority.file)
    assert status == 3
    assert f"https://localhost:{secure.port}" in err
    assert secure.requests == []


@pytest.mark.parametrize("match", ["format=xml", "/files.*format=json", "format=zip"])
def test_a_redirect_under_app_in_mid_run_says_that_the_account_needs_attention(
    match: str, xget: Xget, server: XnatServer
) -> None:
    page = server.url + "/app/template/XDATScreen_UpdateUser.vm"
    server.fault("redirect", match=match, times=None, location=page)
    status, out, err = xget(*ONE)
    assert (status, out) == (3, "")
    assert clean(err), err
    assert "browser" in err
    assert page in err


# --- TLS --------------------------------------------------------------------------------


def at(server: XnatServer) -> tuple[str, ...]:
    return ("-host", server.url, "-u", "admin", "-p", "admin")


TRUST = {
    "-cacert": (("-cacert", "{ca}"), ""),
    "REQUESTS_CA_BUNDLE": ((), "REQUESTS_CA_BUNDLE"),
    "CURL_CA_BUNDLE": ((), "CURL_CA_BUNDLE"),
    "SSL_CERT_FILE": ((), "SSL_CERT_FILE"),
}


@pytest.mark.parametrize(("argv", "name"), TRUST.values(), ids=TRUST)
def test_a_ca_reaches_queries_and_transfers(
    argv: tuple[str, ...], name: str, xget: Xget, secure: XnatServer, authority: Authority
) -> None:
    xget.env.update({name: authority.file} if name else {})
    words = [word.format(ca=authority.file) for word in argv]
    status, _, err = xget(*at(secure), *words, "-s", "sess_1", login=False)
    assert (status, err) == (0, "")
    assert xget.files() == ALL_THREE
    assert secure.sessions_opened == 1


@pytest.mark.parametrize(("argv", "name"), TRUST.values(), ids=TRUST)
def test_a_folder_of_cas_is_taken(
    argv: tuple[str, ...], name: str, xget: Xget, secure: XnatServer, authority: Authority
) -> None:
    folder = authority.directory()
    xget.env.update({name: folder} if name else {})
    words = [word.format(ca=folder) for word in argv]
    status, _, err = xget(*at(secure), *words, *ONE, login=False)
    assert (status, err) == (0, "")


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_variable_that_names_no_ca_is_named_before_any_request(
    name: str, xget: Xget, secure: XnatServer
) -> None:
    xget.env[name] = str(xget.home / "missing.pem")
    status, out, err = xget(*at(secure), *ONE, login=False)
    assert (status, out) == (2, "")
    assert re.fullmatch(rf"xget: {name}: [^\n]*missing\.pem[^\n]*\n", err), err
    assert "-cacert" not in err
    assert secure.requests == []


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_variable_that_names_no_ca_does_not_matter_to_http(
    name: str, xget: Xget, server: XnatServer
) -> None:
    xget.env[name] = str(xget.home / "missing.pem")
    status, _, err = xget(*ONE)
    assert (status, err) == (0, "")


def test_insecure_trusts_any_certificate_in_queries_and_transfers_with_one_warning(
    xget: Xget, world: World, authority: Authority
) -> None:
    with XnatServer(world, certificate=authority.issue("nobody.example.org", days=-1)) as bad:
        status, _, err = xget(*at(bad), "-insecure", "-s", "sess_1", login=False)
        assert status == 0
        assert xget.files() == ALL_THREE
        assert re.fullmatch(r"xget: warning: [^\n]+\n", err), err
        assert xget(*at(bad), "-insecure", "-quiet", *ONE, "-overwrite", login=False).err == ""


class Bad(NamedTuple):
    """A certificate that is refused, and the remedy that the line names."""

    says: str
    signer: str = ""
    name: str = "127.0.0.1"
    days: int = 30
    since: int = -60


BAD = {
    "signed by an unknown CA": Bad("-cacert names a CA", signer="Stranger"),
    "for another name": Bad("another.*-host", name="other.example.org"),
    "expired": Bad("expired.*the server needs a new one", days=-1),
    "not yet valid": Bad("not yet valid.*clock", since=1),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_a_certificate_is_refused_in_one_line_with_its_cause_before_any_request(
    case: Bad, xget: Xget, world: World, authority: Authority
) -> None:
    issuer = Authority(authority.folder, case.signer) if case.signer else authority
    certificate = issuer.issue(case.name, days=case.days, since=case.since)
    with XnatServer(world, certificate=certificate) as bad:
        status, out, err = xget(*at(bad), "-cacert", authority.file, *ONE, login=False)
        assert (status, out) == (3, "")
        assert one_line(err), err
        assert re.search(f"certificate: .*{case.says}", err), err
        assert ("-cacert" in err) == bool(case.signer)
        assert not re.search(r"_ssl\.c|\)$", err)
        assert bad.requests == []


def test_an_unknown_ca_is_refused_with_the_way_out(xget: Xget, secure: XnatServer) -> None:
    status, _, err = xget(*at(secure), *ONE, login=False)
    assert status == 3
    assert one_line(err)
    assert "-cacert" in err
    assert secure.requests == []


def test_a_new_connection_checks_the_certificate_anew(
    xget: Xget, secure: XnatServer, authority: Authority
) -> None:
    """The server changes its certificate in mid-run, and closes the connection."""
    stranger = Authority(authority.folder, "Another CA").issue("127.0.0.1")

    def change() -> None:
        assert secure.tls
        secure.tls.load_cert_chain(*stranger)

    for kind, details in (("call", {"action": change}), ("http10", {})):
        secure.fault(kind, match="/files.*format=json", **details)
    words = ("-cacert", authority.file, "-retry", "0,0")
    status, out, err = xget(*at(secure), *words, *ONE, login=False)
    assert (status, out) == (3, "")
    assert clean(err), err
    assert "certificate" in err
    assert not sent(secure, "format=zip")
    assert xget.files() == []


def test_cacert_alone_counts_where_it_is_given(xget: Xget, secure: XnatServer, authority: Authority) -> None:
    xget.env["SSL_CERT_FILE"] = authority.file
    stranger = Authority(authority.folder, "Third CA").file
    status, _, err = xget(*at(secure), "-cacert", stranger, *ONE, login=False)
    assert status == 3
    assert "certificate" in err


def through(gate: Gate, authority: Authority) -> tuple[str, ...]:
    """The flags that lead through a gate to a server with TLS."""
    account = ("-u", "admin", "-p", "admin", "-cacert", authority.file)
    return ("-host", f"https://127.0.0.1:{gate.port}", *account)


@pytest.mark.parametrize("number", [1, 2], ids=["of the log-in", "of the transfer"])
def test_a_handshake_that_ends_early_is_tried_again(
    number: int, xget: Xget, secure: XnatServer, authority: Authority
) -> None:
    secure.fault("http10", match="/files.*format=json")  # so that the transfer needs a connection of its own
    with Gate(secure.port, number) as gate:
        status, _, err = xget(*through(gate, authority), *ONE, "-retry", "0", login=False)
        assert (status, err) == (0, "")
        assert gate.count > 2
    assert xget.files() == ["sess_1_acq.zip"]


def test_handshakes_that_keep_ending_early_end_the_run_in_one_line(
    xget: Xget, secure: XnatServer, authority: Authority
) -> None:
    with Gate(secure.port, *range(100)) as gate:
        status, out, err = xget(*through(gate, authority), *ONE, "-retry", "0,0", login=False)
        assert (status, out, gate.count) == (3, "", 3)
    assert one_line(err), err
    assert not re.search(r"_ssl\.c|\)$", err)


def test_a_server_without_tls_behind_a_guessed_https_gets_the_hint(
    world: World, xget: Xget, server: XnatServer
) -> None:
    world.keep_alive = 0.5  # it waits for the end of what it takes for a request
    account = ("-host", "xnat.example.org", "-u", "admin", "-p", "admin", "-retry", "NONE")
    with Proxy(https=server.port) as proxy:
        xget.env["https_proxy"] = proxy.url
        status, out, err = xget(*account, *ONE, login=False)
        assert (status, out) == (3, "")
        assert one_line(err), err
        assert "write http://" in err
        assert [asked.target for asked in proxy.asked] == ["xnat.example.org:443"]


# --- proxies ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_queries_and_transfers_of_http_go_through_the_proxy(
    name: str, xget: Xget, server: XnatServer
) -> None:
    account = ("-host", "http://xnat.example.org:8080/", "-u", "admin", "-p", "admin")
    with Proxy(http=server.port) as proxy:
        xget.env[name] = proxy.url
        status, _, err = xget(*account, "-s", "sess_1", login=False)
        assert (status, err) == (0, "")
        assert xget.files() == ALL_THREE
        assert len(proxy.asked) == len(server.requests)
        for asked in proxy.asked:
            assert asked.target.startswith("http://xnat.example.org:8080/data/")
            assert asked.headers["host"] == "xnat.example.org:8080"
        assert server.sessions_opened == 1


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_queries_and_transfers_of_https_go_through_tunnels(
    name: str, xget: Xget, secure: XnatServer, authority: Authority
) -> None:
    account = ("-host", "xnat.example.org", "-u", "admin", "-p", "admin", "-cacert", authority.file)
    with Proxy(https=secure.port) as proxy:
        xget.env[name] = proxy.url
        status, _, err = xget(*account, "-s", "sess_1", login=False)
        assert (status, err) == (0, "")
        assert xget.files() == ALL_THREE
        assert {(a.method, a.target) for a in proxy.asked} == {("CONNECT", "xnat.example.org:443")}
        assert len(proxy.asked) > 1
        assert not any("authorization" in asked.headers for asked in proxy.asked)
        assert secure.sessions_opened == 1


def behind_proxy(scheme: str, authority: Authority) -> list[str]:
    """The flags that lead to the server that only the proxy knows."""
    host = f"{scheme}://xnat.example.org"
    return ["-host", host, "-u", "admin", "-p", "admin", "-cacert", str(authority.file)]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_is_given_its_own_user_and_password(
    scheme: str, xget: Xget, server: XnatServer, secure: XnatServer, authority: Authority
) -> None:
    account = behind_proxy(scheme, authority)
    with Proxy(server.port, secure.port, account="me:s@cret/1") as proxy:
        xget.env[f"{scheme}_proxy"] = proxy.url.replace("://", "://me:s%40cret%2F1@")
        status, _, err = xget(*account, "-s", "sess_1", "-v", login=False)
        assert status == 0
        assert xget.files() == ALL_THREE
        assert {basic(asked.headers["proxy-authorization"]) for asked in proxy.asked} == {"me:s@cret/1"}
        for text in ("s@cret", "s%40cret", "admin:admin"):
            assert text not in err
    for request in (*server.requests, *secure.requests):
        assert "proxy-authorization" not in request.headers


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_is_asked_once_and_is_one_line(
    scheme: str, xget: Xget, server: XnatServer, secure: XnatServer, authority: Authority
) -> None:
    account = behind_proxy(scheme, authority)
    with Proxy(server.port, secure.port, account="me:right") as proxy:
        xget.env[f"{scheme}_proxy"] = proxy.url.replace("://", "://me:wr0ng@")
        status, out, err = xget(*account, *ONE, "-retry", "0,0", login=False)
        assert len(proxy.asked) == 1
    assert (status, out) == (3, "")
    assert one_line(err), err
    assert "407" in err
    assert "wr0ng" not in err


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("kind", ["http", "socks5h"])
def test_a_proxy_that_is_not_there_is_one_line_that_names_it(kind: str, scheme: str, xget: Xget) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        xget.env[f"{scheme}_proxy"] = f"{kind}://me:s3cret@127.0.0.1:{port}"
        account = ("-host", f"{scheme}://xnat.example.org", "-u", "admin", "-p", "admin", "-retry", "0")
        status, out, err = xget(*account, *ONE, login=False)
    assert (status, out) == (3, "")
    assert one_line(err), err
    assert f"proxy {kind}://127.0.0.1:{port}" in err
    assert "refused" in err
    assert "s3cret" not in err


REFUSED_PROXIES = {
    "a port that is none": "http://me:s3cret@127.0.0.1:port",
    "a port too high": "http://me:s3cret@127.0.0.1:99999",
    "TLS to the proxy": "https://me:s3cret@127.0.0.1:3128",
    "an unknown kind": "quic://me:s3cret@127.0.0.1:3128",
}


@pytest.mark.parametrize("proxy", REFUSED_PROXIES.values(), ids=REFUSED_PROXIES)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_cannot_be_used_is_refused_before_the_log_in(
    scheme: str, proxy: str, xget: Xget, server: XnatServer
) -> None:
    xget.env[f"{scheme}_proxy"] = proxy
    account = ("-host", f"{scheme}://127.0.0.1:{server.port}", "-u", "admin", "-p", "admin")
    status, out, err = xget(*account, *ONE, login=False)
    assert (status, out) == (2, "")
    assert one_line(err), err
    assert "proxy" in err
    assert "s3cret" not in err
    assert server.requests == []


@pytest.mark.parametrize("kind", ["socks5", "socks5h", "socks"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_queries_and_transfers_go_through_a_socks_proxy(
    scheme: str, kind: str, xget: Xget, server: XnatServer, secure: XnatServer, authority: Authority
) -> None:
    pytest.importorskip("socks")
    with Socks(server.port, secure.port) as proxy:
        xget.env[f"{scheme}_proxy"] = proxy.url.replace("socks5h", kind)
        status, _, err = xget(*behind_proxy(scheme, authority), "-s", "sess_1", login=False)
        assert (status, err) == (0, "")
        assert xget.files() == ALL_THREE
        assert set(proxy.asked) == {f"xnat.example.org:{443 if scheme == 'https' else 80}"}
    assert {"http": server, "https": secure}[scheme].sessions_opened == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_socks_proxy_is_given_its_own_user_and_password(
    scheme: str, xget: Xget, server: XnatServer, secure: XnatServer, authority: Authority
) -> None:
    pytest.importorskip("socks")
    with Socks(server.port, secure.port, account="me:s@cret/1") as proxy:
        xget.env[f"{scheme}_proxy"] = proxy.url.replace("://", "://me:s%40cret%2F1@")
        assert xget(*behind_proxy(scheme, authority), *ONE, login=False)[::2] == (0, "")
        xget.env[f"{scheme}_proxy"] = proxy.url.replace("://", "://me:wr0ng@")
        proxy.count = 0
        words = (*ONE, "-overwrite", "-retry", "0,0")
        status, out, err = xget(*behind_proxy(scheme, authority), *words, login=False)
    assert (status, out, proxy.count) == (3, "", 1)
    assert one_line(err), err
    assert proxy.url in err
    assert "wr0ng" not in err


def test_a_socks_proxy_without_pysocks_is_refused_before_the_log_in(xget: Xget, tmp_path: Path) -> None:
    (tmp_path / "socks.py").write_text("raise ImportError")
    with Socks() as proxy:
        xget.env.update(http_proxy=proxy.url, PYTHONPATH=str(tmp_path))
        status, out, err = xget("-host", "http://x.example.org", "-u", "a", "-p", "b", *ONE, login=False)
        assert (status, out, proxy.asked) == (2, "", [])
    assert one_line(err), err
    assert "pip install pysocks" in err


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize("value", ["127.0.0.1", "*", "example.org,127.0.0.1"])
def test_no_proxy_is_heeded_by_queries_and_transfers(
    name: str, value: str, xget: Xget, server: XnatServer
) -> None:
    with Proxy(http=server.port) as proxy:
        xget.env.update({"http_proxy": proxy.url, name: value})
        assert xget(*ONE).status == 0
        assert proxy.asked == []


def test_a_proxy_without_a_scheme_serves_queries_and_transfers(xget: Xget, server: XnatServer) -> None:
    account = ("-host", "http://xnat.example.org", "-u", "admin", "-p", "admin")
    with Proxy(http=server.port) as proxy:
        xget.env["http_proxy"] = proxy.url.partition("//")[2]
        status, _, err = xget(*account, *ONE, login=False)
        assert (status, err) == (0, "")
        assert len(proxy.asked) == len(server.requests)


# --- waiting and trying again -----------------------------------------------------------


@pytest.mark.parametrize("match", ["format=xml", "/files.*format=json", "format=zip"])
def test_timeout_ends_a_silence_and_the_next_try_succeeds(match: str, xget: Xget, server: XnatServer) -> None:
    server.fault("silence", match=match, seconds=60)
    status, _, err = xget("-s", "XNAT_E00001", *ONE[2:], "-timeout", "1", "-retry", "0")
    assert (status, err) == (0, "")
    assert len(sent(server, match)) == 2


def test_timeout_ends_a_silence_in_mid_transfer(xget: Xget, server: XnatServer) -> None:
    server.fault("silence", match="format=zip", seconds=60, after=2000)
    status, _, err = xget(*ONE, "-timeout", "1", "-retry", "0")
    assert (status, err) == (0, "")
    assert xget.files() == ["sess_1_acq.zip"]


def test_a_server_that_stays_silent_is_one_line_that_says_how_long(xget: Xget, server: XnatServer) -> None:
    server.fault("silence", match="format=zip|dcm", times=None, seconds=60)
    status, out, err = xget(*ONE, "-timeout", "0.5", "-retry", "NONE")
    assert (status, out) == (1, "")
    assert re.match(r"xget: sess_1[^\n]*0\.5 s", err)
    assert xget.files() == []


@pytest.mark.parametrize(("waits", "tries"), [("NONE", 1), ("0", 2), ("0,0,0,0", 5)])
@pytest.mark.parametrize("match", ["format=xml", "/files.*format=json", "format=zip"])
def test_retry_says_how_often_a_lost_request_is_tried(
    match: str, waits: str, tries: int, xget: Xget, server: XnatServer
) -> None:
    server.fault("status", match=match, times=None, status=503, message="Busy & tired", page="tomcat")
    status, out, err = xget("-s", "XNAT_E00001", *ONE[2:], "-retry", waits)
    assert (status, out) == (1, "")
    assert "Busy & tired" in err
    assert len(sent(server, match)) == tries
    assert xget.files() == []


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_can_pass_is_tried_again(status: int, xget: Xget, server: XnatServer) -> None:
    for match in ("format=xml", "/files.*format=json", "format=zip"):
        server.fault("status", match=match, times=2, status=status, page="nginx")
    got, _, err = xget("-s", "XNAT_E00001", *ONE[2:], "-retry", "0,0")
    assert (got, err) == (0, "")


@pytest.mark.parametrize(("status", "tries"), [(500, 2), (403, 1), (400, 1)])
def test_what_cannot_pass_is_not(status: int, tries: int, xget: Xget, server: XnatServer) -> None:
    server.fault("status", match="format=zip|dcm", times=None, status=status, message="No, never")
    got, _, err = xget(*ONE, "-retry", "0,0,0")
    assert got == 1
    assert "No, never" in err
    assert len(sent(server, "format=zip")) == tries


def gaps(server: XnatServer, match: str) -> list[float]:
    times = [r.time for r in server.requests if re.search(match, f"{r.method} {r.path}")]
    return [later - sooner for sooner, later in zip(times, times[1:])]


def test_retry_waits_as_long_as_it_says(xget: Xget, server: XnatServer) -> None:
    server.fault("status", match="format=zip", times=2, status=503)
    assert xget(*ONE, "-retry", "0.2,0.7").status == 0
    first, second = gaps(server, "format=zip")
    assert first >= 0.2
    assert second >= 0.7


@pytest.mark.parametrize("form", ["seconds", "a date"])
@pytest.mark.parametrize("match", [LOGIN, "format=xml", "format=zip"])
def test_retry_after_is_heeded(form: str, match: str, xget: Xget, server: XnatServer) -> None:
    due = int(time.time()) + 5  # whole seconds, and xget has to start
    after = "1" if form == "seconds" else email.utils.formatdate(due, usegmt=True)
    server.fault("status", match=match, status=503, retry_after=after)
    assert xget("-s", "XNAT_E00001", *ONE[2:], "-retry", "0").status == 0
    if form == "seconds":
        assert gaps(server, match)[0] >= 1
    else:
        again = [r.time for r in server.requests if re.search(match, f"{r.method} {r.path}")][1]
        assert again + time.time() - time.monotonic() >= due - 0.1


@pytest.mark.parametrize("value", ["soon", "-5", "", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 99 Foo"])
def test_a_retry_after_that_says_nothing_is_none(value: str, xget: Xget, server: XnatServer) -> None:
    server.fault("status", match="format=zip", status=429, retry_after=value)
    status, _, err = xget(*ONE, "-retry", "0")
    assert (status, err) == (0, "")


def test_a_connection_that_the_server_closed_while_idle_costs_no_try(
    world: World, xget: Xget, server: XnatServer
) -> None:
    world.keep_alive = 0.05
    server.latency = 0.02
    status, _, err = xget("-s", "sess_1", "-retry", "NONE")
    assert (status, err) == (0, "")


@pytest.mark.parametrize("match", ["format=xml", "/files.*format=json", "format=zip"])
def test_a_server_that_vanishes_ends_in_one_line(match: str, xget: Xget, server: XnatServer) -> None:
    server.fault("stop", match=match, after=10)
    status, out, err = xget(*ONE, "-retry", "0")
    assert status in (1, 3)
    assert out == ""
    assert "Traceback" not in err
    assert all(line.startswith("xget: ") for line in err.splitlines())
    assert xget.files() == []
    with contextlib.suppress(OSError):
        server.stop()


def test_retry_may_be_repeated_and_adds(xget: Xget, server: XnatServer) -> None:
    server.fault("status", match="format=zip", status=503, times=2)
    outcome = xget(*ONE, "-v", "-retry", "0", "-retry", "0.3")
    assert outcome.status == 0
    assert re.findall(r"again in ([\d.]+) s", outcome.err) == ["0", "0.3"]
