"""Measures what xget promises, beside other programs that download from XNAT.

    python3 tests/run.py bench                   every part, in about 40 minutes
    python3 tests/run.py bench zip extract       these parts alone
    python3 tests/run.py bench --scale 0.05      less of everything, to see whether it runs
    python3 tests/run.py bench --large --write   with an archive of 20 GB; into tests/BENCHMARK.md

All ask the same test XNAT, in a process of its own, for the same sessions. The programs take turns,
round after round; the tables have the medians. Whatever is fetched counts once it is on the disk: xget
brings it there by itself, behind the others runs `sync`. It is made for Linux, with curl and unzip.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.metadata
import inspect
import json
import math
import multiprocessing
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from xnat_server import Synthetic, World, XnatServer

HOME = Path(__file__).resolve().parent.parent
XGET = HOME / "xget"
PAGE = HOME / "tests" / "BENCHMARK.md"
PYTHON = sys.executable
LIMIT = 900  # seconds after which a program is given up
IMAGE = ".dcm"  # every file of these worlds ends so, and has a name of its own
PACKAGES = ["pyxnat", "xnat", "xnatctl", "yaxil", "xnatutils"]


# --- the server ------------------------------------------------------------------------


def large_world(count: int, size: int, scans: int = 1) -> World:
    """A session with so many images in all, of `size` bytes on average, each with an MD5."""
    world = World()
    session = world.project("p").session("large", subject="s")
    for scan in range(1, scans + 1):
        numbers = range(scan, count + 1, scans)
        images = {f"{n:06}{IMAGE}": Synthetic(max(1, size * (96 + n % 9) // 100), n % 16) for n in numbers}
        for image in images.values():
            _ = image.md5, image.crc  # computed once, and not while somebody waits
        session.scan(str(scan), type="T1").resource("DICOM", images, format="DICOM")
    return world


def many_world(count: int, size: int) -> World:
    """So many sessions of three kinds: 20 images of `size` bytes in all, and two small derived files."""
    world = World()
    project = world.project("p")
    for name in session_names(count):
        session = project.session(name, subject="s")
        images = {f"{name}_{n:02}{IMAGE}": Synthetic(size // 20, n) for n in range(20)}
        session.scan("1", type="T1").resource("DICOM", images, format="DICOM")
        derived = {"a": session.assessor(f"{name}_QC"), "r": session.reconstruction("R1", type="R")}
        for letter, holder in derived.items():
            holder.resource("DATA", {f"{name}_{letter}{IMAGE}": Synthetic(20_000, 1)})
    return world


def session_names(count: int) -> list[str]:
    return [f"sess_{n:04}" for n in range(1, count + 1)]


def take_requests(server: XnatServer) -> int:
    """Count the requests since the last call, and forget them with the faults."""
    count = len(server.requests)
    server.clear()
    return count


def shorten(server: XnatServer) -> None:
    """Let a file be gone when any ZIP comes to it: XNAT ends the ZIP as if it were whole."""
    server.fault("vanish", match="format=zip", times=None)


def serve(pipe: Any, make: Callable[..., World], sizes: Sequence[int], settings: dict[str, Any]) -> None:
    """Serve a world, doing to the server what comes through the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with XnatServer(make(*sizes), **settings) as server:
        pipe.send(server.url)
        for task in iter(pipe.recv, None):
            pipe.send(task(server))


class Site:
    """The test XNAT in a process of its own."""

    def __init__(self, make: Callable[..., World], *sizes: int, **settings: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, make, sizes, settings), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the server ends a wait for it
        self.url: str = self.pipe.recv()

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.pipe.send(None)
        self.process.join(10)
        self.process.kill()

    def ask(self, task: Callable[[XnatServer], Any]) -> Any:
        self.pipe.send(task)
        return self.pipe.recv()


# --- the programs ----------------------------------------------------------------------


class Job(NamedTuple):
    """What a program is to do: fetch these sessions into `folder`, extracted or not."""

    url: str = ""
    sessions: Sequence[str] = ("large",)
    folder: Path = Path()
    extract: bool = False
    paths: Sequence[str] = ("scans/ALL",)  # what curl asks for
    at_once: int = 1  # transfers

    @property
    def derived(self) -> bool:
        """Whether assessors and reconstructions are wanted too."""
        return "assessors/ALL" in self.paths


