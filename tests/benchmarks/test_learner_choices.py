"""What settings of the learner cost, beside the config's own."""

import os

import psutil

from benchmarks.learner_choices import Cost, largest, table


def one(settings: str, speed: float) -> Cost:
    return Cost(
        settings=settings,
        examples=10,
        tokens=2350,
        imitate_per_s=speed,
        learn_per_s=speed / 2,
        score_per_s=speed * 2,
        memory_gib=3.25,
    )


def test_speeds_stand_beside_those_of_the_config() -> None:
    lines = table([one("as configured", 200.0), one("learner.ranks=2", 150.0)]).splitlines()
    assert lines[2:] == [
        "| as configured | 235 | 200 (1.00) | 100 (1.00) | 400 (1.00) | 3.2 |",
        "| learner.ranks=2 | 235 | 150 (0.75) | 75 (0.75) | 300 (0.75) | 3.2 |",
    ]


def test_only_ranks_count_as_memory() -> None:
    assert largest(psutil.Process(os.getpid())) == 0
