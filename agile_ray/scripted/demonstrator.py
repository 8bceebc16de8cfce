"""Lets a policy play demonstrations, and writes those that the judge takes for right.

A policy that costs money, such as a larger model, is paid once: every session is appended to the file when it ends, and
the same call goes on with the sessions that are not there. Of a session that is not kept, a line of another file says
why, and memory forgets what it wrote, so that the file alone repeats what is read.

    demonstrations.jsonl           sessions that are kept
    demonstrations.refused.jsonl   sessions that are not: the question and the reason
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from agile_ray.agent.environment import Environment, taught_split
from agile_ray.agent.policy import Policy
from agile_ray.agent.rules import Rules
from agile_ray.agent.tokenizer import Tokenizer
from agile_ray.errors import ConfigError
from agile_ray.evaluation.plays import Play, plays
from agile_ray.record.json_files import read_json_lines
from agile_ray.record.whole import write_whole
from agile_ray.scripted.demonstration_file import Refused, read, written
from agile_ray.scripted.demonstration_player import Stage
from agile_ray.scripted.demonstration_writer import Tally, row_of, unplayable
from agile_ray.scripted.played import FIRST_STREAM, STREAMS, Played, play
from agile_ray.types import Session


class _RefusedRow(BaseModel):
    """A line of the file of sessions that are not kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stream: int
    question: str
    reason: str


_REFUSED = TypeAdapter(_RefusedRow).validate_json


async def write_right(
    file: Path,
    policy: Policy,
    environment: Environment,
    rules: Rules,
    *,
    sessions: int,
    progress: Callable[[Tally], None],
) -> Tally:
    """Let a policy play, and append the sessions that the judge takes for right. Streams play at the same time.

    Args:
        file: to append to. Its sessions are not played again.
        policy: plays the sessions.
        environment: provides the streams.
        rules: of the lanes; the gold expert replaces their expert.
        sessions: how many are played in all, earlier calls included; fewer if the split has no more.
        progress: called after every session.

    Raises:
        ConfigError: the file was written with other settings, or can't be written; or the policy can't play at all.
    """
    stage, books = Stage(environment, rules), _Books(file, rules.tokenizer)
    await books.read(stage)

    async def stream(chosen: Play) -> None:
        lane = stage.lane(chosen.index)
        for position, question in enumerate(lane.stream.questions[: chosen.sessions]):
            if not books.has(chosen.index, question.id):
                lane.position = position
                books.note(await play(lane, policy, stream=chosen.index, fault=_not_right))
                progress(books.tally)

    tasks = [asyncio.ensure_future(stream(chosen)) for chosen in _chosen(environment, sessions)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return books.tally


class _Books:
    """The two files, and the counts of both."""

    def __init__(self, file: Path, tokenizer: Tokenizer) -> None:
        self._file = file
        self._refused = file.with_name(f"{file.stem}.refused.jsonl")
        self._tokenizer = tokenizer
        self._done: set[tuple[int, str]] = set()  # streams and questions
        self.tally = Tally()

    async def read(self, stage: Stage) -> None:
        """Play what is in the file, so that memories hold what it wrote.

        Raises:
            ConfigError: it does not play as it is written.
        """
        for path in (self._file, self._refused):
            _drop_cut_off_line(path)
        for line, row in read(self._file) if self._file.exists() else ():
            played = row if isinstance(row, Refused) else await stage.play(row, line=line)
            if isinstance(played, Refused):
                raise ConfigError(
                    f"--output: {self._file}:{line}: sessions that are there must play as written: {played.reason}; "
                    "choose another file, or the settings that it was written with"
                )
            self._done.add((played.stream, played.question.id))
            self.tally.kept += 1
        for one in read_json_lines(self._refused, _REFUSED, expected="a session that is not kept"):
            self._done.add((one.stream, one.question))
            self.tally.refused[one.reason] += 1

    def has(self, stream: int, question: str) -> bool:
        """Whether a session is in one of the files."""
        return (stream, question) in self._done

    def note(self, played: Played) -> None:
        """Count a session, and append it to its file, unless it failed."""
        self.tally.count(played)
        if played.session.error is not None:
            return
        if played.fault:
            row = _RefusedRow(stream=played.stream, question=played.question.id, reason=played.fault)
            _append(self._refused, f"{row.model_dump_json()}\n")
        else:
            _append(self._file, written([row_of(played, self._tokenizer)]))


def _not_right(session: Session) -> str:
    """Why a session is not kept; "" if it is."""
    return unplayable(session) or ("" if session.correct else "judged wrong")


def _chosen(environment: Environment, sessions: int) -> Sequence[Play]:
    """The streams, and how many sessions of each: all streams of a split that ends, else at least STREAMS."""
    split = taught_split(environment)
    if environment.streams(split) is not None:
        return plays(environment, split=split, sessions=sessions)
    found: list[Play] = []
    left, index = sessions, FIRST_STREAM
    while left > 0:
        length = len(environment.stream(split=split, index=index).questions)
        found.append(Play(index=index, sessions=min(left, length, -(-sessions // STREAMS))))
        left, index = left - found[-1].sessions, index + 1
    return found


def _append(file: Path, line: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as opened:
            opened.write(line.encode())
    except OSError as error:
        raise ConfigError(f"--output: {file} can't be written ({error.strerror})") from error


def _drop_cut_off_line(file: Path) -> None:
    """Remove a last line without its end, which a killed process left."""
    if file.exists():
        content = file.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            write_whole(file, whole)