Command = list[str]
Tool = Callable[[Job], list[Command]]

FROM_PYXNAT = """
import sys
import pyxnat.core.derivatives
pyxnat.core.derivatives.__path__ = []  # these need packages that pyxnat does not declare
import pyxnat
url, folder, extract, derived, *sessions = sys.argv[1:]
with pyxnat.Interface(server=url, user="admin", password="admin") as interface:
    for label in sessions:
        session = interface.select.project("p").subject("s").experiment(label)
        kinds = ["scans"] + ["assessors", "reconstructions"] * bool(derived)
        for kind in kinds:
            how = {"type": "ALL", "extract": bool(extract), "removeZip": bool(extract)}
            getattr(session, kind)().download(folder, **how)
"""

FROM_XNATPY = """
import sys
import xnat
url, folder, extract, derived, *sessions = sys.argv[1:]
with xnat.connect(url, user="admin", password="admin") as connection:
    for label in sessions:
        session = connection.projects["p"].experiments[label]
        if extract:
            session.download_dir(folder, verbose=False)
        else:
            session.download(f"{folder}/{label}.zip", verbose=False)
        for assessor in session.assessors.values() if derived else ():
            assessor.download(f"{folder}/{assessor.label}.zip", verbose=False)
"""

# Shows a command a terminal: its bar is drawn, and read by nobody who waits for it.
TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


def xget(job: Job, *more: str) -> list[Command]:
    """Without -j, xget takes two transfers at once."""
    which = ["-s", ",".join(job.sessions), "-j", str(job.at_once), "-o", str(job.folder)]
    which += [] if job.derived else ["-ass", "NONE", "-recon", "NONE"]
    return [[PYTHON, str(XGET), *which, *(["-z"] if job.extract else []), *more]]


def xget_on_terminal(job: Job, *more: str) -> list[Command]:
    return [[PYTHON, "-c", TERMINAL, *command] for command in xget(job, *more)]


def curl(job: Job) -> list[Command]:
    """Fetch each ZIP as curl would be told to, one connection kept; extraction is unzip's."""
    words = ["curl", "--silent", "--show-error", "--fail", "--user", "admin:admin"]
    if job.at_once > 1:  # without "immediate", the second waits until the first has come
        words += ["--parallel", "--parallel-immediate", "--parallel-max", str(job.at_once)]
    for name in job.sessions:
        for path in job.paths:
            archive = str(job.folder / f"{name}_{path.replace('/', '_')}.zip")
            uri = f"/data/projects/p/subjects/s/experiments/{name}/{path}/files?format=zip"
            words += ["--output", archive, job.url + uri]
    if job.extract:
        return [words, ["unzip", "-q", archive, "-d", str(job.folder)], flush(job)]
    single = len(job.sessions) == len(job.paths) == 1
    return [words, ["sync", archive] if single else flush(job)]


def curl_proven(job: Job) -> list[Command]:
    return [*curl(job), ["unzip", "-tq", str(job.folder / f"{job.sessions[0]}_scans_ALL.zip")]]


def flush(job: Job) -> Command:
    return ["sync", "-f", str(job.folder)]


def library(script: str, job: Job) -> list[Command]:
    words = [job.url, str(job.folder), "1" if job.extract else "", "1" if job.derived else ""]
    return [[PYTHON, "-c", script, *words, *job.sessions], flush(job)]


def xnatctl(job: Job, *more: str) -> list[Command]:
    """It takes one session a call, and scans alone."""
    words = [PYTHON, "-m", "xnatctl", "session", "download", "-P", "p", "--out", str(job.folder), *more]
    words += ["--extract"] if job.extract else []
    words += ["--workers", str(job.at_once)] if job.at_once > 1 else []
    return [*([*words, "-E", name] for name in job.sessions), flush(job)]


def arcget(job: Job) -> list[Command]:
    """It takes one session a call, and scans alone; it always extracts."""
    words = [PYTHON, program("ArcGet.py"), "--host", job.url, "--username", "admin", "--password", "admin"]
    words += ["-p", "p", "-f", "flat"]
    return [*([*words, "-o", str(job.folder / s), "-l", s] for s in job.sessions), flush(job)]


