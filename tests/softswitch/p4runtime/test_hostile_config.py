"""A controller sends hostile P4Infos, programs and names: each ends in one short line."""

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from finsy.proto import p4r

from support.p4runtime import Client, load_config
from support.switch_process import SwitchProcess

DATA = Path(__file__).parent / "data"
BAD = "x\n#include <EVIL>\r\u2028\u202e\0;%s"


@pytest.fixture(scope="module")
def switch() -> Iterator[SwitchProcess]:
    with SwitchProcess("--p4runtime", "127.0.0.1:0") as process:
        yield process


@pytest.fixture
def config() -> p4r.ForwardingPipelineConfig:
    return load_config(DATA / "entities.json", DATA / "entities.p4info.txtpb", cookie=1)


def refusal(switch: SwitchProcess, config: p4r.ForwardingPipelineConfig) -> str:
    """The switch's answer to VERIFY: one printable line."""
    with Client(switch.p4runtime, 7) as client:
        client.standing()
        with pytest.raises(grpc.RpcError) as caught:
            client.set_config(config, p4r.SetForwardingPipelineConfigRequest.VERIFY)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    line = caught.value.details()
    assert isinstance(line, str)
    assert line.isprintable(), ascii(line)
    assert len(line) <= 601
    return line


def test_a_width_beyond_all_bounds_costs_no_memory(
    switch: SwitchProcess, config: p4r.ForwardingPipelineConfig
) -> None:
    config.p4info.tables[0].match_fields[0].bitwidth = (1 << 31) - 1
    assert "at most 2048" in refusal(switch, config)


@pytest.mark.parametrize("name", [BAD, "x" * (1 << 20), "é" * 5000])
def test_names_in_a_p4info_end_in_one_short_line(
    switch: SwitchProcess, config: p4r.ForwardingPipelineConfig, name: str
) -> None:
    config.p4info.tables[0].preamble.name = name
    assert refusal(switch, config).startswith("P4Info has the table")


@pytest.mark.parametrize("name", [BAD, "x" * (1 << 20)])
@pytest.mark.parametrize("where", ["program", "table", "action", "field", "type"])
def test_names_in_a_program_end_in_one_short_line(
    switch: SwitchProcess, config: p4r.ForwardingPipelineConfig, where: str, name: str
) -> None:
    program = json.loads(config.p4_device_config)
    node, key = {
        "program": (program, "program"),
        "table": (program["pipelines"][0]["tables"][0], "name"),
        "action": (program["actions"][0], "name"),
        "field": (program["header_types"][0]["fields"][0], 0),
        "type": (program["headers"][0], "header_type"),
    }[where]
    node[key] = name
    config.p4_device_config = json.dumps(program).encode()
    assert "not a valid BMv2 JSON" in refusal(switch, config)
    assert not [line for line in switch.log().splitlines() if line.startswith("#include")]
