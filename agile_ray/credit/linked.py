"""Credit by links: memory affects the future only through retrieval, and the executor knows who wrote what it returned.

A reader of session i is a later session k of its stream to which memory returned an entry of i, and whose question is
similar to i's; only its first retrieval counts, and only before any ask. While k is played, an observer keeps x_k, the
prefix that k would have read if i had written nothing. Then

    A_i = sum over readers k of  [prod over readers l < k of (1 - p_l)] * (r_k - V_own(x_k))

with r_k the own reward of k, V_own(x_k) the critic's value at x_k, and p_l the probability, from the write head at x_l,
that session l writes an entry when it does not find i's. The product is the probability that the world without i's
entry still lacks an equivalent one when k begins; once it has one, both worlds are alike. There is no discount and no
cap on readers. credit/tail.py adds the readers that come after the collected sessions. docs/credit.md has the
derivation and the limits; tests/credit/test_worlds.py checks both exactly.

Example: p is constant, two readers, advice costs c, a guess is right with probability g. A session without the entry
earns s = p (1 - c) + (1 - p) g on average, so  A = (1 - s) + (1 - p)(1 - s) = (2 - p)(1 - s).

Rewards, values and credit are in units of the reward for a right answer.

Dimensions: S = sessions, R = pairs of a reader and a writer, J = readers that read from several writers at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from agile_ray.errors import ContractError
from agile_ray.types import NO_TURN, NO_VERSION, Counterfactual, Ending, Float64, Int64, Segment, Session, TokenScores


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Pairs of a reader and a writer; readers in stream order.

    Raises:
        ContractError: arrays that belong together differ in length.
    """

    writers: Int64  # [R], index of the writing session among the sessions
    readers: Int64  # [R], index of the reading session
    own_values: Float64  # [R], V_own at the reader's prefix without the writer's entries
    write_probabilities: Float64  # [R], p there
    joint_readers: Int64  # [J], index of a session that read from several writers
    joint_own_values: Float64  # [J], V_own at its prefix without any of them

    def __post_init__(self) -> None:
        shapes = {
            "writers": self.writers.shape,
            "readers": self.readers.shape,
            "own_values": self.own_values.shape,
            "write_probabilities": self.write_probabilities.shape,
        }
        if len(set(shapes.values())) != 1:
            raise ContractError.mismatch("Links", **shapes)
        if self.joint_readers.shape != self.joint_own_values.shape:
            raise ContractError.mismatch(
                "Links", joint_readers=self.joint_readers.shape, joint_own_values=self.joint_own_values.shape
            )

    def overlap(self, rewards_S: Float64) -> float:
        """Measure how far the gains of writers that were read at once fail to add up, reward per such reader.

        The mean of (sum of the gains over each writer alone) minus (gain over the prefix without all of them): below 0
        if either entry would have been enough, above 0 if only both together help. 0.0 if no session read from several
        writers. Each reader counts in full, as if it were the first.

        Only stored prefixes are compared. A prefix that is too long for a session is dropped, so a sum may lack a
        writer. The similarity of a joint prefix is the smallest of its writers', so the prefix is left out if that one
        is below the threshold.
        """
        if not len(self.joint_readers):
            return 0.0
        alone_S = np.zeros(len(rewards_S))
        np.add.at(alone_S, self.readers, rewards_S[self.readers] - self.own_values)
        together_J = rewards_S[self.joint_readers] - self.joint_own_values
        return float(np.mean(alone_S[self.joint_readers] - together_J))


def linked(rewards_S: Float64, links: Links) -> Float64:
    """Compute A_i of every session: the sum of its `shares`.

    Args:
        rewards_S: float64 [S], own rewards: right answer minus prices.
        links: readers and writers, by their indices in `rewards_S`.

    Returns:
        float64 [S]; 0 for sessions without readers.

    Raises:
        ContractError: a session reads what a later one, or itself, wrote.
    """
    amounts_S = np.zeros(len(rewards_S))
    np.add.at(amounts_S, links.writers, shares(rewards_S, links))
    return amounts_S


def shares(rewards_S: Float64, links: Links) -> Float64:
    """Compute what each reader adds to the A_i of the writer it read.

    Args:
        rewards_S: float64 [S], own rewards: right answer minus prices.
        links: readers and writers, by their indices in `rewards_S`.

    Returns:
        float64 [R].

    Raises:
        ContractError: a session reads what a later one, or itself, wrote.
    """
    if (links.readers <= links.writers).any():
        raise ContractError("linked: a session can read only what an earlier one wrote, but a link points backwards")
    lacking_S = np.ones(len(rewards_S))  # probability that the world without the writer's entry still lacks one
    shares_R = np.zeros(len(links.readers))
    for link in np.argsort(links.readers, kind="stable").tolist():
        writer, reader = links.writers[link], links.readers[link]
        shares_R[link] = lacking_S[writer] * (rewards_S[reader] - links.own_values[link])
        lacking_S[writer] *= 1.0 - links.write_probabilities[link]
    return shares_R


