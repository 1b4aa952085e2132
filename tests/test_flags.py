"""The flags: each one's promise, whole words, and every usage error before any request."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import XGET, Outcome, Xget
from launch import launch
from xnat_server import World, XnatServer

SLOW = ("pyxnat", "lxml", "httplib2", "requests", "urllib3")
FLAGS = """
    -h -u -p -host -passfile -s -f -proj -start -end -acq -q -ass -recon -format -o -z -overwrite -longname
    -subj -res -list -flat -update -verify -json -j -compression -timeout -retry -cacert -insecure -anon
    -quiet -v -version
"""

STATUSES = ("  0  ", "  1  ", "  2  ", "  3  ", "  4  ", "  130  ", "129 hung up", "143 terminated")


def imported(xget: Xget, *args: str, given: str = "", login: bool = True) -> tuple[Outcome, set[str]]:
    """Run xget; returns what it left behind, and which packages it imported."""
    xget.env["PYTHONPROFILEIMPORTTIME"] = "1"
    status, out, err = xget(*args, given=given, login=login)
    names = re.findall(r"^import time:.*\| +(\w+)", err, re.MULTILINE)
    said = re.sub(r"^import time:.*\n", "", err, flags=re.MULTILINE)
    return Outcome(status, out, said), set(names)


def listed(xget: Xget, *args: str, given: str = "") -> str:
    """Name what `-list` shows, each as kind:ID/resource."""
    status, out, err = xget("-list", *args, given=given)
    assert status == 0
    assert all(line.startswith("xget: warning: ") for line in err.splitlines()), err
    rows = [line.split("\t") for line in out.splitlines()]
    return " ".join(f"{row[1]}:{row[2]}/{row[6]}" for row in rows)


# --- usage errors ------------------------------------------------------------------------


class Wrong(NamedTuple):
    """A command line that is refused, and what the line that says so must hold."""

    argv: str  # words, separated by `|`
    says: str  # regular expressions, separated by blanks; each must be found
    never: str = ""
    given: str = ""


S = "-s|sess_1"
WRONG = {
    "no session, no file, no project": Wrong("-z", "-s -f -proj"),
    "an unknown flag": Wrong(f"{S}|-xyz", "-xyz -h"),
    "a word that is no flag": Wrong(f"{S}|sess_2", "sess_2"),
    "a lone dash": Wrong(f"{S}|-", "flag"),
    "two lone dashes": Wrong(f"{S}|--|-z", "flag"),
    "two dashes for a single letter": Wrong(f"{S}|--z", "--?z"),
    "no password glued to -p": Wrong(f"{S}|-phunter2", "flag", never="hunter2"),
    "no password glued to --p": Wrong(f"{S}|--phunter2", "flag", never="hunter2"),
    "no password glued to -P": Wrong(f"{S}|-Phunter2", "flag", never="hunter2"),
    "an unknown word that begins with -p": Wrong(f"{S}|-pwd=hunter2", "flag", never="hunter2|pwd"),
    "--password=": Wrong(f"{S}|--password=hunter2", r"--password -p\b", never="hunter2"),
    "--password and a word": Wrong(f"{S}|--password|hunter2", r"--password -p\b", never="hunter2"),
    "a password of two words": Wrong(f"{S}|-p|my|hunter2", "password", never="hunter2"),
    "a password of two words, after =": Wrong(f"{S}|-p=my|hunter2|words", "password", never="hunter2"),
    "--host= with a password": Wrong(f"{S}|--hosts=http://a:hunter2@x", "--hosts -host", never="hunter2"),
    "-p at the end": Wrong(f"{S}|-p", "-p"),
    "-s at the end": Wrong("-s", "-s LIST|value"),
    "-s before another flag": Wrong("-s|-z", "-s LIST|value -s="),
    "-host before a word with a dash": Wrong(f"-host|-x|{S}", "-host value -host="),
    "-o at the end": Wrong(f"{S}|-o", "-o value"),
    "-z with a value": Wrong(f"{S}|-z=yes", "-z value"),
    "an empty list": Wrong("-s|", "-s LIST"),
    "a list of commas": Wrong("-s|,,", "-s LIST"),
    "an open quote": Wrong('-s|"sess_1', "-s quote"),
    "text after a quote": Wrong('-s|sess_2|-acq|"a"b', "-acq"),
    "ALL with something beside it": Wrong(f"{S}|-acq|ALL,1", "-acq ALL alone"),
    "ALL and an item in two flags": Wrong(f"{S}|-ass|ALL|-ass|a", "-ass ALL alone"),
    "bare -acq and an item": Wrong(f"{S}|-acq|-acq|1", "-acq ALL alone"),
    "NONE with something beside it": Wrong(f"{S}|-recon|NONE,R1", "-recon NONE alone"),
    "ALL with NONE": Wrong(f"{S}|-acq|ALL,NONE", "-acq alone"),
    "ALL in -q with something beside it": Wrong(f"{S}|-q|ALL,usable", "-q ALL alone"),
    "ALL in -format with something beside it": Wrong(f"{S}|-format|DICOM,ALL", "-format ALL alone"),
    "ALL in -res with something beside it": Wrong(f"{S}|-res|ALL,NOTES", "-res ALL alone"),
    "a date that is none": Wrong(f"{S}|-start|32012011", "-start DDMMYYYY YYYY-MM-DD"),
    "30 February": Wrong(f"{S}|-start|2011-02-30", "-start DDMMYYYY YYYY-MM-DD"),
    "a date with slashes": Wrong(f"{S}|-end|01/01/2011", "-end DDMMYYYY YYYY-MM-DD"),
    "a date of seven digits": Wrong(f"{S}|-start|1012011", "-start DDMMYYYY"),
    "an American date": Wrong(f"{S}|-start|01312011", "-start DDMMYYYY"),
    "digits that are not ASCII": Wrong(f"{S}|-start|٠١٠١٢٠١١", "-start DDMMYYYY"),
    "a year before 1970": Wrong(f"{S}|-start|31121969", "-start 1970"),
    "an ISO year before 1970": Wrong(f"{S}|-end|1969-12-31", "-end 1970"),
    "-start after -end": Wrong(f"{S}|-start|02012011|-end|2011-01-01", "-start -end"),
    "-j 0": Wrong(f"{S}|-j|0", "-j 1 16"),
    "-j 17": Wrong(f"{S}|-j|17", "-j 1 16"),
    "-j two": Wrong(f"{S}|-j|two", "-j 1 16"),
    "-j 1.5": Wrong(f"{S}|-j|1.5", "-j 1 16"),
    "-j=-1": Wrong(f"{S}|-j=-1", "-j 1 16"),
    "-j of a digit that int() refuses": Wrong(f"{S}|-j|²", "-j 1 16"),
    "-compression zip": Wrong(f"{S}|-compression|zip", "-compression stored deflated"),
    "-timeout 0": Wrong(f"{S}|-timeout|0", "-timeout seconds"),
    "-timeout=-5": Wrong(f"{S}|-timeout=-5", "-timeout seconds"),
    "-timeout nan": Wrong(f"{S}|-timeout|nan", "-timeout seconds"),
    "-timeout soon": Wrong(f"{S}|-timeout|soon", "-timeout seconds"),
    "-retry soon": Wrong(f"{S}|-retry|2,soon", "-retry seconds NONE"),
    "-retry=-1": Wrong(f"{S}|-retry=-1", "-retry seconds NONE"),
    "-retry NONE,2": Wrong(f"{S}|-retry|NONE,2", "-retry NONE"),
    "-f that is not there": Wrong("-f|missing.txt", "-f missing.txt No.such.file"),
    "-f that is a folder": Wrong("-f|folder", "-f folder"),
    "-f that is not text": Wrong("-f|binary", "-f binary"),
    "-f in Latin-1": Wrong("-f|latin", "-f latin encoding UTF-8"),
    "-f in UTF-16 that ends early": Wrong("-f|odd", "-f odd encoding UTF-8"),
    "-f with an open quote": Wrong("-f|quote", "-f quote"),
    "-f that names no session": Wrong("-f|empty", "-f empty"),
    "-f - that names no session": Wrong("-f|-", "-f", given="# nothing\n\n"),
    "-o that is not there": Wrong(f"{S}|-o|missing", "-o missing"),
    "-o that is a file": Wrong(f"{S}|-o|empty", "-o empty"),
    "-passfile that is not there": Wrong(f"{S}|-host|localhost|-passfile|missing", "-passfile missing"),
    "-cacert that is not there": Wrong(f"{S}|-cacert|missing", "-cacert missing"),
    "-cacert without certificates": Wrong(f"{S}|-cacert|quote", "-cacert quote"),
    "-p - without a password": Wrong(f"{S}|-p|-", "-p standard.input"),
    "-f - together with -p -": Wrong("-f|-|-p|-", "-f -p standard.input", given="sess_1\n"),
    "-anon with -u": Wrong(f"{S}|-anon|-u|admin", "-anon -u"),
    "-anon with -p": Wrong(f"{S}|-anon|-p|hunter2", "-anon -p", never="hunter2"),
    "-anon with -passfile": Wrong(f"{S}|-anon|-passfile|empty", "-anon -passfile"),
    "-insecure with -cacert": Wrong(f"{S}|-insecure|-cacert|empty", "-insecure -cacert"),
    "-quiet with -v": Wrong(f"{S}|-quiet|-v", "-quiet -v"),
    "-verify with -overwrite": Wrong(f"{S}|-verify|-overwrite", "-verify -overwrite"),
    "-verify with -update": Wrong(f"{S}|-verify|-update", "-verify -update"),
    "-update with -overwrite": Wrong(f"{S}|-update|-overwrite", "-update -overwrite"),
    "-flat without -z": Wrong(f"{S}|-flat", "-flat -z"),
    "a host with a scheme that is not HTTP": Wrong(f"{S}|-host|ftp://x", "-host http"),
    "a host that is only a scheme": Wrong(f"{S}|-host|http://", "-host http"),
    "a host with a blank": Wrong(f"{S}|-host|xnat example", "-host http"),
    "a host with a port that is none": Wrong(f"{S}|-host|http://x:port", "-host"),
    "a host with a port too high": Wrong(f"{S}|-host|http://x:99999", "-host"),
    "a host with a password in it": Wrong(f"{S}|-host|http://a:hunter2@x", "-host -u -p", never="hunter2"),
    "a host with one slash and a password": Wrong(f"{S}|-host|https:/a:hunter2@x", "-host", never="hunter2"),
    "a host with no slash and a password": Wrong(f"{S}|-host|https:a:hunter2@x", "-host", never="hunter2"),
    "a host without a scheme, with a password": Wrong(f"{S}|-host|a:hunter2@x", "-host", never="hunter2"),
    "a host in capitals with a password": Wrong(f"{S}|-host|HTTPS://a:hunter2@x", "-host", never="hunter2"),
    "-host twice": Wrong(f"{S}|-host|a|-host|b", "-host twice"),
    "-u twice": Wrong(f"{S}|-u|a|-u=b", "-u twice"),
    "-p twice": Wrong(f"{S}|-p|hunter2|-p|hunter3", "-p twice", never="hunter"),
    "-passfile twice": Wrong(f"{S}|-passfile|a|-passfile|b", "-passfile twice"),
    "-f twice": Wrong("-f|folder|-f|folder", "-f twice"),
    "-proj twice": Wrong("-proj|A|-proj|B", "-proj twice"),
    "-proj and --proj": Wrong("-proj|A|--proj=A", "-proj twice"),
    "-start twice": Wrong(f"{S}|-start|2011-01-01|-start|2011-01-01", "-start twice"),
    "-end twice": Wrong(f"{S}|-end|2011-01-01|-end|2011-01-01", "-end twice"),
    "-o twice": Wrong(f"{S}|-o|folder|-o|folder", "-o twice"),
    "-j twice": Wrong(f"{S}|-j|1|-j|2", "-j twice"),
    "-compression twice": Wrong(f"{S}|-compression|stored|-compression|stored", "-compression twice"),
    "-timeout twice": Wrong(f"{S}|-timeout|1|-timeout|2", "-timeout twice"),
    "-cacert twice": Wrong(f"{S}|-cacert|quote|-cacert|quote", "-cacert twice"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_a_usage_error_is_one_line_that_names_the_flag_and_asks_nothing(
    case: Wrong, xget: Xget, server: XnatServer
) -> None:
    (xget.folder / "folder").mkdir()
    (xget.folder / "binary").write_bytes(b"sess_1\n\x80\x81\x00")
    (xget.folder / "latin").write_bytes("müde\n".encode("latin-1"))
    (xget.folder / "odd").write_bytes(b"\xff\xfes")
    (xget.folder / "quote").write_text('"sess_1\n')
    (xget.folder / "empty").write_text("\n  \n# sess_1\n")
    before = xget.files()
    xget.env.update({"XNAT_HOST": server.url, "XNAT_USER": "admin", "XNAT_PASS": "admin"})
    outcome, names = imported(xget, *case.argv.split("|"), login=False, given=case.given)
    assert outcome.status == 2
    assert outcome.out == ""
    assert re.fullmatch(r"xget: [^\n]+: [^\n]+\n", outcome.err), outcome.err
    for word in case.says.split():
        assert re.search(rf"(?<![\w-]){word}", outcome.err), outcome.err
    assert not case.never or not re.search(case.never, outcome.err)
    assert server.requests == []
    assert xget.files() == before
    assert names.isdisjoint(SLOW)


NEAR = {
    # letters left out, added, exchanged
    "-overwite": "-overwrite",
    "-hostt": "-host",
    "-quailty": "-quality",
    "--longnam": "-longname",
    "-formt=DICOM": "-format",
    "-fromat": "-format",
    "-PROJ": "-proj",
    "-pasfile": "-passfile",
    "-over": "-overwrite",
    # what other tools call it
    "-n": "-list",
    "--dry-run": "-list",
    "--user": "-u",
    "--password": "-p",
    "--output": "-o",
    "--output=folder": "-o",
    "--project": "-proj",
    "-project": "-proj",
    "--session": "-s",
    "--extract": "-z",
    "--verbose": "-v",
    # the longest flag that the word begins with
    "-sess": "-s",
    "-sess_1": "-s",
    "-ssess_1": "-s",
    "-sessions": "-s",
    "-subject": "-subj",
    "-projects=P": "-proj",
    "-ofolder": "-o",
    "-j4": "-j",
    "-zip": "-z",
    "-listing": "-list",
    "-formats": "-format",
    "-assessors": "-ass",
    "-recons": "-recon",
    "-resources": "-res",
    "--starting=10d": "-start",
    "-PSECRET": "-p",
    "-pSECRET": "-p",
}


@pytest.mark.parametrize(("word", "meant"), NEAR.items(), ids=NEAR)
def test_a_near_miss_is_answered_with_the_flag_that_was_meant(word: str, meant: str, xget: Xget) -> None:
    status, out, err = xget("-s", "sess_1", word, "x")
    assert (status, out) == (2, "")
    assert re.fullmatch(rf"xget: [^\n]+: is no flag; did you mean {meant}\?\n", err), err
    assert "SECRET" not in err
    assert "=" not in err


@pytest.mark.parametrize("argv", [(), ("-s", "sess_1", "-j", "0"), ("-s", "sess_1", "-hostt")])
def test_a_usage_error_is_said_with_quiet_too(argv: tuple[str, ...], xget: Xget) -> None:
    status, out, err = xget("-quiet", *argv)
    assert (status, out) == (2, "")
    assert re.fullmatch(r"xget: [^\n]+: [^\n]+\n", err), err
    assert xget(*argv).err == err


@pytest.mark.parametrize("flag", ["-h", "-help", "--help"])
def test_help_names_every_flag_by_purpose_with_examples_and_exit_statuses(flag: str, xget: Xget) -> None:
    outcome, names = imported(xget, flag, login=False)
    assert (outcome.status, outcome.err) == (0, "")
    for each in FLAGS.split():
        assert re.search(rf"^  (-\w+.*, )?{each}\b", outcome.out, re.MULTILINE), each
    assert re.search(r"^  -q\b.*-quality\b", outcome.out, re.MULTILINE)
    for text in ("\nexamples:\n", "which sessions:", "who and where:", "\nexit status:\n", *STATUSES):
        assert text in outcome.out
    assert names.isdisjoint(SLOW)


def test_help_begins_with_the_description_that_the_file_begins_with(xget: Xget) -> None:
    docstring = XGET.read_text(encoding="utf-8").split('"""')[1].strip()
    assert docstring in xget("-h", login=False).out


