"""Starts xget as a shell might: on a terminal, with streams closed, with limits, without root's rights.

As a program, `launch.py WORD ... -- COMMAND ...` does what the words say and becomes the command:

    tty             the terminal among its streams is the one that Ctrl-C comes from
    close=N         stream N is closed
    file-size=N     no file grows over N bytes
    plain           root, if it is root, keeps to the permissions of files
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lane

if TYPE_CHECKING:
    from conftest import Xget

XGET = Path(__file__).resolve().parent.parent / "xget"


def launch(xget: Xget, words: str, *args: str, login: bool = True, **options: Any) -> subprocess.Popen[str]:
    """Start xget as Xget.start does, after `words` have been done."""
    if words != "tty":
        lane.skip_on_windows("limits and closed streams are POSIX's")
    account = ["-host", xget.url, "-u", "admin", "-p", "admin"] if login else []
    command = [sys.executable, __file__, *words.split(), "--", *lane.python(), str(XGET), *account, *args]
    settings: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "cwd": xget.folder,
        "env": xget.environment(),
        "start_new_session": True,
        "text": True,
    }
    return lane.Process(command, **{**settings, **options})


class Terminal:
    """xget on a terminal of its own: the streams named in `on` are the terminal, the others pipes."""

    def __init__(
        self, xget: Xget, *args: str, on: str = "in out err", columns: int = 80, login: bool = True
    ) -> None:
        if on != "in out err" or not lane.WINE:
            lane.skip_on_windows("a console is all three streams, and only Wine makes one of a terminal")
        import fcntl
        import pty
        import termios

        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = launch(xget, "tty", *args, login=login, **{f"std{name}": slave for name in on.split()})
        os.close(slave)
        self.shown = ""
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        data = b""
        with contextlib.suppress(OSError):  # EIO: everybody has left the terminal
            while True:
                piece = os.read(self.master, 65536)
                if not piece:
                    return
                data += piece
                self.shown = lane.screen(data.decode("utf-8", "replace"))

    def wait_for(self, text: str) -> None:
        """Wait until the terminal has shown this."""
        end = time.monotonic() + 30
        while text not in self.shown:
            assert time.monotonic() < end and self.process.poll() is None, self.shown
            time.sleep(0.02)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def finish(self) -> tuple[int, str, str]:
        """Wait for the end; returns the status, standard output if it is a pipe, what was shown."""
        try:
            out, _ = self.process.communicate(timeout=60)
        finally:
            self.process.kill()
        self.reader.join(10)
        os.close(self.master)
        return self.process.returncode, out or "", self.shown.replace("\r\n", "\n")


def drop_rights() -> None:
    """Take from root, for the command, what lets it pass over the permissions of files."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    for right in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH; 24 is PR_CAPBSET_DROP
        if os.geteuid() == 0 and libc.prctl(24, right, 0, 0, 0):
            sys.exit("launch: cannot drop root's rights")


def main(argv: list[str]) -> None:
    words, command = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    for word in words:
        name, _, value = word.partition("=")
        if name == "tty":
            import fcntl
            import termios

            fcntl.ioctl(next(n for n in range(3) if os.isatty(n)), termios.TIOCSCTTY, 0)
        elif name == "close":
            os.close(int(value))
        elif name == "file-size":
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (int(value), int(value)))
        elif name == "plain":
            drop_rights()
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
