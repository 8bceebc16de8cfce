"""Credit across sessions: A_i, the value of a session's writes to memory for later sessions.

Sessions are trained as independent episodes on `r_i + A_i` (AGILE, Appendix A, eq. 5 and 6), so the value of what was
remembered reaches the policy only through A_i. Only the part that depends on what session i did matters to the
gradient:

    A_i = V(S_{i+1} | with what i wrote) - V(S_{i+1} | without it)

`credit.mode` says how A_i is computed; see credit/modes.py.

Dimensions: S = sessions of one iteration. Rewards and credit are in units of the reward for a right answer.
"""

import pickle
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

from agile_ray.config import Credit
from agile_ray.credit import linked, tail
from agile_ray.credit.baseline import credit_baseline
from agile_ray.credit.diagnostics import credit_metrics
from agile_ray.credit.modes import Evidence, mode
from agile_ray.errors import ContractError
from agile_ray.types import Assigned, CreditShare, Float64, Segment, Session, TokenScores, TrainingRow


class CreditAssigner:
    """Assigns credit, iteration after iteration; keeps what the mode needs of the past ones."""

    def __init__(self, config: Credit) -> None:
        """Start without past iterations."""
        self._config = config
        self._mode = mode(config.mode)
        self._past = deque[list[Session]](maxlen=config.window - 1 if self._mode.looks_back else 0)
        self._outlook: tail.Outlook = {}

    def prefixes(self, sessions: Sequence[Session]) -> list[Segment]:
        """Counterfactual prefixes that the learner must score in addition to the sessions' own segments."""
        if not self._mode.needs_counterfactuals:
            return []
        return linked.prefixes(sessions, threshold=self._config.threshold)

    def assign(
        self,
        sessions: Sequence[Session],
        segments: Sequence[Segment],
        scores: Sequence[TokenScores],
        prefix_scores: Sequence[TokenScores],
    ) -> Assigned:
        """Give every session its credit A_i, on the action token that decided whether it writes memory.

        Args:
            sessions: of this iteration, in stream order within a stream.
            segments: cut from them; those of one session in their order.
            scores: one per segment.
            prefix_scores: one for each of `prefixes(sessions)`.

        Raises:
            ContractError: scores do not match segments or prefixes, or a session reads what a later one wrote.
            KeyError: a segment belongs to none of the sessions.
        """
        if len(scores) != len(segments):
            raise ContractError(f"assign: every segment has its scores, got {len(scores)} for {len(segments)} segments")
        threshold, readings = self._config.threshold, list[tail.Reading]()
        imagined = list[linked.Imagined]()
        if self._mode.needs_counterfactuals:
            imagined = linked.imagine(sessions, prefix_scores, threshold=threshold)
            readings = tail.readings(sessions, imagined)
        evidence = Evidence(
            sessions=sessions,
            past=self._past,
            links=linked.link(sessions, imagined),
            readings=readings,
            outlook=self._outlook,
        )
        amounts, metrics = self._mode.amounts(evidence, self._config)
        self._past.append([_outcome(session) for session in sessions])
        self._outlook = tail.updated(self._outlook, readings)
        return Assigned(
            rows=_training_rows(sessions, segments, scores, amounts, self._shares(evidence)),
            metrics=credit_metrics(sessions, amounts, threshold=threshold) | metrics,
        )

    def _shares(self, evidence: Evidence) -> Mapping[int, Sequence[CreditShare]]:
        """By the index of the session that has the credit."""
        found = defaultdict[int, list[CreditShare]](list)
        if self._mode.shares is not None:
            links = evidence.links
            for writer, reader, amount in zip(links.writers, links.readers, self._mode.shares(evidence), strict=True):
                found[int(writer)].append(CreditShare(reader=evidence.sessions[reader].position, amount=float(amount)))
        return found

    def state(self) -> bytes:
        """What is kept of past iterations, for a checkpoint."""
        return pickle.dumps((list(self._past), self._outlook))

    def restore(self, state: bytes) -> None:
        """Continue from what `state` returned."""
        past, self._outlook = pickle.loads(state)
        self._past.clear()
        self._past.extend(past)


def _outcome(session: Session) -> Session:
    """The session without its tokens."""
    return replace(session, turns=(), hindsight=replace(session.hindsight, counterfactuals=()))


def _training_rows(
    sessions: Sequence[Session],
    segments: Sequence[Segment],
    scores: Sequence[TokenScores],
    amounts: Float64,
    shares: Mapping[int, Sequence[CreditShare]],
) -> list[TrainingRow]:
    owners = {(session.stream, session.position): index for index, session in enumerate(sessions)}
    baseline = credit_baseline(sessions, amounts)
    undecided = [session.hindsight.decided_after for session in sessions]  # action tokens left until it is decided
    rows: list[TrainingRow] = []
    for segment, score in zip(segments, scores, strict=True):
        owner = owners[segment.stream, segment.position]
        decided_after = min(undecided[owner], segment.actions)
        decides = 0 < decided_after == undecided[owner]
        rows.append(
            TrainingRow(
                segment=segment,
                scores=score,
                credit=float(amounts[owner]) if decides else 0.0,
                credit_baseline=float(baseline[owner]) if decides else 0.0,
                decided_after=decided_after,
                wrote=bool(sessions[owner].writes),
                credit_shares=tuple(shares.get(owner, ())) if decides else (),
            )
        )
        undecided[owner] -= decided_after
    return rows
