"""An evaluation log of Inspect (inspect.aisi.org.uk), in its JSON form, version 2: `inspect view` and its VS Code
extension open it.

A session becomes a sample. The question is its input; the policy's turns are messages of the assistant; what memory,
tools, the expert and the executor said are messages of tools. Its scores are `right` (C or I), `asked` (0 or 1) and
`reward`. What Inspect has no place for is metadata: of the sample, and of each turn. No gold answer is stored, so the
target is empty.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from launch.report.look.parts import POLICY
from launch.view.answers import of_detail
from launch.view.detail import Detail, ShownPart
from launch.view.query import Summary, summarize
from launch.view.rows import FAILED, RIGHT, Json
from launch.view.runs import Opened

VERSION = 2
SCORER = "agile_ray"
QUESTION = "question"
TURN = ("logprob", "ask_probability", "value", "write_probability", "advantage", "reward", "versions", "decides")
"""What a message says of its turn, as metadata."""


def log(opened: Opened, sessions: Sequence[Detail]) -> Json:
    """The log of one source.

    Args:
        opened: the source.
        sessions: all of it.
    """
    summary = summarize(opened.table, np.arange(opened.table.num_rows))
    name, created = f"{opened.run}/{opened.source}", _created(opened)
    return {
        "version": VERSION,
        "status": "success",
        "eval": {
            "eval_id": name,
            "run_id": opened.run,
            "created": created,
            "task": name,
            "task_id": name,
            "dataset": {
                "name": opened.source,
                "samples": len(sessions),
                "sample_ids": [one.row["key"] for one in sessions],
                "shuffled": False,
            },
            "model": f"agile-ray/{opened.run}",
            "config": {"epochs": 1},
        },
        "plan": {"name": "plan", "steps": []},
        "results": {
            "total_samples": summary.sessions,
            "completed_samples": summary.sessions - summary.failed,
            "scores": _scores(summary),
        },
        "stats": {"started_at": created, "completed_at": created},
        "samples": [_sample(one) for one in sessions],
    }


def _created(opened: Opened) -> str:
    """When the source's first file was written."""
    source = opened.stored(0)
    entry = source.evaluation
    path = source.run.segment_file(source.iteration or 0) if entry is None else source.run.evaluation_file(entry)
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")


def _scores(summary: Summary) -> list[Json]:
    means = {"right": ("accuracy", summary.right), "asked": ("mean", summary.asked), "reward": ("mean", summary.reward)}
    return [
        {"name": name, "scorer": SCORER, "metrics": {metric: {"name": metric, "value": value}}}
        for name, (metric, value) in means.items()
        if value is not None
    ]


def _sample(one: Detail) -> Json:
    row, full = one.row, of_detail(one)
    asked = [part.part.text.strip() for part in one.parts if part.part.who == QUESTION]
    messages = [_message(part) for part in one.parts]
    answer = row["answer"]
    sample: dict[str, Json] = {
        "id": row["key"],
        "epoch": 1,
        "input": "\n".join(asked) or str(row["question_id"]),
        "target": "",
        "messages": messages,
        "output": {"model": SCORER, "choices": [], "completion": str(answer or "")},
        "metadata": {name: full[name] for name in ("row", "facts", "receipts", "reads", "writes", "readers", "lacks")},
    }
    if row["result"] == FAILED:
        sample["error"] = {"message": str(row["error"]), "traceback": "", "traceback_ansi": ""}
        return sample
    value = {"right": "C" if row["result"] == RIGHT else "I", "asked": int(bool(row["asks"])), "reward": row["reward"]}
    sample["scores"] = {
        name: {"value": score, "answer": answer, "explanation": row["result"]} for name, score in value.items()
    }
    return sample


def _message(one: ShownPart) -> Json:
    part = one.part
    if part.who == POLICY:
        known = {name: getattr(part, name) for name in TURN}
        return {"role": "assistant", "content": part.text, "source": "generate", "metadata": known}
    if part.who == QUESTION:
        return {"role": "user", "content": part.text, "source": "input"}
    return {"role": "tool", "content": part.text, "function": part.who}