@pytest.mark.parametrize("flag", ["-version", "--version"])
def test_version_is_that_of_the_file(flag: str, xget: Xget) -> None:
    version = re.search(r'^__version__ = "(.+)"', XGET.read_text(encoding="utf-8"), re.MULTILINE)
    assert version
    outcome, names = imported(xget, flag, login=False)
    assert outcome == (0, f"xget {version[1]}\n", "")
    assert names.isdisjoint(SLOW)


def test_no_arguments_is_a_usage_error(xget: Xget) -> None:
    status, out, err = xget(login=False)
    assert (status, out) == (2, "")
    assert re.search("-s.*-f.*-proj", err)


def test_the_file_is_executable_and_says_what_it_needs() -> None:
    head = XGET.read_text(encoding="utf-8").partition('"""')[0]
    assert os.access(XGET, os.X_OK)
    assert head.startswith("#!/usr/bin/env python3\n# /// script\n")
    for name in ("pyxnat", "lxml", "httplib2", "tqdm"):
        assert re.search(rf'^# .*"{name}[<>=]', head, re.MULTILINE)


# --- the output directory ------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="folders have no such permission")
def test_an_output_directory_that_is_not_writable_is_refused_before_any_request(
    xget: Xget, server: XnatServer
) -> None:
    (xget.folder / "kept").mkdir(mode=0o555)
    process = launch(xget, "plain", "-s", "sess_1", "-o", "kept")
    out, err = process.communicate(timeout=60)
    if "launch:" in err:
        pytest.skip("root's rights cannot be dropped here")
    assert (process.returncode, out) == (2, "")
    assert re.fullmatch(r"xget: -o kept: [^\n]*writable[^\n]*\n", err)
    assert server.requests == []


