"""What must hold of every run folder: each session of the surviving lineage is trained exactly once."""

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from agile_ray.errors import ContractError
from agile_ray.record.folder import stored


def check_lineage(folder: Path) -> int:
    """Check that a run's stored iterations follow one another and train no segment twice.

    Returns:
        Sessions trained on.

    Raises:
        ConfigError: a file's schema is another version's.
        ContractError: an iteration is missing, a segment was trained on twice, or a session only in part.
    """
    numbers = [number for number, _ in stored(folder)]
    if numbers != list(range(1, len(numbers) + 1)):
        raise ContractError(f"{folder}: iterations must follow one another from 1, found {numbers}")
    times: Counter[tuple[str, int, int]] = Counter()
    lengths: dict[tuple[str, int], int] = {}
    for _, path in stored(folder):
        for row in pq.read_table(path, columns=["stream", "position", "index", "last", "trained"]).to_pylist():
            if row["trained"]:
                times[row["stream"], row["position"], row["index"]] += 1
            if row["trained"] and row["last"]:
                lengths[row["stream"], row["position"]] = row["index"] + 1
    twice = [key for key, count in times.items() if count > 1]
    if twice:
        raise ContractError(f"{folder}: a segment is trained once, but {len(twice)} were trained again: {min(twice)}")
    whole = {(stream, position, index) for (stream, position), end in lengths.items() for index in range(end)}
    if whole != times.keys():
        example = min(whole ^ times.keys())
        raise ContractError(f"{folder}: a session is trained whole or not at all, but not around segment {example}")
    return len(lengths)