def lacking(links: Links, *, sessions: int) -> Float64:
    """Probability that the world without a session's entries still lacks them after its readers, float64 [S].

    Args:
        links: readers and writers.
        sessions: S.
    """
    lacking_S = np.ones(sessions)
    np.multiply.at(lacking_S, links.writers, 1.0 - links.write_probabilities)
    return lacking_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Imagined:
    """A counterfactual, with what the learner predicts at its prefix."""

    reader: int  # index of the session
    writers: tuple[int, ...]  # positions in its stream
    linked: bool  # the writers are among the sessions, and the questions are similar
    own_value: float  # V_own
    write_probability: float  # p

    @property
    def alone(self) -> int | None:
        """The writer, if it is a single one."""
        return self.writers[0] if len(self.writers) == 1 else None


def prefixes(sessions: Sequence[Session], *, threshold: float) -> list[Segment]:
    """Counterfactual prefixes that `imagine` needs scored, in its order; each ends with one token to predict."""
    return [_with_one_action(sessions[reader], one) for reader, one, _ in _read(sessions, threshold)]


def imagine(sessions: Sequence[Session], scores: Sequence[TokenScores], *, threshold: float) -> list[Imagined]:
    """Combine counterfactuals with the learner's scores of their prefixes.

    Args:
        sessions: in stream order within a stream.
        scores: one for each of `prefixes(sessions, threshold=threshold)`.
        threshold: minimum cosine of the two questions.

    Raises:
        ContractError: there are not as many scores as prefixes.
    """
    read = list(_read(sessions, threshold))
    if len(read) != len(scores):
        raise ContractError(f"linked: every counterfactual is scored once, found {len(scores)} scores for {len(read)}")
    return [
        Imagined(
            reader=reader,
            writers=one.writers,
            linked=pairs,
            own_value=float(score.own_values[0]),
            write_probability=float(score.write_probabilities[0]),
        )
        for (reader, one, pairs), score in zip(read, scores, strict=True)
    ]


def link(sessions: Sequence[Session], imagined: Sequence[Imagined]) -> Links:
    """Pair the readers and writers among the sessions.

    Args:
        sessions: in stream order within a stream.
        imagined: their counterfactuals, with scores.
    """
    indices = {(session.stream, session.position): index for index, session in enumerate(sessions)}
    near = [one for one in imagined if one.linked]
    alone = [one for one in near if one.alone is not None]
    joint = [one for one in near if one.alone is None]
    return Links(
        writers=np.array([indices[sessions[one.reader].stream, one.writers[0]] for one in alone], dtype=np.int64),
        readers=np.array([one.reader for one in alone], dtype=np.int64),
        own_values=np.array([one.own_value for one in alone], dtype=np.float64),
        write_probabilities=np.array([one.write_probability for one in alone], dtype=np.float64),
        joint_readers=np.array([one.reader for one in joint], dtype=np.int64),
        joint_own_values=np.array([one.own_value for one in joint], dtype=np.float64),
    )


def _read(sessions: Sequence[Session], threshold: float) -> Iterator[tuple[int, Counterfactual, bool]]:
    """Yield (index of the reader, counterfactual, whether the two are linked) where a prefix is needed.

    Linked: all writers were collected and their questions are similar. Others are needed where a single writer's
    question is on the reader's item: they are evidence for credit/tail.py.
    """
    collected = {(session.stream, session.position) for session in sessions if session.ending is not Ending.FAILED}
    for index, session in enumerate(sessions):
        if session.ending is Ending.FAILED:  # what it earned can't be compared
            continue
        for one in session.hindsight.counterfactuals:
            pairs = one.similarity >= threshold and all((session.stream, w) in collected for w in one.writers)
            if pairs or (len(one.writers) == 1 and one.writers[0] in session.hindsight.same_item):
                yield index, one, pairs


def _with_one_action(session: Session, one: Counterfactual) -> Segment:
    length = len(one.prefix_ids) + 1  # scores belong to action tokens, so one is appended; its id does not matter
    mask = np.zeros(length, dtype=np.bool_)
    mask[-1] = True
    zeros = np.zeros(length, dtype=np.float32)
    return Segment(
        stream=session.stream,
        position=session.position,
        index=0,
        token_ids=np.append(one.prefix_ids, one.prefix_ids[:1]).astype(np.int32),
        action_mask=mask,
        turn_ids=np.where(mask, 0, NO_TURN).astype(np.int32),
        behavior_logprobs=zeros,
        versions=np.full(length, NO_VERSION, dtype=np.int32),
        rewards=zeros,
        ask_probabilities=np.full(length, np.nan, dtype=np.float32),
        last=True,
    )
