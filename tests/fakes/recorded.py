"""A run that is recorded without being trained: its folder, and what its history has."""

from collections import Counter

from agile_ray.config import Env, Model, Run, RunConfig
from agile_ray.record import history, provenance
from agile_ray.record.folder import RunFolder
from agile_ray.record.recorder import RunRecorder
from agile_ray.types import Assigned, RunState, Update
from tests.fakes.stored import FAILED, ONE, rows

FRESH = RunState(imitation_steps=0, iteration=0, version=0)


def begun(folder):
    """The configuration of a run in a folder; it is written there."""
    config = RunConfig(run=Run(name="r", folder=folder / "runs"), model=Model(path=folder), env=Env(name="shop"))
    provenance.write(config)
    return config


def imitated(recorder, steps=2):
    """Record steps of imitation; the state after them."""
    state = FRESH
    for step in range(1, steps + 1):
        state = RunState(imitation_steps=step, iteration=0, version=0)
        recorder.imitation(state, Update(tokens=9, padding=0.0, seconds=0.25, metrics={"policy_loss": 1 / step}))
    return state


def trained(recorder, state, iterations, *, loss=0.0):
    """Record iterations; the state after them."""
    for _ in range(iterations):
        state = state.next()
        with recorder.timed("collect"):
            pass
        update = Update(tokens=10, padding=0.25, seconds=0.5, metrics={"kl_nats": state.iteration / 8, "loss": loss})
        assigned = Assigned(rows=rows(ONE), metrics={"credit_mean": 0.125})
        recorder.iteration(state, sessions=[ONE, FAILED], assigned=assigned, update=update)
    return state


def sessions(config, *, between=lambda: None):
    """Record a run that imitates, trains, is resumed without its last iteration, and evaluates an earlier one.

    `between` is called before it is resumed.
    """
    run = RunFolder.of(config)
    first = RunRecorder(run)
    kept = trained(first, imitated(first), 2)
    trained(first, kept, 1)
    first.close()
    between()
    second = RunRecorder(run)
    second.resume(kept)
    trained(second, kept, 2)
    second.evaluation(kept, "ppo", [ONE])
    second.close()
    return run


def recorded(run, part):
    """Each (name, step, value) that the history has, and how often."""
    lines = [history.scalars(line) for line in history.read(run.history)]
    return Counter(
        (name, line.step, float(value))
        for line in lines
        if line.imitation is (part == "imitation")
        for name, value in line.values.items()
    )
