"""A controller with a switch, for launchers that shall not start their own."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.torchruns import clean_environment, fresh_session
from wiresum.host_agent.launcher.session import Session


@pytest.fixture(scope="module")
def rack() -> Iterator[Session]:
    with fresh_session() as session:
        yield session


@pytest.fixture
def controller(rack: Session) -> str:
    return rack.environment.controller


@pytest.fixture
def token(rack: Session) -> str:
    return rack.environment.tenant_token


@pytest.fixture
def env(token: str) -> dict[str, str]:
    """What a user of that controller has in the environment."""
    return clean_environment() | {"WIRESUM_TOKEN": token}


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A TMPDIR whose path is short enough for the addresses of sockets in it."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)