def test_an_output_directory_that_takes_no_file_after_all_ends_in_one_line(xget: Xget) -> None:
    """/proc lets root in, and then refuses."""
    if not os.access("/proc", os.W_OK):
        pytest.skip("this account is refused at once")
    status, out, err = xget(
        "-s", "sess_1", "-acq", "1", "-ass", "NONE", "-recon", "NONE", "-o", "/proc", timeout=20
    )
    assert (status, out) in ((1, ""), (2, ""))
    assert re.match(r"xget: [^\n]*/proc", err)
    assert "Traceback" not in err


def test_o_names_the_output_directory(xget: Xget) -> None:
    (xget.folder / "tmp").mkdir()
    status, out, err = xget("-s", "sess_1", "-acq", "1", "-ass", "NONE", "-recon", "NONE", "-o", "tmp")
    assert (status, Path(out.strip()), err) == (0, Path("tmp", "sess_1_acq.zip"), "")
    assert xget.files() == ["tmp/", "tmp/sess_1_acq.zip"]


# --- what the flags mean ---------------------------------------------------------------------

SCANS = "acq:1/DICOM acq:2/DICOM"
REST = "ass:sess_1_QC/DATA recon:R1/NIFTI"
MEANINGS = {
    "-s by label": ("-s|sess_1", f"{SCANS} {REST}"),
    "-s by ID": ("-s|XNAT_E00001", f"{SCANS} {REST}"),
    "-s=": ("-s=sess_1", f"{SCANS} {REST}"),
    "-proj, the whole project": ("-proj|proj_3", f"{SCANS} {REST}"),
    "--proj with two dashes": ("--proj|proj_3", f"{SCANS} {REST}"),
    "--proj=": ("--proj=proj_3", f"{SCANS} {REST}"),
    "-start on the day": ("-proj|proj_3|-start|17112011", f"{SCANS} {REST}"),
    "-start a day later": ("-proj|proj_3|-start|18112011", ""),
    "-start as YYYY-MM-DD": ("-proj|proj_3|-start|2011-11-18", ""),
    "-end on the day": ("-proj|proj_3|-end|17112011", f"{SCANS} {REST}"),
    "-end a day before": ("-proj|proj_3|-end|2011-11-16", ""),
    "-acq by ID": ("-s|sess_1|-acq|1", f"acq:1/DICOM {REST}"),
    "-acq by type": ("-s|sess_1|-acq|PIB 336mtx", f"acq:2/DICOM {REST}"),
    "-acq by a quoted description": ('-s|sess_1|-acq|"t2_tse, sag"', f"acq:1/DICOM {REST}"),
    "-acq=": ("-s|sess_1|-acq=2", f"acq:2/DICOM {REST}"),
    "-acq twice adds": ("-s|sess_1|-acq|1|-acq|PIB 336mtx", f"{SCANS} {REST}"),
    "-acq ALL": ("-s|sess_1|-acq|ALL", f"{SCANS} {REST}"),
    "-acq, bare, is ALL": ("-s|sess_1|-acq|-ass|NONE", f"{SCANS} recon:R1/NIFTI"),
    "-acq, bare, at the end": ("-s|sess_1|-recon|NONE|-acq", f"{SCANS} ass:sess_1_QC/DATA"),
    "-acq NONE": ("-s|sess_1|-acq|NONE", REST),
    "-q": ("-s|sess_1|-q|usable", f"acq:1/DICOM {REST}"),
    "-quality": ("-s|sess_1|-quality|usable", f"acq:1/DICOM {REST}"),
    "-q and -quality add": ("-s|sess_1|--quality=usable|-q|questionable", f"{SCANS} {REST}"),
    "-ass by label": ("-s|sess_1|-ass|sess_1_QC|-acq|NONE", REST),
    "-ass, bare, is ALL": ("-s|sess_1|-acq|NONE|-ass|-recon|NONE", "ass:sess_1_QC/DATA"),
    "-ass NONE": ("-s|sess_1|-ass|NONE", f"{SCANS} recon:R1/NIFTI"),
    "-recon by ID": ("-s|sess_1|-recon|R1|-acq|NONE|-ass|NONE", "recon:R1/NIFTI"),
    "-recon by type": ("-s|sess_1|-recon|RECON A|-acq|NONE|-ass|NONE", "recon:R1/NIFTI"),
    "-recon, bare, is ALL": ("-s|sess_1|-recon|-acq|NONE|-ass|NONE", "recon:R1/NIFTI"),
    "-recon NONE": ("-s|sess_1|-recon|NONE", f"{SCANS} ass:sess_1_QC/DATA"),
    "-format": ("-s|sess_1|-format|nifti", "acq:2/NIFTI recon:R1/NIFTI"),
    "-format ALL": ("-s|sess_1|-format|ALL", f"acq:1/DICOM acq:2/DICOM acq:2/NIFTI {REST}"),
    "-res": ("-s|sess_1|-acq|NONE|-ass|NONE|-recon|NONE|-res|NOTES", "res:NOTES/NOTES"),
    "-subj by label": ("-proj|proj_3|-subj|subj_1", f"{SCANS} {REST}"),
    "-subj by a pattern": ("-proj|proj_3|-subj|subj_?", f"{SCANS} {REST}"),
    "-s by a pattern": ("-s|sess*", f"{SCANS} {REST}"),
    "-acq by a pattern": ("-s|sess_1|-acq|PIB*", f"acq:2/DICOM {REST}"),
    "-acq without one": ("-s|sess_1|-acq|!TSE", f"acq:2/DICOM {REST}"),
    "-j": ("-s|sess_1|-j|16", f"{SCANS} {REST}"),
}