def xnat_get(job: Job) -> list[Command]:
    """It takes scans alone; it always extracts."""
    return [[PYTHON, program("xnat-get"), "-p", "p", "-t", str(job.folder), *job.sessions], flush(job)]


def program(name: str) -> str:
    return str(Path(PYTHON).parent / name)


OTHERS: dict[str, Tool] = {
    "pyxnat": functools.partial(library, FROM_PYXNAT),
    "xnatpy": functools.partial(library, FROM_XNATPY),
    "xnatctl": xnatctl,
    "ArcGet": arcget,
    "xnat-get": xnat_get,
}


# --- the rows of a table ---------------------------------------------------------------


class Promise(NamedTuple):
    """What a program may take at most: times its part's first row, bytes of memory, requests."""

    ratio: float = math.inf
    memory: float = math.inf
    requests: float = math.inf

    def __str__(self) -> str:
        words = {
            f"{self.ratio:g}x": self.ratio,
            readable(self.memory): self.memory,
            f"{self.requests:.0f} requests": self.requests,
        }
        return ", ".join(text for text, limit in words.items() if limit < math.inf)


NOTHING = Promise()


class Row(NamedTuple):
    """A program, what it promises, and in how many rounds at most it takes part."""

    name: str
    tool: Tool
    promise: Promise = NOTHING
    rounds: float = math.inf


class Cost(NamedTuple):
    """What a run took (seconds, seconds of processors, bytes, requests), and its result in words."""

    wall: float
    cpu: float
    memory: float
    requests: float
    result: str
    rounds: int = 1

    @property
    def failed(self) -> bool:
        """Whether it came to nothing that can be compared; 2 is the status of a usage error."""
        return bool(re.search(r"exit (?![02]\b)|not measured|given up", self.result))

    @property
    def lacks(self) -> bool:
        return bool(re.search(r" of .* files|no whole ZIP", self.result))


class Section(NamedTuple):
    """A part's title and rows, and the figure that is compared with the first row's; "" for none."""

    title: str
    rows: list[tuple[Row, Cost]]
    compared: str = "wall"


def other_rows(rounds: float = math.inf) -> list[Row]:
    return [Row(name, tool, rounds=rounds) for name, tool in OTHERS.items()]


def varied(tool: Tool, **changes: Any) -> Tool:
    """The tool for a job that differs in these fields."""
    return lambda job: tool(job._replace(**changes))


def just(*words: object) -> Tool:
    """A command that is the same whatever the job."""
    return lambda job: [[str(word) for word in words]]


# --- measuring -------------------------------------------------------------------------

# A small process starts the commands, so that their peak memory is not that of this one.
METER = """
import json, os, sys, time
result, *commands = map(json.loads, sys.argv[1:])
start, cpu, memory, status = time.perf_counter(), 0.0, 0, 0
for command in commands:
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    cpu, memory = cpu + usage.ru_utime + usage.ru_stime, max(memory, usage.ru_maxrss * 1024)
    if status:
        break
with open(result, "w") as file:
    json.dump([time.perf_counter() - start, cpu, memory, status], file)
"""


