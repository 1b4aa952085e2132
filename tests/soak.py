#!/usr/bin/env python3
"""Runs xget against servers that misbehave at random, until the time is over or something is wrong.

    python tests/soak.py --seconds 300            so long, from a seed that is printed
    python tests/soak.py --seed 7 --first 12      again from that round on

Each round is a site of its own, with some sessions that are struck by faults and some that are not.
Whatever happens, a run ends, says lines of its own and logs out; what bears a final name is whole;
a session that is not struck is whole, and so is one that is struck by what passes; any other one is
whole or named. Then the faults stop, and the next run brings the rest. One round in five is stopped
or killed on its way, and the next run has to mend that too.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple

from conftest import Outcome, Xget
from truth import assert_earned, hidden, read_tree, read_zip, truth
from xnat_server import Session, Synthetic, World, XnatServer

KINDS = ("acq", "ass", "recon")
LIMIT = 120  # seconds, after which a run counts as hanging
WHERE = {
    "document": r"/experiments/{id}\?format=xml",
    "listing": r"/experiments/{id}/.*files\?format=json",
    "zip": r"/experiments/{id}/.*format=zip",
    "file": r"/experiments/{id}/.*/files/[^?]",
    "any": r"/experiments/{id}\b",
}
NOTICE = b"<html><h3>Closed for maintenance</h3></html>"
TYPES = ("text/html", "text/plain", "application/octet-stream", "application/zip")
Details = Callable[[random.Random], dict[str, Any]]


class Trouble(NamedTuple):
    """A kind of fault, where it strikes, its details; `passes` if it harms nothing when it passes."""

    kind: str
    where: str
    details: Details = lambda rng: {}
    passes: bool = True


def after(rng: random.Random) -> dict[str, Any]:
    return {"after": rng.choice([0, 1, 100, 5000, 20_000])}


def notice(rng: random.Random) -> dict[str, Any]:
    body = rng.choice([NOTICE, NOTICE[9:-10], b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"[]", b"{}"])
    return {"headers": {"Content-Type": rng.choice(TYPES)}, "body": body}


def weather(rng: random.Random) -> dict[str, Any]:
    return {"status": rng.choice([429, 502, 503, 504]), "retry_after": rng.choice([None, None, 0, 1])}


def refusal(rng: random.Random) -> dict[str, Any]:
    return {"status": rng.choice([400, 403, 404, 405, 409, 410, 418, 500, 501]), "message": "No"}


def strange_rows(rng: random.Random) -> dict[str, Any]:
    """Another listing: rows that come twice, that lie, or that are no rows; none is left out."""

    def edit(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        row = dict(rng.choice(rows)) if rows else {}
        change = rng.choice(["twice", "size", "digest", "ghost", "odd", "outside", "bare"])
        if change == "size":
            lies = ["-1", "9" * 5000, "x", "17", *(["0"] if row.get("digest") else [])]
            row["Size"] = rng.choice(lies)
        elif change == "digest":
            row["digest"] = "0" * 32
        elif change != "twice":
            ending = {"ghost": "ghost.dcm", "odd": "\x1b[2J.dcm", "outside": "../../../x", "bare": ""}[change]
            row.update(URI=row.get("URI", "").rpartition("/")[0] + "/" + ending, Size="17")
        return [*(each for each in rows if each.get("URI") != row.get("URI")), row, row]

    return {"edit": edit}


TROUBLES = [
    *(Trouble("status", where, weather) for where in WHERE),
    *(Trouble("status", where, refusal, False) for where in WHERE),
    *(Trouble("cut", where, after) for where in WHERE),
    *(Trouble("answer", where, notice) for where in ("document", "listing", "zip")),
    *(Trouble("html", where, lambda rng: {"body": NOTICE[6:-7].decode()}) for where in WHERE),
    *(Trouble("redirect", where, lambda rng: {"location": "http://127.0.0.1:9/"}, False) for where in WHERE),
    *(Trouble("silence", where, lambda rng: {"seconds": 9}) for where in ("document", "zip")),
    *(Trouble("silence", where, lambda rng: {"seconds": 9, **after(rng)}) for where in ("listing", "zip")),
    *(Trouble("gzip", where, lambda rng: {"chunked": rng.random() < 0.5}) for where in WHERE),
    *(Trouble("gzip", where, lambda rng: {"encoding": "br"}) for where in WHERE),
    *(Trouble("drip", where, lambda rng: {"seconds": rng.choice([0.001, 0.05])}) for where in WHERE),
    *(Trouble("continue", where, lambda rng: {"seconds": 0.01}) for where in ("document", "zip")),
    *(Trouble("http10", where) for where in WHERE),
    *(Trouble("slow", where, lambda rng: {"rate": 20_000}) for where in WHERE),
    *(Trouble("truncate", where, after) for where in ("document", "listing", "zip")),
    *(Trouble("endless", "zip", lambda rng, place=place: {"where": place}) for place in ("end", "member")),
    *(Trouble(kind, "zip") for kind in ("missing", "vanish", "unreadable", "duplicate", "flip")),
    Trouble("missing", "zip", lambda rng: {"member": ".*"}),
    Trouble("silence", "zip", lambda rng: {"seconds": 0.5, "between": True}),
    Trouble("endless", "zip", lambda rng: {"where": "directory"}),
    Trouble("endless", "file", passes=False),
    Trouble(
        "add", "zip", lambda rng: {"name": rng.choice(["../x", "x", "/x", "a\x1b"]), "data": b"x"}, False
    ),
    Trouble("empty", "listing"),
    Trouble("listing", "listing", strange_rows, False),
    Trouble("document", "document", passes=False),
    Trouble("fallback", "listing", passes=False),
    Trouble("fallback", "zip"),
    Trouble("expire", "any"),
]


class Round(NamedTuple):
    """A site, the flags of the runs, and what strikes which sessions: (fault, session, whether it passes)."""

    world: World
    args: tuple[str, ...]
    struck: dict[str, tuple[Trouble, int | None, dict[str, Any]]]
    stop: tuple[int, float] | None  # a signal, and when

    def passing(self, session: Session) -> bool:
        """Whether the session has to be whole after the first run."""
        trouble, times, _ = self.struck.get(session.label, (None, 0, None))
        return trouble is None or (trouble.passes and times is not None)

    def __str__(self) -> str:
        lines = [" ".join(self.args), f"stop: {self.stop}", f"{vars_of(self.world)}"]
        for label, (trouble, times, details) in self.struck.items():
            lines.append(f"{label}: {trouble.kind} {trouble.where} {times} {details}")
        return "\n".join(lines)


def vars_of(world: World) -> dict[str, Any]:
    fresh = World()
    names = ("version", "compression", "digests", "listed_sizes", "hidden_fields", "labels_only", "charset")
    names += ("restlet", "secure_cookies", "old_assessor_layout", "firewall", "session_requests")
    return {name: getattr(world, name) for name in names if getattr(world, name) != getattr(fresh, name)}


def make_world(rng: random.Random) -> World:
    """A project of some sessions on a site with its own ways."""
    world = World(
        version=rng.choice(["1.8.11", "1.8.11", "1.7.4.1"]),
        compression=rng.choice([0, 8]),
        hidden_fields=rng.random() < 0.7,
        labels_only=rng.random() < 0.1,
        charset=rng.choice(["utf-8", "utf-8", "latin-1"]),
        restlet=rng.choice([1, 1, 2]),
        secure_cookies=rng.random() < 0.3,
        old_assessor_layout=rng.random() < 0.2,
        firewall=rng.choice([500, 400, 0]),
        session_requests=rng.choice([None, None, 7]),
    )
    known = rng.choice(["both", "both", "sizes", "digests"])  # what a listing tells of a file
    world.listed_sizes, world.digests = known != "digests", "md5" if known != "sizes" else "none"
    project = world.project("p")
    for number in range(rng.randint(3, 12)):
        fill(project.session(f"s{number:02}", date="2020-01-02"), rng)
    return world


def fill(session: Session, rng: random.Random) -> None:
    """Give a session scans, and perhaps an assessor and a reconstruction, of a few files each."""
    holders: list[Any] = []
    for number in range(rng.randint(1, 3)):
        id = rng.choice([str(number), f"{number}-MR", f"{number};%2"])
        holders.append(session.scan(id, type=rng.choice(["T1", "t2_tse, sag", ""])))
    if rng.random() < 0.5:
        holders.append(session.assessor(f"{session.label}_QC"))
    if rng.random() < 0.5:
        holders.append(session.reconstruction("R1", type="A B"))
    for holder in holders:
        resource = holder.resource("DICOM", format="DICOM")
        for number in range(rng.randint(1, 5)):
            name = rng.choice([f"{number}.dcm", f"sub/{number}.dcm", f"ä {number}.dcm"])
            size = rng.choice([0, 1, 300, 9000, 60_000])
            resource.add(name, Synthetic(size, seed=rng.randint(0, 1 << 30)))


def make_round(rng: random.Random) -> Round:
    world = make_world(rng)
    args = [
        "-proj",
        "p",
        "-j",
        str(rng.choice([1, 2, 4, 8, 16])),
        "-retry",
        "0.05,0.05,0.05",
        "-timeout",
        "2",
    ]
    args += rng.choice([[], [], ["-z"], ["-z", "-overwrite"], ["-overwrite"], ["-update"], ["-json"]])
    args += rng.choice([[], [], ["-compression", "deflated"], ["-v"]])
    struck: dict[str, Any] = {}
    for session in world.sessions():
        if rng.random() < 0.6:
            trouble = rng.choice(TROUBLES)
            if trouble.kind == "endless" and not world.listed_sizes:  # the room is the limit
                continue
            times = rng.choice([1, 2, None]) if trouble.kind != "expire" else rng.choice([1, 2])
            struck[session.label] = (trouble, times, trouble.details(rng))
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
    stop = (int(rng.choice(numbers)), rng.uniform(0.3, 3)) if rng.random() < 0.2 else None
    return Round(world, tuple(args), struck, stop)


def run(xget: Xget, args: tuple[str, ...], stop: tuple[int, float] | None) -> Outcome:
    """Run xget to its end, or to the signal's; a run that does not end is an AssertionError."""
    process = xget.start(*args)
    out, err = "", ""
    try:
        if stop:
            try:
                out, err = process.communicate(timeout=stop[1])
            except subprocess.TimeoutExpired:
                process.send_signal(stop[0])
        if not out + err:
            out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"hangs; so far: {process.communicate()}") from None
    return Outcome(process.returncode, out, err)


