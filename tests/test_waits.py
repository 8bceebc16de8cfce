"""No wait lasts for ever: each one in the code has a deadline, or an entry in the list below that says why not."""

from pathlib import Path

import pytest

from tests.fakes.waits import endless_waits, modules

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("agile_ray", "envs", "rollout", "learner", "configs", "launch", "benchmarks")

SHORT = "a lock that is held for a few statements, never during a wait"
SESSION = "the session that waits for it has a deadline (rollout/timed_session.py)"
ALLOWED = {
    ("agile_ray/agent/lane.py", "Lane._embed_ahead", "in_thread"): SESSION,
    ("agile_ray/agent/threads.py", "_serve", "inbox.get"): "an idle thread waits for work; it keeps no process alive",
    ("agile_ray/inbox/line.py", "Line._post", "self._known.wait"): "Line.closed has a deadline",
    ("agile_ray/inbox/line.py", "Line._post", "True"): "Line.closed has a deadline",
    ("agile_ray/inbox/line.py", "Line._listen", "True"): "listens while asks wait, each of which has a deadline",
    ("envs/endpoints/chat.py", "Chat._connected", "self._lock"): SHORT,
    ("envs/endpoints/chat.py", "Chat._count", "self._lock"): SHORT,
    (
        "envs/endpoints/chat.py",
        "Chat.reply",
        "self._seats",
    ): "a queue: each request gives its seat back by its deadline",
    ("rollout/experts/spending.py", "Spending.tokens", "self._lock"): SHORT,
    ("rollout/experts/spending.py", "Spending.once", "self._lock"): SHORT,
    ("rollout/experts/spending.py", "Spending._transaction", "self._lock"): "SQLite waits at most wait_s for its file",
    ("rollout/experts/spending.py", "Spending._change", "self._lock"): "SQLite waits at most wait_s for its file",
    ("envs/endpoints/llm_judge.py", "LLMJudge.right", "self._lock"): SHORT,
    ("envs/sql.py", "SqlTool.close", "self._lock"): SHORT,
    ("envs/tools/mcp_server.py", "_on_a_loop_of_its_own", "outcome.result"): "what it runs has a deadline (CONNECT_S)",
    ("envs/tools/toolbox.py", "Toolbox._run", "self._lock"): SHORT,
    ("envs/tools/toolbox.py", "Toolbox._run.run", "self._lock"): SHORT,
    (
        "rollout/fleet/dispatch.py",
        "Fleet._serve",
        "member.failure",
    ): "follows an actor for life; each report is bounded",
    ("rollout/fleet/dispatch.py", "Fleet._bring", "member.lock"): "whoever holds it loads, within cluster.deadline_s",
    ("envs/sql.py", "SqlTool._connected", "self._lock"): SHORT,
    ("rollout/embedder.py", "BatchedEmbedder._work", "in_thread"): SESSION,
    ("rollout/embedder.py", "BatchedEmbedder._cached", "self._lock"): SHORT,
    ("rollout/embedder.py", "BatchedEmbedder._keep", "self._lock"): SHORT,
    ("rollout/minilm.py", "MiniLM.encode", "self._lock"): "held while a batch is embedded, which is arithmetic",
    ("rollout/prompted/policies.py", "Prompt.write", "in_thread"): "Chat.ask has a deadline",
    ("rollout/prompted/policies.py", "PromptedAgent.write", "in_thread"): "Chat.ask has a deadline",
    ("rollout/weights/plugin.py", "_die_with", "os.getppid"): "watches as long as its process lives",
    ("launch/commands/specs/status.py", "command", "True"): "--follow watches until the runs end, or Ctrl-C",
    ("launch/cluster/jobs.py", "Jobs._exit_code", "not (found"): "its caller waits for it with a deadline",
    (
        "benchmarks/across_commits.py",
        "_agile_ray",
        "subprocess.run",
    ): "a training has deadlines of its own",
    ("benchmarks/cluster_model.py", "_serve", "pipe.recv"): "a child waits for work, and ends with its parent",
    ("benchmarks/cluster_model.py", "_answer", "pipe.recv"): "something is there: `poll` before it has a deadline",
}
"""Module, function and how the wait's code begins; and why it needs no deadline."""

