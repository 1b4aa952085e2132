"""The short form of soak.py: some rounds of its random faults, and a project of many sessions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from soak import many, soak

pytestmark = pytest.mark.skipif(os.name != "posix", reason="stops and kills as Unix does")


@pytest.mark.parametrize("seed", [1, 2])
def test_a_server_that_misbehaves_at_random(seed: int) -> None:
    assert soak(seed, 12, least=3)


def test_each_tenth_of_150_sessions_fails_in_its_own_way_and_the_others_arrive(tmp_path: Path) -> None:
    many(150, 10, tmp_path)
