"""A run that begins over its ranks, because it gets no job now, and gets one when it can."""

import dataclasses
import logging
import threading
from typing import Self

from wiresum.common.errors import WiresumError
from wiresum.common.logs import say
from wiresum.common.temporary import PrivateFolder
from wiresum.host_agent.agent.job_file import write_job
from wiresum.host_agent.agent.search import JobSearch
from wiresum.host_agent.launcher.options import JobOptions
from wiresum.host_agent.launcher.session import Session, asked, for_workers

log = logging.getLogger("wiresum")

_LEAVE_S = 5.0


class Later:
    """Looks for a job in the background, and tells the workers of it. Use as a context manager.

    The workers look for it in a file; see :mod:`wiresum.host_agent.agent.job_file`.
    """

    def __init__(self, options: JobOptions, why: str) -> None:
        """``options`` name a controller; ``why`` says why there is no job yet. Starts looking."""
        assert options.controller is not None
        self._options = options
        self._folder = PrivateFolder("job")
        file = self._folder.path / "job"
        where = asked(options, options.controller, options.token)
        self.environment = dataclasses.replace(
            where, job=None, token="", fallback=why, job_file=str(file)
        )
        self._file = file
        self._search = JobSearch(where, options.name)
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="wiresum-later", daemon=True)
        self._thread.start()

    def variables(self, *, as_default: bool = False) -> dict[str, str]:
        """The environment for the workers."""
        codec = self._options.codec
        return for_workers(self.environment, as_default=as_default, codec=codec)

    def check(self) -> None:
        """Raise why the run cannot go on: see :meth:`Session.check`."""
        session = self._session
        if session is not None:
            session.check()

    def close(self) -> None:
        """End the search; release the job if there is one."""
        with self._lock:
            self._closed = True
            session = self._session
        self._search.stop()
        self._thread.join(_LEAVE_S)
        if session is not None:
            session.close()
        self._folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ----

    def _run(self) -> None:
        try:
            job = self._search.find()
            if job is None:
                return
            session = Session(self._options, job)
            with self._lock:
                closed = self._closed
                if not closed:
                    self._session = session
                    write_job(self._file, job.id, job.token)
            if closed:
                session.close()
                return
            say(
                log,
                f"job {job.name} on switch {job.switch} ({job.switch_ip}:{job.switch_udp_port}), "
                f"{job.slots} slots: the ranks go to it",
                job=job.id,
            )
        except WiresumError as error:
            say(log, f"training stays on the ranks: {error}")