class Bench:
    """The folder in which everything happens, how much of it, and how often."""

    def __init__(self, folder: Path, rounds: int, scale: float, large: bool) -> None:
        self.folder, self.rounds, self.scale, self.large = folder, rounds, scale, large
        self.home = folder / "home"
        self.home.mkdir()

    def scaled(self, count: int) -> int:
        return max(8, round(count * self.scale))

    @functools.cached_property
    def installed(self) -> Path:
        """The `bin` of an environment with xget in it, as pip installs it: with its bytecode.

        The packages that xget needs stay away, as what is measured with it asks no server.
        """
        source, target = self.folder / "source", self.folder / "installed"
        shutil.copytree(HOME, source, ignore=shutil.ignore_patterns(".*", "build", "tests"))
        venv.create(target, with_pip=True)
        install = [target / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", source]
        subprocess.run([*install, "--disable-pip-version-check"], check=False)
        return target / "bin"

    def compare(
        self,
        rows: Sequence[Row],
        site: Optional[Site] = None,
        job: Job = Job(),  # noqa: B008  - it never changes
        expected: int = 0,
        rounds: int = 0,
        before: Optional[Callable[[XnatServer], None]] = None,
    ) -> list[tuple[Row, Cost]]:
        """Let programs do a job in turns, each time after `before`; returns the median of each."""
        costs: list[list[Cost]] = [[] for _ in rows]
        for number in range(rounds or self.rounds):
            for row, runs in zip(rows, costs):
                if number < row.rounds:
                    print(f"bench: round {number + 1}: {row.name}", file=sys.stderr)
                    if site and before:
                        site.ask(before)
                    runs.append(self.fetch(row.tool, site, job, expected))
        return [(row, median(runs)) for row, runs in zip(rows, costs)]

    def fetch(self, tool: Tool, site: Optional[Site], job: Job, expected: int) -> Cost:
        """Let a program do a job in a fresh folder, and see what it left."""
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        if expected:
            os.sync()  # what others have written is no part of it
        url = site.url if site else ""
        wall, cpu, memory, result = self.run(tool(job._replace(url=url, folder=out)), url)
        requests = site.ask(take_requests) if site else 0
        return Cost(wall, cpu, memory, requests, result + what_is_in(out, expected))

    def run(self, commands: list[Command], url: str) -> tuple[float, float, float, str]:
        """Run commands one after the other; returns seconds, processor seconds, bytes, and how it ended."""
        missing = [words[0] for words in commands if not shutil.which(words[0])]
        if missing:
            return 0.0, 0.0, 0.0, f"not measured: no {Path(missing[0]).name} here"
        note, log = self.folder / "note", self.folder / "log"
        words = [PYTHON, "-S", "-E", "-c", METER, json.dumps(str(note)), *map(json.dumps, commands)]
        with log.open("wb") as output:
            settings: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
            settings.update(cwd=self.folder, env=self.environment(url), start_new_session=True)
            meter = subprocess.Popen(words, **settings)
            try:
                meter.wait(LIMIT)
            except subprocess.TimeoutExpired:
                return float(LIMIT), 0.0, 0.0, f"given up after {LIMIT} s"
            finally:
                if meter.poll() is None:
                    os.killpg(meter.pid, signal.SIGKILL)
                    meter.wait()
        wall, cpu, memory, status = json.loads(note.read_text())
        code = os.waitstatus_to_exitcode(status)
        why = f" ({cause(log.read_text(errors='replace'))})" if code else ""
        return wall, cpu, memory, f"exit {code}{why}"

    def environment(self, url: str) -> dict[str, str]:
        account = {"XNAT_USER": "admin", "XNAT_PASS": "admin", "XNAT_HOST": url, "XNAT_URL": url}
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "TMPDIR": str(self.home), **account}


