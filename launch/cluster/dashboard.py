"""Asks a Ray cluster's dashboard over HTTP, without loading Ray.

request                 asks
GET  /api/version       whether a Ray dashboard is there, and takes the token
GET  /api/v0/nodes      the nodes and their resources
GET  /nodes             memory of their GPUs
POST /api/jobs/         a job of one shell command, which lists the paths that are missing, or prints files; then its
                        state and its log
"""

import http.client
import ipaddress
import json
import os
import shlex
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from agile_ray.errors import ConfigError

ANSWER_S = 3.0
"""Longest wait for one answer, seconds."""
PROBE_S = 3.5
"""Longest wait for the job that looks for paths, seconds."""
READ_S = 20.0
"""Longest wait for the job that prints files, seconds."""
MISSING = "agile-ray-missing "
"""What the job prints before each path that does not exist."""
ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNode:
    """One node of a cluster, as its dashboard describes it."""

    name: str
    cores: int  # logical, as Ray counts them
    memory_bytes: int
    gpus: int
    gpu_bytes: int  # of each; 0 if unknown
    gpu_kind: str


class Dashboard:
    """A cluster's dashboard."""

    def __init__(self, address: str) -> None:
        """Remember the address; nothing is asked yet.

        Args:
            address: such as http://10.0.0.1:8265.

        Raises:
            ConfigError: it is no such address.
        """
        self.address = address.rstrip("/")
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"--address {address}: the dashboard's address is needed, such as http://10.0.0.1:8265; `ray status` "
                "on the head shows its host"
            )
        self._host = parts.hostname

    @property
    def is_here(self) -> bool:
        """Whether the dashboard runs on this machine, so that its paths can be seen from here."""
        try:
            own = ipaddress.ip_address(socket.gethostbyname(self._host))
        except (OSError, ValueError):
            return False
        return own.is_loopback or self._host == socket.gethostname()

    def check(self) -> None:
        """Ask whether a Ray dashboard answers.

        Raises:
            ConfigError: nothing answers, something else does, or it refuses the token.
        """
        if "ray_version" not in self._get("/api/version"):
            raise self._other("no ray_version in its answer")

    def nodes(self) -> list[ClusterNode]:
        """The nodes that are alive.

        Raises:
            ConfigError: as `check`; or there is none.
        """
        self.check()
        rows = _rows(self._get("/api/v0/nodes?limit=10000"))
        alive = [row for row in rows if row.get("state") == "ALIVE"]
        if not alive:
            raise self._other("no node that is alive")
        graphics = _gpu_bytes(self._get("/nodes?view=summary")) if any(_resource(row, "GPU") for row in alive) else {}
        return [_node(row, graphics) for row in alive]

    def missing(self, paths: Sequence[str]) -> list[str] | None:
        """Look on the cluster which of these paths do not exist, by a job of one shell command.

        Returns:
            the missing ones; None if the cluster did not answer within PROBE_S.
        """
        tests = "; ".join(f"test -e {quoted} || echo {MISSING}{quoted}" for quoted in map(shlex.quote, paths))
        printed = self._printed(f"agile-ray-paths-{uuid.uuid4().hex[:8]}", tests, limit_s=PROBE_S)
        if printed is None:
            return None
        return [line.removeprefix(MISSING) for line in printed.splitlines() if line.startswith(MISSING)]

    def contents(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Read text files on the cluster, by a job of one shell command.

        Returns:
            what is in those that exist.

        Raises:
            ConfigError: the cluster did not print them within READ_S.
        """
        mark = f"agile-ray-file-{uuid.uuid4().hex} "
        prints = "; ".join(
            f"if test -f {quoted}; then echo {mark}{quoted}; cat {quoted}; echo; fi"
            for quoted in map(shlex.quote, paths)
        )
        printed = self._printed(f"agile-ray-files-{uuid.uuid4().hex[:8]}", prints, limit_s=READ_S)
        if printed is None:
            raise ConfigError(
                f"--address {self.address}: a job that prints files must end within {READ_S:g} s, and has not; is a "
                "node of the cluster free to start it?"
            )
        found: dict[str, list[str]] = {}
        lines: list[str] = []  # of no file: what Ray writes into the log first, the command among it
        for line in printed.splitlines():
            if line.startswith(mark):
                lines = found.setdefault(line.removeprefix(mark), [])
            else:
                lines.append(line)
        return {path: "\n".join(lines).encode() for path, lines in found.items()}

    def _printed(self, job: str, command: str, *, limit_s: float) -> str | None:
        """Run a shell command on the cluster; None if it has not ended in time."""
        sent = {"entrypoint": f"sh -c {shlex.quote(command)}", "submission_id": job, "entrypoint_num_cpus": 0}
        deadline = time.monotonic() + limit_s
        self._get("/api/jobs/", sent)
        while time.monotonic() < deadline:
            if self._get(f"/api/jobs/{job}").get("status") in ENDED:
                return str(self._get(f"/api/jobs/{job}/logs").get("logs", ""))
            time.sleep(0.2)
        self._get(f"/api/jobs/{job}/stop", {})
        return None

    def _get(self, path: str, sent: Mapping[str, object] | None = None) -> dict[str, object]:
        request = urllib.request.Request(  # noqa: S310  the scheme is checked
            self.address + path,
            data=None if sent is None else json.dumps(sent).encode(),
            headers={"Content-Type": "application/json", **_authorization()},
        )
        try:
            with _OPENER.open(request, timeout=ANSWER_S) as answer:
                content = json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise ConfigError(
                    f"--address {self.address}: token refused; set RAY_AUTH_MODE=token and the cluster's RAY_AUTH_TOKEN"
                ) from error
            raise self._other(f"HTTP {error.code}") from error
        except TimeoutError as error:
            raise self._late() from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise self._late() from error
            raise ConfigError(
                f"--address {self.address}: no Ray dashboard answers there ({error.reason}); see whether the cluster "
                "runs, with --dashboard-host=0.0.0.0"
            ) from error
        except (ValueError, OSError, http.client.HTTPException) as error:
            raise self._other(type(error).__name__) from error
        if not isinstance(content, dict):
            raise self._other("a list")
        return content

    def _late(self) -> ConfigError:
        return ConfigError(
            f"--address {self.address}: a Ray dashboard answers within {ANSWER_S:g} s, nothing came; does a firewall "
            "drop the connection, or does another program listen there?"
        )

    def _other(self, found: str) -> ConfigError:
        return ConfigError(f"--address {self.address}: must be a Ray dashboard, found something else ({found})")


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks directly: a proxy of the environment would answer in the place of a cluster in the same network."""


def _authorization() -> dict[str, str]:
    """The token's header, where the environment says that the cluster wants one."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    if not token and path.is_file():
        token = path.read_text(encoding="utf-8").strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _rows(answer: Mapping[str, object]) -> list[Mapping[str, object]]:
    """The list in an answer of Ray's state API: data > result > result."""
    found: object = answer
    for key in ("data", "result", "result"):
        found = found.get(key) if isinstance(found, dict) else None
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _node(row: Mapping[str, object], graphics: Mapping[str, int]) -> ClusterNode:
    kinds = [name.partition(":")[2] for name in _resources(row) if name.startswith("accelerator_type:")]
    address = str(row.get("node_ip", ""))
    return ClusterNode(
        name=address,
        cores=int(_resource(row, "CPU")),
        memory_bytes=int(_resource(row, "memory")),
        gpus=int(_resource(row, "GPU")),
        gpu_bytes=graphics.get(address, 0),
        gpu_kind=kinds[0] if kinds else "",
    )


def _resources(row: Mapping[str, object]) -> Mapping[str, object]:
    found = row.get("resources_total")
    return found if isinstance(found, dict) else {}


def _resource(row: Mapping[str, object], name: str) -> float:
    value = _resources(row).get(name, 0)
    return float(value) if isinstance(value, int | float) else 0.0


def _gpu_bytes(answer: Mapping[str, object]) -> dict[str, int]:
    """Memory of the smallest GPU of each node, by its address."""
    data = answer.get("data")
    summary = data.get("summary") if isinstance(data, dict) else None
    found: dict[str, int] = {}
    for node in cast("list[object]", summary) if isinstance(summary, list) else []:
        if isinstance(node, dict) and isinstance(gpus := node.get("gpus"), list) and gpus:
            sizes = [gpu["memoryTotal"] for gpu in gpus if isinstance(gpu, dict) and "memoryTotal" in gpu]
            found[str(node.get("ip", ""))] = min((int(size) for size in sizes), default=0) << 20
    return found
