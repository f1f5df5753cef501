"""Packet-in and packet-out through the CPU port."""

from collections.abc import Callable

import pytest
from finsy.proto import p4r, rpc_code

from support.p4runtime import Client, SetConfig, load_config
from support.switch_process import SwitchProcess
from wiresum import p4

FRAME = bytes.fromhex("020000000002 020000000001 88b5") + b"hello"


def packet_out(
    payload: bytes, port: bytes = b"\xff", unused: bytes = b"\0"
) -> p4r.StreamMessageRequest:
    message = p4r.StreamMessageRequest()
    message.packet.payload = payload
    message.packet.metadata.add(metadata_id=1, value=port)
    message.packet.metadata.add(metadata_id=2, value=b"\0")
    return message


def test_frames_for_the_cpu_port_arrive_as_packet_in(primary: Client) -> None:
    # The program sends it to port 255, the CPU port, with no packet_in header in front: the
    # first 16 bits of the frame itself are taken for it.
    primary.send(packet_out(b"\x81\x85" + FRAME))
    packet = primary.receive().packet
    metadata = {item.metadata_id: item.value for item in packet.metadata}
    assert metadata == {1: b"\x01\x03", 2: b"\x05"}  # 1000 0001 1 | 000 0101
    assert packet.payload == FRAME


def test_bad_packet_outs_are_reported(primary: Client, target: str) -> None:
    if target == "bmv2":
        pytest.skip("BMv2 reports errors on the stream only when configured to")
    unknown = packet_out(FRAME)
    unknown.packet.metadata.add(metadata_id=3, value=b"\1")
    missing = packet_out(FRAME)
    del missing.packet.metadata[1]
    wide = packet_out(FRAME, port=b"\x02\0")
    for bad in (unknown, missing, wide):
        primary.send(bad)
        error = primary.receive().error
        assert error.canonical_code == rpc_code.INVALID_ARGUMENT
        assert error.message
        assert error.packet_out.packet_out == bad.packet
    primary.send(p4r.StreamMessageRequest(digest_ack=p4r.DigestListAck(digest_id=1)))
    assert primary.receive().error.canonical_code == rpc_code.UNIMPLEMENTED
    primary.send(p4r.StreamMessageRequest())
    assert primary.receive().error.canonical_code == rpc_code.INVALID_ARGUMENT


def test_only_the_primary_sends_packets(
    primary: Client, connect: Callable[..., Client], target: str
) -> None:
    backup = connect(5)
    assert backup.standing()[0] == rpc_code.ALREADY_EXISTS
    backup.send(packet_out(b"\0\0" + FRAME))
    if target != "bmv2":
        assert backup.receive().error.canonical_code == rpc_code.PERMISSION_DENIED
    primary.send(packet_out(b"\0\x01" + FRAME))
    # A packet of the backup would have come first.
    assert primary.receive().packet.metadata[1].value == b"\1"


def test_without_a_cpu_port_or_a_header(config: p4r.ForwardingPipelineConfig) -> None:
    with SwitchProcess("--p4runtime", "127.0.0.1:0") as switch, Client(switch.p4runtime, 1) as one:
        one.standing()
        one.send(packet_out(FRAME))
        error = one.receive().error
        assert error.canonical_code == rpc_code.FAILED_PRECONDITION
        assert "pipeline" in error.message
        one.set_config(config, SetConfig.VERIFY_AND_COMMIT)
        one.send(packet_out(FRAME))
        error = one.receive().error
        assert error.canonical_code == rpc_code.FAILED_PRECONDITION
        assert "--cpu-port" in error.message
        own = p4.program(64)
        one.set_config(load_config(own.json, own.p4info))
        one.send(packet_out(FRAME))
        error = one.receive().error
        assert error.canonical_code == rpc_code.INVALID_ARGUMENT
        assert "no packet_out header" in error.message
