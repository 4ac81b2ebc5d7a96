"""A network of our own on loopback, that can be cut and healed: every connection to a port goes through here."""

from __future__ import annotations

import asyncio
import threading
from typing import Final, Self

_READ_BYTES: Final = 65_536
_stop_seconds_max: Final = 5.0


class Proxy:
    """Forwards connections to a port on 127.0.0.1; while it is cut, nothing passes and nobody is told."""

    def __init__(self, target: int, port: int = 0) -> None:
        self.port = port
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._whole = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._whole.set()
        serving = asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """From now on nothing passes: bytes wait, new connections get no answer."""
        self._loop.call_soon_threadsafe(self._whole.clear)

    def heal(self, *, reset: bool = False) -> None:
        """What was waiting passes; or every connection is reset, as after a cut that lasted too long."""
        self._loop.call_soon_threadsafe(self._heal, reset)

    def _heal(self, reset: bool) -> None:  # noqa: FBT001 (called by the loop)
        if reset:
            for writer in list(self._writers):
                writer.transport.abort()
        self._whole.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._whole.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        ways = [self._forward(reader, far_writer), self._forward(far_reader, writer)]
        try:
            await asyncio.gather(*ways)
        finally:
            self._writers -= {writer, far_writer}
            writer.close()
            far_writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while passed := await reader.read(_READ_BYTES):
                await self._whole.wait()
                writer.write(passed)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            writer.transport.abort()

    async def _stop(self) -> None:
        self._server.close()
        self._heal(reset=True)  # every connection ends, and with it what forwards it
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(others, timeout=_stop_seconds_max) if others else None
        await asyncio.sleep(0)  # what was reset is closed in the loop's next turn
