"""Measures xget beside other programs that download from XNAT, and prints the README's table.

    python3 tests/run.py bench            about ten minutes
    python3 tests/run.py bench --quick    about one, with less of everything
    python3 tests/run.py bench --huge     also an archive of 20 GB, which needs the room

All ask the same test XNAT, in a process of its own, for the same sessions. The programs take
turns, round after round; the table has the medians. It needs curl; without unzip its rows say so.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.metadata
import json
import multiprocessing
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from xnat_server import Synthetic, World, XnatServer

XGET = Path(__file__).resolve().parent.parent / "xget"
PYTHON = sys.executable
LIMIT = 900  # seconds after which a program is given up
IMAGE = ".dcm"  # every file of these worlds ends so
PACKAGES = {
    "pyxnat": "pyxnat",
    "xnatpy": "xnat",
    "xnatctl": "xnatctl",
    "ArcGet": "yaxil",
    "xnat-get": "xnatutils",
}


# --- the server ------------------------------------------------------------------------


def large_world(count: int, size: int) -> World:
    """A session with one scan of so many images, of `size` bytes on average, all with an MD5."""
    world = World()
    scan = world.project("p").session("large", subject="s").scan("1", type="T1")
    images = {
        f"{n:05}{IMAGE}": Synthetic(max(1, size * (96 + n % 9) // 100), n % 16) for n in range(1, count + 1)
    }
    scan.resource("DICOM", images, format="DICOM")
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


def serve(pipe: Any, make: Callable[[], World], settings: dict[str, Any]) -> None:
    """Serve a world, doing to the server what comes through the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with XnatServer(make(), **settings) as server:
        pipe.send(server.url)
        for task in iter(pipe.recv, None):
            pipe.send(task(server))


class Site:
    """The test XNAT in a process of its own."""

    def __init__(self, make: Callable[[], World], **settings: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, make, settings), daemon=True)
        self.process.start()
        self.url: str = self.pipe.recv()

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.pipe.send(None)
        self.process.join()

    def ask(self, task: Callable[[XnatServer], Any]) -> Any:
        self.pipe.send(task)
        return self.pipe.recv()


# --- the programs ----------------------------------------------------------------------


class Job(NamedTuple):
    """What a program is to do: fetch these sessions into `folder`, extracted or not."""

    url: str
    sessions: Sequence[str]
    folder: Path
    extract: bool = False
    derived: bool = False  # assessors and reconstructions too
    at_once: int = 1  # transfers


Command = list[str]

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


def xget(job: Job) -> list[Command]:
    account = ["-host", job.url, "-u", "admin", "-p", "admin"]
    which = ["-s", ",".join(job.sessions), "-j", str(job.at_once)]
    which += [] if job.derived else ["-ass", "NONE", "-recon", "NONE"]
    return [[PYTHON, str(XGET), *account, *which, "-o", str(job.folder), *(["-z"] if job.extract else [])]]


def curl(job: Job) -> list[Command]:
    """Fetch each ZIP as curl would be told to, one connection kept; extraction is unzip's."""
    kinds = ["scans", "assessors", "reconstructions"] if job.derived else ["scans"]
    words = ["curl", "--silent", "--show-error", "--fail", "--user", "admin:admin"]
    if job.at_once > 1:
        words += ["--parallel", "--parallel-max", str(job.at_once)]
    archives = []
    for name in job.sessions:
        for kind in kinds:
            archives.append(str(job.folder / f"{name}_{kind}.zip"))
            uri = f"/data/projects/p/subjects/s/experiments/{name}/{kind}/ALL/files?format=zip"
            words += ["--output", archives[-1], job.url + uri]
    if not job.extract:
        return [words]
    unpack = ["unzip", "-q", archives[0], "-d", str(job.folder)]
    return [words, unpack, ["rm", archives[0]]]