def is_whole(xget: Xget, session: Session, args: tuple[str, ...]) -> bool:
    """Whether all of a session has arrived, under its final names."""
    if "-z" in args:
        there = read_tree(xget.folder)
        return all(there.get(name) == data for kind in KINDS for name, data in truth(session, kind).items())
    for kind in KINDS:
        path = xget.folder / f"{session.label}_{kind}.zip"
        if truth(session, kind) and not (path.exists() and read_zip(path) == truth(session, kind)):
            return False
    return True


def check_said(outcome: Outcome, args: tuple[str, ...]) -> None:
    """Standard error holds lines of xget's own, standard output names what is there."""
    for line in outcome.err.splitlines():
        assert line.startswith("xget: ") and line.isprintable(), line
        assert not re.search(r"\w+Error\b|Traceback", line), line
    for line in outcome.out.splitlines() if "-json" in args else ():
        assert json.loads(line)["kind"] in (*KINDS, "")


def check_first(this: Round, xget: Xget, server: XnatServer, outcome: Outcome) -> None:
    """Check what a run against the faults has said and left."""
    assert_earned(xget.folder, this.world)
    check_said(outcome, this.args)
    if this.stop and outcome.status not in (0, 1):
        assert outcome.status in (-this.stop[0], 128 + this.stop[0]), outcome.status
        return
    failed = [each for each in this.world.sessions() if not is_whole(xget, each, this.args)]
    spoilt = [each.label for each in failed if this.passing(each)]
    assert not spoilt, f"not whole, though nothing lasting struck: {spoilt}"
    unnamed = [each.label for each in failed if not re.search(rf"^xget: {each.label}\b", outcome.err, re.M)]
    assert not unnamed, f"neither whole nor named: {unnamed}"
    assert outcome.status == 1 if failed else outcome.status in (0, 1), outcome.status
    assert hidden(xget.folder) == []
    ends = [each for each in server.requests if each.method == "DELETE"]
    assert ends and server.requests[-1].method == "DELETE"
    expired = this.world.session_requests or any(what[0].kind == "expire" for what in this.struck.values())
    assert len(ends) == 1 or expired, f"{len(ends)} log-outs"


