"""Server sessions, refused log-ins, and the checks of passwords and alias tokens.

Imitates `XnatBasicAuthenticationFilter`, Spring's session registry (1000 a user), the lock-out of
`HibernateXdatUserAuthService` (20 failures, an hour) and `HibernateAliasTokenService`.
"""

from __future__ import annotations

import base64
import re
import threading
import time
import uuid
from dataclasses import dataclass

from .answers import RefusedError
from .world import GUEST, World


@dataclass
class Login:
    """A server session: whose, and when it was used last."""

    user: str
    used: float
    requests: int = 0


class Logins:
    """The sessions of a site, and its accounts' failures: how many each has had in a row."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lock = threading.Lock()
        self.sessions: dict[str, Login] = {}
        self.opened = 0
        self.failures: dict[str, int] = {}
        self.locked: dict[str, float] = {}  # since when
        self.refused: list[str] = []  # the accounts, in the order of the refusals

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
        """A new session's id; refused where the user has too many (`maxSessionsPreventsLogin`)."""
        with self.lock:
            count = sum(each.user == user for each in self.sessions.values())
            if user != GUEST and count >= self.world.max_sessions:
                self.refused.append(user)  # no failure that locks: the password was right
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

    def owner(self, name: str) -> str:
        """The user that an alias token is of; any other name is its own."""
        token = self.world.find_token(name)
        return token.user if token else name

    def check(self, name: str, password: str) -> str:
        """The user whose name, or alias token, and password these are; else 401."""
        name = name.split("/", 1)[-1]  # a provider's id may stand before
        with self.lock:
            user = self.owner(name)
            if self.secret(name) == password and not self.is_locked(user):
                self.failures.pop(user, None)
                return user
            self.count_failure(user)
        raise RefusedError(401, self.world.login_failure, "tomcat")

    def secret(self, name: str) -> str | None:
        """What the password must be; a token for a single use is spent by the question."""
        token = self.world.find_token(name)
        if token and token.single_use:
            self.world.tokens.pop(name)
        if token:
            return token.secret
        return self.world.users.get(name) if self.world.passwords else None

    def is_locked(self, user: str) -> bool:
        """Whether the account is locked, right passwords or not; the end forgives all failures."""
        since = self.locked.get(user)
        if since is None:
            return False
        if time.monotonic() - since < self.world.lock_minutes * 60:
            return True
        del self.locked[user], self.failures[user]
        return False

    def count_failure(self, user: str) -> None:
        """Register a refused log-in; one of them locks (`addFailedLoginAttempt`), no later one does."""
        self.refused.append(user)
        self.failures[user] = self.failures.get(user, 0) + 1
        if self.failures[user] == self.world.max_failed_logins:
            self.locked[user] = time.monotonic()


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
