"""Calls between the processes of a fake run: pickled messages, each after its length. They stand for Ray's."""

import asyncio
import pickle
import socket
from collections.abc import Awaitable, Callable, Mapping

from agile_ray.errors import AgileError, DeadlineError

Handler = Callable[..., Awaitable[object]]
LENGTH = 8
"""Bytes that say how long a message is."""


class Peer:
    """The process at the other end of a pair of sockets, as its caller sees it."""

    def __init__(self, name: str, *, lost: type[AgileError], deadline_s: float) -> None:
        """Call `open` next.

        Args:
            name: of the process, for errors.
            lost: what a call raises if the process is dead.
            deadline_s: longest wait for an answer.
        """
        self._name, self._lost, self._deadline_s = name, lost, deadline_s
        self._waiting: dict[int, asyncio.Future[object]] = {}
        self._number = 0
        self._reading: asyncio.Task[None] | None = None
        self.is_gone = False

    async def open(self, door: socket.socket) -> None:
        """Begin to listen."""
        reader, self._writer = await asyncio.open_connection(sock=door)
        self._reading = asyncio.ensure_future(self._read(reader))

    def tell(self, call: str, *arguments: object) -> None:
        """Call, and wait for nothing."""
        self._send(0, call, arguments)

    async def ask(self, call: str, *arguments: object) -> object:
        """Call, and wait for the answer.

        Raises:
            DeadlineError: it does not come in time.
            AgileError: the process is dead, or raised it.
        """
        self._number += 1
        number, answer = self._number, asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._send(number, call, arguments)
        if self.is_gone:
            self._fail()
        try:
            async with asyncio.timeout(self._deadline_s):
                return await answer
        except TimeoutError as error:
            raise DeadlineError(
                f"{self._name} must answer `{call}` within {self._deadline_s:g} s, it did not"
            ) from error
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        """Hear no more."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading], timeout=self._deadline_s)

    def _send(self, *message: object) -> None:
        if not self.is_gone:
            self._writer.write(_packed(message))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                number, value = await _received(reader)
                answer = self._waiting.pop(number, None)
                if answer is not None and not answer.done():
                    answer.set_exception(value) if isinstance(value, Exception) else answer.set_result(value)
        except (EOFError, ConnectionError):
            self.is_gone = True
            self._fail()

    def _fail(self) -> None:
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(self._lost(f"{self._name} died"))


async def serve(door: socket.socket, handlers: Mapping[str, Handler]) -> None:
    """Answer calls until the caller is gone. Calls begin in the order in which they come."""
    reader, writer = await asyncio.open_connection(sock=door)
    tasks: set[asyncio.Task[None]] = set()

    async def answer(number: int, call: str, arguments: tuple[object, ...]) -> None:
        try:
            value = await handlers[call](*arguments)
        except Exception as error:  # noqa: BLE001  the caller raises it
            value = error
        if number:
            writer.write(_packed((number, value)))

    while True:
        try:
            task = asyncio.ensure_future(answer(*await _received(reader)))
        except (EOFError, ConnectionError):
            return
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def _packed(message: object) -> bytes:
    content = pickle.dumps(message)
    return len(content).to_bytes(LENGTH, "big") + content


async def _received(reader: asyncio.StreamReader) -> tuple:
    length = int.from_bytes(await reader.readexactly(LENGTH), "big")
    return pickle.loads(await reader.readexactly(length))
