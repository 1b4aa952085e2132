"""Server sessions and accounts.

Imitates `XnatBasicAuthenticationFilter` and Spring's session registry.
"""

from __future__ import annotations

import base64
import re
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

from .answers import RefusedError
from .world import GUEST, World


@dataclass
class Login:
    """A server session: whose, and when it was used last."""

    user: str
    used: float
    requests: int = 0


class Logins:
    """The sessions, the failures and the alias tokens of a site."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lock = threading.Lock()
        self.sessions: dict[str, Login] = {}
        self.opened = 0
        self.failures: dict[str, int] = {}
        self.tokens: dict[str, tuple[str, str]] = {}  # alias: secret, user

    def find(self, id: str) -> Login | None:
        """The session with this id if it is alive; counts the request."""
        with self.lock:
            login = self.sessions.get(id)
            if login is None:
                return None
            limit = self.world.session_requests
            idle = time.monotonic() - login.used > self.world.session_minutes * 60
            if idle or (limit is not None and login.requests >= limit):
                del self.sessions[id]
                return None
            login.requests += 1
            login.used = time.monotonic()
            return login

    def open(self, user: str) -> str:
        """A new session's id; refused where the user has too many."""
        with self.lock:
            count = sum(each.user == user for each in self.sessions.values())
            if user != GUEST and count >= self.world.max_sessions:
                raise RefusedError(401, self.world.login_failure, "tomcat")
            id = uuid.uuid4().hex.upper()
            self.sessions[id] = Login(user, time.monotonic(), 1)
            self.opened += 1
            return id

    def close(self, id: str) -> None:
        with self.lock:
            self.sessions.pop(id, None)

    def expire(self) -> None:
        with self.lock:
            self.sessions.clear()

    def check(self, name: str, password: str) -> str:
        """The user whose name, or alias token, and password these are; else 401."""
        name = name.split("/", 1)[-1]  # a provider's id may stand before
        with self.lock:
            secret, user = self.tokens.get(name, (None, name))
            if secret is None:
                secret = self.world.users.get(name)
            locked = self.failures.get(user, 0) >= self.world.max_failed_logins
            if secret is not None and secret == password and not locked:
                self.failures.pop(user, None)
                return user
            self.failures[user] = self.failures.get(user, 0) + 1
        raise RefusedError(401, self.world.login_failure, "tomcat")

    def issue(self, user: str) -> dict[str, Any]:
        """A new alias token."""
        alias, secret = str(uuid.uuid4()), uuid.uuid4().hex * 2
        with self.lock:
            self.tokens[alias] = (secret, user)
        expires = int(time.time() * 1000) + 2 * 86400 * 1000
        more = {"singleUse": False, "estimatedExpirationTime": expires, "xdatUserId": user}
        return {"alias": alias, "secret": secret, **more}


def basic_credentials(header: str) -> tuple[str, str] | None:
    """Name and password of a Basic header; without a colon an error page, as in XNAT."""
    if not header.startswith("Basic "):
        return None
    name, colon, password = base64.b64decode(header[6:]).decode("utf-8", "replace").partition(":")
    if not colon:
        raise RefusedError(500, "", "tomcat")
    return name, password


def is_browser(agent: str) -> bool:
    return bool(re.search("MSIE|Mozilla|AppleWebKit|Opera", agent))


def cookie_of(headers: dict[str, str], name: str) -> str:
    match = re.search(rf'(?:^|;\s*){name}="?([^;"]*)', headers.get("cookie", ""))
    return match[1] if match else ""
