"""echo.p4 and the orders in the first byte of a datagram."""

from pathlib import Path

ECHO = Path(__file__).parent / "data" / "echo.json"
CPU_PORT = "255"

BACK, PUNT, REPLICATE, NOT_IP, NOWHERE, PORT_2, STAMPED, STRIPPED = range(1, 9)
