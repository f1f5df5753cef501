"""The file in which a launcher tells its workers of a job that it has got after they began.

The launcher alone has the tenant's token, so workers cannot make the job; and their environment
cannot change any more. The file is in a folder of this user alone.
"""

import contextlib
import json
from pathlib import Path


def write_job(path: Path, job: str, token: str) -> None:
    """Write the job; a reader at the same time sees all of it or nothing."""
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(json.dumps({"job": job, "token": token}))
    new.replace(path)


def read_job(path: str) -> tuple[str, str] | None:
    """The job and its token; None while there is none."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads(Path(path).read_text())
        return str(said["job"]), str(said["token"])
    return None
