"""An OpenAI-compatible endpoint in the test's own process: it plays a script of replies and notes what it was asked."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat


@dataclass
class Reply:
    """One HTTP reply."""

    said: str | None = "yes"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    waits_s: float = 0.0
    body: str | None = None  # in place of a chat completion
    refusal: str | None = None
    cut: bool = False  # the connection is closed in the middle of the body

    def text(self) -> str:
        if self.body is not None:
            return self.body
        if self.status != 200:
            return json.dumps({"error": {"message": f"status {self.status}"}})
        message = {"role": "assistant", "content": self.said, "refusal": self.refusal}
        return json.dumps(
            {
                "id": "chat-1",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107},
            }
        )


@dataclass
class Asked:
    """One HTTP request."""

    key: str  # Idempotency-Key
    authorization: str
    body: dict
    at: float

    @property
    def shown(self) -> str:
        """The last message."""
        return self.body["messages"][-1]["content"]


@dataclass
class FakeEndpoint:
    """What a test sees of the server."""

    url: str
    asked: list[Asked] = field(default_factory=list)
    most_at_once: int = 0


@contextmanager
def serving(
    *script: Reply, then: Reply | Callable[[Asked], Reply] | None = None, lists: int = 501
) -> Iterator[FakeEndpoint]:
    """Serve these replies one after the other; after the last one `then`, or the last again.

    `lists`: status of a request for its models.
    """
    last = then or script[-1]
    replies: Iterator[Reply | Callable[[Asked], Reply]] = chain(script, repeat(last))
    lock = threading.Lock()
    running = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal running
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            one = Asked(
                key=self.headers["Idempotency-Key"] or "",
                authorization=self.headers["Authorization"] or "",
                body=body,
                at=time.monotonic(),
            )
            with lock:
                endpoint.asked.append(one)
                running += 1
                endpoint.most_at_once = max(endpoint.most_at_once, running)
                reply = next(replies)
            reply = reply(one) if callable(reply) else reply
            time.sleep(reply.waits_s)
            with lock:
                running -= 1
            text = reply.text().encode()
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text[: len(text) // 2] if reply.cut else text)
                self.close_connection |= reply.cut
            except BrokenPipeError:
                pass  # the client did not wait

        def do_GET(self) -> None:
            self.send_error(lists)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint = FakeEndpoint(url=f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
