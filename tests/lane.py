"""The system that xget runs on: that of the tests, or Windows, where need be by Wine on Linux.

By Wine (see windows.py) xget runs in Windows' Python, while the tests and the test XNAT stay in
Linux's. What the tests need not know about that is here: how Python is called, its environment,
what it prints, how long it takes, and which tests have no meaning there.
"""

from __future__ import annotations

import codecs
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any, Optional

import pytest
import warm

FOLDER = os.environ.get("XGET_WINDOWS", "")  # windows.py sets it: the folder of Windows' Python
WINE = bool(FOLDER)
WINDOWS = WINE or os.name == "nt"
PATIENCE = 4 if WINE else 1  # how much longer than on Linux everything may take

# The gate's part of the tests, for which there is time, as files and as pytest's -k; and what has
# nothing of Windows in it.
GATE = ("test_windows", "test_manual", "test_archives")
GATE_ONLY = "test_windows or test_manual or test_z_"
LEFT_OUT = {
    "test_bench": "measures",
    "test_install": "the wheel is installed by test_windows",
    "test_machines": "disks, users and locales of the Unix kind",
    "test_nightly": "shells and cron",
    "test_other_clients": "no run of xget",
    "test_property": "runs in the process of the tests",
    "test_readme": "shells",
    "test_server": "no run of xget",
    "test_server_faults": "no run of xget",
    "test_speed": "measures",
}

# Tests of the other modules that are POSIX's own, by a pattern of their ID.
POSIX_ONLY = {
    r"a_link_that_the_user_put|symlink|dead.link|-loop\]|loop_of_links|_a_pipe_": "links need rights",
    r"-15\]|(TERM|HUP)[-\]]|_a_signal_.*(\[|-)15?\]": "Windows knows no signal but Ctrl-C and Ctrl-Break",
    r"lockless": "takes the locks from POSIX's module",
    r"full_disk|disk_that_fills_up": "Wine says 'Invalid argument' of a full disk",
    r"turns_read_only|readable_by_others|_others_can_read": "permissions are POSIX's",
    r"goes_away": "nobody can remove a folder in which a file is open",
    r"needs_no_module_of_posix|pass_file_is_in_userprofile": "imitates Windows",
    r"cannot_be_decoded": "its words and lines are no bytes",
    r"no_answer_asks_nothing": "keys are read one by one: see test_windows",
    r"firewall_says|all_odd_files_come": "names that Windows refuses: see test_windows",
    r"a_second_signal": "how a second Ctrl-C ends a program is Windows' own",
    r"gzip_bomb": "counts Wine's memory too",
    r"lacks_a_letter": "what goes into a pipe is UTF-8",
    r"executable|takes_no_file_after_all": "bits and folders of POSIX",
    r"while_standard_input_is_awaited": "Windows hears Ctrl-C when the pipe ends",
}


# --- Wine -------------------------------------------------------------------------------


def find_wine() -> Optional[str]:
    """Find Wine's loader; None where there is none."""
    places = (os.environ.get("WINE"), "/usr/lib/wine/wine64", shutil.which("wine64"), shutil.which("wine"))
    return next((place for place in places if place and os.access(place, os.X_OK)), None)


def find_wineserver(wine: str) -> str:
    """Find the server that goes with Wine's loader."""
    beside = Path(wine).resolve().with_name("wineserver")
    return str(beside) if beside.exists() else shutil.which("wineserver") or "wineserver"


def wine_variables(folder: str) -> dict[str, str]:
    """Name what Wine has to find in the environment; C.UTF-8 makes its code pages 1252 and 437."""
    wine = find_wine() or "wine"
    return {
        "WINEPREFIX": f"{folder}/prefix",
        "WINEARCH": "win64",
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "mscoree=;mshtml=",
        "WINELOADER": wine,
        "WINESERVER": find_wineserver(wine),
        "LC_ALL": "C.UTF-8",
    }


def windows_path(path: object) -> str:
    """Write a path as Windows does: by Wine, this machine is drive Z."""
    return f"Z:{path}".replace("/", "\\") if WINE else str(path)


# --- how xget is run --------------------------------------------------------------------


def python() -> list[str]:
    """Name the Python that runs xget, as the first words of a command."""
    return [find_wine() or "wine", f"{FOLDER}/python/python.exe"] if WINE else [sys.executable]


def program() -> list[str]:
    """Name xget, as the first words of a command."""
    return [*python(), str(Path(__file__).resolve().parent.parent / "xget")]


def environment(home: Path) -> dict[str, str]:
    """Make an environment that holds nothing of the caller's but what a system needs to run."""
    kept = ("PATH", "SYSTEMROOT", "COMSPEC", "PATHEXT", "TEMP", "TMP") if os.name == "nt" else ("PATH",)
    variables = {name: os.environ[name] for name in kept if name in os.environ}
    variables.update(HOME=str(home), USERPROFILE=str(home), PYTHONWARNINGS="error")
    if WINE:  # it sets USERPROFILE anew for each program; Windows' Python takes it from here
        variables.update(wine_variables(FOLDER), WIN_USERPROFILE=windows_path(home))
    return variables


def decode_ansi(error: UnicodeError) -> tuple[str, int]:
    """Take for the code page 1252 what is no UTF-8."""
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error("ansi", decode_ansi)


def plain(text: Any) -> Any:
    """Write back-slashes as slashes, in JSON too; those that begin an escape stay."""
    if not WINDOWS or not isinstance(text, str):
        return text
    return re.sub(r'\\\\|\\(?!u[0-9a-f]{4}|x[0-9a-f]{2}|")', "/", text)


def screen(text: str) -> str:
    """Write what was sent to a terminal without the escapes by which Wine's console draws it."""
    if not WINE:
        return text
    spaced = re.sub(r"\x1b\[(\d*)C", lambda found: " " * int(found[1] or 1), text)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07", "", spaced)


class Process(warm.Process):
    """A process whose output reads as on Linux, and that is waited for with this system's patience."""

    patience = PATIENCE

    def __init__(self, command: list[str], **options: Any) -> None:
        if WINDOWS and options.get("text"):
            options.update(encoding="utf-8", errors="ansi")
        super().__init__(command, **options)

    def communicate(self, input: Any = None, timeout: Optional[float] = None) -> tuple[Any, Any]:
        """Read to the end; Popen's own calls `wait` with what is left of a time-out that is stretched."""
        self.patience = 1
        try:
            out, err = super().communicate(input, timeout and timeout * PATIENCE)
        finally:
            self.patience = PATIENCE
        return plain(out), plain(err)

    def wait(self, timeout: Optional[float] = None) -> int:
        return super().wait(timeout and timeout * self.patience)


# --- which tests ------------------------------------------------------------------------


def skip_what_is_posix(items: list[pytest.Item]) -> None:
    """Mark as skipped, on Windows, the tests that have no meaning there."""
    for item in items if WINDOWS else ():
        for pattern, reason in POSIX_ONLY.items():
            if "test_windows" not in item.nodeid and re.search(pattern, item.nodeid):
                item.add_marker(pytest.mark.skip(reason=reason))


def skip_on_windows(reason: str) -> None:
    """Leave the test that runs; for helpers of tests that do what only POSIX can."""
    if WINDOWS:
        pytest.skip(reason)
