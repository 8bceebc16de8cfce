"""A server of Weights & Biases, as far as its client needs one to begin, resume and end a run. It keeps the history."""

import gzip
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ENTITY = "me"


class Server(ThreadingHTTPServer):
    """Keeps runs by id: name, lines of the history, exit codes."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.names, self.histories, self.exits = {}, {}, {}
        self.away = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def runs(self, name):
        """Ids of the runs with this name."""
        return [id for id, one in self.names.items() if one == name]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.reply({})

    def do_PUT(self):
        self.content()
        self.reply({})

    def do_POST(self):
        content = self.content()
        stream = re.match(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
        if self.path.startswith("/graphql"):
            asked = json.loads(content)
            self.reply({"data": self.answer(asked["query"], asked.get("variables") or {})})
        elif stream:
            self.reply(self.take(stream[1], json.loads(content)))
        else:
            self.reply({})

    def answer(self, query, given):
        if "upsertBucket" in query:
            id, inserted = given["name"], given["name"] not in self.server.names
            self.server.names[id] = given.get("displayName") or self.server.names.get(id)
            return {"upsertBucket": {"bucket": self.bucket(id), "inserted": inserted}}
        if "historyTail" in query:
            known = self.bucket(given["name"]) if given["name"] in self.server.names else None
            return {"model": self.project() | {"bucket": known}}
        viewer = {"id": "U", "username": ENTITY, "entity": ENTITY, "name": ENTITY, "admin": False}
        return {
            "viewer": viewer | {"flags": "{}", "teams": {"edges": []}, "apiKeys": {"edges": []}},
            "serverInfo": {"cliVersionInfo": {}, "latestLocalVersionInfo": None, "features": []},
            "createRunFiles": {"runID": "R", "uploadHeaders": [], "files": []},
        }

    def project(self):
        return {"id": "P", "internalId": "1", "name": "agile-ray", "entity": {"id": "E", "name": ENTITY}}

    def bucket(self, id):
        lines = self.server.histories.get(id, [])
        return {
            "id": id,
            "name": id,
            "displayName": self.server.names[id],
            "project": self.project(),
            "config": "{}",
            "wandbConfig": '{"t": 1}',
            "summaryMetrics": lines[-1] if lines else "{}",
            "historyLineCount": len(lines),
            "eventsLineCount": 0,
            "logLineCount": 0,
            "historyTail": json.dumps(lines[-1:]),
            "eventsTail": "[]",
            "tags": [],
        }

    def take(self, id, sent):
        lines = self.server.histories.setdefault(id, [])
        if (history := (sent.get("files") or {}).get("wandb-history.jsonl")) is not None:
            lines[history["offset"] : history["offset"] + len(history["content"])] = history["content"]
        if sent.get("complete"):
            self.server.exits.setdefault(id, []).append(sent["exitcode"])
        return {"exitcode": None, "limits": {}}

    def content(self):
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(content) if self.headers.get("Content-Encoding") == "gzip" else content

    def reply(self, value):
        content = json.dumps(value).encode()
        self.send_response(503 if self.server.away.is_set() else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving():
    """A server that answers until its `away` is set."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