def cause(text: str) -> str:
    """The line of a program's output that tells best why it failed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if "rror" in line] or lines or ["it says nothing"]
    return told[-1][:100].replace("|", "/")


def median(runs: Sequence[Cost]) -> Cost:
    """The medians of several runs; results that differ stand side by side."""
    wall, cpu, memory, requests = (statistics.median(run[i] for run in runs) for i in range(4))
    results = " / ".join(dict.fromkeys(run.result for run in runs))
    return Cost(wall, cpu, memory, requests, results, len(runs))


def what_is_in(folder: Path, expected: int) -> str:
    """Say how many of the images are in a folder, in files or in ZIPs; nothing if none are expected."""
    images = set()
    for path in folder.rglob("*"):
        names = [path.name]
        if path.suffix == ".zip":
            try:
                with zipfile.ZipFile(path) as archive:
                    names = archive.namelist()
            except zipfile.BadZipFile:
                return f"; {path.name} is no whole ZIP"
        images |= {name.rpartition("/")[2] for name in names if name.endswith(IMAGE)}
    if len(images) == expected:
        return "; all files" if expected else ""
    return f"; {len(images):,} of {expected:,} files"


# --- what is measured ------------------------------------------------------------------


def measure_start(bench: Bench) -> Section:
    """Wait for the help, and for an error of usage."""
    installed, python = bench.installed / "xget", bench.installed / "python"
    rows = [Row("python -c pass", just(python, "-c", "pass"))]
    for name, words, most in (("installed", [installed], 3), ("script", [python, XGET], 5)):
        for flag in ("-h", "-hots"):
            rows.append(Row(f"xget {flag}, {name}", just(*words, flag), Promise(ratio=most)))
    return Section("what needs no server", bench.compare(rows, rounds=4 * bench.rounds))


def measure_present(bench: Bench) -> Section:
    """Run a nightly job once more that has brought everything before."""
    count, stock, names = bench.scaled(1000), bench.folder / "stock", bench.folder / "sessions"
    stock.mkdir()
    names.write_text("\n".join(session_names(count)))
    python, promise = bench.installed / "python", Promise(ratio=25, requests=0)
    what = ["-f", names, "-o", stock, "-j", 8]
    rows = [
        Row("python -c pass", just(python, "-c", "pass")),
        Row("xget, installed", just(bench.installed / "xget", *what), promise),
        Row("xget, script", just(python, XGET, *what), promise),
    ]
    with Site(many_world, count, 20_000) as site:
        first = bench.fetch(just(PYTHON, XGET, *what), site, Job(), 0)
        if first.result != "exit 0":
            raise SystemExit(f"bench: no archives to find: {first.result}")
        costs = bench.compare(rows, site, rounds=4 * bench.rounds)
    shutil.rmtree(stock)
    return Section(f"{count:,} sessions, {3 * count:,} archives, all there already", costs)


def measure_zip(bench: Bench, scans: int = 1) -> Section:
    """Fetch one archive, and (curl alone does not) prove that it is whole."""
    count, size = bench.scaled(4000), 500_000
    rows = [
        Row("curl, sync", curl),
        Row("curl, sync, unzip -tq", curl_proven),
        Row("xget -j 1", xget),
        Row("xget", varied(xget, at_once=2), Promise(ratio=1.3)),
        *other_rows(),
        Row("xnatctl --verify", lambda job: xnatctl(job, "--verify")),
    ]
    with Site(large_world, count, size, scans) as site:
        costs = bench.compare(rows, site, expected=count)
    title = f"one archive of {count:,} stored files with MD5, {readable(count * size)}"
    return Section(f"{title}, in {scans} scan{'s' * (scans != 1)}", costs)


def measure_zip_of_scans(bench: Bench) -> Section:
    """Fetch such an archive of a session with several scans, which xget asks for two at a time."""
    return measure_zip(bench, scans=8)


def measure_extract(bench: Bench, scans: int = 1) -> Section:
    """Fetch the files of one archive into folders."""
    count, size = bench.scaled(4000), 250_000
    rows = [
        Row("curl, unzip -q, sync", curl),
        Row("xget -z -j 1", xget),
        Row("xget -z", varied(xget, at_once=2), Promise(ratio=0.6)),
        *other_rows(),
    ]
    with Site(large_world, count, size, scans) as site:
        costs = bench.compare(rows, site, Job(extract=True), count)
    title = f"{count:,} files with MD5, {readable(count * size)}"
    return Section(f"{title}, in {scans} scan{'s' * (scans != 1)}", costs)


def measure_extract_of_scans(bench: Bench) -> Section:
    """Fetch the files of a session with several scans into folders."""
    return measure_extract(bench, scans=8)


def measure_memory(bench: Bench) -> Section:
    """Fetch archives of very different sizes; the ratio is that of memory."""
    flat, cases = Promise(ratio=1.25, memory=80e6), []
    count, small = bench.scaled(4000), bench.scaled(200_000)
    for size in [2500, 50_000, 500_000] + [5_000_000] * bench.large:
        cases.append((Row(f"xget, {readable(count * size)}", xget, flat), count, size))
    cases.append(
        (Row(f"xget -z, {readable(count * 500_000)}", varied(xget, extract=True), flat), count, 500_000)
    )
    cases.append((Row(f"xget, {small:,} files", xget, Promise(memory=250e6)), small, 100))
    costs = []
    for row, files, size in cases:
        if shutil.disk_usage(bench.folder).free < 1.2 * files * size:
            costs.append((row, Cost(0, 0, 0, 0, "not measured: no room on the disk")))
            continue
        with Site(large_world, files, size) as site:
            costs += bench.compare([row], site, expected=files, rounds=1)
    return Section(f"peak memory, archives of {count:,} files unless it says otherwise", costs, "memory")


def measure_many(bench: Bench) -> Section:
    """Fetch many small sessions from a server that takes 20 ms an answer and gives a stream 30 MB/s."""
    count = bench.scaled(100)
    rows = [
        Row("curl", curl),
        Row("curl --parallel-max 8", varied(curl, at_once=8)),
        Row("xget -j 1", xget),
        Row("xget -j 8", varied(xget, at_once=8)),
        *other_rows(rounds=1),
        Row("xnatctl --workers 8", varied(xnatctl, at_once=8), rounds=1),
    ]
    paths = ["scans/ALL", "assessors/ALL", "reconstructions/ALL"]
    with Site(many_world, count, 6_000_000, latency=0.02, rate=30e6) as site:
        costs = bench.compare(rows, site, Job(sessions=session_names(count), paths=paths), 22 * count)
    return Section(f"{count} sessions of three kinds, 6 MB each", costs)


def measure_scans(bench: Bench) -> Section:
    """Fetch one large session from a server that gives a stream 30 MB/s."""
    count, size, promise = bench.scaled(960), 500_000, Promise(ratio=0.35)
    singly = [f"scans/{n}" for n in range(1, 9)]
    rows = [
        Row("curl", curl),
        Row("curl --parallel-max 4, scan by scan", varied(curl, at_once=4, paths=singly)),
        Row("xget -j 4", varied(xget, at_once=4), promise),
        Row("xget -j 4 -z", varied(xget, at_once=4, extract=True), promise),
        Row("xnatctl --workers 4", varied(xnatctl, at_once=4)),
        Row("xnatctl --workers 4 --extract", varied(xnatctl, at_once=4, extract=True)),
    ]
    with Site(large_world, count, size, 8, rate=30e6) as site:
        costs = bench.compare(rows, site, expected=count)
    return Section(f"one session of {readable(count * size)} in 8 scans", costs)


def measure_bar(bench: Bench) -> Section:
    """Fetch one archive on a terminal, with and without the progress bar."""
    count, size = bench.scaled(4000), 250_000
    rows = [
        Row("xget -quiet", lambda job: xget_on_terminal(job, "-quiet")),
        Row("xget", xget_on_terminal),
    ]
    with Site(large_world, count, size) as site:
        costs = bench.compare(rows, site, expected=count)
    return Section(f"the progress bar, {count:,} files, {readable(count * size)}", costs)


def measure_short(bench: Bench) -> Section:
    """Fetch an archive from a server that sends a well-formed ZIP which lacks 2 of 4 files."""
    rows = [
        Row("curl, sync, unzip -tq", curl_proven),
        Row("xget", xget),
        *other_rows(),
        Row("xnatctl --verify", lambda job: xnatctl(job, "--verify")),
    ]
    with Site(large_world, 4, 100_000) as site:
        costs = bench.compare(rows, site, expected=4, rounds=1, before=shorten)
    return Section("a ZIP that is short", costs, compared="")


PARTS: dict[str, Callable[[Bench], Section]] = {
    "start": measure_start,
    "present": measure_present,
    "zip": measure_zip,
    "zip8": measure_zip_of_scans,
    "extract": measure_extract,
    "extract8": measure_extract_of_scans,
    "memory": measure_memory,
    "many": measure_many,
    "scans": measure_scans,
    "bar": measure_bar,
    "short": measure_short,
}


# --- the page --------------------------------------------------------------------------

HEAD = """# What xget promises, measured

