import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiresum.common.address import AddressError, Endpoint, parse_endpoint


@given(st.sampled_from(["localhost", "127.0.0.1", "::1", "a-b.example"]), st.integers(0, 65535))
def test_a_printed_address_can_be_parsed(host, port):
    endpoint = Endpoint(host, port)
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        ":1",
        "host:",
        "host:x",
        "host:-1",
        "host:65536",
        "::1:80",
        "host:¹",
        "h:1 ",
        "a b:1",
        "a\nb:1",
        "\x1b[31mh:1",
        "h:000080",
    ],
)
def test_text_that_is_no_endpoint_is_named(text):
    with pytest.raises(AddressError) as raised:
        parse_endpoint(text, what="--controller")
    assert str(raised.value) == (
        f"--controller {text!r} is not HOST:PORT with a port from 0 to 65535"
    )


@given(st.text())
def test_no_text_escapes_the_typed_error(text):
    try:
        endpoint = parse_endpoint(text)
    except AddressError:
        return
    assert 0 <= endpoint.port <= 65535
    assert endpoint.host
