"""Compares configurations by what each knob affects (`Affects`)."""

from agile_ray.config import RunConfig
from agile_ray.knobs import Affects, Knob, knobs


def may_change_on_resume(knob: Knob) -> bool:
    """Whether a run may be resumed with another value: the knob sets how long and where it runs, not what it learns."""
    return not knob.affects & Affects.TRAINING


def resume_conflicts(began: RunConfig, resumed: RunConfig) -> list[str]:
    """One sentence for each knob that differs although a resumed run must keep it. An expert may have moved."""
    return _differences(_wherever(began), _wherever(resumed), Affects.TRAINING)


def evaluation_changes(began: RunConfig, resumed: RunConfig) -> list[str]:
    """The knobs that differ and affect the final evaluation of given weights, a sentence each."""
    return _differences(began, resumed, Affects.EVALUATION)


def pair_conflicts(one: RunConfig, other: RunConfig, *, compared: str) -> list[str]:
    """One sentence for each knob that differs although a pair of compared runs must agree in it.

    Args:
        compared: the key that tells the two runs apart, and may differ.
    """
    return _differences(one, other, Affects.COMPARISON, free=compared)


def machines_of(config: RunConfig) -> dict[str, object]:
    """Values of the knobs that engines and learners are started with. Runs with equal values can share them.

    Of the experts it is whether asks carry words: an engine stops at an ask without.
    """
    return _values(config, Affects.MACHINES) | _worded(config)


def imitation_of(config: RunConfig) -> dict[str, object]:
    """Values of the knobs that the SFT policy and its critic depend on. Runs with equal values can share both.

    The price is one of them, also where the teacher asks at random: the returns that the critic learns contain it, and
    `linked` credit is own rewards minus what the critic expects. Of the experts only their prices are, and whether
    asks carry words: in imitation the gold answers stand in for all of them.
    """
    prices = [one.price.model_dump(mode="json") for one in config.env.expert.by_key.values()]
    return _values(config, Affects.IMITATION) | {"env.expert": prices} | _worded(config)


def evaluation_of(config: RunConfig, *keys: str) -> dict[str, object]:
    """Values of the knobs that the final evaluation of given weights depends on, and of these further ones."""
    sections = config.model_dump(mode="json")
    return _values(config, Affects.EVALUATION) | {key: _value(sections, key) for key in keys}


def sft_evaluation_of(config: RunConfig) -> dict[str, object]:
    """Values of the knobs that the SFT policy's evaluation depends on. Runs with equal values can share it."""
    return _values(config, Affects.IMITATION | Affects.EVALUATION)


def _worded(config: RunConfig) -> dict[str, object]:
    return {f"{key}.words": True for key, one in config.env.expert.by_key.items() if one.words}


def _wherever(config: RunConfig) -> RunConfig:
    env = config.env.model_copy(update={"expert": config.env.expert.wherever})
    return config.model_copy(update={"env": env})


def _differences(one: RunConfig, other: RunConfig, affects: Affects, *, free: str = "") -> list[str]:
    before, after = _values(one, affects), _values(other, affects)
    return [
        f"{key} was {value}, is {after[key]}"
        for key, value in sorted(before.items())
        if value != after[key] and key != free
    ]


def _values(config: RunConfig, affects: Affects) -> dict[str, object]:
    """Values of the knobs that affect any of these, by dotted key, as JSON has them."""
    sections = config.model_dump(mode="json")
    return {knob.key: _value(sections, knob.key) for knob in knobs(RunConfig) if knob.affects & affects}


def _value(values: dict[str, object], key: str) -> object:
    name, _, rest = key.partition(".")
    found = values[name]
    return _value(found, rest) if rest and isinstance(found, dict) else found
