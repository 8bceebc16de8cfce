"""Says in one line what an error of Ray's means. Reads its text alone, so it needs no Ray.

Ray's own messages are long: a page on memory, a traceback inside a traceback. The log of the actor has the rest.
"""

import re

LENGTH = 500
"""Longest text that is kept, characters."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_OUT_OF_MEMORY = re.compile(r"low on memory|OutOfMemory|OUT_OF_MEMORY|Memory on the node")
_NODE = re.compile(r"on the node \(IP: ([^,)]+).*?was (?:running was )?([\d.]+) ?GB(?: used)? ?/ ?([\d.]+) ?GB", re.S)
_PROCESS = re.compile(r"(?:name=(\w+)[\w.]*\W[^)]*?)?pid=(\d+), (?:actual )?memory\s+used=([\d.]+) ?GB", re.S)
_KILLED = re.compile(r"Selected to kill: (.*?)(?=\n\w|\n\]|$)", re.S)  # beside processes that Ray only considered
_TRACEBACK = re.compile(r"^(Traceback |ray::|\s*File \")", re.M)


def one_line(error: object) -> str:
    """The text on one line, without colours."""
    return " ".join(_COLOUR.sub("", str(error)).split())


def explain(error: object, *, lower: str) -> str:
    """One line for an error of Ray's.

    Args:
        error: any error of Ray's, or its text.
        lower: config keys that need less memory when they are smaller; named where memory ran out.
    """
    text = _COLOUR.sub("", str(error)).strip()
    if _OUT_OF_MEMORY.search(text):
        return _memory(text, lower)
    if _TRACEBACK.search(text):
        said = [line for line in text.splitlines() if line.strip() and not line[0].isspace()]
        return one_line(said[-1] if said else text)[-LENGTH:]
    line = one_line(text) or type(error).__name__
    return line if len(line) <= LENGTH else line[: LENGTH - 4] + " ..."


def _memory(text: str, lower: str) -> str:
    listed = _KILLED.findall(text) or [text]
    killed = [found for found in map(_PROCESS.search, listed) if found]
    used = " and ".join(
        f"{f'{name} (process {pid})' if name else f'process {pid}'} used {size} GB"
        for name, pid, size in (found.groups() for found in killed)
    )
    node = _NODE.search(text)
    of = f", the node {node[1]} {node[2]} of {node[3]} GB" if node else ""
    return f"out of memory: {used or 'Ray ended a process'}{of}; lower {lower}, or use a node with more memory"
