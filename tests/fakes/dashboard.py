"""A Ray dashboard without Ray: it answers what `launch.cluster.dashboard` asks, and takes one token."""

import json
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GIB = 2**30


class _Answers(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.server.token is not None:
            given = self.headers.get("Authorization", "")
            if given != f"Bearer {self.server.token}":
                self._send(401 if not given else 403, "Unauthorized")
                return
        path = self.path.partition("?")[0]
        length = int(self.headers.get("Content-Length", 0))
        sent = json.loads(self.rfile.read(length)) if length else None
        if not sent and path in self.server.answers:
            self._send(200, self.server.answers[path])
        elif sent and path == "/api/jobs/":
            done = subprocess.run(sent["entrypoint"], shell=True, capture_output=True, text=True, check=False)
            begun = f"Running entrypoint for job {sent['submission_id']}: {sent['entrypoint']}\n"  # as Ray does
            self.server.jobs[sent["submission_id"]] = begun + done.stdout
            self._send(200, {"submission_id": sent["submission_id"]})
        elif path.startswith("/api/jobs/"):
            name = path.split("/")[3]
            self._send(200, {"logs": self.server.jobs[name]} if path.endswith("/logs") else {"status": "SUCCEEDED"})
        else:
            self._send(404, "Not found")

    do_POST = do_GET

    def _send(self, code, content):
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def node(address, *, cores=8, gib=64, gpus=0, state="ALIVE"):
    resources = {"CPU": float(cores), "memory": float(gib * GIB), f"node:{address}": 1.0}
    if gpus:
        resources |= {"GPU": float(gpus), "accelerator_type:H100": 1.0}
    return {"node_id": address, "node_ip": address, "state": state, "resources_total": resources}


@contextmanager
def dashboard(*nodes, token=None, gpu_mib=81559, version=True):
    """Serve on a free port of this machine; yields the address and the server, whose `jobs` holds what ran."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    server.token, server.jobs = token, {}
    summary = [
        {"ip": one["node_ip"], "gpus": [{"memoryTotal": gpu_mib}] * int(one["resources_total"].get("GPU", 0))}
        for one in nodes
    ]
    server.answers = {
        "/api/version": {"version": "4", "ray_version": "2.60.0"} if version else {"name": "something"},
        "/api/v0/nodes": {"result": True, "data": {"result": {"total": len(nodes), "result": list(nodes)}}},
        "/nodes": {"result": True, "data": {"summary": summary}},
    }
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server
    finally:
        server.shutdown()
        server.server_close()
