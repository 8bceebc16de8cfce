"""The recorder: history, TensorBoard events and stored segments of one run. It prints nothing and decides nothing."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from agile_ray.evaluation import failures
from agile_ray.evaluation.score import Score, score
from agile_ray.record import evaluations, history, store
from agile_ray.record.folder import RunFolder
from agile_ray.record.history import FAILED, FLEET, Dropped, Event, Line
from agile_ray.record.metrics import check_metrics
from agile_ray.record.receipts import clear_journals
from agile_ray.record.resume import damaged_after, discard_after
from agile_ray.types import Assigned, Ending, RunState, Session, TrainingRow, Update

ShownMetrics = Mapping[str, str | int | float]
"""What the console is given of a line: event, name, iteration and, if sessions failed, the commonest `reason`; then the
metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """What was recorded after the checkpoint that a run resumes from, and is discarded."""

    lines: int  # of the history
    segments: int
    seconds: float  # wall time of the discarded work
    damaged: tuple[str, ...] = ()  # segment files that can't be read; neither their segments nor their receipts count


class RunRecorder:
    """Records one run into its folder, across resumptions.

    The wall time of phases is written with the next line; `close` writes what remains.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        console: Callable[[ShownMetrics], None] | None = None,
        phase: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        fleet: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """Open a run's record, creating its folder.

        Args:
            run: the run's folder.
            console: called with the metrics of each line.
            phase: called with the name of each timed phase, when it begins.
            clock: returns seconds since any fixed moment.
            fleet: returns what happened to engines and learner ranks since it was called last, counted by name.
        """
        from agile_ray.record.tensorboard import EventLog  # slow to import, so only a training imports it

        self._run = run
        self._console = console
        self._phase = phase
        self._clock = clock
        self._fleet = fleet
        self._seconds: dict[str, float] = {}
        self._calls: Counter[str] = Counter()
        self._state = RunState(imitation_steps=0, iteration=0, version=0)
        self._closed = False
        run.path.mkdir(parents=True, exist_ok=True)
        self._imitation_events = EventLog(run.imitation_events)
        self._ppo_events = EventLog(run.ppo_events)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the wall time of the block to the phase, even if the block raises."""
        if self._phase is not None:
            self._phase(phase)
        start = self._clock()
        try:
            yield
        finally:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + self._clock() - start
            self._calls[phase] += 1

    def resume(self, state: RunState) -> Rollback:
        """Discard what was recorded after the restored state; in a new folder, do nothing.

        Call it once, before anything is recorded. Later events of TensorBoard are hidden, not deleted.
        """
        self._state = state
        lines = history.read(self._run.history)
        kept = [line for line in lines if not line.follows(state)]
        damaged = damaged_after(self._run, state.iteration)
        rollback = Rollback(
            lines=len(lines) - len(kept),
            segments=discard_after(self._run, state.iteration),
            seconds=sum(sum(line.seconds.values()) for line in lines if line.follows(state)),
            damaged=damaged,
        )
        evaluations.discard_after(self._run, state)
        if lines or rollback.segments or rollback.damaged:
            history.rewrite(self._run.history, kept)
            self._imitation_events.restart(state.imitation_steps + 1)
            self._ppo_events.restart(state.iteration + 1)
            self._write(
                Event.RESUME,
                metrics={"discarded_seconds": rollback.seconds},
                counts={
                    "discarded/lines": rollback.lines,
                    "discarded/rows": rollback.segments,
                    **({"discarded/damaged_files": len(rollback.damaged)} if rollback.damaged else {}),
                    **self._fleet_counts(),
                },
            )
        return rollback

    def imitation(self, state: RunState, update: Update) -> None:
        """Record one step of imitation."""
        self._state = state
        self._write(Event.IMITATION, metrics=_update_metrics(update))

    def iteration(
        self,
        state: RunState,
        *,
        sessions: Sequence[Session],
        assigned: Assigned,
        update: Update,
    ) -> None:
        """Record one iteration and store its segments."""
        self._state = state
        rows = assigned.rows
        store.write(self._run, state.iteration, sessions, rows, update.advantages)
        clear_journals(self._run, state.iteration)
        self._write(
            Event.ITERATION,
            metrics=_session_metrics(sessions, score(sessions))
            | _row_metrics(rows)
            | _ages(rows, version=state.version - 1)
            | assigned.metrics
            | _update_metrics(update)
            | self._speed_metrics(len(sessions)),
            counts=_counts(sessions) | self._fleet_counts(),
            dropped=_dropped(sessions, rows),
        )
        self._ppo_events.flush()

    def evaluation(self, state: RunState, name: str, sessions: Sequence[Session]) -> None:
        """Record an evaluation of the weights of a state, which need not be the run's latest."""
        metrics = _session_metrics(sessions, score(sessions))
        self._write(Event.EVALUATION, name=name, metrics=metrics, counts=_counts(sessions), state=state)
        self._ppo_events.flush()

    def close(self) -> None:
        """Write the wall time that no line has yet, and close the events. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._seconds:
            self._write(Event.CLOSE)
        self._imitation_events.close()
        self._ppo_events.close()

    def _fleet_counts(self) -> dict[str, int]:
        return {f"{FLEET}{name}": count for name, count in self._fleet().items() if count}

    def _speed_metrics(self, sessions: int) -> dict[str, float]:
        metrics: dict[str, float] = {}
        if self._seconds.get("collect"):
            metrics["sessions_per_second"] = sessions / self._seconds["collect"]
        if self._calls["publish"]:
            metrics["sync_seconds"] = self._seconds["publish"] / self._calls["publish"]
        return metrics

    def _write(
        self,
        event: Event,
        *,
        name: str = "",
        metrics: Mapping[str, float] | None = None,
        counts: Mapping[str, int] | None = None,
        dropped: Sequence[Dropped] = (),
        state: RunState | None = None,
    ) -> None:
        state = state or self._state
        seconds, self._seconds = self._seconds, {}
        self._calls.clear()
        line = Line(
            event=event,
            name=name,
            imitation_steps=state.imitation_steps,
            iteration=state.iteration,
            version=state.version,
            metrics=dict(metrics or {}),
            counts=dict(counts or {}),
            dropped=tuple(dropped),
            seconds=seconds,
        )
        check_metrics(line.metrics)
        history.append(self._run.history, line)
        self._write_events(line)
        if self._console is not None:
            reason = next(({"reason": name[len(FAILED) :]} for name in line.counts if name.startswith(FAILED)), {})
            self._console({"event": event, "name": name, "iteration": line.iteration, **reason, **line.metrics})

    def _write_events(self, line: Line) -> None:
        found = history.scalars(line)
        (self._imitation_events if found.imitation else self._ppo_events).add(found.step, found.values)


def _session_metrics(sessions: Sequence[Session], measured: Score) -> dict[str, float]:
    kept = [session for session in sessions if session.ending is not Ending.FAILED]
    ends = (
        {} if measured.ci95 is None else dict(zip(("total_score_low", "total_score_high"), measured.ci95, strict=True))
    )
    return {
        "sessions": measured.sessions,
        "failed": measured.failed,
        "asked_share": measured.asked_share,
        **{f"asked_share/{name}": share for name, share in measured.experts.items()},
        "asks_per_session": measured.asks_per_session,
        "accuracy": measured.accuracy,
        "total_score": measured.total_score,
        **ends,
        "read_share": sum(1 for session in kept if session.reads) / len(kept),
        "write_share": sum(1 for session in kept if session.writes) / len(kept),
    }


def _row_metrics(rows: Sequence[TrainingRow]) -> dict[str, float]:
    sessions = sum(row.segment.last for row in rows)
    return {
        "rows": len(rows),
        "tokens_per_session": sum(len(row.segment.token_ids) for row in rows) / sessions,
        "actions_per_session": sum(row.segment.actions for row in rows) / sessions,
    }


def _ages(rows: Sequence[TrainingRow], *, version: int) -> dict[str, float]:
    """How many versions before the learner's the action tokens were sampled."""
    ages = version - np.concatenate([row.segment.versions[row.segment.action_mask] for row in rows])
    shares = {f"age_share/{age}": float((ages == age).mean()) for age in np.unique(ages).tolist()}
    return {"age_mean": float(ages.mean()), "age_max": float(ages.max()), **shares}


