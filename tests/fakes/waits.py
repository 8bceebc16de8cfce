"""Finds, in source code, every wait that may last for ever.

    ray.get(x)                      needs timeout=
    event.wait(), thread.join()     needs a number of seconds
    queue.get(), future.result()    likewise
    with self._lock:                has no deadline at all
    subprocess.run(...)             needs timeout=
    while busy(): time.sleep(1)     needs a look at a clock

A wait is bounded too inside `async with asyncio.timeout(...)`, inside `asyncio.wait_for(..., seconds)`, and as an
argument of this project's `wait("call", ...)`. A literal None is no deadline.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BARE = frozenset({"result", "exception", "join", "wait", "get", "acquire", "recv", "accept", "communicate"})
"""Methods that wait for ever if they are called without arguments: of futures, threads, events, queues, locks, pipes,
sockets and processes."""
TIMED = {
    "ray.get": "timeout",
    "ray.wait": "timeout",
    "subprocess.run": "timeout",
    "subprocess.call": "timeout",
    "subprocess.check_call": "timeout",
    "subprocess.check_output": "timeout",
    "asyncio.wait": "timeout",
    "futures.wait": "timeout",
    "as_completed": "timeout",
    "urlopen": "timeout",
    "create_connection": "timeout",
    "init_process_group": "timeout",
    "init_distributed": "timeout",
    "TCPStore": "timeout",
    "in_thread": "deadline_s",
}
"""Calls that wait, by the last words of their names, and the keyword of their deadline."""
ENDLESS = frozenset({"signal.pause", "os.waitpid", "os.wait", "input"})
"""Calls that have no deadline."""
HELD = ("lock", "seats", "semaphore", "condition", "executor")
"""Last words of names that a `with` statement waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One wait without a deadline."""

    function: str  # qualified name within its module; "" at the top
    code: str  # the call, or what a `with` statement holds, on one line
    line: int

    def __str__(self) -> str:
        return f"line {self.line}, in {self.function or 'the module'}: {self.code}"


def endless_waits(source: str) -> list[Wait]:
    """Every wait without a deadline in the text of a module, in order."""
    return sorted(_found(ast.parse(source), "", bounded=False), key=lambda wait: wait.line)


def modules(root: Path, packages: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Path within the root, and text, of every module of these packages."""
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            yield str(path.relative_to(root)), path.read_text()


def _found(node: ast.AST, function: str, *, bounded: bool) -> Iterator[Wait]:
    for child in ast.iter_child_nodes(node):
        inner, limited = function, bounded
        match child:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                inner, limited = f"{function}.{child.name}".lstrip("."), False
            case ast.Lambda():
                limited = False
            case ast.With() | ast.AsyncWith():
                limited = bounded or any(_limits(item.context_expr) for item in child.items)
                for item in child.items:
                    if not limited and _is_held(item.context_expr):
                        yield _wait(item.context_expr, function)
            case ast.While() if not bounded and _polls(child):
                yield _wait(child.test, function)
            case ast.Call():
                limited = bounded or _limits(child)
                if not limited and _waits(child):
                    yield _wait(child, function)
            case _:
                pass
        yield from _found(child, inner, bounded=limited)


def _wait(node: ast.expr, function: str) -> Wait:
    return Wait(function=function, code=" ".join(ast.unparse(node).split()), line=node.lineno)


def _name(node: ast.expr) -> str:
    return ast.unparse(node)


def _is(name: str, known: str) -> bool:
    return name == known or name.endswith(f".{known}")


def _is_none(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _limits(node: ast.expr) -> bool:
    """Whether this call bounds everything inside it, or inside its block."""
    if not isinstance(node, ast.Call):
        return False
    name, first = _name(node.func), node.args[0] if node.args else None
    if _is(name, "asyncio.timeout"):
        return first is not None and not _is_none(first)
    if _is(name, "asyncio.wait_for"):
        given = node.args[1] if len(node.args) > 1 else _keyword(node, "timeout")
        return given is not None and not _is_none(given)
    return _is(name, "wait") and isinstance(first, ast.Constant) and isinstance(first.value, str)


def _keyword(node: ast.Call, name: str) -> ast.expr | None:
    return next((keyword.value for keyword in node.keywords if keyword.arg == name), None)


def _waits(node: ast.Call) -> bool:
    name = _name(node.func)
    for known, keyword in TIMED.items():
        if _is(name, known):
            given = _keyword(node, keyword)
            return given is None or _is_none(given)
    if any(_is(name, known) for known in ENDLESS):
        return True
    if _is(name, "flock"):
        return "LOCK_NB" not in ast.unparse(node) and "LOCK_UN" not in ast.unparse(node)
    if _is(name, "select.select"):
        return len(node.args) < 4 or _is_none(node.args[3])
    if isinstance(node.func, ast.Attribute) and node.func.attr in BARE:
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        return all(map(_is_none, given))
    return False


def _is_held(node: ast.expr) -> bool:
    name = _name(node.func if isinstance(node, ast.Call) else node)
    return name.lower().rpartition(".")[2].endswith(HELD)


def _polls(node: ast.While) -> bool:
    """Whether a loop sleeps until something happens, and looks at no clock."""
    names = {
        _name(call.func) for part in (node.test, *node.body) for call in ast.walk(part) if isinstance(call, ast.Call)
    }
    sleeps = any(_is(name, "sleep") for name in names)
    return sleeps and not any(_is(name, clock) for name in names for clock in ("monotonic", "perf_counter", "time"))
