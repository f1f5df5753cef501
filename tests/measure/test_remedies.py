"""The table of remedies: names, options, and factors of bytes."""

import pytest

from wiresum.host_agent.remedies.spec import parse
from wiresum.measure.remedies import PLAIN, REMEDIES, Carrier


def test_the_plain_run_comes_first_and_every_name_is_its_key():
    assert next(iter(REMEDIES)) == PLAIN
    assert all(name == remedy.name for name, remedy in REMEDIES.items())


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_a_remedy_of_half_the_bits_sends_half_of_the_bytes(workers):
    factor = {name: each.bytes_factor(workers) for name, each in REMEDIES.items()}
    assert factor["gloo"] == 1.0
    assert factor["fp16"] == 0.5
    assert factor["powersgd"] is None
    assert factor["top-k"] == pytest.approx(0.1 / 4 + 1 / 256)
    assert factor["local-steps"] == 1 / 8
    assert factor["sparse-loco"] == pytest.approx(factor["top-k"] / 8)
    assert factor["ranks-8"] == pytest.approx(0.25, abs=0.005)
    assert factor["switch-16"] == pytest.approx(0.5 * workers / (2 * (workers - 1)), abs=0.005)


def test_one_worker_has_no_factor():
    with pytest.raises(ValueError, match="1 workers"):
        REMEDIES["gloo"].bytes_factor(1)


def test_only_wiresums_own_carriers_need_wiresum_run():
    for remedy in REMEDIES.values():
        assert bool(remedy.run_options) == (remedy.carrier is not Carrier.GLOO)
    assert REMEDIES["ranks-8"].run_options == (
        "--as-default", "--carrier", "ranks", "--field", "8",
    )  # fmt: skip
    assert REMEDIES["fp16"].environment == {"WIRESUM_REMEDY": "fp16"}


def test_hooks_say_what_the_table_says_of_them():
    for remedy in REMEDIES.values():
        if not remedy.hook:
            continue
        options = parse(remedy.hook).options
        assert options.get("h", 1) == remedy.every
        assert options.get("k", 1.0) == remedy.density
        assert options.get("bits", remedy.field) == remedy.field
