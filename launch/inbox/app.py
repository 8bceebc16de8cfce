"""The inbox's web application. Every request but those for the page's own files needs the token.

    /                page, without any data
    /static/NAME     its scripts and styles
    /api/ask         POST a Posted: the ask is there once, however often it is posted; answers Told
    /api/wait        POST a Waits: answers Closed, once an ask is closed for which the line waits
    /api/asks        open asks; with `seen`, it waits until something has changed since that version
    /api/claim       POST {key, who}: opens an ask, which is held for that person; similar answers
    /api/release     POST {key, who}
    /api/finish      POST {key, who, by, state, text, answer}: closes an ask

One process owns the queue, and one event loop changes it. A browser gets no cookie, so no other page can act for it.
"""

import asyncio
import hmac
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from agile_ray.errors import AgileError, ConfigError, described
from agile_ray.inbox.asks import CLOSED, LONGEST, POSTED, TOLD, WAITS, Closed, State, Told
from launch.inbox.lines import Lines
from launch.inbox.notify import Webhook
from launch.inbox.queue import MissingAskError, OtherAskError, Queue, TakenError
from launch.view import app as view
from launch.view.listening import LOOPBACK

STATIC = Path(__file__).parent / "static"
LONGEST_BODY = 200_000
"""Bytes of the longest request."""
LONGEST_WAIT_S = 30.0
"""Longest wait of one request."""
TICK_S = 1.0
"""How often deadlines are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    key: str
    who: str  # names a browser's tab


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finished:
    key: str
    who: str
    by: str
    state: State
    text: str
    answer: str


_HELD, _FINISHED = TypeAdapter(_Held), TypeAdapter(_Finished)


class Changes:
    """Wakes those who wait: pages for any change, lines for their asks."""

    def __init__(self) -> None:
        self.version = time.time_ns() // 1_000_000  # grows over restarts, so a page notices one
        self.lines = Lines()
        self._changed = asyncio.Event()  # replaced at each change

    def now(self) -> None:
        """Something has changed."""
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def closed(self, key: str) -> None:
        """An ask is closed."""
        self.lines.close(key)
        self.now()

    def wake_all(self) -> None:
        """Let all who wait return, since the server ends."""
        self._changed.set()
        self.lines.wake_all()

    async def wait(self, seconds: float) -> None:
        """Return at the next change, or after a time."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)


class Inbox:
    """Answers the requests."""

    def __init__(self, queue: Queue, changes: Changes, webhook: Webhook | None = None) -> None:
        self._queue = queue
        self._changes = changes
        self._webhook = webhook

    async def ask(self, request: Request) -> Response:
        """Add an ask."""
        posted = POSTED.validate_json(await _body(request))
        _check_short(posted.ask.key, posted.ask.text, posted.ask.context, posted.ask.words)
        if self._queue.post(posted.ask, deadline_s=posted.deadline_s, now=time.time()):
            self._changes.now()
        told = self._queue.told(posted.ask.key)
        if told.state is State.OPEN:
            self._changes.lines.add(posted.line, posted.ask.key)
        return Response(TOLD.dump_json(told), media_type="application/json")

    async def wait(self, request: Request) -> Response:
        """Tell a line what has become of its asks."""
        waits, lines = WAITS.validate_json(await _body(request)), self._changes.lines
        name = _named(waits.line, "line")
        if name in lines:
            keys = await lines.wait(name, read=waits.read, seconds=min(waits.wait_s, LONGEST_WAIT_S))
            told = {key: self._queue.told(key) for key in keys.values()}
            found = Closed(known=True, number=max(keys, default=waits.read), told=told)
        else:
            lines.open(name)
            found = Closed(known=False)
        return Response(CLOSED.dump_json(found), media_type="application/json")

    async def asks(self, request: Request) -> Response:
        """The open asks."""
        if request.query_params.get("seen") == str(self._changes.version):
            await self._changes.wait(LONGEST_WAIT_S)
        return JSONResponse(
            {
                "version": self._changes.version,
                "now_s": time.time(),
                "counts": self._queue.counts(),
                "open": [asdict(one) for one in self._queue.waiting(time.time())],
                "webhook_failures": self._webhook.failures if self._webhook else 0,
            }
        )

    async def claim(self, request: Request) -> Response:
        """Open an ask."""
        held = _HELD.validate_json(await _body(request))
        waiting = self._queue.claim(held.key, who=_named(held.who), now=time.time())
        self._changes.now()
        similar = [asdict(one) for one in self._queue.similar(waiting.ask.text)]
        return JSONResponse({"waiting": asdict(waiting), "similar": similar})

    async def release(self, request: Request) -> Response:
        """Let others open an ask."""
        held = _HELD.validate_json(await _body(request))
        self._queue.release(held.key, who=_named(held.who))
        self._changes.now()
        return JSONResponse({})

    async def finish(self, request: Request) -> Response:
        """Close an ask."""
        done = _FINISHED.validate_json(await _body(request))
        _check_short(done.text, done.answer, done.by)
        if done.state in (State.OPEN, State.LATE):
            raise ConfigError(f"state: a person answers, refuses or does not know; found {done.state}")
        is_answer = done.state is State.ANSWERED
        answer = done.answer.strip()
        if is_answer and not answer:
            raise ConfigError("answer: must not be empty; say that you don't know, or refuse")
        told = Told(state=done.state, text=done.text.strip() or answer, answer=answer)
        told = told if is_answer else Told(state=done.state)
        self._queue.finish(done.key, told, who=_named(done.who), by=done.by.strip(), now=time.time())
        self._changes.closed(done.key)
        return JSONResponse({})

    async def watch(self) -> None:
        """Keep the deadlines, and notify; ends when it is cancelled. While the queue can't be used, try again."""
        fails = False
        while True:
            try:
                await self._look(time.time())
                fails = False
            except sqlite3.Error as error:
                if not fails:
                    print(
                        f"inbox: deadlines are not kept: {described(error)}; trying again", file=sys.stderr, flush=True
                    )
                fails = True
            await asyncio.sleep(TICK_S)

    async def _look(self, now: float) -> None:
        for key in self._queue.expire(now):
            self._changes.closed(key)
        if self._webhook is not None:
            await self._webhook.tell(self._queue.waiting(now), count=self._queue.counts()["open"], now=now)


