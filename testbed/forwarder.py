"""Puts one port of this machine's loopback at the same address into namespaces.

Workers reach the controller at 127.0.0.1 as if it ran on their own host: no interface, address or
route of the machine is needed, and none of its packets cross the rack's links.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterable

from wiresum.common.address import Endpoint
from wiresum.testbed.namespaces import socket_in

_CHUNK = 65536


class Forwarder:
    """Accepts at ``endpoint`` in each of ``namespaces`` and forwards to ``endpoint`` here."""

    def __init__(self, endpoint: Endpoint, namespaces: Iterable[str]) -> None:
        """Start; raises ``RackError``."""
        self._endpoint = endpoint
        self._sockets: list[socket.socket] = []
        try:
            for name in namespaces:
                self._sockets.append(socket_in(name, (endpoint.host, endpoint.port)))
        except BaseException:
            self._close_sockets()
            raise
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="wiresum-forwarder", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all connections."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._close_sockets()

    def _close_sockets(self) -> None:
        for each in self._sockets:
            each.close()

    def _run(self) -> None:
        try:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        for each in self._sockets:
            await asyncio.start_server(self._forward, sock=each)
        await self._stop.wait()
        ours = asyncio.current_task()
        connections = [task for task in asyncio.all_tasks() if task is not ours]
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection(self._endpoint.host, self._endpoint.port)
        except OSError:
            writer.close()  # as close to a refused connection as is possible here
            return
        try:
            # Python's streams (3.11) would print the cancellation by close() as an error.
            with contextlib.suppress(asyncio.CancelledError):
                async with asyncio.TaskGroup() as both:
                    both.create_task(_copy(reader, there[1]))
                    both.create_task(_copy(there[0], writer))
        finally:
            for end in (writer, there[1]):
                end.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
