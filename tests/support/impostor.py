"""Something else than a switch where workers expect a shm port."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIMIT_S = 20.0


@contextmanager
def impostor(path: Path, answer: bytes) -> Iterator[None]:
    """Take one connection at ``path``, answer its first message so (empty: not at all), hang up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.settimeout(LIMIT_S)
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as worker:
                worker.settimeout(LIMIT_S)
                worker.recv(64)
                if answer:
                    worker.send(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join(2 * LIMIT_S)