FOUND = [(path, wait) for path, text in modules(ROOT, PACKAGES) for wait in endless_waits(text)]


def test_every_wait_has_a_deadline_or_a_reason() -> None:
    left = [
        f"{path}: {wait}"
        for path, wait in FOUND
        if not any(
            (path, wait.function) == (module, function) and wait.code.startswith(code)
            for module, function, code in ALLOWED
        )
    ]
    assert left == [], "give each a deadline that names itself, or a line in ALLOWED"


@pytest.mark.parametrize("place", ALLOWED, ids=lambda place: f"{place[0]}:{place[1]}")
def test_a_reason_belongs_to_a_wait_that_exists(place: tuple[str, str, str]) -> None:
    module, function, code = place
    assert [path for path, wait in FOUND if path == module and wait.function == function and wait.code.startswith(code)]


ENDLESS = [
    "ray.get(answers)",
    "ray.get(answers, timeout=None)",
    "ray.wait(answers, num_returns=1)",
    "future.result()",
    "queue.get()",
    "queue.get(timeout=None)",
    "thread.join()",
    "ended.wait()",
    "lock.acquire()",
    "child.communicate()",
    "child.wait(timeout=None)",
    "pipe.recv()",
    "subprocess.run(['true'], check=True)",
    "asyncio.wait(tasks)",
    "fcntl.flock(file, fcntl.LOCK_EX)",
    "select.select([file], [], [])",
    "os.waitpid(1, 0)",
    "distributed.init_process_group('gloo')",
    "in_thread(call)",
    "asyncio.wait_for(queue.get(), None)",
    "asyncio.wait_for(queue.get(), timeout=None)",
    "later(lambda: future.result())",
]


@pytest.mark.parametrize("code", ENDLESS)
def test_a_call_without_a_deadline_is_found(code: str) -> None:
    [found] = endless_waits(f"class Pool:\n    def close(self):\n        {code}\n")
    assert (found.function, found.line) == ("Pool.close", 3)
    assert found.code in code


BOUNDED = [
    "ray.get(answers, timeout=3.0)",
    "ray.wait(answers, timeout=0)",
    "future.result(timeout=limit_s)",
    "future.result(limit_s)",
    "queue.get(timeout=1)",
    "values.get(key)",
    "','.join(words)",
    "thread.join(limit_s)",
    "ended.wait(1.0)",
    "child.communicate(timeout=9)",
    "subprocess.run(['true'], timeout=9)",
    "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
    "select.select([file], [], [], 0.5)",
    "asyncio.wait_for(queue.get(), 3)",
    "self.wait('generate', request.get())",
    "distributed.init_process_group('gloo', timeout=limit)",
    "in_thread(call, deadline_s=limit_s)",
]


@pytest.mark.parametrize("code", BOUNDED)
def test_a_call_with_a_deadline_is_not(code: str) -> None:
    assert endless_waits(code) == []


def test_a_block_with_a_timeout_bounds_what_is_in_it_but_not_what_runs_later() -> None:
    block = "async def f():\n async with asyncio.timeout({}):\n  {}\n"
    assert endless_waits(block.format("3", "await queue.get()")) == []
    assert len(endless_waits(block.format("None", "await queue.get()"))) == 1
    assert len(endless_waits(block.format("3", "return lambda: queue.get()"))) == 1
    assert len(endless_waits(block.format("3", "def later():\n   queue.get()"))) == 1


def test_a_lock_and_a_loop_that_sleeps_are_waits() -> None:
    [lock] = endless_waits("def f(self):\n with self._lock:\n  pass\n")
    assert lock.code == "self._lock"
    [loop] = endless_waits("def f():\n while busy():\n  time.sleep(1)\n")
    assert loop.code == "busy()"
    clock = "def f():\n while busy():\n  if time.monotonic() > end:\n   break\n  time.sleep(1)\n"
    assert endless_waits(clock) == []
