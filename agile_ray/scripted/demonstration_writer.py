"""Turns played sessions into lines of a file of demonstrations, and writes the scripted teacher's."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from agile_ray.agent.environment import Environment
from agile_ray.agent.functions import Function
from agile_ray.agent.rules import Rules
from agile_ray.agent.tokenizer import Tokenizer
from agile_ray.config import Imitation
from agile_ray.errors import ConfigError
from agile_ray.evaluation import failures
from agile_ray.record.whole import write_whole
from agile_ray.scripted.demonstration_file import Call, Row, written
from agile_ray.scripted.demonstration_player import OVER_BUDGET
from agile_ray.scripted.played import Played
from agile_ray.scripted.teacher import teach
from agile_ray.segments import cut
from agile_ray.types import Ending, Session


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of the sessions, those of earlier calls included."""

    kept: int = 0
    refused: Counter[str] = field(default_factory=Counter[str])  # by reason
    failed: list[Session] = field(default_factory=list[Session])  # in no file

    def count(self, played: Played) -> None:
        """Add a session."""
        if played.session.error is not None:
            self.failed.append(played.session)
        elif played.fault:
            self.refused[played.fault] += 1
        else:
            self.kept += 1

    @property
    def played(self) -> int:
        """Number of sessions."""
        return self.kept + self.refused.total() + len(self.failed)

    @property
    def said(self) -> str:
        """The counts, in words."""
        found = f"{self.kept} kept, {self.refused.total()} refused"
        if self.refused:
            found += f" ({', '.join(f'{count} {reason}' for reason, count in self.refused.most_common())})"
        if self.failed:
            reasons = ", ".join(f"{count} by {reason}" for reason, count in failures.reasons(self.failed).items())
            found += f", {len(self.failed)} failed ({reasons}): the same command plays these again"
        return found


def row_of(played: Played, tokenizer: Tokenizer) -> Row:
    """A session that cleared its context, as a line of a file.

    Args:
        played: the session.
        tokenizer: that its tokens are of.
    """
    segment, *others = cut(played.session)
    assert not others, "Executor: a context only grows, so a session is one segment"
    calls: list[tuple[Function, list[int], list[int]]] = []  # with the tokens of words and of the reply
    for token, acted in zip(segment.token_ids.tolist(), segment.action_mask.tolist(), strict=True):
        if (function := tokenizer.function_at(token)) is not None:
            calls.append((function, [], []))
        elif calls and not (acted and token == tokenizer.eos_id):  # what is before the first call opens the context
            _, words, reply = calls[-1]
            (words if acted else reply).append(token)
    return Row(
        stream=played.stream,
        question=played.question.id,
        calls=tuple(
            Call(
                call=function,
                words=tokenizer.decode(words).removeprefix(" ") if words else None,
                reply=" ".join(tokenizer.decode(reply).split()) if reply else None,
            )
            for function, words, reply in calls
        ),
        right=played.session.correct,
        learn=played.learned,
    )


async def write_teacher(
    file: Path,
    imitation: Imitation,
    environment: Environment,
    rules: Rules,
    *,
    seed: int,
    progress: Callable[[int], None],
) -> Tally:
    """Write what the scripted teacher plays, with what fills its memories.

    Args:
        file: to write; one that exists must begin with the same sessions.
        imitation: the teacher, and the number of its sessions.
        environment: provides the streams.
        rules: of the lanes.
        seed: root seed of the run.
        progress: called with the number of sessions played so far.

    Raises:
        ConfigError: the file has other sessions, or can't be written.
    """
    found, rows = Tally(), list[Row]()
    async for played in teach(imitation, environment, rules, seed=seed, progress=progress, fault=unplayable):
        if played.learned:
            found.count(played)
        if not played.fault and (played.learned or played.session.writes):
            rows.append(row_of(played, rules.tokenizer))
    content = written(rows).encode()
    if file.exists() and not content.startswith(file.read_bytes()):
        raise ConfigError(f"--output: {file} has other sessions than this teacher plays; choose another file")
    write_whole(file, content)
    return found


def unplayable(session: Session) -> str:
    """Why a session can't be repeated from a file; "" if it can."""
    if session.error is not None:
        return session.error
    if session.ending is not Ending.DONE:
        return OVER_BUDGET
    return "called what the rules refuse" if {"refused", "past_stop"} & {*session.remarks} else ""
