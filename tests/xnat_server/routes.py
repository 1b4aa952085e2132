"""The site: who asks, and which route answers.

Imitates `XNATApplication`'s routes under `/data` and `/REST`, matched by prefix, behind Spring's filters
for log-in, expired passwords and unfinished sites; and the few parts of `/xapi` that clients ask for.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from typing import Any, Callable

from .answers import (
    LOGIN_FORM,
    Answer,
    RefusedError,
    cookie_of,
    error_page,
    json_answer,
    restlet_answer,
    restlet_headers,
    text_answer,
    web_page,
)
from .files import Files
from .finding import Call
from .lists import Lists
from .logins import Logins, basic_credentials, is_browser
from .records import Records
from .schema import build_info, schema_document
from .tables import Query
from .world import GUEST, World

PROJECT = r"/projects/(?P<project>[^/]+)"
SUBJECT = r"/subjects/(?P<subject>[^/]+)"
EXPERIMENT = rf"(?:{PROJECT}{SUBJECT})?/experiments/(?P<experiment>[^/]+)"
INNER = r"/(?P<kind>assessors|reconstructions)/(?P<list>[^/]+)"
HELD = rf"(?:/scans/(?P<scans>[^/]+)|{INNER}(?:/(?P<where>in|out))?)"
FILES = r"(?:/resources/(?P<resource>[^/]+))?/files(?:/(?P<file>.+))?"
ROUTES = [
    (r"/JSESSION", "jsession"),
    (r"/auth", "auth"),
    (r"/services/auth", "services_auth"),
    (r"/services/tokens/(?P<action>\w+)(?P<rest>.*)", "tokens"),
    (r"/search/elements(?:/(?P<type>[^/]+))?", "search_elements"),
    (PROJECT, "project"),
    (r"/projects", "project_list"),
    (PROJECT + r"/subjects", "subject_list"),
    (r"/subjects", "subject_list"),
    (rf"(?:{PROJECT})?{SUBJECT}", "subject"),
    (rf"{PROJECT}{SUBJECT}{FILES}", "subject_files"),
    (r"/experiments", "experiment_list"),
    (rf"(?:{PROJECT})?(?:{SUBJECT})?/experiments", "experiment_list"),
    (rf"{PROJECT}/experiments/(?P<experiment>[^/]+)", "experiment"),
    ((rf"{PROJECT}/experiments/(?P<experiment>[^/]+)/resources/(?P<resource>[^/]+)"
     r"/files(?:/(?P<file>.+))?"), "files"),
    (EXPERIMENT, "experiment"),
    (EXPERIMENT + r"/scans", "scan_list"),
    (EXPERIMENT + r"/assessors", "assessor_list"),
    (EXPERIMENT + r"/reconstructions", "reconstruction_list"),
    (EXPERIMENT + r"/scans/(?P<scans>[^/]+)", "held"),
    (EXPERIMENT + INNER, "held"),
    (rf"{EXPERIMENT}(?:{HELD})?/resources", "resource_list"),
    (rf"{EXPERIMENT}(?:{HELD})?/resources/(?P<resource>[^/]+)", "catalog"),
    (rf"{EXPERIMENT}(?:{HELD})?{FILES}", "files"),
]  # fmt: skip
# What Spring's StrictHttpFirewall refuses in a path; no bean of XNAT's loosens it.
FORBIDDEN = re.compile(r";|%3B|%25|\\|%5C|%2E|//", re.IGNORECASE)
COMPILED = [(re.compile(pattern), name) for pattern, name in ROUTES]
LIST_ROUTES = ("project_list", "subject_list", "experiment_list", "scan_list", "assessor_list",
               "reconstruction_list", "resource_list")  # fmt: skip


class Site(Lists, Records, Files):
    """XNAT's answers about a world, without the connections."""

    def __init__(self, world: World, context: str) -> None:
        self.world, self.context = world, context
        self.logins = Logins(world)

    # Who asks

    def answer(self, call: Call) -> Answer:
        """The answer, with its cookies and security headers."""
        early = self.refused_url(call)
        if early:
            return early
        try:
            answer = self.admit(call) or self.routed(call)
        except RefusedError as refused:
            answer = refused.answer
        except ValueError:  # what the database, or Java, would not take either
            answer = error_page(500)
        return self.with_cookies(call, answer)

    def refused_url(self, call: Call) -> Answer | None:
        """What Spring's firewall, and the decoding of XNAT 1.11, say of a path before all else."""
        found = FORBIDDEN.search(call.path)
        if found and self.world.firewall == 400:
            return error_page(400, "", "tomcat")
        if found and self.world.firewall:
            text = "The request was rejected because the URL contained a potentially malicious String"
            return error_page(self.world.firewall, f'{text} "{found[0]}"', "tomcat")
        if self.world.restlet == 2 and re.search("%(?![0-9A-Fa-f]{2})", call.path):
            return error_page(500)
        return None

    def with_cookies(self, call: Call, answer: Answer) -> Answer:
        more = []
        if call.new_session:
            path = self.context or "/"
            secure = self.world.secure_cookies or call.url.startswith("https:")
            path += "; Secure" if secure else ""
            more.append(("Set-Cookie", f"JSESSIONID={call.session_id}; Path={path}; HttpOnly"))
        more.append(("Set-Cookie", self.expiration()))
        more += [
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "SAMEORIGIN"),
            ("Content-Security-Policy", "frame-ancestors 'self'"),
        ]
        answer.headers[:0] = more
        return answer

    def expiration(self) -> str:
        """The cookie with the time and the milliseconds that a session lives on without a request;
        or with one number, which is taken to be the time of its end."""
        now, idle = int(time.time() * 1000), int(self.world.session_minutes * 60000)
        if self.world.expiration_numbers == 1:
            return f"SESSION_EXPIRATION_TIME={now + idle}; Path=/"
        return f'SESSION_EXPIRATION_TIME="{now},{idle}"; Version=1; Path=/'

    def admit(self, call: Call) -> Answer | None:
        """Find out who asks; an answer if that is as far as it goes."""
        if self.world.site != "ready":
            if self.world.site == "setup":
                return self.redirect(call, "/setup")
            raise RefusedError(403, "Site has not yet been configured.", "tomcat")
        self.log_in(call)
        free = call.path.startswith(("/app/", "/xapi/siteConfig/buildInfo"))
        closed = self.world.require_login and not self.is_open(call.path)
        if call.user == GUEST and closed and not free:
            return self.ask_for_login(call)
        if call.user in self.world.expired_passwords and not free:
            return self.redirect(call, "/app/template/XDATScreen_UpdateUser.vm")
        if call.user in self.world.inactive and not free:
            return self.redirect(call, "/app/template/InactiveAccount.vm")
        return None

    def log_in(self, call: Call) -> None:
        """Set the user from the cookie and the Basic header; open a session if need be."""
        call.session_id = cookie_of(call.headers, "JSESSIONID")
        login = self.logins.find(call.session_id)
        credentials = basic_credentials(call.headers.get("authorization", ""))
        lasts = self.world.basic_lasts
        if credentials:
            owner = self.logins.owner(credentials[0].split("/", 1)[-1])
            known = login is not None and login.user == owner
            if not known or not lasts:
                call.user = self.logins.check(*credentials)
            if not known:
                call.session_id, call.new_session = self.logins.open(call.user), True
            if not known or not lasts:
                return
        if login is None:
            call.session_id, call.new_session = self.logins.open(GUEST), True
        call.user = login.user if login and lasts else GUEST

    def ask_for_login(self, call: Call) -> Answer:
        """401 with a realm to tools; browsers are sent to the log-in page."""
        data = call.path.startswith(("/data", "/REST", "/xapi", "/fs"))
        if not data or is_browser(call.headers.get("user-agent", "")):
            return self.redirect(call, "/app/template/Login.vm")
        answer = error_page(401, "Full authentication is required to access this resource", "tomcat")
        answer.headers.append(("WWW-Authenticate", f'Basic realm="{self.world.site_id}"'))
        return answer

    def is_open(self, path: str) -> bool:
        return bool(re.match(r"/(data|REST)/(JSESSION|services/auth)", path))

    def redirect(self, call: Call, path: str) -> Answer:
        return Answer(302, [("Location", call.url + path)], b"")

    # Where to

    def routed(self, call: Call) -> Answer:
        """The answer of the longest route that the path begins with."""
        if call.path.startswith("/xapi/"):
            return self.xapi(call)
        match = re.match(r"/(?:data|REST)(?:/archive)?(?=/)", call.path)
        if not match:
            return web_page(LOGIN_FORM)
        path = call.path[match.end() :].rstrip("/")
        found = [(pattern.match(path), name) for pattern, name in COMPILED]
        best = max(((m.end(), m, name) for m, name in found if m), key=lambda t: t[0], default=None)
        if best is None:
            raise RefusedError(404)
        call.route, name = best[1].groupdict(), best[2]
        self.check_method(call, name)
        handler: Callable[[Call], Answer] = getattr(self, "get_" + name)
        return handler(call)

    def check_method(self, call: Call, name: str) -> None:
        if call.method == "HEAD" and name in LIST_ROUTES:
            raise RefusedError(404)
        more = {"jsession": ("POST", "DELETE"), "services_auth": ("POST", "PUT")}
        allowed = ("GET", "HEAD", *more.get(name, ()))
        if call.method not in allowed:
            refused = RefusedError(405)
            refused.answer.headers.append(("Allow", ", ".join(allowed)))
            raise refused

    def xapi(self, call: Call) -> Answer:
        """The few parts of the XAPI that downloading clients ask for."""
        name = call.path[len("/xapi/") :].rstrip("/")
        if name == "siteConfig/buildInfo":
            return json_answer(build_info(self.world.version))
        if name == "users/username":
            return Answer(200, [("Content-Type", "text/plain")], call.user.encode())
        if name == "schemas":
            return json_answer(["xnat"])
        if name in ("schemas/xnat", "schemas/xnat/xnat"):
            xml = [("Content-Type", "application/xml;charset=UTF-8")]
            return Answer(200, xml, schema_document())
        raise RefusedError(404, "", "tomcat")

    def get_jsession(self, call: Call) -> Answer:
        if call.method == "DELETE":
            self.logins.close(call.session_id)
            return Answer(200, restlet_headers(), b"")
        more = f"; XNAT_CSRF={uuid.uuid4()}" if call.query.is_true("CSRF") else ""
        return text_answer(call.session_id + more)

    def get_services_auth(self, call: Call) -> Answer:
        """Log in with a form's username and password; the answer is the session's id."""
        form = Query(call.body.decode("utf-8", "replace"))
        user = self.logins.check(form.get("username"), form.get("password"))
        call.session_id, call.new_session = self.logins.open(user), True
        return text_answer(call.session_id)

    def get_auth(self, call: Call) -> Answer:
        return text_answer(f"User '{call.user}' is logged in")

    def get_tokens(self, call: Call) -> Answer:
        """Alias tokens: issue, show, validate/{alias}/{secret}, invalidate/{alias}."""
        action, (alias, *secret) = call.part("action"), call.part("rest").strip("/").split("/")
        token = self.world.find_token(alias)
        if alias and token is None:
            raise RefusedError(404, f"Can't find an alias token with the alias {alias}")
        if call.user == GUEST:
            raise RefusedError(403, "The guest user can't request alias tokens")
        if token and call.user not in (token.user, "admin"):
            raise RefusedError(403)
        value: Any = {}
        if action == "issue":
            value = self.world.token(call.user).fields()
        elif action == "show":
            mine = [each for each in self.world.tokens.values() if each.user == call.user]
            value = [each.fields() for each in mine if each.alive]
        elif action == "validate" and token:
            value = {"valid": token.user} if [self.logins.secret(alias)] == secret else {}
        elif action == "invalidate" and token:
            self.world.tokens.pop(alias, None)
            value = {"result": "OK"}
        return restlet_answer(json.dumps(value).encode(), "application/json", chunked=True)
