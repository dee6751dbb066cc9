"""The login at vSphere: own stub with time-outs, renewed when it expired, kept alive."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.client import HTTPException
from typing import Any, TypeVar
from xml.parsers.expat import ExpatError

import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from agent.vsphere import certificates
from agent.vsphere.api import vim, vmodl
from agent.vsphere.errors import (
    LoginFailed,
    PermissionMissing,
    SessionLost,
    VsphereError,
    VsphereFault,
    VsphereUnreachable,
)
from agent.vsphere.settings import VsphereSettings
from agent.vsphere.stub import SessionStub

_log = structlog.get_logger(__name__)
T = TypeVar("T")

API_VERSION = "vim.version.version11"
"""vSphere 6.5, the oldest that is served; newer hosts speak it as well."""

KEEP_ALIVE_S = 240.0
"""A session without calls ends after 30 minutes, and reading disks is no call."""

_ROUNDS = 3
"""Of a call refused for want of a session: another program may end sessions as well."""

REFUSED_LOGIN_S = 1200.0
"""No login for this long after one was refused. ESXi locks an account for 15
minutes after 5 wrong passwords, and every try while it is locked counts anew."""

IDLE_CONNECTION_S = 20.0
"""Pooled connections are not used after this, well before hosts close them."""


class VsphereSession:
    """One login that several threads share.

    Managed objects hold the stub, not the login: they survive a re-login.
    Filters, views and collectors do not; whoever makes one makes, uses and
    destroys it inside one `run`.
    """

    def __init__(self, settings: VsphereSettings) -> None:
        """Check the certificate and log in.

        Raises ConfigurationError, VsphereUnreachable, CertificateMismatch,
        CertificateNotPinned, LoginFailed.
        """
        self.settings = settings
        host, port = settings.host_and_port()
        # No SmartConnect: it keeps a process-wide session and no time-outs.
        self._stub = SessionStub(
            host=host,
            port=port,
            version=API_VERSION,
            sslContext=certificates.trusting_context(settings),
            httpConnectionTimeout=settings.timeout_s,
            connectionPoolTimeout=IDLE_CONNECTION_S,
        )
        self._login_lock = threading.Lock()
        self._logins = 0
        self._refused: LoginFailed | None = None
        self._refused_at_s = 0.0
        self._ended = threading.Event()
        self._instance = vim.ServiceInstance("ServiceInstance", self._stub)
        try:
            with self._translated("answer"):
                self.content: Any = self._instance.RetrieveContent()
            self._log_in(logins_seen=0)
        except VsphereError:
            self._stub.DropConnections()
            raise
        self._keeper = threading.Thread(
            target=self._keep_alive, name=f"vsphere-keep-alive-{settings.site}", daemon=True
        )
        self._keeper.start()

    @property
    def stub(self) -> Any:
        return self._stub

    @property
    def closed(self) -> bool:
        return self._ended.is_set()

    def server_time(self) -> datetime:
        """What time it is at vSphere. Raises VsphereErrors."""
        told: datetime = self.run("tell the time", self._instance.CurrentTime, repeatable=True)
        return told

    def run(self, doing: str, operation: Callable[[], T], *, repeatable: bool = False) -> T:
        """Run calls of vSphere; again after a login if the session had expired.

        vSphere refuses a call without a session before it does anything, so
        that repeating is safe when `operation` makes a single call or makes
        its calls anew. `repeatable`: a broken connection is tried again too;
        for operations that change nothing.

        A refused login is not tried again for `REFUSED_LOGIN_S`: its LoginFailed is
        raised again without asking vSphere.

        Raises VsphereErrors; `doing` completes "vSphere cannot ...".
        """
        attempts = Retrying(
            retry=retry_if_exception_type(VsphereUnreachable),
            stop=stop_after_attempt(3 if repeatable else 1),
            wait=wait_random_exponential(multiplier=0.5, max=5),
            reraise=True,
        )
        result: T = attempts(self._run_logged_in, doing, operation)
        return result

    def _run_logged_in(self, doing: str, operation: Callable[[], T]) -> T:
        with self._translated(doing):
            for _ in range(_ROUNDS - 1):
                logins = self._logins
                try:
                    return operation()
                except vim.fault.NotAuthenticated:
                    _log.info("vsphere_session_expired", address=self.settings.address)
                self._log_in(logins)
            return operation()

    def _log_in(self, logins_seen: int) -> None:
        """Log in, unless another thread did so since `logins_seen` was read."""
        settings = self.settings
        if not self._login_lock.acquire(timeout=2 * settings.timeout_s):
            raise VsphereUnreachable(settings.address, "another thread's login hangs")
        try:
            if self._logins != logins_seen:
                return
            if self._ended.is_set():
                raise VsphereUnreachable(settings.address, "this session was closed")
            self._check_not_refused()
            try:
                with self._translated("log in"), self._stub.logging_in():
                    self.content.sessionManager.Login(settings.user, settings.password, None)
            except VsphereError as error:
                # pyVmomi's frames hold the password in their variables, and
                # some log formats print those.
                if error.__cause__ is not None:
                    error.__cause__.with_traceback(None)
                if isinstance(error, LoginFailed):
                    self._refused, self._refused_at_s = error, time.monotonic()
                raise
            self._refused = None
            self._logins += 1
        finally:
            self._login_lock.release()

    def _check_not_refused(self) -> None:
        """Raises the latest refusal again while the account could be locked by more tries."""
        refused = self._refused
        if refused is None or time.monotonic() - self._refused_at_s >= REFUSED_LOGIN_S:
            return
        problem = f"{refused.problem}; not tried again before {REFUSED_LOGIN_S / 60:g} min passed"
        raise LoginFailed(refused.address, refused.user, problem) from refused.__cause__

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        settings = self.settings
        try:
            yield
        except (vim.fault.InvalidLogin, vim.fault.NoClientCertificate) as fault:
            raise LoginFailed(settings.address, settings.user, phrase(fault)) from fault
        except vim.fault.NotAuthenticated as fault:
            raise SessionLost(settings.address, doing) from fault
        except vim.fault.NoPermission as fault:
            privilege = str(fault.privilegeId or "unknown")
            raise PermissionMissing(settings.user, doing, privilege) from fault
        except (vmodl.MethodFault, vmodl.RuntimeFault) as fault:
            raise VsphereFault(doing, type(fault).__name__, phrase(fault)) from fault
        except ssl.SSLCertVerificationError as error:
            raise certificates.mismatch(settings, error) from error
        except (OSError, HTTPException) as error:
            problem = str(error) or type(error).__name__
            raise VsphereUnreachable(settings.address, f"{problem}, trying to {doing}") from error
        except ExpatError as error:
            problem = f"what answers is not vSphere ({error})"
            raise VsphereUnreachable(settings.address, problem) from error

    def _keep_alive(self) -> None:
        while not self._ended.wait(KEEP_ALIVE_S):
            if self._refused is not None:
                continue  # the password is wrong: only what people ask for may try it
            try:
                self.server_time()
            except VsphereError as error:
                _log.warning("vsphere_keep_alive_failed", error=str(error), code=error.code)

    def close(self) -> None:
        """Log out and close the connections. May be called twice; raises nothing."""
        if self._ended.is_set():
            return
        self._ended.set()
        try:
            with self._translated("log out"):
                self.content.sessionManager.Logout()
        except VsphereError as error:
            _log.debug("vsphere_logout_failed", error=str(error))
        self._stub.DropConnections()
        self._keeper.join(timeout=1.0)


def phrase(fault: Any) -> str:
    """A fault in words: vSphere's own where it gives some."""
    texts = [str(item.message) for item in (fault.faultMessage or []) if item.message]
    message = (getattr(fault, "msg", None) or "").strip()
    return " ".join([text for text in [message, *texts] if text]) or type(fault).__name__
