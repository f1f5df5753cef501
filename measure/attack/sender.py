"""The attacker of ``wiresum bench flood``: sends frames as fast as its link takes them.

Started inside the attacker's namespace; says ``{}`` when it begins. Floods until SIGTERM, and then
prints how many frames and bytes it has sent, in how many seconds. Not run by hand.
"""

import argparse
import json
import signal
import socket
import time

from wiresum.measure.attack.frames import flood, target_of

_BUFFER_BYTES = 256 * 1024


def send(interface: str, frames: list[bytes]) -> dict[str, float]:
    """Send until SIGTERM. The shaper of the link sets the pace."""
    ended = False

    def end(_number: int, _frame: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        out.bind((interface, 0))
        print(json.dumps({}), flush=True)
        sent = octets = refused = 0
        begun = time.monotonic()
        while not ended:
            for frame in frames:
                try:
                    octets += out.send(frame)
                    sent += 1
                except OSError:  # the interface's queue is full
                    refused += 1
    seconds = time.monotonic() - begun
    return {"frames": sent, "bytes": octets, "refused": refused, "seconds": seconds}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--interface", required=True)
    parser.add_argument("--kind", required=True)
    parser.add_argument("--target", required=True, help="JSON, see frames.py")
    asked = parser.parse_args()
    frames = flood(asked.kind, target_of(json.loads(asked.target)))
    print(json.dumps(send(asked.interface, frames)))


if __name__ == "__main__":
    main()
