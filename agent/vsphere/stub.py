"""pyVmomi's stub, shared by threads: its session changes at a login and nowhere else."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agent.vsphere.api import SoapStubAdapter


class SessionStub(SoapStubAdapter):  # type: ignore[misc]
    """Keeps the cookie of the login.

    pyVmomi stores the cookie of every answer. vSphere sends one, of a session
    that nobody logged in to, with each refusal; a refusal that arrives after
    another thread's login would take the new session away from all threads.
    """

    def __init__(self, **options: Any) -> None:
        self._login_thread: int | None = None
        self._cookie = ""
        super().__init__(**options)

    @property
    def cookie(self) -> str:
        return self._cookie

    @cookie.setter
    def cookie(self, value: str) -> None:
        if self._login_thread == threading.get_ident():
            self._cookie = value

    @contextmanager
    def logging_in(self) -> Iterator[None]:
        """The calling thread's answers may set the cookie; one thread at a time.

        Starts without a cookie, and ends without one when the login fails.
        """
        self._login_thread = threading.get_ident()
        try:
            self.SetSessionId(None)
            yield
        except BaseException:
            self.SetSessionId(None)
            raise
        finally:
            self._login_thread = None
