"""Names that a terminal, a file system or a script would stumble over, and secrets that no message shows."""

from __future__ import annotations

import json
import socket
from typing import Callable

import lane
import pytest
from conftest import Outcome, Xget
from truth import read_tree, read_zip, truth
from xnat_server import Session, World, XnatServer

QUICK = ("-retry", "0.1", "-timeout", "10")
ODD = {
    "CSI (U+009B)": "\x9b",
    "right-to-left override": "\u202e",
    "line separator": "\u2028",
    "newline": "\n",
    "DEL": "\x7f",
    "zero-width space": "\u200b",
    "isolate": "\u2066",
}
EACH = pytest.mark.parametrize("odd", ODD.values(), ids=ODD)


def escaped(odd: str) -> str:
    """How a message shows such a character."""
    return str(lane.plain(repr(odd)[1:-1]))


def assert_clean(*texts: str) -> None:
    """Nothing in them does anything to a terminal or to a script that reads lines."""
    for text in texts:
        assert all(c.isprintable() or c in "\n\t" for c in text), repr(text)


def assert_lines(outcome: Outcome) -> None:
    assert_clean(outcome.out, outcome.err)
    assert all(line.startswith("xget: ") for line in outcome.err.splitlines()), outcome.err


def odd_session(world: World, odd: str) -> Session:
    """A session all of whose names hold the character."""
    session = world.project("odd", name=f"Odd{odd}name").session(f"la{odd}bel", subject=f"su{odd}bj")
    scan = session.scan("1", type=f"ty{odd}pe", quality=f"us{odd}able", description=f"de{odd}sc")
    scan.resource("DICOM", {"a.dcm": b"a" * 500}, format="DICOM")
    session.assessor("QC").resource(f"DA{odd}TA", {"qc.txt": b"fine"})
    return session


@EACH
def test_a_label_is_printed_and_becomes_a_file_name_with_an_underscore(
    xget: Xget, world: World, odd: str
) -> None:
    session = world.projects[0].session(f"la{odd}bel")
    session.scan("1", type=f"ty{odd}pe").resource("DICOM", {"a.dcm": b"a"}, format="DICOM")
    outcome = xget("-proj", "proj_3", "-ass", "NONE", "-recon", "NONE", "-j", "1", *QUICK)
    assert_lines(outcome)
    assert "sess_1_acq.zip" in xget.files()
    if odd in "\n\x7f":  # a control character that no path may hold
        assert outcome.status == 1 and f"xget: la{escaped(odd)}" in outcome.err
        return
    assert sorted(outcome.out.splitlines()) == ["./la_bel_acq.zip", "./sess_1_acq.zip"]
    assert (outcome.status, outcome.err) == (0, "")
    assert read_zip(xget.folder / "la_bel_acq.zip") == truth(session, "acq")


@EACH
@pytest.mark.parametrize("args", [("-list",), ("-list", "-json"), (), ("-json",), ("-z",), ("-v",)], ids=str)
def test_nothing_that_is_said_holds_it(xget: Xget, world: World, odd: str, args: tuple[str, ...]) -> None:
    session = odd_session(world, odd)
    outcome = xget("-proj", session.project.name, *args, "-acq", "1,nosuch", "-q", "nosuch,*able", *QUICK)
    assert_lines(outcome)
    assert_clean(*(name for name in xget.files() if odd != "\u200b"))
    assert "nosuch: matches nothing" in outcome.err
    for line in outcome.out.splitlines() if "-json" in args else ():
        json.loads(line)


@EACH
def test_what_there_is_instead_is_escaped(xget: Xget, world: World, odd: str) -> None:
    odd_session(world, odd)
    for args in (("-proj", "odd", "-subj", "nosuch"), ("-s", f"no{odd}such"), ("-proj", f"no{odd}such")):
        outcome = xget(*args, *QUICK)
        assert_lines(outcome)
        assert outcome.status in (1, 4) and escaped(odd) in outcome.err


@EACH
def test_a_file_that_bears_it_is_in_the_archive_or_named(xget: Xget, world: World, odd: str) -> None:
    session = world.sessions()[0]
    session.scans[0].resources[0].add(f"fi{odd}le.dcm", b"odd" * 100)
    args = ("-s", "sess_1", "-ass", "NONE", "-recon", "NONE", *QUICK)
    outcome = xget(*args)
    assert_lines(outcome)
    if outcome.status == 0:
        assert read_zip(xget.folder / "sess_1_acq.zip") == truth(session, "acq")
    else:
        assert odd in "\n\x7f" and f"1 DICOM fi{escaped(odd)}le.dcm: missing" in outcome.err
    outcome = xget(*args, "-z")
    assert_lines(outcome)
    assert outcome.status == (0 if odd == "\u200b" else 1)
    expected = {
        name: data for name, data in truth(session, "acq").items() if odd == "\u200b" or odd not in name
    }
    assert read_tree(xget.folder) == expected


