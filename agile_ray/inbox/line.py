"""One line from a process to its inbox, on which all its asks wait: thousands wait on one connection.

    process                                 inbox
    wait  line a                      -->   a line that it does not know: it keeps it, and says so
    ask   line a, ask 1               -->   open: the line waits for it
    ask   line a, ask 2               -->   open
    wait  line a                      -->   ... until one is closed: what became of it
    wait  line a, has read reply 1    -->   ... so ask 1 is not said again

An ask is posted again, under its key, until it is known to be closed: if a request fails, and when the inbox no longer
knows the line, since it was started again. So neither a cut connection nor a restart on either side loses an answer. An
answer stays on the line until a later request says that it was read.
"""

import asyncio
import os
import secrets
import ssl
from collections.abc import Iterable
from functools import cache

from pydantic import ValidationError

from agile_ray.errors import TURNED_AWAY, AgileError, ExpertError, TurnedAwayError, described
from agile_ray.inbox.asks import CLOSED, POSTED, TOLD, WAITS, Ask, Posted, State, Told, Waits
from agile_ray.plugins.secrets import redacted

TOKEN = "AGILE_INBOX_TOKEN"  # noqa: S105  a name
"""Environment variable that holds the inbox's token."""
WAIT_S = 20.0
"""How long one request waits at the inbox for an answer."""
SLACK_S = 10.0
"""How much longer a request may take than it waits."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
"""Pause after a request that failed; it doubles with each further one, up to a limit."""
POSTS = 2
"""Asks that are posted at the same time; further ones take turns."""


class _Again(Exception):
    """A request failed in a way that another attempt may mend; the text says which."""


class Line:
    """The asks of one event loop that wait at an inbox."""

    def __init__(self, url: str, *, wait_s: float = WAIT_S) -> None:
        """Connect; call it on the event loop, and `close` in the end.

        Args:
            url: of the inbox, without a slash at its end.
            wait_s: how long one request waits there.
        """
        import httpx

        self.users = 0
        """Asks that are on the line."""
        self._why = "it was not reached"  # why the last request failed
        self._url, self._wait_s = url, wait_s
        self._name = secrets.token_hex(8)
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {os.environ.get(TOKEN, '')}", "Content-Type": "application/json"},
            limits=httpx.Limits(max_connections=POSTS + 1, max_keepalive_connections=POSTS + 1),
            trust_env=False,
            verify=_certificates(url),
        )
        self._turns = asyncio.Semaphore(POSTS)
        self._known = asyncio.Event()  # the inbox has known the line, so it keeps what becomes of asks
        self._waiting: dict[str, list[asyncio.Future[Told | None]]] = {}  # by key; None: post the ask again
        self._error: AgileError | None = None  # the inbox refuses the line
        self._listening = asyncio.ensure_future(self._listen())

    async def close(self) -> None:
        """Hang up; nobody waits on the line."""
        self._listening.cancel()
        await asyncio.wait((self._listening,), timeout=SLACK_S)
        await self._client.aclose()

    async def closed(self, ask: Ask, *, deadline_s: float) -> Told:
        """Wait until an ask is closed.

        Args:
            ask: it is there once, however often it is posted.
            deadline_s: of the ask, from when it is first there; the inbox keeps it.

        Raises:
            ExpertError: the inbox refuses the ask, or is gone: then the deadline is kept here.
            TurnedAwayError: the inbox refuses every request.
        """
        posted = POSTED.dump_json(Posted(ask=ask, deadline_s=deadline_s, line=self._name))
        try:
            async with asyncio.timeout(deadline_s + SLACK_S):
                while (found := await self._told(ask.key, posted)) is None:
                    pass
                return found
        except TimeoutError as error:
            raise ExpertError(
                f"expert inbox: {ask.key}: no answer within its deadline ({deadline_s:g} s); last: {self._why}",
                late=True,
            ) from error

    async def _told(self, key: str, posted: bytes) -> Told | None:
        """Post an ask, and wait until it is closed, or must be posted again."""
        told: asyncio.Future[Told | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(told)  # before the post: the answer may overtake its reply
        try:
            found = await self._post(posted)
            return await told if found.state is State.OPEN else found
        finally:
            self._forget(key, told)

    def _forget(self, key: str, told: "asyncio.Future[Told | None]") -> None:
        others = [one for one in self._waiting.get(key, ()) if one is not told]
        if others:
            self._waiting[key] = others
        else:
            self._waiting.pop(key, None)

    async def _post(self, posted: bytes) -> Told:
        pause = FIRST_PAUSE_S
        while True:
            await self._known.wait()
            if self._error is not None:
                raise self._error
            try:
                async with self._turns:
                    return TOLD.validate_json(await self._reply("ask", posted, timeout_s=SLACK_S))
            except (_Again, ValidationError) as error:
                self._why = str(error) if isinstance(error, _Again) else described(error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _listen(self) -> None:
        """Read what becomes of the asks, until the line is closed."""
        pause, read = FIRST_PAUSE_S, 0
        while True:
            waits = WAITS.dump_json(Waits(line=self._name, read=read, wait_s=self._wait_s))
            try:
                found = CLOSED.validate_json(await self._reply("wait", waits, timeout_s=self._wait_s + SLACK_S))
            except (_Again, ValidationError) as error:  # a reply may be cut off in the middle
                self._why = str(error) if isinstance(error, _Again) else described(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
                continue
            except AgileError as error:
                self._error = error
                self._known.set()
                self._tell(list(self._waiting), None)  # posts raise the error
                return
            pause, read = FIRST_PAUSE_S, found.number
            self._known.set()
            if not found.known:
                self._tell(list(self._waiting), None)
            for key, told in found.told.items():
                self._tell((key,), told)

    def _tell(self, keys: Iterable[str], told: Told | None) -> None:
        for key in keys:
            for one in self._waiting.get(key, ()):
                if not one.done():
                    one.set_result(told)

    async def _reply(self, name: str, content: bytes, *, timeout_s: float) -> bytes:
        """The reply to a request.

        Raises:
            _Again: another attempt may succeed.
            ExpertError: the inbox refuses this request.
            TurnedAwayError: it refuses every request.
        """
        import httpx

        try:
            reply = await self._client.post(f"{self._url}/api/{name}", content=content, timeout=timeout_s)
        except httpx.HTTPError as error:
            raise _Again(described(error)) from error
        if reply.status_code == 200:
            return reply.content
        if reply.status_code == 429 or reply.status_code >= 500:
            raise _Again(f"status {reply.status_code}")
        said = f"expert inbox: {self._url}: status {reply.status_code}: {redacted(' '.join(reply.text.split())[:200])}"
        if reply.status_code in TURNED_AWAY:
            raise TurnedAwayError(
                f"{said}; it refuses every request: check its address, its version of agile-ray and its "
                f"token, which is read from {TOKEN}, and start again"
            )
        raise ExpertError(said)


@cache  # loading them takes longer than an ask
def _certificates(url: str) -> ssl.SSLContext:
    """Those by which a server is known; none are loaded where no TLS is spoken."""
    return ssl.create_default_context() if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
