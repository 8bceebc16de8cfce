"""The data that crosses process boundaries: turns, sessions, segments, training rows.

It needs NumPy only, not torch, Ray or vLLM.

Dimensions: P = prompt tokens, C = completion tokens, T = tokens of one segment, A = action tokens of one segment.

Alignment, everywhere: entry t of a [T] array describes token t, and
`behavior_logprobs[t]` is log pi(token t | tokens before t) in nats. Token 0 is never an action.

Prices and payments are integer thousandths of the reward for a right answer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from agile_ray.errors import ContractError

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

NO_VERSION = -1
"""Entry of `versions` where the executor, not the policy, wrote the token."""
NO_WRITER = -1
"""The `writer` of what memory held before the first session: no session, so no evidence for credit."""
NO_TURN = -1
"""Entry of `turn_ids` where the executor, not the policy, wrote the token."""

LONG_COUNTERFACTUAL = "long_counterfactual"
"""Remark of a session: a counterfactual prefix does not fit into `agent.session_tokens` and was dropped."""


class Ending(StrEnum):
    """Why a session stopped."""

    DONE = "done"  # the policy cleared its context
    CUT = "cut"  # a budget of tokens or turns ran out: trained on as terminal, with what it earned and paid
    FAILED = "failed"  # a tool or the expert broke: stored, never trained on


class Origin(StrEnum):
    """Where a submitted answer came from."""

    WORDS = "words"  # the policy predicted it
    ROWS = "rows"  # the tool found it
    ADVICE = "advice"  # the expert said it


class Outcome(StrEnum):
    """What came of an ask. Whatever is not `answered` gives the policy nothing to submit or to remember."""

    ANSWERED = "answered"
    ABSTAINED = "abstained"  # the expert does not know
    REFUSED = "refused"  # the expert does not want to answer
    CAPPED = "capped"  # the expert's own budget leaves no room
    LATE = "late"  # no answer by the deadline
    BROKEN = "broken"  # the expert broke


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One engine call: what the policy read, what it wrote, and what that earned.

    Example: the policy reads `[BOS]` and writes `[GetQuestion]`. The executor appends the question, so the next
    turn's prompt is `[BOS] [GetQuestion] question ...`: prompts extend one another.

    Raises:
        ContractError: the completion is empty, or its arrays differ in length.
    """

    prompt_ids: Int32  # [P], what the engine read
    completion_ids: Int32  # [C], what it sampled, at least one token
    logprobs: Float32  # [C], nats, under the version that sampled the token
    versions: Int32  # [C], of the policy that sampled the token
    rewards: Float32  # [C], own reward received at the token
    # of [SeekAdvice] as the first token of the completion, in [0, 1], by the version that sampled that token: at the
    # temperature of sampling, in a greedy turn at temperature 1; NaN if the policy gave none, as scripts do
    ask_probability: float = math.nan

    def __post_init__(self) -> None:
        if len(self.completion_ids) == 0:
            raise ContractError("Turn: a completion has at least one token, got none")
        shapes = {
            "completion_ids": self.completion_ids.shape,
            "logprobs": self.logprobs.shape,
            "versions": self.versions.shape,
            "rewards": self.rewards.shape,
        }
        if len(set(shapes.values())) != 1:
            raise ContractError.mismatch("Turn", **shapes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One ask, with or without an answer."""

    key: str  # of the ask, as `AskKey` writes it; a replayed ask has the same key and is charged once
    price: int  # thousandths that were paid; 0 if the ask was refunded
    source: str  # the expert that answered
    latency_s: float
    advice: str  # what the policy read
    answer: str  # what is submitted if the policy submits the advice
    rule: str = "constant"  # by which the price was reckoned
    outcome: Outcome = Outcome.ANSWERED
    words: str = ""  # what the policy wanted to know, as the expert read it; "" if it did not say
    # the error that kept the expert from answering; "" if there was none, or if people let the deadline pass. It is not
    # stored with sessions, so receipts are equal without it
    fault: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """An entry that a session read or wrote."""

    kind: str  # "qa" or "knowledge"
    writer: int  # position of the session that wrote it, or NO_WRITER
    similarity: float  # cosine to the question; 1.0 for a write


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterfactual:
    """What the policy would have read after [RetrieveMemory] if some earlier sessions had written nothing."""

    writers: tuple[int, ...]  # positions of those sessions, ascending: a single one, or all that were read
    similarity: float  # cosine of this session's question and the writer's; the least of several
    prefix_ids: Int32  # [P], the context including the reply, with next-best entries and a recounted status line


@dataclass(frozen=True, slots=True, kw_only=True)
class Hindsight:
    """Facts about a session that credit needs and the agent does not see: hidden items, the future, counterfactuals.

    An *item* is the hidden fact that a question's answer depends on (`Question.item`).
    """

    known: bool = False  # before the session, memory held an entry written on the same item
    # by topic: number of earlier sessions whose entries memory held
    memory_sizes: dict[str, int] = field(default_factory=dict)
    # M of AGILE, eq. 7: similar entries before the session; QA pairs of its product or knowledge, whichever are more
    stored_similar: int = 0
    later_similar: int = 0  # N of AGILE, eq. 7: similar questions that follow in the stream
    same_item: tuple[int, ...] = ()  # positions in the stream of all questions on the item, its own included, ascending
    counterfactuals: tuple[Counterfactual, ...] = ()
    # the submitted answer is a guess that is right with this probability, by luck alone; None: it is no such guess, or
    # an earlier version stored the session
    guess_probability: float | None = None
    # action tokens up to and including the one that decided whether the session writes memory: its first write, else
    # its submission, else its last action token
    decided_after: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One question and what the agent did with it.

    Raises:
        ContractError: `error` is set for a session that did not fail, or missing for one that did.
    """

    stream: str  # id of the episode's task
    position: int  # 0-based, in the stream
    stream_length: int
    question_id: str  # unique within the stream
    kind: str  # the question's kind, for reports
    topic: str  # the question's topic
    price: int  # of one ask, thousandths; `paid` is what was spent
    turns: tuple[Turn, ...]
    ending: Ending
    error: str | None  # set if and only if `ending` is FAILED
    answer: str | None  # what was submitted, rows as their ids with spaces between; None if nothing was
    correct: bool  # the submitted answer is right: it earned the highest reward
    receipts: tuple[Receipt, ...]
    reads: tuple[MemoryUse, ...]
    writes: tuple[MemoryUse, ...]
    # one word each: "bad_query", "refused", "past_stop", "memory_full" (of a write), "long_counterfactual", and those
    # of tools: "tool_late", "tool_crashed", "tool_cut"; for each ask without an answer "advice_" and its `Outcome`
    remarks: tuple[str, ...]
    origin: Origin | None = None  # of `answer`; None if nothing was submitted
    abandoned: tuple[Receipt, ...] = ()  # bought by earlier attempts at this session, but not by this one
    hindsight: Hindsight = Hindsight()
    graded: int | None = None  # thousandths that the answer earned; None: 1000 if it is right, else 0

    def __post_init__(self) -> None:
        if (self.error is not None) != (self.ending is Ending.FAILED):
            raise ContractError(f"Session: ending {self.ending}, but error is {self.error!r}")

    @property
    def asks(self) -> int:
        """Number of paid asks."""
        return len(self.receipts)

    @property
    def paid(self) -> int:
        """Thousandths paid for advice."""
        return sum(receipt.price for receipt in self.receipts)

    @property
    def earned(self) -> int:
        """Thousandths that the answer earned: 1000 if it is right and the judge gives no other rewards."""
        return 1000 * self.correct if self.graded is None else self.graded

    @property
    def reward(self) -> int:
        """Own reward, thousandths: what the answer earned, minus what was paid (AGILE, section 4.1)."""
        return self.earned - self.paid

    @property
    def own_reward(self) -> float:
        """Own reward, in units of the reward for a right answer."""
        return self.reward / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """An append-only run of tokens of one session.

    Example, `o` observed and `a` acted, price 0.3, right answer:
        token_ids    [BOS  [GetQuestion]  who  ?   [SeekAdvice]  Bob  [SubmitAnswer]]
        action_mask  [ -        a          -   -        a         -         a       ]
        turn_ids     [-1        0         -1  -1        1        -1         2       ]
        rewards      [ 0        0          0   0      -0.3        0         1       ]

    Raises:
        ContractError: arrays differ in length, mask and turns disagree, or token 0 is an action.
    """

    stream: str
    position: int  # of the session in its stream
    index: int  # 0-based, among the session's segments
    token_ids: Int32  # [T]
    action_mask: Mask  # [T], True where the policy sampled the token
    turn_ids: Int32  # [T], which of the session's turns wrote the token, from 0; NO_TURN off the mask
    behavior_logprobs: Float32  # [T], nats, 0.0 off the mask
    versions: Int32  # [T], NO_VERSION off the mask
    rewards: Float32  # [T], own reward, 0.0 off the mask
    ask_probabilities: Float32  # [T], `Turn.ask_probability` where a turn begins, NaN elsewhere
    last: bool  # the session's last segment

    def __post_init__(self) -> None:
        shapes = {
            "token_ids": self.token_ids.shape,
            "action_mask": self.action_mask.shape,
            "turn_ids": self.turn_ids.shape,
            "behavior_logprobs": self.behavior_logprobs.shape,
            "versions": self.versions.shape,
            "rewards": self.rewards.shape,
            "ask_probabilities": self.ask_probabilities.shape,
        }
        if len(set(shapes.values())) != 1:
            raise ContractError.mismatch("Segment", **shapes)
        if not np.array_equal(self.turn_ids != NO_TURN, self.action_mask):
            raise ContractError("Segment: a token has a turn if and only if the policy sampled it; turn_ids differ")
        if self.action_mask[0]:
            raise ContractError("Segment: token 0 has no context, so it cannot be an action")

    @property
    def actions(self) -> int:
        """A, the number of action tokens."""
        return int(self.action_mask.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenScores:
    """The learner's predictions for one segment before the update; entry k belongs to action token k.

    Raises:
        ContractError: arrays differ in length.
    """

    logprobs: Float32  # [A], nats, of the current policy
    reference_logprobs: Float32  # [A], nats, of the frozen reference policy
    own_values: Float32  # [A], the critic's estimate, before the token, of the session's own rewards from there on
    write_probabilities: Float32  # [A], in [0, 1], predicted before the token, that the session writes to memory

    def __post_init__(self) -> None:
        shapes = {
            "logprobs": self.logprobs.shape,
            "reference_logprobs": self.reference_logprobs.shape,
            "own_values": self.own_values.shape,
            "write_probabilities": self.write_probabilities.shape,
        }
        if len(set(shapes.values())) != 1:
            raise ContractError.mismatch("TokenScores", **shapes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """A segment that a teacher played, with the targets of imitation.

    Raises:
        ContractError: there are not as many returns as action tokens.
    """

    segment: Segment
    returns: Float32  # [A], own rewards from each action token to the end; a guess counts as its probability
    wrote: bool  # the session wrote to memory

    def __post_init__(self) -> None:
        if self.returns.shape != (self.segment.actions,):
            raise ContractError.mismatch("Demonstration", returns=self.returns.shape, actions=(self.segment.actions,))


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditShare:
    """The part of a session's credit that one later session gives."""

    reader: int  # position of that session in the stream
    amount: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """A segment with what PPO needs to learn from it.

    Example: the session asks, and its third action token writes to memory. Credit 0.2, where 0.05 was expected, is
    assigned to that token:
        action tokens   [GetQuestion] [SeekAdvice] [UpdateMemory] [SubmitAnswer] [ClearContext]
        own rewards      0            -0.3          0              1              0
        credit           -             -            0.2 - 0.05     -              -        decided_after = 3, wrote

    Raises:
        ContractError: there are not as many values as action tokens, or credit without an action token for it.
    """

    segment: Segment
    scores: TokenScores
    credit: float  # A_i of the session, if this segment holds the deciding token; else 0.0
    credit_baseline: float  # expected `credit` before the session began, on the same segment; else 0.0
    decided_after: int  # number of this segment's action tokens up to and including the deciding one, in [0, A]
    wrote: bool  # the session wrote to memory
    credit_shares: tuple[CreditShare, ...] = ()  # of `credit`; the rest no single reader gives

    def __post_init__(self) -> None:
        if self.scores.own_values.shape != (self.segment.actions,):
            raise ContractError.mismatch(
                "TrainingRow", own_values=self.scores.own_values.shape, actions=(self.segment.actions,)
            )
        if not 0 <= self.decided_after <= self.segment.actions or (self.credit != 0.0 and self.decided_after == 0):
            raise ContractError(
                f"TrainingRow: credit belongs to action token `decided_after` - 1, found {self.decided_after} of "
                f"{self.segment.actions} with credit {self.credit}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """The credit of one iteration."""

    rows: list[TrainingRow]
    metrics: dict[str, float]  # by the names in record/metrics.py


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """The result of one call of `Learners.learn` or `Learners.imitate`."""

    tokens: int  # tokens processed in forward-backward passes, padding excluded
    padding: float  # share of processed tokens, padding included, that were padding
    seconds: float  # wall time of the call
    metrics: dict[str, float]  # by the names in record/metrics.py
    # of `learn`: [A] of each row, in the order of the rows, whitened over the update; () of `imitate`
    advantages: tuple[Float32, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationScore:
    """How an iteration did on validation."""

    iteration: int
    total: float  # total score, of real outcomes
    # by unit (a stream, or a run of sessions of the only one): own reward without the luck of guesses, thousandths, and
    # sessions that did not fail; None: an earlier version kept only the total
    units: Mapping[str, tuple[float, int]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """The counters of a run."""

    imitation_steps: int  # finished optimizer steps of imitation
    iteration: int  # finished iterations of the PPO loop
    version: int  # of the policy; each iteration publishes the next

    def follows(self, other: "RunState") -> bool:
        """Whether a run that resumes from the other state has yet to reach this one."""
        return self.iteration > other.iteration or self.imitation_steps > other.imitation_steps

    def imitated(self) -> "RunState":
        """The state after one more SFT step."""
        return replace(self, imitation_steps=self.imitation_steps + 1)

    def next(self) -> "RunState":
        """The state after one more iteration."""
        return replace(self, iteration=self.iteration + 1, version=self.version + 1)
