"""Login sessions: the cookie, the idle limit, and what belongs to a session."""

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

COOKIE = "vmware_soap_session"


@dataclass
class Session:
    """A logged-in client. `objects` are its views, collectors and filters by moid."""

    key: str
    cookie: str
    user: str
    address: str
    user_agent: str
    login_time: datetime
    last_used_s: float
    calls: int = 0
    objects: dict[str, Any] = field(default_factory=dict)


class Sessions:
    """All sessions of the host. Any thread may call."""

    def __init__(self, idle_limit_s: Callable[[], float]) -> None:
        self._idle_limit_s = idle_limit_s
        self._by_cookie: dict[str, Session] = {}
        self._lock = threading.Lock()

    def open(self, user: str, address: str, user_agent: str) -> Session:
        """A new session for a user whose password was right."""
        key = f"52{secrets.token_hex(15)}"
        session = Session(
            key=f"{key[:8]}-{key[8:12]}-{key[12:16]}-{key[16:20]}-{key[20:]}",
            cookie=secrets.token_hex(20),
            user=user,
            address=address,
            user_agent=user_agent,
            login_time=datetime.now(UTC),
            last_used_s=time.monotonic(),
        )
        with self._lock:
            self._by_cookie[session.cookie] = session
        return session

    def of_cookie(self, cookie: str | None) -> Session | None:
        """The live session of a cookie; using it renews it."""
        now = time.monotonic()
        with self._lock:
            session = self._by_cookie.get(cookie or "")
            if session is None:
                return None
            if now - session.last_used_s > self._idle_limit_s():
                del self._by_cookie[session.cookie]
                return None
            session.last_used_s = now
            session.calls += 1
            return session

    def alive(self, session: Session) -> bool:
        """Whether the session has not been ended; does not renew it."""
        with self._lock:
            return session.cookie in self._by_cookie

    def end(self, *keys: str) -> int:
        """End the sessions with these keys; how many there were."""
        with self._lock:
            ended = [one for one in self._by_cookie.values() if one.key in keys]
            for session in ended:
                del self._by_cookie[session.cookie]
            return len(ended)

    def end_all(self) -> int:
        """Every client must log in again."""
        with self._lock:
            count = len(self._by_cookie)
            self._by_cookie.clear()
            return count

    def all(self) -> list[Session]:
        with self._lock:
            return list(self._by_cookie.values())


def cookie_value(header: str | None) -> str | None:
    """The session token of a Cookie header; clients send it back as they got it, quotes and all."""
    for part in (header or "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value.strip().strip('"')
    return None


def set_cookie(session: Session | None) -> str:
    """The Set-Cookie header of a login; without one, of a session that nobody logged in to.

    Hosts send the latter with every answer to a caller whom they do not know.
    """
    value = session.cookie if session else secrets.token_hex(20)
    return f'{COOKIE}="{value}"; Path=/; HttpOnly; Secure; SameSite=Lax'