def application(
    queue: Queue,
    changes: Changes,
    *,
    token: str,
    hosts: Sequence[str] = LOOPBACK,
    webhook: Webhook | None = None,
) -> Starlette:
    """The application.

    Args:
        queue: of the asks; this process owns it.
        changes: wakes the requests that wait.
        token: that every request for data carries.
        hosts: names under which it may be asked for; "*": any.
        webhook: is told of asks that wait.
    """
    inbox = Inbox(queue, changes, webhook)

    @asynccontextmanager
    async def watched(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(inbox.watch())
        try:
            yield
        finally:
            task.cancel()

    def guarded(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), token.encode()):
                return JSONResponse({"error": "the token is missing or wrong"}, status_code=401)
            return await answer(request)

        return endpoint

    return Starlette(
        routes=[
            Route("/", _page),
            *(Route(f"/static/{name}", _of_the_viewer(name)) for name in ("dom.js", "icon.svg")),
            Mount("/static", StaticFiles(directory=STATIC)),
            Route("/api/asks", guarded(inbox.asks)),
            *(
                Route(f"/api/{name}", guarded(answer), methods=["POST"])
                for name, answer in (
                    ("ask", inbox.ask),
                    ("wait", inbox.wait),
                    ("claim", inbox.claim),
                    ("release", inbox.release),
                    ("finish", inbox.finish),
                )
            ),
        ],
        middleware=[
            Middleware(view.Headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
        ],
        exception_handlers={AgileError: _refuse, ValidationError: _malformed},
        lifespan=watched,
    )


CODES: tuple[tuple[type[AgileError], int], ...] = ((MissingAskError, 404), (TakenError, 409), (OtherAskError, 409))
"""Status of an error; 400 of any other."""


async def _refuse(_: Request, error: Exception) -> Response:
    code = next((code for kind, code in CODES if isinstance(error, kind)), 400)
    return JSONResponse({"error": str(error)}, status_code=code)


async def _malformed(_: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)
    where = ".".join(map(str, error.errors()[0]["loc"]))
    return JSONResponse({"error": f"request: {where}: {error.errors()[0]['msg']}"}, status_code=400)


async def _page(_: Request) -> Response:
    return FileResponse(STATIC / "index.html")


def _of_the_viewer(name: str) -> Callable[[Request], Awaitable[Response]]:
    """A file that both pages have."""

    async def file(_: Request) -> Response:
        return FileResponse(view.STATIC / name)

    return file


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_BODY:
            raise ConfigError(f"request: at most {LONGEST_BODY} bytes")
    return body


def _check_short(*texts: str) -> None:
    longest = max(map(len, texts))
    if longest > LONGEST:
        raise ConfigError(f"request: a text has at most {LONGEST} characters, found {longest}")


def _named(name: str, key: str = "who") -> str:
    """A name by which a tab, or a line, calls itself."""
    if not 8 <= len(name) <= 100:
        raise ConfigError(f"{key}: a name has 8 to 100 characters, found {len(name)}")
    return name
