"""Holds the benchmark to its page, and sees that it runs and judges; what it measures is no test's matter."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from bench import PAGE, PARTS, Cost, Promise, Row, Section, just, verdict

FIRST = (Row("curl", just("curl")), Cost(2.0, 1.0, 10e6, 1, "exit 0; all files"))


def test_the_page_has_every_part() -> None:
    assert re.findall(r"^## (\w+): ", PAGE.read_text(encoding="utf-8"), re.MULTILINE) == list(PARTS)


@pytest.mark.parametrize(
    ("promise", "wall", "requests", "result", "said"),
    [
        pytest.param(Promise(), 9, 7, "exit 0", "", id="nothing promised"),
        pytest.param(Promise(1.3), 2.6, 7, "exit 0; all files", "1.3x: kept", id="kept"),
        pytest.param(Promise(1.3), 2.7, 7, "exit 0; all files", "1.3x: **missed**", id="slower"),
        pytest.param(Promise(25, requests=0), 2, 1, "exit 0", "25x, 0 requests: **missed**", id="a request"),
        pytest.param(Promise(memory=40e6), 2, 7, "exit 0", "40 MB: **missed**", id="memory"),
        pytest.param(Promise(1.3), 0.1, 7, "exit 1 (no)", "1.3x: **missed**", id="failed"),
        pytest.param(
            Promise(1.3), 0.1, 7, "exit 0; 3 of 4 files", "1.3x: **missed**", id="files are missing"
        ),
        pytest.param(Promise(1.3), 0, 0, "not measured: no x here", "1.3x: **missed**", id="not there"),
    ],
)
def test_verdict(promise: Promise, wall: float, requests: int, result: str, said: str) -> None:
    row, cost = Row("xget", just("xget"), promise), Cost(wall, 1.0, 50e6, requests, result)
    assert verdict(Section("a part", [FIRST, (row, cost)]), row, cost) == said


@pytest.mark.skipif(sys.platform == "win32", reason="made for Linux")
def test_a_part_runs() -> None:
    command = [sys.executable, str(PAGE.with_name("bench.py")), "short"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\| xget \| .* \| exit 0; all files \|", done.stdout, re.MULTILINE), done.stdout
