"""Holds README.md to what xget does: recipes, shown output, help, flags, names, requirements.

As a program, `python tests/test_readme.py` puts the help of the day into README.md.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import runpy
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import XGET, Outcome, Xget
from network import Authority, Proxy
from xnat_server import World, XnatServer, demo_world

HOME = XGET.parent
README = (HOME / "README.md").read_text(encoding="utf-8")
EXAMPLE = "https://xnat.example.org"  # the name of a server in the README
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str, text: str = README) -> list[str]:
    return [body for name, body in FENCE.findall(text) if name == language]


def section(title: str) -> str:
    """What stands below a heading, up to the next of the second rank."""
    found = re.search(rf"^(##+) {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, f"no section {title}"
    return found[2]


def recipes() -> dict[str, str]:
    """The commands of the recipes, by what the comment above them begins with."""
    found = {}
    for part in "\n".join(blocks("sh", section("Recipes"))).split("\n\n"):
        comment, _, script = part.strip().partition("\n")
        assert comment.startswith("# ") and script, f"no comment, or no command: {part}"
        found[re.split(r"[.?:;]", comment[2:])[0]] = script
    return found


def indented(text: str) -> list[str]:
    return [line[4:] for line in text.splitlines() if line.startswith("    ")]


@pytest.fixture
def world() -> World:
    """The demonstration, with a session of three days ago and a public project beside it."""
    world = demo_world()
    recent = (datetime.date.today() - datetime.timedelta(days=3)).isoformat()
    new = world.projects[0].session("new_1", subject="subj_2", date=recent)
    new.scan("1", type="TSE").resource("DICOM", {"1.dcm": b"new"}, format="DICOM")
    new.scan("2", type="localizer").resource("DICOM", {"1.dcm": b"loc"}, format="DICOM")
    public = world.project("open_1", public=True).session("visitor_1", date="2020-02-02")
    public.scan("1", type="T1").resource("DICOM", {"1.dcm": b"public"}, format="DICOM")
    return world


def command_of(start: str) -> str:
    """The command in the prose that begins so."""
    [found] = re.findall(rf"`({re.escape(start)}[^`]*)`", README)
    return found


class Shell:
    """Runs recipes as they stand, with xget on the PATH and the account in ~/.xnatPass."""

    def __init__(self, xget: Xget) -> None:
        self.xget, self.bin = xget, xget.home / "bin"
        self.bin.mkdir()
        self.tool("xget", f'exec "{sys.executable}" "{XGET}" "$@"')
        self.env = {**xget.environment(), "PATH": f"{self.bin}:{os.environ['PATH']}"}
        self.pass_file = xget.home / ".xnatPass"
        self.pass_file.write_text(f"+admin@{xget.url}=admin\n-admin@{EXAMPLE}=admin\n")
        self.pass_file.chmod(0o600)
        self(command_of("mkdir -p data"))

    def tool(self, name: str, script: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def __call__(self, script: str, shell: str = "bash", **env: str) -> Outcome:
        done = subprocess.run(
            [shell, "-c", script],
            cwd=self.xget.folder,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def files(self) -> list[str]:
        """The files that are there, without those inside extracted folders."""
        return [name for name in self.xget.files() if not re.search(r"/$|/\.xget$", name)]

    def images(self) -> int:
        """How many files came, in archives and in extracted folders."""
        count = sum(name.endswith(".dcm") for name in self.xget.files())
        for path in self.xget.folder.rglob("*.zip"):
            with zipfile.ZipFile(path) as archive:
                count += len(archive.namelist())
        return count


@pytest.fixture
def shell(xget: Xget) -> Shell:
    need("bash")
    return Shell(xget)


def need(*tools: str) -> None:
    for tool in tools:
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    if (
        "date" in tools
        and subprocess.run(["date", "-d", "today"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this date knows no -d")


class Verdict(NamedTuple):
    """What a recipe leaves: lines of standard output in any order, files, and what came in them."""

    out: list[str]
    files: list[str]
    images: int
    needs: tuple[str, ...] = ()
    err: str = ""
    env: tuple[tuple[str, str], ...] = ()


def zips(folder: str, *sessions: str) -> list[str]:
    kinds = {"sess_1": ("acq", "ass", "recon")}
    return [f"{folder}{name}_{kind}.zip" for name in sessions for kind in kinds.get(name, ("acq",))]


def tree(folder: str, session: str) -> list[str]:
    """The files of a session as -flat lays them out."""
    scans = {"sess_1": {"1-TSE": 6, "2-PIB_336mtx": 4}}
    images = [
        f"{folder}{session}/{scan}/IM{n:04}.dcm"
        for scan, count in scans.get(session, {}).items()
        for n in range(1, count + 1)
    ]
    rest = {
        "sess_1": ["R1-RECON_A/r1.nii", "sess_1_QC/qc.txt"],
        "new_1": ["1-TSE/1.dcm", "2-localizer/1.dcm"],
    }
    return [*images, *(f"{folder}{session}/{name}" for name in rest[session])]


LISTED = [
    "sess_1\tacq\t1\tTSE\tTSE\tusable\tDICOM\t6\t59004",
    "sess_1\tacq\t2\tPIB 336mtx\tPIB 336mtx\tquestionable\tDICOM\t4\t156840",
    "sess_1\tass\tsess_1_QC\txnat:qcManualAssessorData\t\t\tDATA\t1\t7",
    "sess_1\trecon\tR1\tRECON A\t\t\tNIFTI\t1\t700",
    "new_1\tacq\t1\tTSE\t\tusable\tDICOM\t1\t3",
    "new_1\tacq\t2\tlocalizer\t\tusable\tDICOM\t1\t3",
]
LACKS = """\
xget: warning: new_1: -acq PIB 336mtx: matches nothing; there is 1, 2, TSE, localizer
xget: warning: -acq PIB 336mtx: matches nothing in 1 of 2 sessions: new_1
"""
BOTH = zips("data/", "sess_1", "new_1")
VERDICTS = {
    "See what there is": Verdict(LISTED, [], 0),
    "Which sessions lack a scan": Verdict(LISTED[1:2], [], 0, err=LACKS),
    "Some scans of a session, by ID, type or description, if they are usable": Verdict(
        ["./sess_1_acq.zip"], ["sess_1_acq.zip"], 6
    ),
    "Every scan but the localizers": Verdict(
        ["data/sess_1_acq.zip", "data/new_1_acq.zip"], ["data/sess_1_acq.zip", "data/new_1_acq.zip"], 11
    ),
    "The sessions of one subject in one year": Verdict(zips("data/", "sess_1"), zips("data/", "sess_1"), 12),
    "NIfTI files, where there are any, and files of the session itself": Verdict(
        ["./sess_1_recon.zip", "./sess_1_res.zip"], ["sess_1_recon.zip", "sess_1_res.zip"], 2
    ),
    "A public project, without an account, where the site lets guests in": Verdict(
        ["./visitor_1_acq.zip"], ["visitor_1_acq.zip"], 1
    ),
    "First one type of scan, later everything": Verdict(
        [*BOTH, "data/sess_1_acq.zip", "data/new_1_acq.zip"], BOTH, 14
    ),
    "What was scanned in the last ten days, if it is not there yet": Verdict(
        ["mirror/new_1"], tree("mirror/", "new_1"), 2
    ),
    "A list of IDs and labels, one or more a line, in 8 processes (GNU parallel)": Verdict(
        BOTH, [*BOTH, "sessions.txt"], 14, ("parallel",)
    ),
    "The same as one task of a Slurm array (#SBATCH --array=1-40%8)": Verdict(
        zips("data/", "sess_1"),
        [*zips("data/", "sess_1"), "sessions.txt"],
        12,
        env=(("SLURM_ARRAY_TASK_ID", "2"),),
    ),
}
ELSEWHERE = {  # recipes with a test of their own
    "Is the mirror what the server has",
    "What came in this run, and what went wrong, by mail",
    "With heudiconv, or with dcm2bids, after the two lines above",
    "One folder per subject",
    "A share with sums",
    "What failed, and why",
    "Behind a proxy, at a server whose certificate is signed by a CA of your own",
}


def test_every_recipe_has_a_test() -> None:
    assert set(recipes()) == set(VERDICTS) | ELSEWHERE


@pytest.mark.parametrize("title", VERDICTS)
def test_recipe(shell: Shell, world: World, title: str) -> None:
    verdict = VERDICTS[title]
    need(*verdict.needs)
    world.require_login = "public" not in title
    if "sessions.txt" in verdict.files:
        (shell.xget.folder / "sessions.txt").write_text("new_1\nsess_1\n")
    done = shell(recipes()[title].replace(EXAMPLE, shell.xget.url), **dict(verdict.env))
    assert (done.status, done.err) == (0, verdict.err)
    assert sorted(done.out.splitlines()) == sorted(verdict.out)
    assert shell.files() == sorted(verdict.files)
    assert shell.images() == verdict.images


def test_recipe_first_one_type_keeps_what_came(shell: Shell, server: XnatServer) -> None:
    """The second line asks for no file that the first one brought."""
    first, second = recipes()["First one type of scan, later everything"].splitlines()
    assert shell(first)[::2] == (0, "")
    server.clear()
    assert shell(second)[::2] == (0, "")
    asked = [request.path for request in server.requests if request.transfer]
    assert asked and not any("/scans/1/" in path or "/scans/1," in path for path in asked)


def test_from_a_project_to_nifti_in_two_lines(shell: Shell) -> None:
    """Only folders that got something are converted, each with its images within five folders."""
    shell.tool("dcm2niix", 'echo "$* $(find "$3" -mindepth 1 -maxdepth 6 -name "*.dcm" | wc -l)"')
    [script] = blocks("sh", section("From a project to NIfTI files"))
    assert script.count("\n") == 2
    done = shell(script)
    assert (done.status, done.err) == (0, "")
    assert sorted(done.out.splitlines()) == ["-o nifti dicom/new_1 2", "-o nifti dicom/sess_1 10"]
    assert shell.files() == sorted(
        name for s in ("new_1", "sess_1") for name in tree("dicom/", s) if name.endswith(".dcm")
    )
    assert shell(script) == (0, "", "")
    for tool in "heudiconv", "dcm2bids":
        shell.tool(tool, f'test -d dicom/sess_1/1-TSE && echo "{tool} $*"')
    done = shell(recipes()["With heudiconv, or with dcm2bids, after the two lines above"])
    assert (done.status, done.err, done.out.count("dicom/sess_1")) == (0, "", 2)


def test_recipe_is_the_mirror_what_the_server_has(shell: Shell, server: XnatServer) -> None:
    script = recipes()["Is the mirror what the server has"]
    bring = script.replace(" -verify", "")
    assert bring != script and shell(bring).status == 0
    server.clear()
    both = ["mirror/new_1", "mirror/sess_1"]
    done = shell(script)
    assert (done.status, sorted(done.out.splitlines()), done.err) == (0, both, "")
    (shell.xget.folder / "mirror" / "sess_1" / "1-TSE" / "IM0002.dcm").write_bytes(b"changed")
    (shell.xget.folder / "mirror" / "sess_1" / "1-TSE" / "IM0003.dcm").unlink()
    (shell.xget.folder / "mirror" / "sess_1" / "1-TSE" / "mine.txt").touch()
    done = shell(script)
    assert done.status == 1 and "mirror/new_1" in done.out
    for name in "IM0002.dcm", "IM0003.dcm", "mine.txt":
        assert re.search(rf"^xget: sess_1 acq: .*\b{name}: ", done.err, re.MULTILINE), done.err
    assert not any(request.transfer for request in server.requests)


def test_recipe_what_came_by_mail(shell: Shell, server: XnatServer) -> None:
    """A night without anything new sends no mail; one with trouble does."""
    shell.tool("mail", 'echo "$*"; cat')
    script = recipes()["What came in this run, and what went wrong, by mail"]
    assert shell(script) == (0, "-s New scans lab@example.org\nmirror/new_1\n", "")
    assert shell(script) == (0, "", "")
    server.fault("status", match="format=csv|format=json", status=403, times=-1)
    done = shell(script)
    assert done.status == 0 and done.out.startswith("-s New scans lab@example.org\nxget: ")


def test_recipe_one_folder_per_subject(shell: Shell) -> None:
    (shell.xget.folder / "subjects.txt").write_text("subj_1\nsubj_2\n")
    done = shell(recipes()["One folder per subject"])
    assert done == (0, "data/subj_1/sess_1\ndata/subj_2/new_1\n", "")
    expected = [*tree("data/subj_1/", "sess_1"), *tree("data/subj_2/", "new_1"), "subjects.txt"]
    assert shell.files() == sorted(expected)


def test_recipe_a_share_with_sums(shell: Shell) -> None:
    """The receiver's check, as the comment has it, passes, and fails once a byte differs."""
    need("md5sum")
    assert shell(recipes()["A share with sums"])[::2] == (0, "")
    [check] = re.findall(r"`(md5sum -c .*?)`", README)
    assert shell(f"cd share && {check}") == (
        0,
        "".join(f"{n}: OK\n" for n in sorted(zips("", "new_1", "sess_1"))),
        "",
    )
    data = bytearray((shell.xget.folder / "share" / "new_1_acq.zip").read_bytes())
    data[60] ^= 1
    (shell.xget.folder / "share" / "new_1_acq.zip").write_bytes(data)
    assert shell(f"cd share && {check}").status == 1