def _update_metrics(update: Update) -> dict[str, float]:
    return {
        **update.metrics,
        "tokens": update.tokens,
        "processed_tokens": update.tokens / (1 - update.padding),
        "padding": update.padding,
        "learn_seconds": update.seconds,
        "tokens_per_second": update.tokens / update.seconds if update.seconds else 0.0,
    }


def _counts(sessions: Sequence[Session]) -> dict[str, int]:
    endings = Counter(f"ending/{session.ending}" for session in sessions)
    remarks = Counter(f"remark/{remark}" for session in sessions for remark in session.remarks)
    failed = {f"{FAILED}{reason}": count for reason, count in failures.reasons(sessions).items()}
    return dict(sorted((endings + remarks).items())) | failed


def _dropped(sessions: Sequence[Session], rows: Sequence[TrainingRow]) -> list[Dropped]:
    """Count sessions without a training row by reason, asking and length.

    Asking makes a session longer, so dropping long sessions would bias training against asking.
    """
    trained = {(row.segment.stream, row.segment.position) for row in rows}
    found: Counter[tuple[str, bool, int]] = Counter()
    for session in sessions:
        if (session.stream, session.position) not in trained:
            found[_reason(session), session.asks > 0, _power_of_two(_tokens(session))] += 1
    return [
        Dropped(reason=reason, asked=asked, tokens_up_to=tokens, sessions=count)
        for (reason, asked, tokens), count in sorted(found.items())
    ]


def _reason(session: Session) -> str:
    if session.ending is Ending.FAILED:
        return "failed"
    return "no_row" if session.turns else "empty"


def _tokens(session: Session) -> int:
    """Tokens of the context when the session ended."""
    return len(session.turns[-1].prompt_ids) + len(session.turns[-1].completion_ids) if session.turns else 0


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length() if count else 0