def curl_proven(job: Job) -> list[Command]:
    (fetch,) = curl(job)
    return [fetch, ["unzip", "-tq", str(job.folder / f"{job.sessions[0]}_scans.zip")]]


def library(script: str, job: Job) -> list[Command]:
    words = [job.url, str(job.folder), "1" if job.extract else "", "1" if job.derived else ""]
    return [[PYTHON, "-c", script, *words, *job.sessions]]


def xnatctl(job: Job, *more: str) -> list[Command]:
    """It takes one session a call, and scans alone."""
    words = [PYTHON, "-m", "xnatctl", "session", "download", "-P", "p", "--out", str(job.folder)]
    words += ["--extract"] if job.extract else []
    words += ["--workers", str(job.at_once)] if job.at_once > 1 else []
    return [[*words, *more, "-E", name] for name in job.sessions]


def arcget(job: Job) -> list[Command]:
    """It takes one session a call, and scans alone; it always extracts."""
    words = [PYTHON, program("ArcGet.py"), "--host", job.url, "--username", "admin", "--password", "admin"]
    return [[*words, "-p", "p", "-f", "flat", "-o", str(job.folder / s), "-l", s] for s in job.sessions]


def xnat_get(job: Job) -> list[Command]:
    """It takes scans alone; it always extracts."""
    return [[PYTHON, program("xnat-get"), "-p", "p", "-t", str(job.folder), *job.sessions]]


def program(name: str) -> str:
    return str(Path(PYTHON).parent / name)


class Tool(NamedTuple):
    """A program and how it is called."""

    name: str
    commands: Callable[[Job], list[Command]]


OTHERS = [
    Tool("pyxnat", functools.partial(library, FROM_PYXNAT)),
    Tool("xnatpy", functools.partial(library, FROM_XNATPY)),
    Tool("xnatctl", xnatctl),
    Tool("ArcGet", arcget),
    Tool("xnat-get", xnat_get),
]


# --- measuring -------------------------------------------------------------------------

# A small process starts the commands, so that their peak memory is not that of this one.
METER = """
import json, os, sys, time
result, *commands = map(json.loads, sys.argv[1:])
start, cpu, memory, status = time.perf_counter(), 0.0, 0, 0
for command in commands:
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    cpu, memory = cpu + usage.ru_utime + usage.ru_stime, max(memory, usage.ru_maxrss)
    if status:
        break
with open(result, "w") as file:
    json.dump([time.perf_counter() - start, cpu, memory, status], file)
"""


class Cost(NamedTuple):
    """What a run took (seconds, seconds of processors, bytes, requests), and its result in words."""

    wall: float
    cpu: float
    memory: float
    requests: int
    result: str