`python3 tests/run.py bench --write` writes this page; `bench.py` says how each part is measured. All
programs ask the same test XNAT on the same machine for the same sessions, in turn. Figures are medians of
so many rounds; memory is the peak of the largest process; a ratio is to the first row of its part. What is
fetched is on the disk when the clock stops: xget brings every file there before it gets its name, behind
the other programs runs `sync`. xnatctl's `--verify` looks for labels where the listing has the resources'
numbers, and so misses every file.
"""


def readable(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def ratio(section: Section, cost: Cost) -> float:
    """How many times the first row's figure a cost is; not a number where that says nothing."""
    first = section.rows[0][1]
    if not section.compared or cost.failed or first.failed:
        return math.nan
    return float(getattr(cost, section.compared) / getattr(first, section.compared))


def verdict(section: Section, row: Row, cost: Cost) -> str:
    """Say what was promised, and whether it was kept."""
    if row.promise == NOTHING:
        return ""
    figures = (ratio(section, cost), cost.memory, cost.requests)
    broken = [f for f, limit in zip(figures, row.promise) if limit < math.inf and not f <= limit]
    return f"{row.promise}: {'**missed**' if broken or cost.failed or cost.lacks else 'kept'}"


def table(section: Section) -> Iterator[str]:
    """Write a Markdown table; a run that failed has no figures to compare."""
    yield "| | time | ratio | processor time | memory | requests | rounds | result | at most |"
    yield "|---|--:|--:|--:|--:|--:|--:|---|---|"
    for row, cost in section.rows:
        times = ratio(section, cost)
        figures = [
            seconds(cost.wall),
            "" if math.isnan(times) else f"{times:.2f}x",
            seconds(cost.cpu),
            readable(cost.memory),
            f"{cost.requests:,.0f}",
        ]
        words = [row.name, *([""] * 5 if cost.failed else figures), str(cost.rounds), cost.result]
        yield f"| {' | '.join(words)} | {verdict(section, row, cost)} |"


