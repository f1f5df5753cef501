import pytest


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def store_kind(request: pytest.FixtureRequest) -> str:
    """The tests of this folder that have a store run over both kinds."""
    return str(request.param)