class Bench:
    """The folder in which everything happens, and how often."""

    def __init__(self, folder: Path, quick: bool) -> None:
        self.folder, self.quick = folder, quick
        self.rounds = 1 if quick else 3
        self.home = folder / "home"
        self.home.mkdir()

    def environment(self, url: str) -> dict[str, str]:
        account = {"XNAT_USER": "admin", "XNAT_PASS": "admin", "XNAT_HOST": url, "XNAT_URL": url}
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), **account}

    def fresh_folder(self) -> Path:
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return out

    def run(self, commands: list[Command], url: str = "") -> tuple[float, float, float, str]:
        """Run commands one after the other; returns seconds, processor seconds, bytes, and how it ended."""
        missing = [words[0] for words in commands if not shutil.which(words[0])]
        if missing:
            return 0.0, 0.0, 0.0, f"not measured: no {missing[0]} here"
        note, log = self.folder / "note", self.folder / "log"
        note.unlink(missing_ok=True)
        words = [PYTHON, "-S", "-E", "-c", METER, json.dumps(str(note)), *map(json.dumps, commands)]
        with log.open("wb") as output:
            meter = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env=self.environment(url),
                start_new_session=True,
            )
            try:
                meter.wait(LIMIT)
            except subprocess.TimeoutExpired:
                os.killpg(meter.pid, signal.SIGKILL)
                meter.wait()
                return float(LIMIT), 0.0, 0.0, f"given up after {LIMIT} s"
        wall, cpu, memory, status = json.loads(note.read_text())
        scale = 1 if sys.platform == "darwin" else 1024
        code = os.waitstatus_to_exitcode(status)
        why = f" ({cause(log.read_text(errors='replace'))})" if code else ""
        return wall, cpu, memory * scale, f"exit {code}{why}"

    def warm_up(self, site: Site) -> None:
        """Let the server compute what it computes once: the digests."""
        listing = "/data/projects/p/subjects/s/experiments/large/scans/ALL/files?format=json"
        self.run([["curl", "-s", "-u", "admin:admin", "-o", os.devnull, site.url + listing]])

    def fetch(self, site: Site, tool: Tool, job: Job, expected: int) -> Cost:
        """Let a program do a job, and see what it left."""
        job = job._replace(folder=self.fresh_folder())
        *figures, result = self.run(tool.commands(job), site.url)
        return Cost(*figures, site.ask(take_requests), f"{result}; {what_is_in(job.folder, expected)}")

    def compare(self, site: Site, tools: Sequence[Tool], job: Job, expected: int) -> list[tuple[str, Cost]]:
        """Let programs do a job in turns; returns the median of each."""
        costs: dict[str, list[Cost]] = {tool.name: [] for tool in tools}
        for _ in range(self.rounds):
            for tool in tools:
                print(f"bench: {tool.name} ...", file=sys.stderr)
                costs[tool.name].append(self.fetch(site, tool, job, expected))
        return [(name, median(runs)) for name, runs in costs.items()]

    def repeat(self, commands: dict[str, Command], rounds: int, site: Optional[Site] = None) -> list[Any]:
        """Run commands in turns; returns the median of each."""
        costs: dict[str, list[Cost]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, words in commands.items():
                *figures, result = self.run([words], site.url if site else "")
                costs[name].append(Cost(*figures, site.ask(take_requests) if site else 0, result))
        return [(name, median(runs)) for name, runs in costs.items()]


def cause(text: str) -> str:
    """The line of a program's output that tells best why it failed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if "rror" in line] or lines or ["it says nothing"]
    return told[-1][:100].replace("|", "/")


def median(runs: Sequence[Cost]) -> Cost:
    """The medians of several runs; results that differ stand side by side."""
    wall, cpu, memory, requests = (statistics.median(run[i] for run in runs) for i in range(4))
    results = " / ".join(dict.fromkeys(run.result for run in runs))
    return Cost(wall, cpu, memory, round(requests), results)


def what_is_in(folder: Path, expected: int) -> str:
    """Say how many of the images are in a folder, in files or in ZIPs."""
    images = 0
    for path in folder.rglob("*"):
        if path.suffix == ".zip":
            try:
                with zipfile.ZipFile(path) as archive:
                    images += sum(name.endswith(IMAGE) for name in archive.namelist())
            except zipfile.BadZipFile:
                return f"{path.name} is no whole ZIP"
        images += path.name.endswith(IMAGE)
    return "all files" if images == expected else f"{images:,} of {expected:,} files"


# --- what is measured ------------------------------------------------------------------


Rows = list[tuple[str, Cost]]


class Section(NamedTuple):
    """A part of the table; where it `compares`, the first program is what the others' times are
    held against."""

    title: str
    rows: Rows
    compares: bool = True


CURL, CURL_PROVEN, XGET_TOOL = Tool("curl", curl), Tool("curl, unzip -tq", curl_proven), Tool("xget", xget)
CURL_UNZIP = Tool("curl, unzip -q", curl)
XNATCTL_VERIFY = Tool("xnatctl --verify", lambda job: xnatctl(job, "--verify"))


def measure_start(bench: Bench) -> Section:
    """What everybody waits for: Python, and then the program."""
    commands = {"python -c pass": [PYTHON, "-c", "pass"]}
    for title, flag in (
        ("xget -h", "-h"),
        ("xget -version", "-version"),
        ("xget -hots (wrong usage)", "-hots"),
    ):
        commands[title] = [PYTHON, str(XGET), flag]
    return Section("start", bench.repeat(commands, 7 if bench.quick else 21))


def measure_present(bench: Bench) -> Section:
    """A nightly job that finds everything there: the archives were really downloaded before."""
    count = 200 if bench.quick else 1000
    out = bench.fresh_folder()
    names = bench.folder / "sessions"
    names.write_text("\n".join(session_names(count)))
    with Site(functools.partial(many_world, count, 20_000)) as site:
        job = Job(site.url, session_names(count), out, derived=True, at_once=8)
        *_, result = bench.run(xget(job))
        if result != "exit 0":
            raise SystemExit(f"bench: no archives to find: {result}")
        site.ask(take_requests)
        account = ["-host", site.url, "-u", "admin", "-p", "admin"]
        found = [PYTHON, str(XGET), *account, "-f", str(names), "-o", str(out)]
        commands = {"python -c pass": [PYTHON, "-c", "pass"], "xget -f": found}
        rows = bench.repeat(commands, 7 if bench.quick else 21, site)
    return Section(f"{count:,} sessions, {3 * count:,} archives, all there already", rows)


def measure_large(bench: Bench) -> Section:
    """One archive; curl takes it as it comes."""
    count, size = (1000, 200_000) if bench.quick else (4000, 500_000)
    tools = [CURL, CURL_PROVEN, XGET_TOOL, *OTHERS, XNATCTL_VERIFY]
    with Site(functools.partial(large_world, count, size)) as site:
        bench.warm_up(site)
        rows = bench.compare(site, tools, Job(site.url, ["large"], bench.folder), count)
    return Section(f"one archive of {count:,} files with MD5, {readable(count * size)}", rows)


def measure_memory(bench: Bench, huge: bool) -> Section:
    """The same program, archives of very different sizes."""
    rows = []
    sizes = [10_000_000, 100_000_000] if bench.quick else [10_000_000, 200_000_000, 2_000_000_000]
    for size in sizes + [20_000_000_000] * huge:
        if shutil.disk_usage(bench.folder).free < 1.2 * size:
            rows.append((f"xget, {readable(size)}", Cost(0, 0, 0, 0, "not measured: no room on the disk")))
            continue
        with Site(functools.partial(large_world, 4000, size // 4000)) as site:
            cost = bench.fetch(site, XGET_TOOL, Job(site.url, ["large"], bench.folder), 4000)
        rows.append((f"xget, {readable(size)}", cost))
    return Section("peak memory, archives of 4,000 files", rows, compares=False)


def measure_extraction(bench: Bench) -> Section:
    count, size = (1000, 100_000) if bench.quick else (4000, 250_000)
    tools = [CURL_UNZIP, Tool("xget -z", xget), *OTHERS]
    with Site(functools.partial(large_world, count, size)) as site:
        bench.warm_up(site)
        rows = bench.compare(site, tools, Job(site.url, ["large"], bench.folder, extract=True), count)
    return Section(f"extracted: {count:,} files, {readable(count * size)}", rows)


def measure_many(bench: Bench) -> Section:
    """Many sessions from a server that takes 20 ms an answer and sends a ZIP at 30 MB/s."""
    count, size = (12, 3_000_000) if bench.quick else (100, 6_000_000)
    with Site(functools.partial(many_world, count, size), latency=0.02, rate=30e6) as site:
        job = Job(site.url, session_names(count), bench.folder, derived=True)

        def at_once(tool: Tool, number: int, name: str) -> Tool:
            return Tool(name, lambda job: tool.commands(job._replace(at_once=number)))

        tools = [
            Tool("curl", curl),
            at_once(CURL, 8, "curl --parallel-max 8"),
            Tool("xget -j 1", xget),
            at_once(XGET_TOOL, 8, "xget -j 8"),
            *OTHERS,
            at_once(Tool("xnatctl", xnatctl), 8, "xnatctl --workers 8"),
        ]
        rounds, bench.rounds = bench.rounds, 1
        rows = bench.compare(site, tools, job, 22 * count)
        bench.rounds = rounds
    return Section(f"{count} sessions of three kinds, 20 ms an answer, 30 MB/s a ZIP", rows)


def measure_short(bench: Bench) -> Section:
    """What each makes of a ZIP that is well-formed and lacks files."""
    rows = []
    with Site(functools.partial(large_world, 4, 100_000)) as site:
        for tool in [CURL_PROVEN, XGET_TOOL, *OTHERS, XNATCTL_VERIFY]:
            site.ask(shorten)
            rows.append((tool.name, bench.fetch(site, tool, Job(site.url, ["large"], bench.folder), 4)))
    return Section("the server sends a well-formed ZIP that lacks 2 of 4 files", rows, compares=False)


# --- the table -------------------------------------------------------------------------


def readable(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def table(sections: Iterable[Section]) -> Iterator[str]:
    """Write a Markdown table; a run that failed has no figures to compare."""
    yield "| | time | ratio | processor time | memory | requests | result |"
    yield "|---|--:|--:|--:|--:|--:|---|"
    for section in sections:
        yield f"| **{section.title}** | | | | | | |"
        first = section.rows[0][1].wall
        for name, cost in section.rows:
            ratio = f"{cost.wall / first:.2g}x" if section.compares and first else ""
            figures = [
                seconds(cost.wall),
                ratio,
                seconds(cost.cpu),
                readable(cost.memory),
                f"{cost.requests:,}",
            ]
            failed = "exit 0" not in cost.result and "exit 2" not in cost.result
            yield "| " + " | ".join([name, *([""] * 5 if failed else figures), cost.result]) + " |"


def surroundings() -> str:
    """Say when, where and with what, in words."""
    versions = [f"xget {read_version()}", first_line("curl", "--version"), first_line("unzip", "-v")]
    for name, package in PACKAGES.items():
        try:
            versions.append(f"{name} ({package} {importlib.metadata.version(package)})")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} (not installed)")
    cores = f"{os.cpu_count()} processors{processor_name()}"
    memory = readable(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    python = f"Python {platform.python_version()}"
    today = datetime.date.today().isoformat()
    return f"Measured on {today}, {cores}, {memory}, {platform.system()}, {python}: {', '.join(versions)}."


def read_version() -> str:
    words = subprocess.run([PYTHON, str(XGET), "-version"], capture_output=True, text=True, check=True)
    return words.stdout.split()[-1]


def first_line(*words: str) -> str:
    """The first words of what a program says of itself."""
    if not shutil.which(words[0]):
        return f"no {words[0]}"
    said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    return " ".join(said.split()[:2])


def processor_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f" ({(names or [platform.processor() or platform.machine()])[0]})"


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="Measure xget beside other programs.")
    parser.add_argument("--quick", action="store_true", help="less of everything, in about a minute")
    parser.add_argument("--huge", action="store_true", help="also an archive of 20 GB")
    parts: dict[str, Callable[[Bench], Section]] = {
        "start": measure_start,
        "present": measure_present,
        "large": measure_large,
        "memory": lambda bench: measure_memory(bench, options.huge),
        "extraction": measure_extraction,
        "many": measure_many,
        "short": measure_short,
    }
    parser.add_argument("--only", choices=parts, action="append", help="this part alone")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="xget-bench-") as folder:
        bench = Bench(Path(folder), options.quick)
        sections = [part(bench) for name, part in parts.items() if name in (options.only or parts)]
    print(surroundings(), *["", *table(sections)], sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
