"""A Python in which the libraries are loaded already forks for each run of xget, which spares 0.3 s each.

What forks has imported pyxnat, requests, httplib2 and lxml, and nothing of xget. A run is a process of
its own, with its arguments, environment, folder and streams, and a child of the tests: those ask Linux for
the orphans of their descendants (prctl(2), PR_SET_CHILD_SUBREAPER). Runs that depend on how Python starts
(PYTHON... or LC_... in the environment, say) start it themselves, as do all with XGET_COLD=1.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib.machinery
import importlib.util
import json
import os
import socket
import subprocess
import sys
from typing import Any, NoReturn, Optional

XGET = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "xget")
LIBRARIES = ("httplib2", "lxml.etree", "pyxnat", "pyxnat.core.derivatives", "requests")
STARTS = ("PYTHON", "LC_", "LANG", "LD_")  # what decides how Python starts


# --- in the tests -----------------------------------------------------------------------


class Process(subprocess.Popen):  # type: ignore[type-arg]
    """A process that is forked from the warm Python where that makes no difference, else started."""

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, *rest: Any) -> None:
        """Start the child; the streams stand behind five further arguments, in pairs."""
        cwd, env, pipes, session = rest[2], rest[3], rest[7:13], rest[18]
        place = warm_place(args, env) if preexec_fn is None and rest[0] and not rest[1] else None
        if place is None:
            super()._execute_child(args, executable, preexec_fn, *rest)  # type: ignore[misc]
            return
        p2cread, _, _, c2pwrite, _, errwrite = pipes
        streams = [own if own != -1 else number for number, own in enumerate((p2cread, c2pwrite, errwrite))]
        words = {"argv": args[1:], "env": env, "cwd": os.fspath(cwd or "."), "session": bool(session)}
        socket.send_fds(place, [json.dumps(words).encode()], streams)
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]
        self._child_created = True
        self.pid = int(place.recv(100))


def warm_place(args: Any, env: Optional[dict[str, str]]) -> Optional[socket.socket]:
    """Return where to ask for a run; None if it has to be started by itself."""
    known = isinstance(args, list) and len(args) > 1 and args[0] == sys.executable
    if not known or os.path.basename(args[1]) != "xget" or env is None or os.environ.get("XGET_COLD"):
        return None
    odd = {name for name in env if name.startswith(STARTS)} - {"PYTHONWARNINGS"}
    return None if odd or env.get("PYTHONWARNINGS") != "error" else start()


@functools.cache
def start() -> Optional[socket.socket]:
    """Start the warm Python, once for all tests of this process; None where Linux is missing."""
    if sys.platform != "linux" or ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) != 0:
        return None
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONWARNINGS": "error"}
    here = os.path.dirname(os.path.abspath(__file__))
    call = f"import sys; sys.path[0] = {here!r}; import warm; del sys.path[0]; warm.serve({other.fileno()})"
    subprocess.Popen([sys.executable, "-c", call], env=env, pass_fds=[other.fileno()])
    other.close()
    return own


# --- in the warm Python -----------------------------------------------------------------


def serve(number: int) -> None:
    """Fork for each message; returns in the child, to be ended as any Python is."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()
    place = socket.socket(fileno=number)
    while True:
        message, streams, *_ = socket.recv_fds(place, 1 << 20, 3)
        if not message:
            os._exit(0)
        reading, writing = os.pipe()
        middle = os.fork()
        if middle == 0:
            child = os.fork()
            if child == 0:
                place.close()
                become(json.loads(message), streams)
            os.write(writing, str(child).encode())
            os._exit(0)
        os.waitpid(middle, 0)  # from now on the child is the tests'
        place.send(os.read(reading, 100))
        for number in (reading, writing, *streams):
            os.close(number)


def become(words: dict[str, Any], streams: list[int]) -> NoReturn:
    """Turn this process into a run of xget."""
    if words["session"]:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 64)
    os.chdir(words["cwd"])
    os.environ.clear()
    os.environ.update(words["env"])
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        errors = getattr(sys, name).errors
        stream = open(number, "w" if number else "r", encoding="utf-8", errors=errors, closefd=False)
        setattr(sys, name, stream)
    sys.argv = words["argv"]
    loader = importlib.machinery.SourceFileLoader("xget", XGET)
    xget: Any = importlib.util.module_from_spec(importlib.util.spec_from_loader("xget", loader))  # type: ignore[arg-type]
    sys.modules["xget"] = xget
    loader.exec_module(xget)
    sys.exit(xget.main())