def check_second(this: Round, xget: Xget, outcome: Outcome) -> None:
    """Check that a run without faults has brought all that lacked."""
    check_said(outcome, this.args)
    assert outcome.status == 0, "the next run fails"
    assert_earned(xget.folder, this.world)
    assert all(is_whole(xget, each, this.args) for each in this.world.sessions()), "the next run lacks some"
    assert hidden(xget.folder) == []
    assert not list(xget.folder.glob("*.incomplete.zip"))


def play(this: Round, top: Path) -> None:
    """Play a round in an empty folder; an AssertionError says what is wrong."""
    (top / "home").mkdir()
    (top / "out").mkdir()
    first = second = Outcome(-1, "", "")
    with XnatServer(this.world) as server:
        xget = Xget(top / "home", top / "out", server.url)
        if this.stop:  # Python warns of what a signal makes an import leave open
            xget.env["PYTHONWARNINGS"] = "ignore"
        for session in this.world.sessions():
            if session.label in this.struck:
                trouble, times, details = this.struck[session.label]
                server.fault(trouble.kind, WHERE[trouble.where].format(id=session.id), times, **details)
        try:
            first = run(xget, this.args, this.stop)
            check_first(this, xget, server, first)
            server.clear()
            again = tuple(word for word in this.args if word != "-overwrite" or "-z" not in this.args)
            second = run(xget, again, None)
            check_second(this, xget, second)
        except AssertionError as error:
            said = [f"status {each.status}\n{each.err[-4000:]}" for each in (first, second)]
            raise AssertionError("\n".join([f"{error}", f"{this}", *said])) from error