@pytest.mark.parametrize("case", MEANINGS.values(), ids=MEANINGS)
def test_a_flag_means(case: tuple[str, str], xget: Xget) -> None:
    argv, wanted = case
    got = listed(xget, *argv.split("|"))
    assert " ".join(sorted(got.split())) == " ".join(sorted(wanted.split()))
    assert xget.files() == []


@pytest.mark.parametrize("what", ["the archives", "an extracted tree"])
def test_a_list_is_the_same_whatever_is_there(what: str, xget: Xget, server: XnatServer) -> None:
    words = ("-z",) if what == "an extracted tree" else ()
    before = listed(xget, "-s", "sess_1", *words)
    assert xget("-s", "sess_1", *words).status == 0
    there = xget.files()
    for more in ((), ("-overwrite",), ("-verify",)):
        assert listed(xget, "-s", "sess_1", *words, *more) == before
    assert xget.files() == there


def test_longname_z_overwrite_json_and_compression_take_two_dashes_too(
    xget: Xget, server: XnatServer
) -> None:
    only = ("--proj", "proj_3", "-s", "sess_1", "--acq=1", "--ass=NONE", "--recon=NONE")
    name = "p_proj_3_sess_sess_1_acq_1_q_ALL_f_DICOM.zip"
    assert xget(*only, "--longname", "--compression=deflated").out.strip().endswith(name)
    assert [r.path for r in server.requests if "compression=8" in r.path]
    assert xget.files() == [name]
    server.clear()
    assert xget(*only, "--longname", "--json").out.count('"status": "present"') == 1
    assert server.requests == []
    assert xget(*only, "--longname", "--overwrite").out.strip().endswith(name)