def describe(name: str, section: Section, scale: float) -> str:
    """Write what stands below a part's heading in the page, heading included."""
    doc = " ".join(inspect.getdoc(PARTS[name]).split())  # type: ignore[union-attr]
    less = f", {scale:g} of the full size" if scale != 1 else ""
    when = f"({datetime.date.today().isoformat()}, xget {read_version()}{less})"
    return "\n".join([f"## {name}: {section.title}\n", f"{doc} {when}\n", *table(section), ""])


def write_page(folder: Path, written: dict[str, str]) -> None:
    """Put parts into the page, and leave the others that it has."""
    old = re.split(r"^(?=## )", PAGE.read_text(encoding="utf-8") if PAGE.exists() else "", flags=re.MULTILINE)
    parts = {**{text[3:].partition(":")[0]: text.rstrip() + "\n" for text in old[1:]}, **written}
    texts = [HEAD, surroundings(folder) + "\n", *(parts[name] for name in PARTS if name in parts)]
    PAGE.write_text("\n".join(texts), encoding="utf-8")


def surroundings(folder: Path) -> str:
    """Say where and with what, in words."""
    memory = readable(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    disk = told("stat", "-f", "-c", "%T", str(folder))
    machine = f"{os.cpu_count()} processors{processor_name()}, {memory}, {disk}, {platform.system()}"
    versions = [f"Python {platform.python_version()}", told("curl", "--version"), told("unzip", "-v")]
    return f"Machine: {machine}; {', '.join([*versions, *map(package_version, PACKAGES)])}."


def package_version(name: str) -> str:
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return f"no {name}"


def read_version() -> str:
    return told(PYTHON, str(XGET), "-version").split()[-1]


def told(*words: str) -> str:
    """The first two words that a command says."""
    if not shutil.which(words[0]):
        return f"no {words[0]}"
    said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    return " ".join(said.split()[:2])


def processor_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f" ({(names or [platform.processor() or platform.machine()])[0]})"


def measure(bench: Bench, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Measure parts; yields the name of each and what is to be said of it."""
    for name in names:
        print(f"bench: {name}", file=sys.stderr)
        text = describe(name, PARTS[name](bench), bench.scale)
        print(text, flush=True)
        yield name, text


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Measure; returns 1 where a promise was missed."""
    parser = argparse.ArgumentParser(description="Measure what xget promises, beside other programs.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default all")
    parser.add_argument("--rounds", type=int, default=5, help="of each comparison; default 5")
    parser.add_argument("--scale", type=float, default=1, help="how much of the full size; default 1")
    parser.add_argument("--large", action="store_true", help="in `memory` also an archive of 20 GB")
    parser.add_argument("--write", action="store_true", help="write the parts into tests/BENCHMARK.md")
    options = parser.parse_args(argv)
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left behind
    with tempfile.TemporaryDirectory(prefix="xget-bench-") as name:
        bench = Bench(Path(name), options.rounds, options.scale, options.large)
        written = dict(measure(bench, options.parts or PARTS))
        print(surroundings(bench.folder))
        if options.write:
            write_page(bench.folder, written)
    return int("**missed**" in "".join(written.values()))


if __name__ == "__main__":
    sys.exit(main())
