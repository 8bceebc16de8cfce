"""Every session of a source with what is stored of it, one file of the run at a time."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from agile_ray.agent.tokenizer import Tokenizer
from launch.report.look import stored
from launch.report.look.parts import parts
from launch.report.look.stored import Stored
from launch.view.detail import Detail, ShownPart, describe
from launch.view.runs import Opened, Runs


def every(runs: Runs, opened: Opened) -> Iterator[Detail]:
    """The sessions of a source in the order of its table; parts without their tokens, which the run's own files have.

    Raises:
        ConfigError: a file is damaged, or the tokenizer is gone.
    """
    iterations = opened.table["iteration"].fill_null(0).to_numpy()
    for iteration in np.unique(iterations):
        rows = np.flatnonzero(iterations == iteration).tolist()
        sessions = stored.read(opened.stored(rows[0]))
        streams: defaultdict[str, dict[int, Stored]] = defaultdict(dict)
        for one in sessions:
            streams[one.session.stream][one.session.position] = one
        has_tokens = any(line.segment is not None for one in sessions for line in one.segments)
        tokenizer = runs.tokenizer(opened.run) if has_tokens else None
        for row, one in zip(rows, sessions, strict=True):
            yield describe(opened, row, one, _parts(one, tokenizer), others=streams[one.session.stream])


def _parts(one: Stored, tokenizer: Tokenizer | None) -> list[ShownPart]:
    return [] if tokenizer is None else [ShownPart(part=part, tokens=()) for part in parts(one, tokenizer)]