@EACH
@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 503])
def test_what_a_server_says_is_escaped_and_one_line(
    xget: Xget, server: XnatServer, odd: str, status: int
) -> None:
    text = f"bad{odd}\x1b[31m\r\nnews\x00"
    match = "auth" if status == 401 else "format="
    body = f"<html><h3>{text}</h3></html>".encode()
    headers = {"Content-Type": "text/html", "Location": "/bad\x1b[31m\x9b"}
    server.fault("answer", match, status=status, headers=headers, body=body, times=None)
    outcome = xget("-s", "sess_1", *QUICK)
    assert_lines(outcome)
    assert outcome.status in (1, 3)
    assert len(outcome.err.splitlines()) <= 2
    assert "bad" in outcome.err or status == 404


@pytest.mark.parametrize("where", ["auth", "experiments", "Content-Encoding"])
def test_other_things_that_a_server_says_are_escaped(xget: Xget, server: XnatServer, where: str) -> None:
    odd = "\x1b[2J\x9b\u202e"
    if where == "auth":
        server.fault("answer", "auth", body=f"User '{odd}' is {odd}".encode(), times=None)
    elif where == "experiments":
        server.fault("answer", "format=xml", body=f"<a ID='{odd[4:]}'/>".encode(), times=None)
    else:
        server.fault("answer", "format=xml", headers={"Content-Encoding": "\x1b[2Jx\x9b"}, times=None)
    outcome = xget("-s", "sess_1", *QUICK)
    assert_lines(outcome)
    assert outcome.status in (1, 3)


# --- names that lead somewhere else --------------------------------------------------------------

WAYS = pytest.mark.parametrize("way", [(), ("-z",), ("-z", "-flat"), ("-z", "-overwrite")], ids=str)
OUT = ["..", ".", "/", "../x", "/tmp/x", "a/../../x", "a/b", "..\\\\x", "C:x", "\x00", "a\nb", ""]


def scan_type(session: Session, name: str) -> None:
    session.scan("9", type=name).resource("DICOM", {"a.dcm": b"a"}, format="DICOM")


def scan_id(session: Session, name: str) -> None:
    session.scan(name).resource("DICOM", {"a.dcm": b"a"}, format="DICOM")


def resource_label(session: Session, name: str) -> None:
    session.scan("9").resource(name, {"a.dcm": b"a"}, format="DICOM")


def assessor_label(session: Session, name: str) -> None:
    session.assessor(name).resource("DATA", {"a.txt": b"a"})


def file_path(session: Session, name: str) -> None:
    session.scan("9").resource("DICOM", {name or "x/": b"a"}, format="DICOM")


def session_label(session: Session, name: str) -> None:
    session.label = name
    scan_id(session, "9")


PLACES = [session_label, scan_type, scan_id, resource_label, assessor_label, file_path]


@WAYS
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_nothing_is_written_or_removed_outside(
    xget: Xget, world: World, place: Callable[[Session, str], None], way: tuple[str, ...]
) -> None:
    """A session for each odd name in this place; the one without comes whole, the others if they can."""
    top, healthy = xget.folder.parent, world.sessions()[0]
    (top / "scans").mkdir()
    (top / "scans" / "mine.txt").write_text("mine")
    for number, name in enumerate(OUT):
        place(world.projects[0].session(f"s{number}"), name)
    outcome = xget("-proj", "proj_3", *way, *QUICK)
    assert_lines(outcome)
    assert outcome.status == 1 or place in (scan_type,)
    assert {path.name for path in top.iterdir()} == {"home", "out", "scans"}
    assert [path.read_text() for path in (top / "scans").iterdir()] == ["mine"]
    assert list(xget.home.iterdir()) == []
    kinds = {kind: truth(healthy, kind) for kind in ("acq", "ass", "recon")}
    if "-flat" in way:
        assert len([name for name in read_tree(xget.folder) if name.startswith("sess_1/")]) == 9
    elif way:
        assert (
            read_tree(xget.folder).items()
            >= {k: v for each in kinds.values() for k, v in each.items()}.items()
        )
    else:
        assert {kind: read_zip(xget.folder / f"sess_1_{kind}.zip") for kind in kinds} == kinds


