"""Holds README.md to what xget does: recipes, shown output, help, flags, names, requirements.

As a program, `python tests/test_readme.py` puts the help and the fault table of the day into README.md.
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
from test_faults import markdown
from xnat_server import World, XnatServer, demo_world

HOME = XGET.parent
README = (HOME / "README.md").read_text(encoding="utf-8")
EXAMPLE = "https://xnat.example.org"  # the name of a server in the README
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str, text: str = README) -> list[str]:
    return [body for name, body in FENCE.findall(text) if name == language]


def section(title: str) -> str:
    """What stands below a heading, up to the next of its rank or higher."""
    found = re.search(rf"^(##+) {re.escape(title)}\n(.*?)(?=^##? |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, f"no section {title}"
    return found[2]


def recipes() -> dict[str, str]:
    """The first code block below each heading of the recipes, by heading."""
    parts = re.split(r"^### (.+)\n", section("Recipes"), flags=re.MULTILINE)[1:]
    return {title: FENCE.findall(body)[0][1] for title, body in zip(parts[::2], parts[1::2])}


def indented(text: str) -> list[str]:
    return [line[4:] for line in text.splitlines() if line.startswith("    ")]


@pytest.fixture
def world() -> World:
    """The demonstration, with a session of three days ago and a public project beside it."""
    world = demo_world()
    recent = (datetime.date.today() - datetime.timedelta(days=3)).isoformat()
    new = world.projects[0].session("new_1", subject="subj_2", date=recent)
    new.scan("1", type="TSE").resource("DICOM", {"1.dcm": b"new"}, format="DICOM")
    public = world.project("open_1", public=True).session("visitor_1", date="2020-02-02")
    public.scan("1", type="T1").resource("DICOM", {"1.dcm": b"public"}, format="DICOM")
    return world


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
            timeout=120,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def files(self) -> list[str]:
        """The files that are there, without those inside extracted folders."""
        return [name for name in self.xget.files() if not re.search(r"/$|/scans/|/\.xget$", name)]

    def images(self) -> int:
        """How many files came, in archives and in extracted folders."""
        count = sum("/files/" in name and name[-1] != "/" for name in self.xget.files())
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


def zips(folder: str, *sessions: str) -> list[str]:
    kinds = {"sess_1": ("acq", "ass", "recon")}
    return [f"{folder}{name}_{kind}.zip" for name in sessions for kind in kinds.get(name, ("acq",))]


LISTED = [
    "sess_1\tacq\t1\tTSE\tTSE\tusable\tDICOM\t6\t59004",
    "sess_1\tacq\t2\tPIB 336mtx\tPIB 336mtx\tquestionable\tDICOM\t4\t156840",
    "sess_1\tass\tsess_1_QC\txnat:qcManualAssessorData\t\t\tDATA\t1\t7",
    "sess_1\trecon\tR1\tRECON A\t\t\tNIFTI\t1\t700",
    "new_1\tacq\t1\tTSE\t\tusable\tDICOM\t1\t3",
]
VERDICTS = {
    "See what there is": Verdict(LISTED, [], 0),
    "Some scans of a session": Verdict(zips("./", "sess_1")[:1], ["sess_1_acq.zip"], 6),
    "A subject's sessions of a year": Verdict(zips("data/", "sess_1"), zips("data/", "sess_1"), 12),
    "Another format, and the session's own files": Verdict(
        ["./sess_1_recon.zip", "./sess_1_res.zip"], ["sess_1_recon.zip", "sess_1_res.zip"], 2
    ),
    "A public project, without an account": Verdict(["./visitor_1_acq.zip"], ["visitor_1_acq.zip"], 1),
    "What was scanned in the last ten days": Verdict(["mirror/new_1"], [], 1, ("date",)),
    "A list, in 8 processes": Verdict(
        zips("data/", "sess_1", "new_1"),
        [*zips("data/", "sess_1", "new_1"), "sessions.txt"],
        13,
        ("parallel",),
    ),
}
ELSEWHERE = {  # recipes with a test of their own
    "A session of a project, and unpack it",
    "Every night, by cron",
    "A list, as a Slurm array",
    "Into dcm2niix",
    "Once more what failed",
    "Behind a proxy, with a CA of your own",
}


def test_every_recipe_has_a_test() -> None:
    assert set(recipes()) == set(VERDICTS) | ELSEWHERE


@pytest.mark.parametrize("title", VERDICTS)
def test_recipe(shell: Shell, world: World, title: str) -> None:
    verdict = VERDICTS[title]
    need(*verdict.needs)
    world.require_login = "public" not in title
    if "parallel" in verdict.needs:
        (shell.xget.folder / "sessions.txt").write_text("# two\nsess_1\nnew_1\n")
    done = shell(recipes()[title].replace(EXAMPLE, shell.xget.url))
    assert (done.status, done.err) == (0, "")
    assert sorted(done.out.splitlines()) == sorted(verdict.out)
    assert shell.files() == sorted(verdict.files)
    assert shell.images() == verdict.images


def test_recipe_a_session_of_a_project_unpacked(shell: Shell) -> None:
    need("unzip")
    done = shell(recipes()["A session of a project, and unpack it"])
    assert (done.status, done.err) == (0, "")
    data = shell.xget.folder / "data"
    assert {f"XNAT_E00001_{kind}.zip" for kind in ("acq", "ass", "recon")} <= {p.name for p in data.iterdir()}
    unpacked = sorted(
        path.as_posix() for path in shell.xget.folder.glob("sess_1/scans/*/resources/*/files/*")
    )
    assert len(unpacked) == 10
    assert Path(unpacked[0]).read_bytes()[128:132] == b"DICM"


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
    need("flock", "date")
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


def test_recipe_slurm_array(shell: Shell) -> None:
    """What each task of the array runs; Slurm itself is not needed."""
    folder = shell.xget.folder
    (folder / "scratch").mkdir()
    (folder / "sessions.txt").write_text("new_1\nsess_1\n")
    [script] = blocks("slurm")
    assert script.startswith("#!/bin/sh\n#SBATCH ")
    done = shell(script.replace("/scratch/data", "scratch"), "/bin/sh", SLURM_ARRAY_TASK_ID="2")
    assert (done.status, done.err) == (0, "")
    assert shell.files() == [*zips("scratch/", "sess_1"), "sessions.txt"]


def test_recipe_into_dcm2niix(shell: Shell) -> None:
    """Only sessions that brought something are converted."""
    shell.tool("dcm2niix", 'echo "converted $*"')
    script = recipes()["Into dcm2niix"]
    done = shell(script)
    assert (done.status, done.err) == (0, "")
    assert sorted(done.out.splitlines()) == [f"converted -o nifti dicom/{s}" for s in ("new_1", "sess_1")]
    assert shell(script) == (0, "", "")


def test_recipe_once_more_what_failed(shell: Shell, server: XnatServer) -> None:
    need("jq")
    server.fault("status", match=r"XNAT_E00001\?format=xml", status=403)
    done = shell(recipes()["Once more what failed"])
    assert done.status == 0
    assert sorted(done.out.splitlines()) == zips("data/", "sess_1")
    assert sorted(shell.files()) == sorted([*zips("data/", "new_1", "sess_1"), "run.jsonl"])


def test_recipe_behind_a_proxy(shell: Shell, world: World) -> None:
    """Queries and archives alike go through the proxy, and trust the CA."""
    authority = Authority(shell.xget.folder, "lab-ca")
    certificate = authority.issue("xnat.example.org")
    script = recipes()["Behind a proxy, with a CA of your own"]
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


def test_session_file_equals_the_list(xget: Xget) -> None:
    command, *listed = indented(section("Sessions"))
    (xget.folder / "sessions.txt").write_text("\n".join(listed))
    once, again = xget(*command.split()[1:], "-list"), xget("-f", "sessions.txt", "-list")
    assert once == again
    assert {line.split("\t")[0] for line in once.out.splitlines()} == {"xnat_E0001", "xnat_E0002", "sess_1"}


def test_long_names(xget: Xget) -> None:
    names = [line.split()[0] for line in indented(section("Archives"))]
    assert xget("-s", "sess_1", "-proj", "proj_3", "-longname").status == 0
    assert xget.files() == sorted(names)


def test_pass_file_entries(xget: Xget) -> None:
    """Both entries of the example are taken as the text says: + by default, - when asked for."""
    example = [line for line in indented(section("Credentials")) if re.match(r"[+-]\w+@.*=", line)][-2:]
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


def between(marker: str) -> str:
    """What the README has between two of its comments."""
    return README.partition(f"<!-- {marker} -->\n")[2].partition(f"<!-- /{marker} -->")[0]


def test_fault_table_is_that_of_the_tests() -> None:
    assert between("faults") == fault_table()


def fault_table() -> str:
    rows = markdown()
    count = rows.count("\n") - 1
    return f"<details><summary>{count} faults</summary>\n\n{rows}\n\n</details>\n"


def main() -> None:
    """Refresh the help and the fault table."""
    shown = subprocess.run(
        [sys.executable, str(XGET), "-h"], capture_output=True, text=True, check=True
    ).stdout
    old = section("Help")
    fresh = FENCE.sub(lambda _: f"```text\n{shown}```", old, count=1)
    text = README.replace(old, fresh)
    text = text.replace(f"<!-- faults -->\n{between('faults')}", f"<!-- faults -->\n{fault_table()}")
    (HOME / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
