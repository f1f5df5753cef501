"""Trains of datagrams for measurements; see ``native/``."""

class BenchError(RuntimeError):
    """A socket failed, a reply was wrong, or none came."""

def reflect(fd: int) -> None:
    """Send every train that comes in on a UDP socket back, until a signal's handler raises."""

class Load:
    """Contributions of all workers of a job from one thread; rank r's lanes all hold r + 1."""

    def __init__(
        self,
        fds: list[int],
        *,
        ip: str,
        port: int,
        job: int = 1,
        epoch: int = 1,
        key: int = 0,
        slots: int,
        lanes: int,
        reflected: bool = False,
    ) -> None:
        """``fds``: a bound socket for each rank; the first chunk is 0. ``reflected``: the target
        sends back what it gets, instead of sums.
        """

    def run(self, chunks: int, silence_ms: int = 5000) -> float:
        """Reduce ``chunks`` more chunks; the seconds it took. Raises :class:`BenchError`."""
