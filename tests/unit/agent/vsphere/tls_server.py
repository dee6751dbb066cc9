"""A TLS server on 127.0.0.2 that shows one certificate after another."""

import socket
import ssl
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def showing(certificates: Sequence[Path]) -> Iterator[str]:
    """Serve one connection per certificate, then stop; yields "host:port"."""

    def serve() -> None:
        for pem in certificates:
            connection, _ = listener.accept()
            connection.settimeout(10)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem)
            with connection:
                try:
                    context.wrap_socket(connection, server_side=True).recv(1)
                except OSError:
                    continue  # the client did not like the certificate

    with socket.create_server(("127.0.0.2", 0)) as listener, ThreadPoolExecutor(1) as thread:
        listener.settimeout(10)
        served = thread.submit(serve)
        yield f"127.0.0.2:{listener.getsockname()[1]}"
        served.result()
