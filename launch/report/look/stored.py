"""Single sessions as a run stored them, and the sessions that they read from or that read from them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from agile_ray import config_file
from agile_ray.errors import ConfigError
from agile_ray.record import store
from agile_ray.record.folder import RunFolder
from agile_ray.record.store import Chosen, StoredSegment
from agile_ray.types import NO_WRITER, Ending, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A session with everything that is stored of it."""

    session: Session  # without turns; with counterfactuals if it was collected for training
    segments: Sequence[StoredSegment]  # at least one; their `segment` is None where no tokens are stored

    @property
    def credit(self) -> float | None:
        """Credit of the session; None if it was not trained on."""
        found = [one.credit for one in self.segments if one.credit is not None]
        return sum(found) if found else None

    @property
    def credit_shares(self) -> Mapping[int, float] | None:
        """What each reader gives of `credit`, by its position; None if it was not trained on, or this is not stored."""
        found = [one.credit_shares for one in self.segments if one.credit_shares is not None]
        return {share.reader: share.amount for shares in found for share in shares} if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where sessions are stored."""

    run: RunFolder
    evaluation: str | None  # entry, such as ppo
    iteration: int | None  # of the training; one of the two is None

    def __str__(self) -> str:
        return f"evaluation {self.evaluation}" if self.evaluation is not None else f"iteration {self.iteration}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which sessions to list; every claim that is set must hold."""

    wrong: bool = False  # no right answer, and not failed
    asked: bool = False
    known: bool = False  # memory held the answer
    failed: bool = False
    stream: str | None = None

    def keeps(self, session: Session) -> bool:
        """Whether a session is listed."""
        has_failed = session.ending is Ending.FAILED
        return (
            (not self.wrong or not (session.correct or has_failed))
            and (not self.asked or session.asks > 0)
            and (not self.known or session.hindsight.known)
            and (not self.failed or has_failed)
            and (self.stream is None or session.stream == self.stream)
        )


def choose_source(run: RunFolder, *, evaluation: str | None, iteration: int | None) -> Source:
    """Where to look: what is named, else the final evaluation of PPO, else the last iteration.

    Raises:
        ConfigError: both are named, or there is no such thing.
    """
    entries, iterations = run.evaluated_entries(), run.stored_iterations()
    if evaluation is not None and iteration is not None:
        raise ConfigError("show: give --evaluation or --iteration, found both")
    if evaluation is not None and evaluation not in entries:
        raise ConfigError(f"--evaluation: one of {', '.join(entries) or 'none yet'} in {run}, found {evaluation}")
    if iteration is not None and iteration not in iterations:
        there = f"{iterations[0]} to {iterations[-1]}" if iterations else "none yet"
        raise ConfigError(f"--iteration: one that {run} stores, {there}; found {iteration}")
    if evaluation is None and iteration is None:
        evaluation = "ppo" if "ppo" in entries else None
        iteration = iterations[-1] if evaluation is None and iterations else None
    if evaluation is None and iteration is None:
        raise ConfigError(
            f"{run}: a run's folder holds sessions in {run.segments.name} or {run.evaluations.name}, found none"
        )
    return Source(run=run, evaluation=evaluation, iteration=iteration)


def read(source: Source, chosen: Chosen | None = None) -> list[Stored]:
    """Every session of a source, in the order in which they are stored.

    Args:
        source: where they are.
        chosen: read only these.

    Raises:
        ConfigError: a file is missing, damaged or of a newer version.
    """
    if source.evaluation is not None:
        lines = store.read_evaluation(source.run.evaluation_file(source.evaluation), chosen)
    else:
        assert source.iteration is not None
        lines = store.read(source.run, source.iteration, chosen)
    grouped = (list(own) for _, own in groupby(lines, key=lambda one: (one.session.stream, one.session.position)))
    return [Stored(session=own[-1].session, segments=own) for own in grouped]


def find_stream(sessions: Sequence[Stored], named: str | None) -> str:
    """The stream that is named by its id or the end of it; the only one if none is named.

    Raises:
        ConfigError: no stream, or several, match.
    """
    streams = list(dict.fromkeys(one.session.stream for one in sessions))
    found = [one for one in streams if named is None or one == named] or [
        one for one in streams if one.endswith(f"/{named}")
    ]
    if len(found) != 1:
        shown = ", ".join((found or streams)[:5])
        raise ConfigError(f"--stream: names one of {len(found or streams)} streams, such as {shown}; found {named}")
    return found[0]


def find_session(sessions: Sequence[Stored], *, stream: str, position: int) -> Stored:
    """One session.

    Raises:
        ConfigError: the stream has no such session.
    """
    own = {one.session.position: one for one in sessions if one.session.stream == stream}
    if position not in own:
        raise ConfigError(f"--session: {stream} has sessions {min(own)} to {max(own)}, found {position}")
    return own[position]


def writers(source: Source, sessions: Sequence[Stored], reader: Session) -> dict[int, Session]:
    """The sessions whose entries a session read, by position; those that are stored nowhere are left out.

    A stream that is trained on goes on over iterations, so the writer may be in an earlier one.
    """
    wanted = {use.writer for use in reader.reads} - {NO_WRITER}
    found = {
        one.session.position: one.session
        for one in sessions
        if one.session.stream == reader.stream and one.session.position in wanted
    }
    if source.iteration is not None:
        earlier = (number for number in reversed(source.run.stored_iterations()) if number < source.iteration)
        while wanted - found.keys() and (number := next(earlier, None)) is not None:
            for one in store.outcomes(source.run, number):
                if one.stream == reader.stream and one.position in wanted:
                    found.setdefault(one.position, one)
    return found


def tokenizer_folder(run: RunFolder) -> Path:
    """Folder of the tokenizer that the run's tokens are of: the policy after imitation, else the initial model."""
    if (run.sft.path / "tokenizer.json").is_file():
        return run.sft.path
    return config_file.load(run.config).model.path


def readers(sessions: Sequence[Stored], writer: Session) -> Iterator[Stored]:
    """The later sessions of the same source that read what a session wrote."""
    return (
        one
        for one in sessions
        if one.session.stream == writer.stream
        and one.session.position > writer.position
        and any(use.writer == writer.position for use in one.session.reads)
    )
