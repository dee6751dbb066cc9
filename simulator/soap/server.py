"""HTTPS: the version document, and SOAP calls on `/sdk`."""

import contextlib
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from simulator.soap.envelope import BadRequest, read_call, version_of, write_fault, write_result
from simulator.soap.faults import VimFault
from simulator.soap.methods import Context, Methods
from simulator.soap.sessions import Sessions, cookie_value, set_cookie
from simulator.soap.vmomi import API_VERSION, support, vmodl

_HANDSHAKE_S = 15.0
_REQUEST_S = 60.0
_KEEP_ALIVE_S = 1800.0
_LARGEST_BODY = 16 << 20
_SHUTDOWN_S = 10.0

_OLDEST: Final = (
    "8.0.2.0",
    "8.0.1.0",
    "8.0.0.1",
    "7.0.3.2",
    "7.0.2.1",
    "6.7.3",
    "6.7",
    "6.5",
    "6.0",
    "5.5",
)


def versions_document() -> bytes:
    """vimServiceVersions.xml: the API version and the older ones that it serves."""
    known = [one for one in _OLDEST if f"vim25/{one}" in support.versionMap]
    prior = "".join(f"<version>{one}</version>" for one in known)
    return (
        '<?xml version="1.0" encoding="UTF-8" ?>\n<namespaces version="1.0">\n'
        f"<namespace><name>urn:vim25</name><version>{API_VERSION}</version>"
        f"<priorVersions>{prior}</priorVersions></namespace>\n</namespaces>\n"
    ).encode()


class SoapServer(ThreadingHTTPServer):
    """Listens at once; `start` serves in threads, `close` ends them."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(
        self, listen: tuple[str, int], context: ssl.SSLContext, methods: Methods, sessions: Sessions
    ) -> None:
        self.methods = methods
        self.sessions = sessions
        self._tls = context
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.05}, name="soap", daemon=True
        )
        super().__init__(listen, _Handler)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """Stop serving and drop all connections."""
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join(_SHUTDOWN_S)
        self.server_close()
        self.drop_connections()

    def present(self, context: ssl.SSLContext) -> None:
        """Use this TLS context on connections from now on."""
        self._tls = context

    def drop_connections(self) -> None:
        """Cut every connection, as a service that restarts does."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            _shut(connection)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """TLS and the HTTP conversation, in the connection's own thread."""
        request.settimeout(_HANDSHAKE_S)
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open.add(request)
        try:
            with self._tls.wrap_socket(request, server_side=True) as secured:
                with self._lock:
                    self._open.add(secured)
                try:
                    _Handler(secured, client_address, self)
                finally:
                    with self._lock:
                        self._open.discard(secured)
        except OSError:
            pass  # the client went away or spoke no TLS: nobody is left to tell
        finally:
            with self._lock:
                self._open.discard(request)

    def shutdown_request(self, request: Any) -> None:
        """The TLS socket took over and closed the connection."""
        request.close()


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed by its own thread meanwhile
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: SoapServer
    protocol_version = "HTTP/1.1"
    timeout = _KEEP_ALIVE_S
    wbufsize = -1

    def version_string(self) -> str:
        return "VMware HTTP server"

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged: their bodies hold passwords, their lines say nothing."""

    def do_GET(self) -> None:
        if self.path.split("?")[0] != "/sdk/vimServiceVersions.xml":
            self.send_error(404)
            return
        self._answer(200, versions_document())

    def do_POST(self) -> None:
        self.connection.settimeout(_REQUEST_S)
        try:
            body = self._body()
            if body is None:
                return
            if self.path.rstrip("/") not in ("/sdk", "/sdk/vimService"):
                self.send_error(404)
                return
            self._serve(body)
        finally:
            self.connection.settimeout(_KEEP_ALIVE_S)

    def _serve(self, body: bytes) -> None:
        known, opened, method = False, None, ""
        try:
            version = version_of(self.headers.get("SOAPAction"))
            call = read_call(body, version)
            method = call.method
            session = self.server.sessions.of_cookie(cookie_value(self.headers.get("Cookie")))
            known = session is not None
            context = Context(
                call, session, self.client_address[0], self.headers.get("User-Agent", "")
            )
            value, kind = self.server.methods.invoke(context)
            opened = context.opened
            status, answer = 200, write_result(call.method, kind, value, version)
        except BadRequest as error:
            status, answer = 500, write_fault(vmodl.fault.InvalidRequest(), str(error))
        except VimFault as error:
            status, answer = 500, write_fault(error.fault, error.text, version)
        if not self.server.methods.faults.answer_ready(method):
            self.close_connection = True
            return
        self._answer(status, answer, None if known else set_cookie(opened))

    def _answer(self, status: int, body: bytes, cookie: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/xml; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-cache")
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _body(self) -> bytes | None:
        """The request's body, plain or chunked; None when it was refused."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self._chunks()
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            self.send_error(411)
            return None
        if int(length) > _LARGEST_BODY:
            self.send_error(413)
            return None
        return self.rfile.read(int(length))

    def _chunks(self) -> bytes | None:
        body = bytearray()
        while True:
            line = self.rfile.readline(1024).split(b";")[0].strip()
            try:
                size = int(line, 16)
            except ValueError:
                self.send_error(400)
                return None
            if size == 0:
                while self.rfile.readline(1024).strip():
                    pass  # trailers
                return bytes(body)
            if len(body) + size > _LARGEST_BODY:
                self.send_error(413)
                return None
            body += self.rfile.read(size)
            self.rfile.readline(1024)
