import pytest


@pytest.fixture(params=["sqlite", "postgres"])
def store_kind(request: pytest.FixtureRequest) -> str:
    """The tests of this folder that have a store run over both kinds."""
    return str(request.param)
