"""Who and where: which source fills in what, and that no password goes where it does not belong."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lane
import pytest
from conftest import Xget
from launch import Terminal
from network import Authority, Proxy, basic
from xnat_server import World, XnatServer

H = "xnat.example.org"
ASK = ("-s", "XNAT_E00001", "-list", "-retry", "NONE")
SOURCES = ("-p", "XNAT_PASS", "~/.xnatPass", "~/.netrc")


class Case(NamedTuple):
    """What the sources hold, and `URL user:password` as a server saw it; nothing seen is status 2."""

    argv: str = ""  # words, separated by `|`
    env: str = ""  # NAME=VALUE, separated by `|`
    file: str = ""  # ~/.xnatPass
    netrc: str = ""
    seen: str = ""


class Internet(NamedTuple):
    """xget behind a proxy that leads every name to the test XNAT, with TLS and without."""

    xget: Xget
    proxy: Proxy
    plain: XnatServer
    secure: XnatServer

    def seen(self) -> str:
        """Name each URL that was asked with the account it was given, each once; a log-out needs none."""
        found = []
        for asked in self.proxy.asked:
            if asked.method not in ("CONNECT", "DELETE"):
                url = "/".join(asked.target.split("/")[:3])
                path = "/xnat" if "/xnat/" in asked.target else ""
                found.append(f"{url}{path} {basic(asked.headers.get('authorization', ''))}".strip())
        names = {a.target.replace(":443", "") for a in self.proxy.asked if a.method == "CONNECT"}
        secure = [request for request in self.secure.requests if request.method != "DELETE"]
        accounts = {basic(request.headers.get("authorization", "")) for request in secure}
        found += [f"https://{name} {account}".strip() for name in names for account in accounts]
        return " | ".join(dict.fromkeys(found))


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def internet(xget: Xget, server: XnatServer, authority: Authority) -> Iterator[Internet]:
    certificate = authority.issue(H, "other.example.org")
    with (
        XnatServer(server.world, certificate=certificate) as secure,
        Proxy(server.port, secure.port) as proxy,
    ):
        xget.env.update(http_proxy=proxy.url, https_proxy=proxy.url, SSL_CERT_FILE=authority.file)
        yield Internet(xget, proxy, server, secure)


def write_private(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))
    path.chmod(0o600)


def arrange(case: Case, internet: Internet) -> list[str]:
    """Prepare the sources and an account that the server knows; returns the arguments."""
    xget = internet.xget
    xget.env.update(dict(pair.split("=", 1) for pair in case.env.split("|") if pair))
    if case.file:
        write_private(xget.home / ".xnatPass", case.file)
    if case.netrc:
        write_private(xget.home / ".netrc", case.netrc)
    user, _, password = case.seen.partition(" ")[2].partition(":")
    internet.plain.world.users.update({user: password} if user else {})
    return [word for word in case.argv.split("|") if word]


CASES = {
    # the sources, in their order
    "flags": Case(f"-host|{H}|-u|alice|-p|one", seen=f"https://{H} alice:one"),
    "environment": Case(
        env=f"XNAT_HOST=http://{H}|XNAT_USER=alice|XNAT_PASS=one", seen=f"http://{H} alice:one"
    ),
    "pass file": Case(file=f"+alice@http://{H}=one\n", seen=f"http://{H} alice:one"),
    "netrc": Case(
        f"-host|http://{H}", netrc=f"machine {H} login alice password one\n", seen=f"http://{H} alice:one"
    ),
    "nothing at all": Case(),
    "-host alone": Case(f"-host|{H}"),
    "-host and -u alone": Case(f"-host|{H}|-u|alice"),
    "flags before the environment": Case(
        f"-host|http://{H}|-u|alice|-p|one",
        env=f"XNAT_HOST=http://{H}|XNAT_USER=bob|XNAT_PASS=two",
        seen=f"http://{H} alice:one",
    ),
    "-p before XNAT_PASS": Case(
        "-p|one",
        env=f"XNAT_HOST=http://{H}|XNAT_USER=alice|XNAT_PASS=two",
        seen=f"http://{H} alice:one",
    ),
    "environment before the pass file": Case(
        env=f"XNAT_HOST=http://{H}|XNAT_USER=alice|XNAT_PASS=one",
        file=f"+alice@http://{H}=two\n+bob@http://other.example.org=three\n",
        seen=f"http://{H} alice:one",
    ),
    "pass file before netrc": Case(
        f"-host|http://{H}",
        file=f"-alice@http://{H}=one\n",
        netrc=f"machine {H} login alice password two\n",
        seen=f"http://{H} alice:one",
    ),
    "netrc where the pass file has another host": Case(
        f"-host|http://{H}",
        file="+bob@http://other.example.org=two\n",
        netrc=f"machine {H} login alice password one\n",
        seen=f"http://{H} alice:one",
    ),
    "netrc's default is ignored": Case(f"-host|http://{H}", netrc="default login alice password one\n"),
    "netrc's machine of another name": Case(
        f"-host|http://{H}", netrc="machine other.example.org login alice password one\n"
    ),
    "netrc without -host": Case(netrc=f"machine {H} login alice password one\n"),
    "netrc of another user": Case(
        f"-host|http://{H}|-u|bob", netrc=f"machine {H} login alice password one\n"
    ),
    # filling in, field by field
    "the first + entry": Case(
        file=f"-bob@http://{H}=two\n+alice@http://{H}=one\n+carl@http://{H}=three\n",
        seen=f"http://{H} alice:one",
    ),
    "a - entry does not serve unasked": Case(file=f"-alice@http://{H}=one\n"),
    "a - entry for -host": Case(
        f"-host|http://{H}",
        file=f"+bob@http://other.example.org=two\n-alice@http://{H}=one\n",
        seen=f"http://{H} alice:one",
    ),
    "a - entry for -u": Case(
        "-u|alice", file=f"+bob@http://{H}=two\n-alice@http://{H}=one\n", seen=f"http://{H} alice:one"
    ),
    "-host: + entries first": Case(
        f"-host|http://{H}",
        file=f"-bob@http://{H}=two\n+alice@http://{H}=one\n",
        seen=f"http://{H} alice:one",
    ),
    "-u: + entries first": Case(
        "-u|alice",
        file=f"-alice@http://other.example.org=two\n+alice@http://{H}=one\n",
        seen=f"http://{H} alice:one",
    ),
    "-u of nobody": Case("-u|carl", file=f"+alice@http://{H}=one\n"),
    "-host of nobody": Case("-host|http://other.example.org", file=f"+alice@http://{H}=one\n"),
    "-host and -u": Case(
        f"-host|http://{H}|-u|alice",
        file=f"+bob@http://{H}=two\n-alice@http://{H}=one\n",
        seen=f"http://{H} alice:one",
    ),
    "-host and -u of no entry": Case(
        f"-host|http://{H}|-u|carl", file=f"+alice@http://{H}=one\n+carl@http://other.example.org=x\n"
    ),
    "-u and -p: the host of the first + entry": Case(
        "-u|alice|-p|one",
        file=f"-alice@http://other.example.org=x\n+bob@http://{H}=two\n",
        seen=f"http://{H} alice:one",
    ),
    "-u and -p with only - entries": Case("-u|alice|-p|one", file=f"-bob@http://{H}=two\n"),
    "-host and -p: the user of the entry": Case(
        f"-host|http://{H}|-p|one", file=f"+alice@http://{H}=two\n", seen=f"http://{H} alice:one"
    ),
    "-p alone: host and user of the first + entry": Case(
        "-p|one", file=f"+alice@http://{H}=two\n", seen=f"http://{H} alice:one"
    ),
    "-passfile": Case(f"-passfile|{{home}}/mine|-host|http://{H}", seen=f"http://{H} carl:four"),
    "XNAT_HOST names the host, the pass file its entry": Case(
        env=f"XNAT_HOST=http://{H}",
        file=f"+bob@http://other.example.org=two\n-alice@http://{H}=one\n",
        seen=f"http://{H} alice:one",
    ),
    "XNAT_HOST names the host, netrc its entry": Case(
        env=f"XNAT_HOST=http://{H}",
        netrc=f"machine {H} login alice password one\n",
        seen=f"http://{H} alice:one",
    ),
    "XNAT_HOST and XNAT_USER": Case(
        env=f"XNAT_HOST=http://{H}|XNAT_USER=alice",
        file=f"+bob@http://{H}=two\n-alice@http://{H}=one\n",
        seen=f"http://{H} alice:one",
    ),
    "XNAT_HOST without a scheme takes its entry's": Case(
        env=f"XNAT_HOST={H}", file=f"-alice@http://{H}=one\n", seen=f"http://{H} alice:one"
    ),
    "XNAT_HOST and -u": Case(
        "-u|alice",
        env=f"XNAT_HOST=http://{H}",
        file=f"+bob@http://{H}=two\n+alice@http://other.example.org=x\n-alice@http://{H}=one\n",
        seen=f"http://{H} alice:one",
    ),
    "XNAT_PASS without XNAT_HOST serves -host": Case(
        f"-host|http://{H}|-u|alice", env="XNAT_PASS=one", seen=f"http://{H} alice:one"
    ),
    "XNAT_USER and XNAT_PASS without XNAT_HOST serve -host": Case(
        f"-host|http://{H}", env="XNAT_USER=alice|XNAT_PASS=one", seen=f"http://{H} alice:one"
    ),
    "XNAT_PASS without XNAT_HOST serves no host of the pass file": Case(
        env="XNAT_PASS=two", file=f"+alice@http://{H}=one\n", seen=f"http://{H} alice:one"
    ),
    "XNAT_USER chooses in the pass file, XNAT_PASS goes nowhere": Case(
        env="XNAT_USER=alice|XNAT_PASS=two",
        file=f"+bob@http://{H}=x\n-alice@http://{H}=one\n",
        seen=f"http://{H} alice:one",
    ),
    # hosts that agree, and hosts that do not
    "the default port typed": Case(
        f"-host|https://{H}:443", file=f"-alice@{H}=one\n", seen=f"https://{H} alice:one"
    ),
    "the default port in the entry": Case(
        f"-host|http://{H}", file=f"-alice@http://{H}:80=one\n", seen=f"http://{H} alice:one"
    ),
    "another port": Case(f"-host|http://{H}:8080", file=f"-alice@http://{H}=one\n"),
    "another path": Case(f"-host|http://{H}/xnat", file=f"-alice@http://{H}=one\n"),
    "no path": Case(f"-host|http://{H}", file=f"-alice@http://{H}/xnat=one\n"),
    "a slash at the end": Case(
        f"-host|http://{H}/", file=f"-alice@http://{H}=one\n", seen=f"http://{H} alice:one"
    ),
    "capitals in the name": Case(
        f"-host|HTTP://{H.upper()}", file=f"-alice@http://{H}=one\n", seen=f"http://{H} alice:one"
    ),
    "a name that only ends alike": Case(f"-host|http://evil{H}", file=f"-alice@http://{H}=one\n"),
    "a name that only begins alike": Case(f"-host|http://{H}.evil.org", file=f"-alice@http://{H}=one\n"),
    "typed without a scheme, kept as http": Case(
        f"-host|{H}", file=f"-alice@http://{H}=one\n", seen=f"http://{H} alice:one"
    ),
    "typed without a scheme, kept as https": Case(
        f"-host|{H}", file=f"-alice@https://{H}=one\n", seen=f"https://{H} alice:one"
    ),
    "kept without a scheme is https": Case(file=f"+alice@{H}=one\n", seen=f"https://{H} alice:one"),
    "kept for https, typed as http": Case(f"-host|http://{H}", file=f"+alice@https://{H}=one\n"),
    "kept for https by port, typed as http": Case(
        f"-host|http://{H}:443", file=f"+alice@https://{H}:443=one\n"
    ),
    "kept without a scheme, typed as http": Case(f"-host|http://{H}", file=f"+alice@{H}=one\n"),
    "the environment's https password, typed as http": Case(
        f"-host|http://{H}", env=f"XNAT_HOST=https://{H}|XNAT_USER=alice|XNAT_PASS=one"
    ),
    "the environment's password, another host typed": Case(
        f"-host|http://{H}", env="XNAT_HOST=http://other.example.org|XNAT_USER=alice|XNAT_PASS=one"
    ),
    "the environment's password, another user typed": Case(
        "-u|bob", env=f"XNAT_HOST=http://{H}|XNAT_USER=alice|XNAT_PASS=one"
    ),
    "the environment's host, another one in the pass file": Case(
        env=f"XNAT_HOST=http://{H}|XNAT_USER=alice", file="+alice@http://other.example.org=one\n"
    ),
    "netrc's capitals": Case(
        f"-host|http://{H}",
        netrc=f"machine {H.upper()} login alice password one\n",
        seen=f"http://{H} alice:one",
    ),
    # hosts as a browser shows them
    "pasted: the log-in page": Case(
        f"-host|http://{H}/app/template/Login.vm|-u|alice|-p|one", seen=f"http://{H} alice:one"
    ),
    "pasted: a session's page, with a query": Case(
        f"-host|https://{H}/app/action/DisplayItemAction/search_value/X?a=b&c=d#tab|-u|alice|-p|one",
        seen=f"https://{H} alice:one",
    ),
    "pasted: a project's page": Case(
        f"-host|http://{H}/data/projects/P|-u|alice|-p|one", seen=f"http://{H} alice:one"
    ),
    "pasted into XNAT_HOST": Case(
        env=f"XNAT_HOST=http://{H}/app/template/Index.vm|XNAT_USER=alice|XNAT_PASS=one",
        seen=f"http://{H} alice:one",
    ),
    "pasted into the pass file": Case(
        f"-host|http://{H}",
        file=f"-alice@http://{H}/app/template/Index.vm=one\n",
        seen=f"http://{H} alice:one",
    ),
    "pasted, and kept without the page": Case(
        f"-host|http://{H}/app/template/Index.vm",
        file=f"-alice@http://{H}=one\n",
        seen=f"http://{H} alice:one",
    ),
    # lines of the pass file
    "= and @ in the password": Case(file=f"+alice@http://{H}=a=b@c=\n", seen=f"http://{H} alice:a=b@c="),
    "@ in the user": Case(file=f"+alice@lab.org@http://{H}=one\n", seen=f"http://{H} alice@lab.org:one"),
    "white space around": Case(
        file=f"  + alice @ http://{H} = one two  \n", seen=f"http://{H} alice:one two"
    ),
    "CRLF and a byte-order mark": Case(file=f"\ufeff+alice@http://{H}=one\r\n", seen=f"http://{H} alice:one"),
    "anything else is ignored": Case(
        file=f"# ours\n\nalice@http://{H}=x\n+alice=x\n+@http://{H}=x\n*alice@http://{H}=x\n"
        f"+alice@http://{H}\n+alice@http://{H}=one\n",
        seen=f"http://{H} alice:one",
    ),
    "letters beyond ASCII, sent as UTF-8": Case(
        file=f"+jürgen@http://{H}=pä€ß\n", seen=f"http://{H} jürgen:pä€ß"
    ),
    "a control character in a password": Case(
        f"-host|http://{H}|-u|alice|-p|o\tne", seen=f"http://{H} alice:o\tne"
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_credentials(case: Case, internet: Internet) -> None:
    argv = arrange(case, internet)
    if "-passfile" in argv:
        write_private(internet.xget.home / "mine", f"+carl@http://{H}=four\n")
        argv = [word.format(home=internet.xget.home) for word in argv]
    status, out, err = internet.xget(*argv, *ASK, login=False)
    assert internet.seen() == case.seen
    if case.seen:
        assert (status, err) == (0, "")
    else:
        assert (status, out) == (2, "")
        assert re.fullmatch(r"xget: [^\n]+: [^\n]+\n", err), err
        for name in SOURCES:
            assert name in err


@pytest.mark.parametrize("rest", ["", "/", "/app/template/Login.vm", "/data/experiments/X?format=html"])
def test_a_host_may_have_a_port_and_a_path(rest: str, world: World, xget: Xget) -> None:
    with XnatServer(world, context="/xnat") as server:
        write_private(xget.home / ".xnatPass", f"+admin@http://localhost:{server.port}/xnat=admin\n")
        assert xget(*ASK, "-acq", "1", login=False)[::2] == (0, "")
        assert xget("-host", f"localhost:{server.port}/xnat{rest}", *ASK, login=False)[::2] == (0, "")
        assert {r.path.split("/")[1] for r in server.requests} == {"xnat"}


def test_a_host_that_is_none_is_named_by_its_source(xget: Xget) -> None:
    for text in ("http://x:port", "ftp://x", "http://a:s3cret@x"):
        xget.env["XNAT_HOST"] = text
        status, out, err = xget(*ASK, login=False)
        assert (status, out) == (2, "")
        assert re.fullmatch(r"xget: XNAT_HOST: [^\n]+\n", err), err
        assert "s3cret" not in err


ODD_LINES = {
    "a forgotten sign": (f"alice@http://{H}=s3cret\n", 1),
    "a forgotten equals sign": (f"# ours\n\n+alice@http://{H} s3cret\n", 3),
    "a forgotten host": ("+alice=s3cret\n", 1),
    "a host that is none": ("-bob@http://other.example.org=x\n+alice@ftp://x=s3cret\n", 2),
    "two of them: the first": (f"alice@http://{H}=s3cret\nbob@http://{H}=two\n", 1),
}


@pytest.mark.parametrize(("text", "number"), ODD_LINES.values(), ids=ODD_LINES)
@pytest.mark.parametrize("argv", [(), ("-host", f"http://{H}"), ("-u", "carl")], ids=["", "-host", "-u"])
def test_a_line_of_the_pass_file_that_is_no_entry_is_named_where_nothing_was_found(
    text: str, number: int, argv: tuple[str, ...], xget: Xget
) -> None:
    write_private(xget.home / ".xnatPass", text)
    status, out, err = xget(*argv, *ASK, login=False)
    assert (status, out) == (2, "")
    assert re.fullmatch(r"xget: [^\n]+: [^\n]+\n", err), err
    assert re.findall(r"\bline (\d+)", err) == [str(number)]
    assert "s3cret" not in err


def test_comments_and_blank_lines_are_entries_that_nobody_misses(xget: Xget) -> None:
    write_private(xget.home / ".xnatPass", f"# ours\n\n   \n  # +x\n-alice@http://{H}=one\n")
    status, _, err = xget(*ASK, login=False)
    assert status == 2
    assert not re.search(r"\bline \d", err)


REFUSED = {
    "-p": ("-host|{url}|-u|admin|-p|wr0ng", "", "", "", "-p"),
    "XNAT_PASS": ("-host|{url}|-u|admin", "XNAT_PASS=wr0ng", "", "", "XNAT_PASS"),
    "the pass file": ("", "", "+admin@{url}=wr0ng\n", "", "{home}/.xnatPass"),
    "~/.netrc": ("-host|{url}", "", "", "machine 127.0.0.1 login admin password wr0ng\n", "{home}/.netrc"),
    "-p, not the pass file that has its host": ("-p|wr0ng", "", "+admin@{url}=admin\n", "", "-p"),
}


@pytest.mark.parametrize(("argv", "env", "file", "netrc", "source"), REFUSED.values(), ids=REFUSED)
def test_a_refused_log_in_names_the_source_of_its_password(
    argv: str, env: str, file: str, netrc: str, source: str, xget: Xget, server: XnatServer
) -> None:
    known = {"url": server.url, "home": lane.plain(lane.windows_path(xget.home))}
    for name, text in ((".xnatPass", file), (".netrc", netrc)):
        if text:
            write_private(xget.home / name, text.format(**known))
    xget.env.update(dict(pair.split("=", 1) for pair in env.split("|") if pair))
    words = [word for word in argv.format(**known).split("|") if word]
    status, out, err = xget(*words, *ASK, login=False)
    assert (status, out) == (3, "")
    assert re.fullmatch(r"xget: [^\n]+: [^\n]+\n", err), err
    assert f"as admin refused (password from {source.format(**known)})" in err
    assert "wr0ng" not in err
    assert server.refused_logins == ["admin"]


# --- encodings ------------------------------------------------------------------------------------

LATIN = "s3cr\udcfcet"  # s3crüet in Latin-1, as Python hands it on
UNDECODED = {
    "-u": (("-host", H, "-u", LATIN, "-p", "one"), {}, "-u"),
    "-p": (("-host", H, "-u", "alice", "-p", LATIN), {}, "-p"),
    "-p=": (("-host", H, "-u", "alice", f"-p={LATIN}"), {}, "-p"),
    "-host": (("-host", LATIN), {}, "-host"),
    "-s": (("-host", H, "-s", LATIN), {}, "-s"),
    "-acq": (("-host", H, f"-acq={LATIN}"), {}, "-acq"),
    "XNAT_HOST": ((), {"XNAT_HOST": LATIN}, "XNAT_HOST"),
    "XNAT_USER": ((), {"XNAT_USER": LATIN}, "XNAT_USER"),
    "XNAT_PASS": (("-host", H, "-u", "alice"), {"XNAT_PASS": LATIN}, "XNAT_PASS"),
}


@pytest.mark.skipif(os.name != "posix", reason="elsewhere words are not bytes")
@pytest.mark.parametrize(("argv", "env", "name"), UNDECODED.values(), ids=UNDECODED)
def test_what_cannot_be_decoded_is_a_usage_error(
    argv: tuple[str, ...], env: dict[str, str], name: str, xget: Xget
) -> None:
    xget.env.update(env)
    status, out, err = xget(*argv, *([] if "-s" in argv else ASK), login=False)
    assert (status, out) == (2, "")
    assert re.fullmatch(rf"xget: {name}: [^\n]+\n", err), err
    assert "s3cr" not in err


@pytest.mark.parametrize("given", [b"s3cr\xfcet\n", b"\xff\xfes\x00\n\x00"], ids=["Latin-1", "UTF-16"])
def test_a_password_on_standard_input_that_cannot_be_decoded_is_a_usage_error(
    given: bytes, xget: Xget
) -> None:
    argv = ("-host", H, "-u", "alice", "-p", "-", *ASK)
    process: Any = xget.start(*argv, login=False, stdin=subprocess.PIPE, text=False)
    out, err = process.communicate(given, 60)
    assert (process.returncode, out) == (2, b"")
    assert re.fullmatch(rb"xget: -p -: [^\n]+\n", err), err
    assert b"s3cr" not in err


def test_a_pass_file_in_another_encoding_is_a_usage_error(xget: Xget) -> None:
    path = xget.home / ".xnatPass"
    path.write_bytes(f"+jürgen@http://{H}=s3cret\n".encode("latin-1"))
    path.chmod(0o600)
    status, out, err = xget(*ASK, login=False)
    assert (status, out) == (2, "")
    assert re.fullmatch(r"xget: -passfile: [^\n]*\.xnatPass[^\n]*UTF-8[^\n]*\n", err), err
    assert "s3cret" not in err


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST"])
def test_a_loopback_name_without_a_scheme_is_http(name: str, xget: Xget, server: XnatServer) -> None:
    account = ("-host", f"{name}:{server.port}", "-u", "admin", "-p", "admin")
    assert xget(*account, *ASK, login=False)[::2] == (0, "")


# --- anonymous -----------------------------------------------------------------------------------


def test_anon_reads_nothing_and_sends_no_credentials(internet: Internet) -> None:
    """Neither xget nor the HTTP libraries, in queries and in transfers."""
    world, xget = internet.plain.world, internet.xget
    world.require_login, world.projects[0].public = False, True
    xget.env.update(XNAT_HOST=f"http://{H}", XNAT_USER="alice", XNAT_PASS="one")
    write_private(xget.home / ".xnatPass", f"+alice@http://{H}=one\n")
    write_private(xget.home / ".netrc", f"machine {H} login alice password one\n")
    status, out, err = xget("-anon", "-s", "sess_1", "-proj", "proj_3", login=False)
    assert (status, err, len(out.splitlines())) == (0, "", 3)
    assert internet.seen() == f"http://{H}"


def test_anon_still_needs_a_host(internet: Internet) -> None:
    write_private(internet.xget.home / ".xnatPass", f"+alice@http://{H}=one\n")
    assert internet.xget("-anon", *ASK, login=False).status == 2
    assert internet.seen() == ""


def test_anon_at_a_site_that_wants_a_log_in_ends_in_one_line(xget: Xget, server: XnatServer) -> None:
    status, out, err = xget("-host", server.url, "-anon", *ASK, login=False)
    assert (status, out) == (3, "")
    assert re.fullmatch(r"xget: [^\n]*log-in[^\n]*\n", err)


def test_netrc_does_not_replace_what_the_flags_say(internet: Internet) -> None:
    """requests would take it for every request without an `auth` of its own."""
    write_private(internet.xget.home / ".netrc", f"machine {H} login bob password two\n")
    case = Case(f"-host|http://{H}|-u|alice|-p|one", seen=f"http://{H} alice:one")
    argv = arrange(case, internet)
    assert internet.xget(*argv, "-s", "sess_1", login=False).status == 0
    assert internet.seen() == case.seen


# --- the pass file's permissions --------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="files have no such permissions")
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o644, 0o640, 0o604])
def test_a_pass_file_that_others_can_read_brings_one_warning(
    mode: int, xget: Xget, server: XnatServer
) -> None:
    path = xget.home / ".xnatPass"
    path.write_text(f"+admin@{server.url}=admin\n")
    path.chmod(mode)
    status, _, err = xget(*ASK, login=False)
    assert status == 0
    if mode in (0o600, 0o400):
        assert err == ""
    else:
        assert re.fullmatch(rf"xget: warning: {re.escape(str(path))}: [^\n]*others[^\n]*\n", err)
        assert xget("-quiet", *ASK, login=False).err == ""


def test_a_pass_file_that_is_a_folder_is_one_line(xget: Xget, server: XnatServer) -> None:
    (xget.home / ".xnatPass").mkdir()
    status, out, err = xget("-host", server.url, *ASK, login=False)
    assert (status, out) == (2, "")
    assert re.fullmatch(r"xget: [^\n]+\n", err)


def test_a_broken_netrc_is_named_and_the_rest_goes_on(xget: Xget, server: XnatServer) -> None:
    write_private(xget.home / ".netrc", "machine\n")
    status, out, err = xget("-host", server.url, "-u", "admin", *ASK, login=False)
    assert (status, out) == (2, "")
    assert ".netrc" in err.splitlines()[0]
    assert "Traceback" not in err


# --- -p - and the prompt -----------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["one two\n", "one two", "one two\r\n", "one two\nthree\n"])
def test_p_dash_reads_the_first_line_of_standard_input(given: str, world: World, xget: Xget) -> None:
    world.users["alice"] = "one two"
    account = ("-host", xget.url, "-u", "alice", "-p", "-")
    assert xget(*account, *ASK, login=False, given=given)[::2] == (0, "")


@pytest.mark.skipif(os.name != "posix", reason="needs a pty")
class TestPrompt:
    def test_the_password_is_asked_for_at_the_terminal_unseen(self, world: World, xget: Xget) -> None:
        world.users["alice"] = "sésame 1"
        terminal = Terminal(xget, "-host", xget.url, "-u", "alice", *ASK, login=False)
        terminal.wait_for("alice")
        terminal.wait_for(": ")
        terminal.type("sésame 1\n")
        status, _, shown = terminal.finish()
        assert status == 0
        assert "sésame" not in shown
        assert shown.count("assword") == 1
        assert "NIFTI" in shown

    def test_standard_output_stays_free_of_the_question(self, world: World, xget: Xget) -> None:
        world.users["alice"] = "one"
        argv = (
            "-host",
            xget.url,
            "-u",
            "alice",
            "-s",
            "sess_1",
            "-acq",
            "1",
            "-ass",
            "NONE",
            "-recon",
            "NONE",
        )
        terminal = Terminal(xget, *argv, on="in err", login=False)
        terminal.wait_for("alice")
        terminal.type("one\n")
        status, out, _ = terminal.finish()
        assert (status, out.count("\n")) == (0, 1)
        assert Path(out.strip()) == Path("sess_1_acq.zip")

    def test_a_wrong_password_is_tried_once(self, xget: Xget, server: XnatServer) -> None:
        terminal = Terminal(xget, "-host", xget.url, "-u", "admin", *ASK, columns=160, login=False)
        terminal.wait_for("admin")
        terminal.type("wrong\n")
        status, _, shown = terminal.finish()
        assert status == 3
        assert "Login attempt failed" in shown
        assert "password from the terminal" in shown
        assert server.refused_logins == ["admin"]

    @pytest.mark.parametrize(("key", "status"), [("\x04", 2), ("\x03", 130)], ids=["Ctrl-D", "Ctrl-C"])
    def test_no_answer_asks_nothing_of_the_server(
        self, key: str, status: int, xget: Xget, server: XnatServer
    ) -> None:
        terminal = Terminal(xget, "-host", xget.url, "-u", "admin", *ASK, login=False)
        terminal.wait_for("admin")
        terminal.wait_for(": ")
        terminal.type(key)
        got, _, shown = terminal.finish()
        assert got == status
        assert "Traceback" not in shown
        assert server.requests == []

    def test_what_is_there_already_needs_no_password(self, xget: Xget, server: XnatServer) -> None:
        assert xget("-s", "sess_1").status == 0
        server.clear()
        terminal = Terminal(xget, "-host", xget.url, "-u", "admin", "-s", "sess_1", login=False)
        status, _, shown = terminal.finish()
        assert (status, server.requests) == (0, [])
        assert "assword" not in shown
