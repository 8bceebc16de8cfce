"""Ratios of play: numbers 1, 5, 7, 8 and 9, all on the same sessions of one rollout actor.

1   sessions per second of the actor, over those of bare vLLM on the same turns with as many at once
5   prompt tokens that the prefix cache served, over the most that it could (benchmarks/prefixes.py)
7   sessions per second of the actor, over those of one prompt at a time with transformers' generate
8   action tokens in training rows, over the tokens that the engine sampled; and tokens sampled twice
9   collecting with what records an iteration, over collecting alone. Learning is left out, so the ratio of a whole
    iteration is lower
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from agile_ray.config import Credit
from agile_ray.credit.assign import CreditAssigner
from agile_ray.record.folder import RunFolder
from agile_ray.record.recorder import RunRecorder
from agile_ray.segments import cut
from agile_ray.types import Assigned, RunState, Segment, Session, TokenScores, Update
from benchmarks.overhead import Repeat, benchmark_actor, compare, timed
from benchmarks.prefixes import by_turn, cached_at_best
from benchmarks.ratios import Measured, Ratio

RELEASED = 12
"""Sessions that one repeat of number 7 replays, one turn after the other."""


def measure(numbers: Sequence[int], config: str, overrides: Sequence[str], *, repeats: int) -> list[Ratio]:
    """Measure some of the ratios of `RATIOS` on a Ray cluster and an engine of their own.

    Args:
        config: name of a shipped config, or path of a YAML file.
        overrides: keys to set; model.path names the policy that plays.
    """
    with benchmark_actor(config, overrides) as settings:
        played = list(compare(settings, repeats=repeats))
        model = settings.model
    return [RATIOS[number](played, model) for number in numbers]


def rollout_speed(played: Sequence[Repeat], model: Path) -> Ratio:
    """Number 1."""
    found = [(len(one.sessions) / one.played_s, len(one.sessions) / one.bare_s) for one in played]
    return Ratio(
        number=1,
        name="a rollout actor / bare vLLM on the same turns",
        bound="at least",
        aim=0.95,
        unit="sessions/s",
        repeats=tuple(Measured(ours=ours, baseline=bare, ratio=ours / bare) for ours, bare in found),
        remark=f"{_shape(played[-1])}, {_name(model)}",
    )


def prefix_hits(played: Sequence[Repeat], model: Path) -> Ratio:
    """Number 5."""
    block = played[0].block_tokens
    found = [(one, cached_at_best(by_turn(one.lanes), block=block)) for one in played]
    finest = cached_at_best(by_turn(played[-1].lanes), block=1) / played[-1].prompt_tokens
    return Ratio(
        number=5,
        name="prefix-cache hits / the ideal from the token ids",
        bound="at least",
        aim=0.95,
        unit="of prompt tokens",
        repeats=tuple(
            Measured(
                ours=one.cached_tokens / one.prompt_tokens,
                baseline=best / one.prompt_tokens,
                ratio=one.cached_tokens / best if best else 1.0,
            )
            for one, best in found
        ),
        remark=f"blocks of {block}; with blocks of 1 the ideal is {finest:.2f}; {_name(model)}",
    )


def against_released(played: Sequence[Repeat], model: Path) -> Ratio:
    """Number 7. The engine has ended, so that the baseline has the machine for itself."""
    import torch

    from benchmarks.bare_torch import generate, load

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    policy = load(model, dtype=torch.float32 if device.type == "cpu" else torch.bfloat16, device=device).eval()
    found, some = list[Measured](), list[Session]()
    for one in played:
        some = one.sessions[:: max(1, len(one.sessions) // RELEASED)][:RELEASED]
        turns = [turn for session in some for turn in session.turns]
        prompts = [turn.prompt_ids.tolist() for turn in turns]
        took_s = generate(policy, prompts, [len(turn.completion_ids) for turn in turns])
        ours, baseline = len(one.sessions) / one.played_s, len(some) / took_s
        found.append(Measured(ours=ours, baseline=baseline, ratio=ours / baseline))
    return Ratio(
        number=7,
        name="a rollout actor / one prompt at a time",
        bound="at least",
        aim=20,
        unit="sessions/s",
        repeats=tuple(found),
        remark=f"{_shape(played[-1])}; transformers' generate on {len(some)} of the sessions, {device.type}",
    )


def tokens_learned(played: Sequence[Repeat], model: Path) -> Ratio:
    """Number 8."""
    found: list[Measured] = []
    twice = 0
    for one in played:
        learned = sum(segment.actions for session in one.sessions for segment in cut(session))
        stored = sum(len(turn.completion_ids) for session in one.sessions for turn in session.turns)
        twice += one.sampled_tokens - stored
        found.append(Measured(ours=learned, baseline=one.sampled_tokens, ratio=learned / one.sampled_tokens))
    return Ratio(
        number=8,
        name="tokens learned / tokens sampled",
        bound="at least",
        aim=0.98,
        unit="tokens",
        repeats=tuple(found),
        remark=f"tokens sampled that no session holds, in all repeats: {twice} (aim 0); {_name(model)}",
    )


def recording(played: Sequence[Repeat], model: Path) -> Ratio:
    """Number 9."""
    found: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="agile-ray-") as folder:
        recorder = RunRecorder(RunFolder(Path(folder) / "run"))
        for number, one in enumerate(played, start=1):
            record_s = _seconds(lambda one=one, number=number: _record(recorder, number, one.sessions))
            whole_s = one.played_s + record_s
            found.append(Measured(ours=whole_s, baseline=one.played_s, ratio=whole_s / one.played_s))
        recorder.close()
    return Ratio(
        number=9,
        name="collecting with metrics and store / without",
        bound="at most",
        aim=1.02,
        unit="s",
        repeats=tuple(found),
        remark=f"{_shape(played[-1])}, {_name(model)}; without the time to learn, so the highest that it can be",
    )


RATIOS: dict[int, Callable[[Sequence[Repeat], Path], Ratio]] = {
    1: rollout_speed,
    5: prefix_hits,
    7: against_released,
    8: tokens_learned,
    9: recording,
}


def _name(model: Path) -> str:
    return "/".join(model.parts[-2:])


def _shape(one: Repeat) -> str:
    """What was played, in words."""
    sessions = one.sessions
    turns = sum(len(session.turns) for session in sessions)
    return f"{len(one.lanes)} lanes, {len(sessions)} sessions of {turns / len(sessions):.1f} turns"


def _record(recorder: RunRecorder, number: int, sessions: Sequence[Session]) -> None:
    """What the loop does with an iteration besides playing and learning: metrics, segments, history, TensorBoard."""
    segments = [segment for session in sessions for segment in cut(session)]
    assigned = _assigned(sessions, segments)
    advantages = tuple(np.zeros(segment.actions, np.float32) for segment in segments)
    tokens = sum(len(segment.token_ids) for segment in segments)
    update = Update(tokens=tokens, padding=0.0, seconds=1.0, metrics={}, advantages=advantages)
    state = RunState(imitation_steps=0, iteration=number, version=number)
    recorder.iteration(state, sessions=sessions, assigned=assigned, update=update)


def _assigned(sessions: Sequence[Session], segments: Sequence[Segment]) -> Assigned:
    return CreditAssigner(Credit(mode="heuristic")).assign(sessions, segments, [_zeros(one) for one in segments], [])


def _zeros(segment: Segment) -> TokenScores:
    zeros = np.zeros(segment.actions, np.float32)
    return TokenScores(logprobs=zeros, reference_logprobs=zeros, own_values=zeros, write_probabilities=zeros)


def _seconds(call: Callable[[], None]) -> float:
    taken_s, _ = timed(call)
    return taken_s
