"""Log-in, log-out, redirects, TLS, proxies, waiting: all that lies between xget and an archive."""

from __future__ import annotations

import contextlib
import email.utils
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Optional

import pytest
from conftest import Xget
from network import Authority, Proxy, basic
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
    """A log-in that fails: what the server does, and what the one line quotes."""

    says: str
    world: Optional[dict[str, Any]] = None
    fault: Optional[dict[str, Any]] = None


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
    "500": Refused("out of order", fault={"status": 500, "message": "out of order", "page": "tomcat"}),
    "502 of a proxy": Refused("502", fault={"status": 502, "page": "nginx"}),
    "503 of a proxy": Refused("503", fault={"status": 503, "page": "nginx"}),
    "a web page with status 200": Refused("XNAT", fault={"kind": "html"}),
    "a portal's web page": Refused("XNAT", fault={"kind": "html", "body": "<html><h1>Wi-Fi</h1></html>"}),
    "an empty answer": Refused("XNAT", fault={"kind": "answer"}),
    "a guest": Refused("guest", fault={"kind": "answer", "body": b"User 'guest' is logged in"}),
    "no answer at all": Refused("", fault={"kind": "cut"}),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_log_in_that_fails_is_tried_once_and_ends_in_status_3_and_one_line(
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
    assert len(sent(server, LOGIN)) == 1
    assert not sent(server, "GET .*experiments")
    assert max(server.site.logins.failures.values(), default=0) <= 1
    assert xget.files() == []


def test_a_server_too_old_for_the_proof_of_a_log_in_is_asked_for_a_listing(
    xget: Xget, server: XnatServer
) -> None:
    server.fault("status", match=LOGIN, times=None, status=404)
    assert xget(*ONE).status == 0


def test_a_login_is_tried_again_only_where_no_connection_came_about(xget: Xget) -> None:
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


def test_one_401_in_mid_run_is_answered_by_one_new_log_in(xget: Xget, server: XnatServer) -> None:
    for match in ("format=xml", "/files.*format=json", "format=zip"):
        server.fault("status", match=match, status=401)
    status, _, err = xget(*ONE, "-retry", "NONE")
    assert (status, err) == (0, "")
    assert xget.files() == ["sess_1_acq.zip"]


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
    "in the middle of a transfer": ("silence", "format=zip", {"seconds": 60, "after": 3000}),
    "during a slow transfer": ("slow", "format=zip", {"rate": 20000}),
    "while waiting to try again": ("status", "format=zip", {"status": 503}),
}


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("kind", "match", "details"), MOMENTS.values(), ids=MOMENTS)
def test_a_signal_logs_out_and_leaves_nothing_behind(
    kind: str, match: str, details: dict[str, Any], number: signal.Signals, xget: Xget, server: XnatServer
) -> None:
    big = server.world.sessions()[0].scans[0].resources[0]
    big.add("big.dcm", Synthetic(4_000_000))
    server.fault(kind, match=match, times=None, **details)
    process = xget.start(*ONE, "-retry", "60")
    wait_until(lambda: len(sent(server, match)) > 0 and not (kind == "slow" and not xget.files()))
    if kind != "silence":
        time.sleep(0.3)  # let it read, or begin to wait
    process.send_signal(number)
    try:
        out, err = process.communicate(timeout=15)
    finally:
        process.kill()
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert (process.returncode, out, err) == (128 + number, "", f"xget: {word}\n")
    assert xget.files() == []
    if match != LOGIN:
        assert server.site.logins.sessions == {}


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_what_was_complete_before_a_signal_stays(xget: Xget, server: XnatServer) -> None:
    server.fault("silence", match="scans.*format=zip", seconds=60, after=3000)
    process = xget.start("-s", "sess_1")
    wait_until(lambda: {"sess_1_ass.zip", "sess_1_recon.zip"} <= set(xget.files()))
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=15)
    assert process.returncode == 130
    assert sorted(os.path.basename(line) for line in out.splitlines()) == ALL_THREE[1:]
    assert xget.files() == ALL_THREE[1:]


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
@pytest.mark.parametrize("kind", ["another name", "another port", "another path"])
def test_any_other_redirect_is_an_error_that_names_its_target(
    kind: str, match: str, world: World, xget: Xget, server: XnatServer
) -> None:
    with XnatServer(world) as other:
        target = {
            "another name": f"http://localhost:{other.port}{{path}}",
            "another port": other.url + "{path}",
            "another path": server.url + "/elsewhere{path}",
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


def test_insecure_trusts_any_certificate_in_queries_and_transfers_with_one_warning(
    xget: Xget, world: World, authority: Authority
) -> None:
    with XnatServer(world, certificate=authority.issue("nobody.example.org", days=-1)) as bad:
        status, _, err = xget(*at(bad), "-insecure", "-s", "sess_1", login=False)
        assert status == 0
        assert xget.files() == ALL_THREE
        assert re.fullmatch(r"xget: warning: [^\n]+\n", err), err
        assert xget(*at(bad), "-insecure", "-quiet", *ONE, "-overwrite", login=False).err == ""


BAD = {
    "signed by an unknown CA": ("Stranger", "127.0.0.1", 30),
    "for another name": ("", "other.example.org", 30),
    "expired": ("", "127.0.0.1", -1),
}


@pytest.mark.parametrize(("signer", "name", "days"), BAD.values(), ids=BAD)
def test_a_certificate_is_refused_in_one_line_before_any_request(
    signer: str, name: str, days: int, xget: Xget, world: World, authority: Authority
) -> None:
    issuer = Authority(authority.folder, signer) if signer else authority
    with XnatServer(world, certificate=issuer.issue(name, days=days)) as bad:
        status, out, err = xget(*at(bad), "-cacert", authority.file, *ONE, login=False)
        assert (status, out) == (3, "")
        assert one_line(err), err
        assert "certificate" in err
        assert bad.requests == []


def test_an_unknown_ca_is_refused_with_the_way_out(xget: Xget, secure: XnatServer) -> None:
    status, _, err = xget(*at(secure), *ONE, login=False)
    assert status == 3
    assert one_line(err)
    assert "-cacert" in err
    assert secure.requests == []


def test_transfers_check_the_certificate_too(xget: Xget, secure: XnatServer, authority: Authority) -> None:
    """The server changes its certificate behind the queries."""
    stranger = Authority(authority.folder, "Another CA").issue("127.0.0.1")

    def change() -> None:
        assert secure.tls
        secure.tls.load_cert_chain(*stranger)

    secure.fault("call", match="/files.*format=json", action=change)
    words = ("-cacert", authority.file, "-retry", "NONE")
    status, out, err = xget(*at(secure), *words, *ONE, login=False)
    assert status in (1, 3)
    assert out == ""
    assert "certificate" in err
    assert "Traceback" not in err
    assert not sent(secure, "format=zip")
    assert xget.files() == []


def test_cacert_alone_counts_where_it_is_given(xget: Xget, secure: XnatServer, authority: Authority) -> None:
    xget.env["SSL_CERT_FILE"] = authority.file
    stranger = Authority(authority.folder, "Third CA").file
    status, _, err = xget(*at(secure), "-cacert", stranger, *ONE, login=False)
    assert status == 3
    assert "certificate" in err


def test_a_server_without_tls_behind_a_guessed_https_gets_the_hint(xget: Xget, server: XnatServer) -> None:
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
def test_a_proxy_that_refuses_is_one_line(
    scheme: str, xget: Xget, server: XnatServer, secure: XnatServer, authority: Authority
) -> None:
    account = behind_proxy(scheme, authority)
    with Proxy(server.port, secure.port, account="me:right") as proxy:
        xget.env[f"{scheme}_proxy"] = proxy.url.replace("://", "://me:wr0ng@")
        status, out, err = xget(*account, *ONE, "-retry", "0", login=False)
    assert (status, out) == (3, "")
    assert one_line(err), err
    assert "407" in err
    assert "wr0ng" not in err


def test_a_proxy_that_is_not_there_is_one_line(xget: Xget) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        xget.env["http_proxy"] = f"http://me:s3cret@127.0.0.1:{taken.getsockname()[1]}"
        account = ("-host", "http://xnat.example.org", "-u", "admin", "-p", "admin", "-retry", "NONE")
        status, out, err = xget(*account, *ONE, login=False)
    assert (status, out) == (3, "")
    assert one_line(err), err
    assert "s3cret" not in err


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
    times = [r.time for r in server.requests if re.search(match, r.path)]
    return [later - sooner for sooner, later in zip(times, times[1:])]


def test_retry_waits_as_long_as_it_says(xget: Xget, server: XnatServer) -> None:
    server.fault("status", match="format=zip", times=2, status=503)
    assert xget(*ONE, "-retry", "0.2,0.7").status == 0
    first, second = gaps(server, "format=zip")
    assert first >= 0.2
    assert second >= 0.7


@pytest.mark.parametrize("form", ["seconds", "a date"])
@pytest.mark.parametrize("match", ["format=xml", "format=zip"])
def test_retry_after_is_heeded(form: str, match: str, xget: Xget, server: XnatServer) -> None:
    soon = email.utils.formatdate(time.time() + 4, usegmt=True)  # whole seconds, and xget has to start
    after = "1" if form == "seconds" else soon
    server.fault("status", match=match, status=503, retry_after=after)
    assert xget("-s", "XNAT_E00001", *ONE[2:], "-retry", "0").status == 0
    assert gaps(server, match)[0] >= (1 if form == "seconds" else 0.5)


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