def crontab() -> tuple[dict[str, str], str]:
    """The variables and the command of the README's crontab, as cron hands them to /bin/sh."""
    [body] = blocks("crontab")
    *settings, job = body.splitlines()
    minute, hour, *days, command = job.split(None, 5)
    assert minute.isdigit() and hour.isdigit() and days == ["*", "*", "*"]
    assert not re.search(r"(?<!\\)%", command), "cron takes a bare % for the end of the line"
    return dict(line.split("=", 1) for line in settings), command.replace("\\%", "%")


def test_recipe_every_night_by_cron(shell: Shell, server: XnatServer) -> None:
    """The night brings what is new and mails nothing; a second run at once does not start."""
    need("flock")
    import fcntl

    variables, command = crontab()
    mirror, log = shell.xget.home / "mirror", shell.xget.home / "mirror.log"
    mirror.mkdir()
    home = str(shell.xget.home)
    shell.env = {"HOME": home, "LOGNAME": "lab", "SHELL": "/bin/sh", **variables}
    shell.env["PATH"] = f"{shell.bin}:{variables['PATH']}"
    for _ in "first night", "second night":
        assert shell(command, "/bin/sh") == (0, "", "")
        assert log.read_text() == f"{home}/mirror/new_1\n"
        assert [path.name for path in mirror.iterdir()] == ["new_1"]
    server.clear()
    with open(shell.xget.home / ".xget.lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert shell(command, "/bin/sh") == (1, "", "")
    assert server.requests == []


def test_recipe_what_failed_and_why(shell: Shell, server: XnatServer) -> None:
    """Only what failed is said; the same command once more brings it, and says nothing."""
    need("jq")
    server.fault("status", match=r"XNAT_E00001\?format=xml", status=403)
    script = recipes()["What failed, and why"]
    done = shell(script)
    [line] = done.out.splitlines()
    assert line.split("\t")[0] == "sess_1" and "403" in line
    assert shell(script)[:2] == (0, "")
    assert shell.files() == sorted(BOTH)


def test_recipe_behind_a_proxy(shell: Shell, world: World) -> None:
    """Queries and archives alike go through the proxy, and trust the CA."""
    authority = Authority(shell.xget.folder, "lab-ca")
    certificate = authority.issue("xnat.example.org")
    script = recipes()["Behind a proxy, at a server whose certificate is signed by a CA of your own"]
    with XnatServer(world, certificate=certificate) as server, Proxy(https=server.port) as proxy:
        done = shell(script.replace("http://proxy.example.org:3128", proxy.url))
    assert (done.status, done.err) == (0, "")
    assert sorted(done.out.splitlines()) == zips("./", "sess_1")
    assert {(each.method, each.target) for each in proxy.asked} == {("CONNECT", "xnat.example.org:443")}


def on_terminal(xget: Xget, *words: str) -> tuple[list[str], str]:
    """Run xget with a terminal as standard error; returns its output and its last line there."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    process = xget.start(*words, login=False, stderr=slave)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # EIO is the end on Linux
        while data := os.read(master, 4096):
            shown += data
    os.close(master)
    out, _ = process.communicate(timeout=60)
    return out.splitlines(), re.split(r"[\r\n]+|\x1b\[\w", shown.decode().rstrip())[-1]


def timeless(line: str) -> str:
    return re.sub(r"in [\d.]+ s", "in TIME", line)


def test_shown_output_of_the_first_command(xget: Xget) -> None:
    command, *shown = blocks("console")[0].splitlines()
    prompt, program, *words = command.split()
    assert (prompt, program) == ("$", "xget")
    out, closing = on_terminal(xget, *(word.replace("http://localhost:8080", xget.url) for word in words))
    assert sorted(out) == sorted(shown[:-1])
    assert timeless(closing) == timeless(shown[-1])


def test_the_same_command_once_more_downloads_nothing(xget: Xget, server: XnatServer) -> None:
    assert xget("-s", "sess_1").status == 0
    server.clear()
    assert xget("-s", "sess_1") == (0, "", "")
    assert server.requests == []


def test_sessions_are_found_as_the_text_says(xget: Xget, world: World) -> None:
    """The list of IDs, labels and patterns; the same list in a file."""
    [command] = re.findall(r"`-s '(XNAT_E00001,.*?)'`", section("Sessions and constraints"))
    world.projects[0].session("sess_2")
    world.projects[0].session("SUBJ7_base").scan("1").resource("DICOM", {"1": b"1"}, format="DICOM")
    world.projects[0].session("SUBJ7_late").scan("1").resource("DICOM", {"1": b"1"}, format="DICOM")
    (xget.folder / "sessions.txt").write_text(f"# some\n{command}\n")
    once, again = xget("-s", command, "-list"), xget("-f", "sessions.txt", "-list")
    assert once == again
    assert {line.split("\t")[0] for line in once.out.splitlines()} == {"XNAT_E00001", "SUBJ7_base"}


def test_long_names(xget: Xget) -> None:
    [words, name] = re.findall(r"`xget (.*? -longname)` makes `(.*?)`", section("Archives"))[0]
    assert xget(*words.split()).status == 0
    assert xget.files() == sorted(name.replace("_acq_", f"_{kind}_") for kind in ("acq", "ass", "recon"))


def test_paths_in_the_text_are_those_that_come(xget: Xget) -> None:
    """The example of XNAT's layout, and that of the short one."""
    [long] = re.findall(r"`(sess_1/scans/.*?/IM0001.dcm)`", README)
    [short] = re.findall(r"`dicom/(sess_1/.*?/IM0001.dcm)`", README)
    for folder, name, flags in ("long", long, ["-z"]), ("short", short, ["-z", "-flat"]):
        (xget.folder / folder).mkdir()
        assert xget("-s", "sess_1", *flags, "-o", folder).status == 0
        assert (xget.folder / folder / name).is_file()


def test_pass_file_entries(xget: Xget) -> None:
    """Both entries of the example are taken as the text says: + by default, - when asked for."""
    lines = [line.strip() for line in indented(section("Credentials"))]
    example = [line for line in lines if re.match(r"[+-]\w+@.*=", line)]
    assert len(example) == 2
    text = "\n".join(example).replace("http://localhost:8080/xnat", xget.url)
    (xget.home / ".xnatPass").write_text(text)
    (xget.home / ".xnatPass").chmod(0o600)
    assert xget("-s", "sess_1", "-list", login=False).status == 0
    refused = xget("-host", xget.url, "-u", "alice", "-s", "sess_1", login=False)
    assert refused.status == 2  # her password is another host's


def test_help_is_the_literal_one(xget: Xget) -> None:
    assert blocks("text", section("Help")) == [xget("-h", login=False).out]


def test_every_flag_is_in_the_prose(xget: Xget) -> None:
    shown = xget("-h", login=False).out
    flags = {
        flag for line in re.findall(r"^  (-.*)", shown, re.M) for flag in re.findall(r"(?<!\S)-\w+", line)
    }
    prose = "\n".join(line for line in FENCE.sub("", README).splitlines() if not line.startswith("    "))
    assert len(flags) > 30
    assert [flag for flag in sorted(flags) if not re.search(rf"(?<![\w-]){flag}(?![\w-])", prose)] == []


def test_files_named_exist() -> None:
    named = set(re.findall(r"\btests/\w+(?:\.\w+)?", README)) | {"xget", "setup.py", "LICENSE"}
    assert [name for name in sorted(named) if not (HOME / name).exists()] == []


PAGE = (HOME / "tests" / "README.md").read_text(encoding="utf-8")


def test_the_page_of_the_tests_names_every_module() -> None:
    named = set(re.findall(r"`(\w+\.py)`", PAGE))
    assert named == {path.name for path in (HOME / "tests").glob("*.py")}


def test_the_example_of_a_test_passes(xget: Xget, world: World, server: XnatServer) -> None:
    [example] = blocks("python", PAGE)
    found: dict[str, Any] = {}
    exec(example, found)
    [test] = [value for name, value in found.items() if name.startswith("test_")]
    test(xget, world, server)


def test_requirements_agree(xget: Xget, monkeypatch: pytest.MonkeyPatch) -> None:
    """The PEP 723 block and setup.py name the same packages, and the same version goes out."""
    given: dict[str, Any] = {}
    commands = {
        "setuptools.command": object(),
        "setuptools.command.build_py": types.SimpleNamespace(build_py=object),
    }
    for name, module in {"setuptools": types.SimpleNamespace(setup=given.update), **commands}.items():
        monkeypatch.setitem(sys.modules, name, module)
    runpy.run_path(str(HOME / "setup.py"))
    block = re.search(r"^# /// script\n(.*?)^# ///$", XGET.read_text(encoding="utf-8"), re.M | re.DOTALL)
    assert block
    fields = dict(line.lstrip("# ").split(" = ", 1) for line in block[1].splitlines())
    assert re.findall(r'"([^"]+)"', fields["dependencies"]) == given["install_requires"]
    assert fields["requires-python"].strip('"') == given["python_requires"]
    assert xget("-version", login=False) == (0, f"xget {given['version']}\n", "")


def test_a_person_can_read_it() -> None:
    """Style: 350 lines at most, and links that lead somewhere."""
    assert len(README.splitlines()) <= 350
    links = re.findall(r"\]\(([^)]+)\)", README)
    headings = {
        re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-")
        for each in re.findall(r"^##+ (.+)", README, re.M)
    }
    for link in links:
        if link.startswith("#"):
            assert link[1:] in headings, link
        elif not link.startswith("http"):
            assert (HOME / link).exists(), link


def test_the_line_for_python_alone_installs(tmp_path: Path) -> None:
    """As it stands, without network, where the setuptools that is here can build."""
    setuptools = pytest.importorskip("setuptools", minversion="70.1")
    [line] = [line for line in blocks("sh", section("Getting it"))[0].splitlines() if "venv" in line]
    command = line.partition("  #")[0]
    (tmp_path / "tree").mkdir()
    for name in ("xget", "setup.py", "README.md", "LICENSE"):
        shutil.copy(HOME / name, tmp_path / "tree" / name)
    here = tmp_path / "build"  # setuptools alone: pyxnat brings a pathlib that breaks pip
    here.mkdir()
    for path in Path(setuptools.__file__).parent.parent.glob("setuptools*"):
        (here / path.name).symlink_to(path)
    offline = {
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PYTHONPATH": str(here),
    }
    env = {**os.environ, "HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=tmp_path / "tree",
        env={**env, **offline},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    command = tmp_path / ".xget" / "bin" / "xget"
    done = subprocess.run(
        [command, "-version"],
        env={**env, "PYTHONPATH": str(here)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("xget ")


def main() -> None:
    """Refresh the help."""
    shown = subprocess.run(
        [sys.executable, str(XGET), "-h"], capture_output=True, text=True, check=True
    ).stdout
    old = section("Help")
    fresh = FENCE.sub(lambda _: f"```text\n{shown}```", old, count=1)
    (HOME / "README.md").write_text(README.replace(old, fresh), encoding="utf-8")


if __name__ == "__main__":
    main()