def rounds(seed: int, start: int = 0) -> Iterator[tuple[int, Round]]:
    """The rounds of a seed, without an end."""
    number = start
    while True:
        yield number, make_round(random.Random(f"{seed} {number}"))
        number += 1


def soak(seed: int, seconds: float, start: int = 0, least: int = 1) -> int:
    """Play rounds until the time is over, `least` of them anyway; returns how many."""
    end, played = time.monotonic() + seconds, 0
    for number, this in rounds(seed, start):
        with tempfile.TemporaryDirectory() as folder:
            try:
                play(this, Path(folder))
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, round {number}: {error}") from error
        played += 1
        if time.monotonic() > end and played >= least:
            return played
    return played


# --- a thousand sessions ----------------------------------------------------------------------------


def worsts() -> list[tuple[str, str, dict[str, Any]]]:
    """Twenty ways in which a session fails for good: kind of fault, where, details."""
    found: list[tuple[str, str, dict[str, Any]]] = [
        *(("status", "document", {"status": status}) for status in (400, 403, 404, 500, 503)),
        *(("status", "listing", {"status": status}) for status in (400, 404, 500, 502)),
        *(("html", where, {}) for where in ("document", "listing")),
        *(("cut", where, {"after": 20}) for where in ("document", "listing")),
        *(("answer", where, {"body": NOTICE}) for where in ("document", "any")),
        ("document", "document", {}),
        ("redirect", "listing", {"location": "http://127.0.0.1:9/x"}),
        ("gzip", "document", {"encoding": "br"}),
        ("empty", "listing", {}),
        ("status", "(zip|file)", {"status": 404}),
    ]
    assert len(found) == 20
    return found


def many(count: int, every: int, top: Path) -> None:
    """Bring so many sessions, each `every`th of which fails in another way than the one before."""
    world = World()
    project = world.project("p")
    for number in range(count):
        resource = project.session(f"s{number:04}").scan("1", type="T1").resource("DICOM", format="DICOM")
        resource.add("1.dcm", f"{number} one".encode()).add("2.dcm", f"{number} two".encode())
    bad = world.sessions()[every - 1 :: every]
    (top / "home").mkdir()
    (top / "out").mkdir()
    with XnatServer(world) as server:
        for number, session in enumerate(bad):
            kind, where, details = worsts()[number % 20]
            match = WHERE.get(where, r"/experiments/{id}/.*(format=zip|/files/[^?])").format(id=session.id)
            server.fault(kind, match, None, **details)
        xget = Xget(top / "home", top / "out", server.url)
        args = ("-proj", "p", "-j", "8", "-retry", "0.05", "-ass", "NONE", "-recon", "NONE", "-json")
        outcome = xget(*args, timeout=600)
        check_said(outcome, args)
        assert outcome.status == 1
        results = [json.loads(line) for line in outcome.out.splitlines()]
        failed = sorted(each["session"] for each in results if each["status"] != "downloaded")
        assert failed == [each.label for each in bad]
        assert len(results) == count
        for session in world.sessions():
            path = xget.folder / f"{session.label}_acq.zip"
            assert path.exists() != (session in bad)
            assert session in bad or read_zip(path) == truth(session, "acq")
            lines = [line for line in outcome.err.splitlines() if line.startswith(f"xget: {session.label}")]
            assert bool(lines) == (session in bad) and len(lines) <= 3
        assert hidden(xget.folder) == []
        assert [each.method for each in server.requests].count("DELETE") == 1
        assert server.sessions_opened == 1


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randint(1, 1 << 20))
    parser.add_argument("--first", type=int, default=0, help="the round to begin with")
    parser.add_argument("--sessions", type=int, default=1000, help="of the large project; 0 for none")
    found = parser.parse_args(argv)
    print(f"seed {found.seed}", flush=True)
    if found.sessions:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            many(found.sessions, 50, Path(folder))
        print(f"{found.sessions} sessions in {time.monotonic() - begun:.0f} s", flush=True)
    print(f"{soak(found.seed, found.seconds, found.first)} rounds", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
