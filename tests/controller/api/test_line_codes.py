"""The code of an error line reaches the client with the line."""

import pytest
from controller_rig import Rig

from wiresum.controller import lines
from wiresum.controller.client import ControllerClient
from wiresum.controller.errors import ControllerError


async def test_a_refusal_has_the_code_of_its_line(rig: Rig) -> None:
    with pytest.raises(ControllerError) as caught:
        await rig.call(lambda client: client.get_job("nobody"))
    assert str(caught.value) == lines.UNKNOWN_JOB.of(job="nobody")
    assert caught.value.line_code == lines.UNKNOWN_JOB.code


def test_the_clients_own_line_has_its_code_too() -> None:
    with ControllerClient("http://127.0.0.1:1") as client, pytest.raises(ControllerError) as caught:
        client.list_jobs()
    assert caught.value.line_code == lines.NOT_REACHED.code
