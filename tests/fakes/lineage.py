"""Checks a run folder: each session that is still stored was trained on exactly once."""

from collections import Counter

import pyarrow.parquet as pq

from agile_ray.errors import ContractError
from agile_ray.record.folder import RunFolder


def check_lineage(run: RunFolder) -> int:
    """Check that a run's stored iterations follow one another and train no segment twice.

    Returns:
        Sessions trained on.

    Raises:
        ConfigError: a file's schema is another version's.
        ContractError: an iteration is missing, a segment was trained on twice, or a session only in part.
    """
    numbers = run.stored_iterations()
    if numbers != list(range(1, len(numbers) + 1)):
        raise ContractError(f"{run}: iterations must follow one another from 1, found {numbers}")
    times: Counter[tuple[str, int, int]] = Counter()
    lengths: dict[tuple[str, int], int] = {}
    for number in numbers:
        for line in pq.read_table(
            run.segment_file(number), columns=["stream", "position", "index", "last", "trained"]
        ).to_pylist():
            if line["trained"]:
                times[line["stream"], line["position"], line["index"]] += 1
            if line["trained"] and line["last"]:
                lengths[line["stream"], line["position"]] = line["index"] + 1
    twice = [key for key, count in times.items() if count > 1]
    if twice:
        raise ContractError(f"{run}: a segment is trained once, but {len(twice)} were trained again: {min(twice)}")
    whole = {(stream, position, index) for (stream, position), end in lengths.items() for index in range(end)}
    if whole != times.keys():
        example = min(whole ^ times.keys())
        raise ContractError(f"{run}: a session is trained whole or not at all, but not around segment {example}")
    return len(lengths)
