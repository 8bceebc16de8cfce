"""Whether an environment builds the same streams everywhere, and keeps its splits apart."""

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import envs
from agile_ray.agent.environment import Environment, Stream, taught_split
from agile_ray.config import Env, RunConfig
from launch.extend import finding

MEMORIZED = 0.2
"""By how much the commonest training answer may be right more often than the guess."""
OTHER_PROCESS_S = 120.0

Streams = Mapping[str, Sequence[Stream]]
"""Split -> its first streams."""


def first_streams(environment: Environment, split: str) -> list[Stream]:
    """The first streams of a split.

    Raises:
        ValueError: there is none.
    """
    available = environment.streams(split)
    if available is not None and (not isinstance(available, int) or available < 1):
        raise ValueError(f"streams({split!r}) is None or at least 1, found {available!r}")
    count = finding.STREAMS if available is None else min(available, finding.STREAMS)
    return [environment.stream(split=split, index=index) for index in range(count)]


def sizes(config: RunConfig) -> str:
    """How many questions each split of a config's environment has, in one line.

    Args:
        config: whose environment `check` finds no error in.
    """
    environment = envs.build(config.env, seed=config.seed)
    return "; ".join(f"{split}: {_size(environment, split)}" for split in ("train", "validation", "test"))


def _size(environment: Environment, split: str) -> str:
    questions = len(environment.stream(split=split, index=0).questions)
    streams = environment.streams(split)
    if streams == 1:
        return f"{questions} questions"
    return f"{'endless' if streams is None else streams} streams, {questions} questions in the first"


def undetermined(config: RunConfig, streams: Streams) -> Iterator[finding.Finding]:
    """Streams that are others when they are built again, here or in another process."""
    first = _printed(streams)
    again = _printed(_all_streams(envs.build(config.env, seed=config.seed), tuple(streams)))
    words = [sys.executable, "-c", f"from {__name__} import _print; _print()"]
    sent = json.dumps({"env": config.env.model_dump(mode="json"), "seed": config.seed, "splits": list(streams)})
    variables = os.environ | {
        "PYTHONHASHSEED": str(1 + int(os.environ.get("PYTHONHASHSEED", "0").replace("random", "0"))),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(
        words, input=sent, capture_output=True, text=True, check=False, timeout=OTHER_PROCESS_S, env=variables
    )
    other = done.stdout.strip().splitlines()[-1] if done.returncode == 0 and done.stdout.strip() else ""
    if again != first:
        yield finding.error(
            f"{_first_difference(first, again)}: the same arguments must give the same stream, found another when it "
            "was built again; draw from a generator that is seeded by (seed, split, index)"
        )
    elif not other:
        yield finding.error(f"streams: another process must be able to build them, found {done.stderr.strip()[-300:]}")
    elif other != first:
        yield finding.error(
            f"{_first_difference(first, other)}: every process must build the same stream, found another in a second "
            "one; the order of a set, and hash(), differ between processes: sort"
        )


def _all_streams(environment: Environment, splits: Sequence[str]) -> Streams:
    return {split: first_streams(environment, split) for split in splits}


def _printed(streams: Streams) -> str:
    return json.dumps(
        {
            split: [[stream.id, [asdict(one) for one in stream.questions]] for stream in ones]
            for split, ones in streams.items()
        }
    )


def _print() -> None:
    """Print the streams of the environment that standard input describes."""
    sent = json.load(sys.stdin)
    environment = envs.build(Env.model_validate(sent["env"]), seed=sent["seed"])
    print(_printed(_all_streams(environment, sent["splits"])))


def _first_difference(one: str, other: str) -> str:
    left, right = json.loads(one), json.loads(other)
    for split, streams in left.items():
        for stream, counterpart in zip(streams, right[split], strict=False):
            if stream != counterpart:
                return str(stream[0])
    return "streams"


def shared(environment: Environment, streams: Streams) -> Iterator[finding.Finding]:
    """Questions that the weights can memorize in training, and that are asked again in validation or test."""
    taught = [
        one for split in {"train", taught_split(environment)} for stream in streams[split] for one in stream.questions
    ]
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for one in taught:
        answers[one.shown][one.answer] += 1
    for split in ("validation", "test"):
        held = [one for stream in streams[split] for one in stream.questions if not one.query]
        known = [one for one in held if one.shown in answers]
        if not known:
            continue
        right = sum(answers[one.shown].most_common(1)[0][0] == one.answer for one in known) / len(known)
        guessed = sum(one.guess_probability for one in known) / len(known)
        if right > guessed + MEMORIZED:
            yield finding.error(
                f"{split}: training must not answer its questions, found {len(known)} of {len(held)} in training, "
                f"where the same text has the same answer in {right:.0%} (a guess: {guessed:.0%}), such as "
                f"{known[0].text!r}; keep questions apart, or draw their answers anew in every stream"
            )