# --- words that hold something odd --------------------------------------------------------------


def test_a_value_that_begins_with_a_dash_follows_an_equals_sign(world: World, xget: Xget) -> None:
    scan = world.projects[0].session("-odd", subject="subj_1").scan("1", type="-T=1")
    scan.resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    assert listed(xget, "-s=-odd", "-acq=-T=1", "-proj", "proj_3") == "acq:1/DICOM"


def test_items_with_commas_and_quotes_are_quoted_as_in_csv(world: World, xget: Xget) -> None:
    session = world.projects[0].session("odd", subject="subj_1")
    for id, type in enumerate(("T2, sag", 'a "b"', " x,y ", "T2"), 1):
        session.scan(str(id), type=type).resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    assert listed(xget, "-s", "odd", "-acq", '"T2, sag","a ""b"""') == "acq:1/DICOM acq:2/DICOM"
    assert listed(xget, "-s", "odd", "-acq", 'T2, "T2, sag"') == "acq:1/DICOM acq:4/DICOM"


@pytest.mark.parametrize("password", ["-z", "--", "-p", "=x=", "-anon", "a b", "ü€"])
def test_p_takes_the_next_word_whatever_it_is(
    password: str, world: World, xget: Xget, server: XnatServer
) -> None:
    world.users["admin"] = password
    argv = ("-host", server.url, "-u", "admin", "-p", password, "-s", "sess_1", "-list")
    assert xget(*argv, login=False)[::2] == (0, "")