# --- secrets ----------------------------------------------------------------------------------------

SECRET = "hunter2x"
MISTYPED = [
    "-p my SECRET",
    "-p x SECRET",
    "-pSECRET",
    "-PSECRET",
    "-P SECRET",
    "-p=SECRET -p=SECRET",
    "-p SECRET -p SECRET",
    "--pSECRET",
    "--PSECRET",
    "-pass SECRET",
    "-pass=SECRET",
    "--pass=SECRET",
    "--pass SECRET",
    "-passSECRET",
    "-passwd SECRET",
    "--passwd=SECRET",
    "-pw SECRET",
    "-pw=SECRET",
    "--password SECRET",
    "--password=SECRET",
    "-password=SECRET",
    "--passwordSECRET",
    "-Password=SECRET",
    "-u admin:SECRET",
    "-u=admin:SECRET",
    "-u admin:SECRET -p x",
    "-u admin SECRET",
    "-u admin/SECRET@host",
    "--user=admin:SECRET",
    "--user admin:SECRET",
    "-host https://admin:SECRET@HOST",
    "-host http://admin:SECRET@HOST",
    "-host https:/admin:SECRET@HOST",
    "-host https:admin:SECRET@HOST",
    "-host admin:SECRET@HOST",
    "-host=admin:SECRET@HOST",
    "-host https://admin:1/SECRET@HOST",
    "-host https://admin:SE/SECRET@HOST",
    "-host ftp://admin:SECRET@HOST",
    "-host http://HOST?password=SECRET",
    "-host http://HOST#SECRET",
    "-hostbob:SECRET@HOST",
    "-host http://HOST/?p=SECRET",
    "-host http://HOST,-p,SECRET",
    "-hosthttps://admin:SECRET@HOST",
    "--host=https://admin:SECRET@HOST",
    "-passfile=-p -p SECRET",
    "-f passfile",
    "-f passfile -p x",
    "-passfile sessions -u admin",
    "-o SECRET -p SECRET extra",
    "-cacert nosuch -p SECRET",
    "-j x -p SECRET",
    "-start x -p SECRET",
    "-p -SECRET -acq",
    "-p --SECRET -nosuch",
    "-p - SECRET",
    "-anon -p SECRET",
    "-anon -u admin -p SECRET",
    "-acq -p -p SECRET",
]


@pytest.mark.parametrize("words", MISTYPED)
def test_no_message_shows_a_secret_however_it_was_mistyped(
    xget: Xget, server: XnatServer, words: str
) -> None:
    (xget.folder / "passfile").write_text(f"+admin@{server.url}={SECRET}\n")
    (xget.folder / "passfile").chmod(0o600)
    (xget.folder / "sessions").write_text(f"sess_1\nadmin {SECRET}\n+admin@=={SECRET}\nadmin@h={SECRET}\n")
    (xget.folder / "sessions").chmod(0o600)
    host = server.url.partition("//")[2]
    if words.startswith("-o "):
        (xget.folder / SECRET).mkdir()
    given = [word.replace("SECRET", SECRET).replace("HOST", host) for word in words.split()]
    given = [word.replace(",-p,", " -p ") for word in given]
    more = () if "-host" in words else ("-host", server.url)
    for args in ([*more, *given, "-s", "sess_1"], [*given, *more, "-s", "sess_1", "-v"]):
        outcome = xget(*args, *QUICK, login=False)
        assert SECRET not in outcome.out + outcome.err
        assert outcome.status in (1, 2, 3)
        assert_lines(outcome)


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


PROXIES = [
    "http://bob:SECRET@127.0.0.1:port",
    "http://bob:SECRET@127.0.0.1:99999",
    "http://bob:SECRET@127.0.0.1:-1",
    "http://bob:SECRET@127.0.0.1:CLOSED",
    "http://bob:SECRET@127.0.0.1:",
    "http://bob:SECRET@no.such.invalid:1",
    "http://bob:SECRET@[::1",
    "http://bob:SECRET@",
    "http://bob:1/SECRET@127.0.0.1:CLOSED",
    "http://bob:SE#SECRET@127.0.0.1:CLOSED",
    "http://bob:SE?SECRET@127.0.0.1:CLOSED",
    "http://bob:SE@SECRET@127.0.0.1:CLOSED",
    "bob:SECRET@127.0.0.1:CLOSED",
    "//bob:SECRET@127.0.0.1:CLOSED",
    "ftp://bob:SECRET@127.0.0.1:CLOSED",
    "https://bob:SECRET@127.0.0.1:CLOSED",
    "socks5://bob:SECRET@127.0.0.1:CLOSED",
    "socks9://bob:SECRET@127.0.0.1:CLOSED",
    "SECRET",
    "http:bob:SECRET@127.0.0.1:CLOSED",
]


