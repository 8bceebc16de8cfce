"""Credit by links: memory acts on the future only through retrieval, and the executor knows who wrote what it returned.

A reader of session i is a later session k of its stream to which memory returned what i wrote, and whose question is
similar to i's; only its first retrieval counts, before any ask. At play time the executor keeps x_k, what k would have
read if i had written nothing, if it fits into a session. Neither of the two may have failed. Then

    A_i = sum over readers k of  [prod over readers l < k of (1 - p_l)] * (r_k - V_own(x_k))

with r_k the own reward of k, V_own(x_k) what a session that starts so is expected to earn by itself, and p_l the chance
that session l, not finding i's entry, writes an equivalent one: the product is the chance that the world without i's
entry still lacks it when k begins. From then on both worlds are alike, so nothing more is owed to i. For p_l stands
what the write head says at x_l: the chance that the session writes anything.

Derivation. Let W be the world without i's entry and let T be its first reader that writes an equivalent one. Up to and
with T, reader k earns V_own(x_k) in W in expectation, and r_k with the entry; behind T both earn the same. So
E[difference] = sum_k P(T >= k) E[r_k - V_own(x_k)], and P(T >= k) = prod_{l<k} (1 - p_l), where V_own(x_k) includes the
price that k pays if it asks. No discount and no cap: either breaks the equality. It is exact where V_own and p are, and
where what other sessions do does not hang on i's entry other than by reading it.

Limits, each with its size in tests/test_credit_worlds.py. With advice that is right with chance a, it is exact for the
ask, averaged over advice; given the advice, reader k lacks (right - a) P(T < k): T's entry is taken for as good as i's.
T must replace all that i wrote: where it replaces one of two entries, the credit of the other ends too. A reader that
asks although it found i's entry, with chance q, cuts the terms behind it by 1 - q once more, since x_k then holds its
entry; (1 - p) / (1 - q) in place of 1 - p would mend it. This is so only where the two texts differ: memory refuses an
equal one, and x_k then lacks it as it should. A useless read above the threshold counts as a rival.

Example (p constant; two readers; s = p (1 - c) + (1 - p) g):  A = (1 - s) + (1 - p)(1 - s) = (2 - p)(1 - s).

Rewards, values and credit are in units of the reward for a right answer, chances in [0, 1].

Dimensions: S = sessions, R = pairs of a reader and a writer, J = readers that read from several writers at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from agile_ray.errors import ContractError
from agile_ray.types import NO_TURN, NO_VERSION, Counterfactual, Ending, Float64, Int64, Segment, Session, TokenScores


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Who read what whom wrote; readers in stream order.

    Raises:
        ContractError: arrays that belong together differ in length.
    """

    writers: Int64  # [R], place of the writing session among the sessions
    readers: Int64  # [R], place of the reading one
    own_values: Float64  # [R], V_own at the reader's prefix without the writer's entries
    write_probabilities: Float64  # [R], p there
    joint_readers: Int64  # [J], place of a session that read from several writers
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
        """By how much gains of writers that were read at once fail to add up, reward per such reader.

        The mean of (sum of the gains over each writer alone) minus (gain over the prefix without all of them): below 0
        where either entry would have done, above 0 where only both together help. 0.0 where nobody read from several.
        Each reader counts in full, as if it were the first.

        Only what was kept is compared. A prefix too long for a session is dropped by itself, whatever becomes of its
        reader's others, so a sum may lack a writer. A joint prefix is as similar as the least similar of its writers,
        so one below the threshold hides it.
        """
        if not len(self.joint_readers):
            return 0.0
        alone_S = np.zeros(len(rewards_S))
        np.add.at(alone_S, self.readers, rewards_S[self.readers] - self.own_values)
        together_J = rewards_S[self.joint_readers] - self.joint_own_values
        return float(np.mean(alone_S[self.joint_readers] - together_J))


def linked(rewards_S: Float64, links: Links) -> Float64:
    """A_i of every session.

    Args:
        rewards_S: float64 [S], own rewards: right answer minus prices.
        links: readers and writers, by their places in `rewards_S`.

    Returns:
        float64 [S]; 0 for sessions that nobody read.

    Raises:
        ContractError: a session reads what a later one, or itself, wrote.
    """
    if (links.readers <= links.writers).any():
        raise ContractError("linked: a session reads only what an earlier one wrote, but a link points backwards")
    amounts_S = np.zeros(len(rewards_S))
    lacking_S = np.ones(len(rewards_S))  # chance that the world without the writer's entry lacks it still
    for link in np.argsort(links.readers, kind="stable").tolist():
        writer, reader = links.writers[link], links.readers[link]
        amounts_S[writer] += lacking_S[writer] * (rewards_S[reader] - links.own_values[link])
        lacking_S[writer] *= 1.0 - links.write_probabilities[link]
    return amounts_S


def prefixes(sessions: Sequence[Session], *, threshold: float) -> list[Segment]:
    """The counterfactual prefixes that `link` needs scored, in its order: each with one token to predict behind it."""
    return [_ending_in_a_question(sessions[reader], one) for reader, one in _read(sessions, threshold)]


def link(sessions: Sequence[Session], scores: Sequence[TokenScores], *, threshold: float | None) -> Links:
    """Join reads with what the learner thinks of their counterfactuals.

    Args:
        sessions: in stream order within a stream.
        scores: of what `prefixes` returned for the same sessions and threshold.
        threshold: least cosine of the two questions; None: no links.

    Raises:
        ContractError: as many scores as prefixes are needed.
    """
    read = [] if threshold is None else list(_read(sessions, threshold))
    if len(read) != len(scores):
        raise ContractError(f"linked: every counterfactual is scored once, found {len(scores)} scores for {len(read)}")
    places = {(session.stream, session.position): place for place, session in enumerate(sessions)}
    scored = [(reader, one, score) for (reader, one), score in zip(read, scores, strict=True)]
    alone = [(r, places[sessions[r].stream, one.writers[0]], score) for r, one, score in scored if _single(one)]
    joint = [(reader, score) for reader, one, score in scored if not _single(one)]
    return Links(
        writers=np.array([writer for _, writer, _ in alone], dtype=np.int64),
        readers=np.array([reader for reader, _, _ in alone], dtype=np.int64),
        own_values=np.array([score.own_values[0] for *_, score in alone], dtype=np.float64),
        write_probabilities=np.array([score.write_probabilities[0] for *_, score in alone], dtype=np.float64),
        joint_readers=np.array([reader for reader, _ in joint], dtype=np.int64),
        joint_own_values=np.array([score.own_values[0] for _, score in joint], dtype=np.float64),
    )


def _single(one: Counterfactual) -> bool:
    return len(one.writers) == 1


def _read(sessions: Sequence[Session], threshold: float) -> Iterator[tuple[int, Counterfactual]]:
    """Yield (place of the reader, counterfactual) where all its writers were collected and asked a like question."""
    collected = {(session.stream, session.position) for session in sessions if session.ending is not Ending.FAILED}
    for place, session in enumerate(sessions):
        if session.ending is Ending.FAILED:  # it earned nothing that could be compared
            continue
        for one in session.hindsight.counterfactuals:
            if one.similarity >= threshold and all((session.stream, w) in collected for w in one.writers):
                yield place, one


def _ending_in_a_question(session: Session, one: Counterfactual) -> Segment:
    length = len(one.prefix_ids) + 1  # scores belong to action tokens: one stands in, whatever its id
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
        last=True,
    )