@pytest.mark.parametrize("words", [("-p", "hunter2"), ("-p=hunter2",)], ids=["-p WORD", "-p=WORD"])
def test_a_password_is_in_no_message(words: tuple[str, ...], xget: Xget, server: XnatServer) -> None:
    account = ("-host", server.url, "-u", "admin", *words, "-v", "-s", "sess_1", "-retry", "NONE")
    status, out, err = xget(*account, login=False)
    assert status == 3
    assert "hunter2" not in out + err
    for more in (("-j", "0"), ("hunter2x",), ("-zz",)):
        assert "hunter2\n" not in xget(*account, *more, login=False).err


# --- -f --------------------------------------------------------------------------------------

FILES = {
    "a session a line": b"sess_1\nsess_2\n",
    "a LIST on a line": b"sess_1,sess_2\n",
    "no line break at the end": b"sess_1\nsess_2",
    "CRLF": b"sess_1\r\nsess_2\r\n",
    "a byte-order mark": b"\xef\xbb\xbfsess_1\nsess_2\n",
    "blank lines and comments": b"# ours\n\n  \nsess_1\n   # not sess_3\nsess_2\n",
    "white space around": b"  sess_1 ,\tsess_2  \n",
    "a quoted item": b'sess_1,"sess_2"\n',
    "a session twice": b"sess_1\nsess_2\nsess_1\n",
    "UTF-16 with its mark": "sess_1\r\nsess_2\r\n".encode("utf-16"),
    "UTF-16 of the other order": b"\xfe\xff" + "sess_1\nsess_2\n".encode("utf-16-be"),
    "a table with ID": b"label,ID,date\nsess_1,XNAT_E00001,2011-11-17\nother,sess_2,\n",
    "a table with MR ID": b'Subject,"MR ID",Date\nsubj_1,sess_1,2011-11-17\nsubj_1,"sess_2",\n',
    "a table with label": b"date,label,xsiType\r\n2011-11-17,sess_1,xnat:mrSessionData\r\n,sess_2,\r\n",
    "a table with several columns of IDs": b"MR ID,Subject ID,label\nsess_1,s,x\nsess_2,s,y\n",
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
@pytest.mark.parametrize("where", ["a file", "-"])
def test_f_reads_sessions(text: bytes, where: str, world: World, xget: Xget) -> None:
    scan = world.projects[0].session("sess_2", subject="subj_1").scan("7")
    scan.resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    (xget.folder / "my list").write_bytes(text)
    argv = ("-list", "-f", "my list" if where == "a file" else "-", "-ass", "NONE", "-recon", "NONE")
    process: Any = xget.start(*argv, stdin=subprocess.PIPE, text=False)
    out, err = process.communicate(text, 60)
    assert (process.returncode, err) == (0, b"")
    assert re.findall(r"^\S+\tacq\t(\d)", out.decode(), re.MULTILINE) == ["1", "2", "7"]


def test_f_adds_to_s(world: World, xget: Xget) -> None:
    scan = world.projects[0].session("sess, 2", subject="subj_1").scan("7")
    scan.resource("DICOM", {"1.dcm": b"1"}, format="DICOM")
    (xget.folder / "list").write_text('"sess, 2"\nsess_1\n')
    got = listed(xget, "-s", "sess_1", "-f", "list", "-ass", "NONE", "-recon", "NONE")
    assert got == f"{SCANS} acq:7/DICOM"


# --- another Python -----------------------------------------------------------------------------


def test_xget_runs_with_warnings_as_errors_and_without_a_home(xget: Xget, server: XnatServer) -> None:
    env = {"PATH": os.environ["PATH"], "PYTHONWARNINGS": "error"}
    argv = [sys.executable, str(XGET), "-host", server.url, "-u", "admin", "-p", "admin", "-list"]
    done = subprocess.run([*argv, "-s", "sess_1"], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