@pytest.mark.parametrize(("scheme", "args"), [("http", ()), ("https", ("-v",))], ids=["http", "https"])
@pytest.mark.parametrize("proxy", PROXIES)
def test_no_message_shows_the_password_of_a_proxy(
    xget: Xget, proxy: str, scheme: str, args: tuple[str, ...]
) -> None:
    url = proxy.replace("CLOSED", str(closed_port())).replace("SECRET", SECRET)
    xget.env.update({f"{scheme}_proxy": url, f"{scheme.upper()}_PROXY": url})
    xget.url = f"{scheme}://xnat.invalid"
    outcome = xget("-s", "sess_1", *QUICK, *args)
    assert SECRET not in outcome.out + outcome.err or proxy == "SECRET"  # that is a name of a host
    assert outcome.status in (2, 3) and outcome.out == ""
    assert_lines(outcome)
    assert len(outcome.err.splitlines()) == 1 or args


WHERE: dict[str, Callable[[Xget, str], None]] = {
    "XNAT_HOST": lambda xget, host: xget.env.update(XNAT_HOST=f"https://admin:{SECRET}@{host}"),
    "XNAT_HOST, a slash": lambda xget, host: xget.env.update(XNAT_HOST=f"https://admin:1/{SECRET}@{host}"),
    "XNAT_PASS alone": lambda xget, host: xget.env.update(XNAT_PASS=SECRET),
    "a refused XNAT_PASS": lambda xget, host: xget.env.update(
        XNAT_HOST=f"http://{host}", XNAT_USER="admin", XNAT_PASS=SECRET
    ),
    "XNAT_USER": lambda xget, host: xget.env.update(XNAT_HOST=f"http://{host}", XNAT_USER=f"a:{SECRET}"),
}


@pytest.mark.parametrize("case", WHERE)
def test_no_message_shows_a_secret_of_the_environment(xget: Xget, server: XnatServer, case: str) -> None:
    WHERE[case](xget, server.url.partition("//")[2])
    for args in ((), ("-v",)):
        outcome = xget("-s", "sess_1", *QUICK, *args, login=False)
        assert SECRET not in outcome.out + outcome.err
        assert outcome.status in (2, 3)
        assert_lines(outcome)


FILES = {
    ".xnatPass, no sign": "admin@HOST=SECRET\n",
    ".xnatPass, no host": "+admin=SECRET\n",
    ".xnatPass, a URL": "+https://admin:SECRET@HOST\n",
    ".xnatPass, a URL with a password": "+admin@https://x:SECRET@HOST=SECRET\n",
    ".xnatPass, refused": "+admin@http://HOST=SECRET\n",
    ".netrc, cut": "machine 127.0.0.1 login admin password",
    ".netrc, misspelt": "machine 127.0.0.1 login admin pasword SECRET\n",
    ".netrc, a word too much": "machine 127.0.0.1 login admin password x SECRET\n",
    ".netrc, refused": "machine 127.0.0.1 login admin password SECRET\n",
    ".netrc, no machine": "SECRET\n",
}


@pytest.mark.parametrize("case", FILES)
def test_no_message_shows_a_secret_of_a_file(xget: Xget, server: XnatServer, case: str) -> None:
    path = xget.home / case.partition(",")[0]
    path.write_text(FILES[case].replace("HOST", server.url.partition("//")[2]).replace("SECRET", SECRET))
    path.chmod(0o600)
    for args in (("-host", server.url), ("-host", server.url, "-v"), ()):
        outcome = xget("-s", "sess_1", *QUICK, *args, login=False)
        assert SECRET not in outcome.out + outcome.err
        assert outcome.status in (2, 3)
        assert_lines(outcome)


def test_no_file_holds_a_secret_either(xget: Xget, world: World, server: XnatServer) -> None:
    """Neither an archive's comment nor a part nor the mark of a folder."""
    world.users["admin"] = SECRET
    server.fault("status", r"files/1\.dcm|format=zip", status=404, times=None)
    account = ("-host", server.url, "-u", "admin", "-p", SECRET)
    for way in ((), ("-z",)):
        assert xget(*account, "-s", "sess_1", *way, *QUICK, login=False).status == 1
    files = [path for path in xget.folder.rglob("*") if path.is_file()]
    assert files and not any(SECRET.encode() in path.read_bytes() for path in files)
