"""The viewer's web application: static files, and answers about the sessions of the runs that it was given.

    /                the page; everything after # says what it shows
    /static/NAME     its scripts and styles
    /api/runs        every run, with what it stores
    /api/sessions    a page of sessions               run, source, the parameters of query.py, other_run, other_source
    /api/session     one session                      the same, and key
    /api/stream      memory along a stream            run, source, stream

It only reads. A browser is told to load nothing from elsewhere and to run no script but those files, and a request is
refused whose host is not the viewer's own: a page elsewhere can't reach it by a name that leads to this machine.
"""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders, QueryParams
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agile_ray.errors import AgileError
from launch.view import answers, query
from launch.view.listening import LOOPBACK
from launch.view.rows import Json
from launch.view.runs import MissingError, Opened, Runs

STATIC = Path(__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer."""


class Headers:
    """Adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers)


def application(runs: Runs, *, hosts: Sequence[str] = LOOPBACK) -> Starlette:
    """The application.

    Args:
        runs: to show.
        hosts: names under which it may be asked for; "*": any.
    """

    def answer(found: Callable[[QueryParams], Json]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:  # one at a time, so no table is read twice
            return JSONResponse(found(request.query_params))

        return endpoint

    def sessions(params: QueryParams) -> Json:
        return answers.sessions(runs, _source(runs, params), _other(runs, params), query.parse(params))

    def session(params: QueryParams) -> Json:
        key = params.get("key", "")
        return answers.session(runs, _source(runs, params), key, _other(runs, params), query.parse(params))

    return Starlette(
        routes=[
            Route("/", _page),
            Route("/api/runs", answer(lambda _: answers.listing(runs))),
            Route("/api/sessions", answer(sessions)),
            Route("/api/session", answer(session)),
            Route(
                "/api/stream",
                answer(lambda params: answers.growth(_source(runs, params), params.get("stream", ""))),
            ),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(Headers), Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
        exception_handlers={AgileError: _refuse},
    )


def _source(runs: Runs, params: QueryParams) -> Opened:
    """The source that is asked for; of the first run, and its first one, unless they are named.

    Raises:
        MissingError: there is none.
    """
    run = params.get("run") or runs.names[0]
    first = next(iter(runs.sources(run)), "")
    return runs.open(run, params.get("source") or first)


def _other(runs: Runs, params: QueryParams) -> Opened | None:
    """The source to compare with."""
    source = params.get("other_source")
    return None if not source else runs.open(params.get("other_run") or params.get("run") or runs.names[0], source)


async def _page(_: Request) -> Response:
    return FileResponse(STATIC / "index.html")


async def _refuse(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=404 if isinstance(error, MissingError) else 400)
