import pytest
from pydantic import ValidationError

from agile_ray.config_file import load
from agile_ray.errors import ConfigError

MINIMAL = "run: {name: t}\nmodel: {path: m}\nenv: {name: shop}\n"


def config(folder, *overrides, text=MINIMAL):
    path = folder / "t.yaml"
    path.write_text(text)
    return load(path, overrides)


def test_overrides_win_over_the_file_and_defaults_fill_the_rest(tmp_path):
    one = config(tmp_path, "env.advice_cost=0.5", "loop.iterations=3")
    assert (one.env.advice_cost, one.loop.iterations, one.credit.mode) == (0.5, 3, "heuristic")
    assert str(one.run_folder) == "runs/t"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("env.advise_cost=0.3", "unknown key env.advise_cost; the nearest known one is env.advice_cost"),
        ("env.advice_cost=1.5", "env.advice_cost: Input should be less than or equal to 1, found 1.5"),
        ("rollout.actors=0", "rollout.actors: Input should be greater than or equal to 1, found 0"),
        ("rollout.transport=nccl", "rollout.transport is nccl, but cluster.device is cpu"),
        ("ppo.minibatches=999999", "ppo.minibatches (999999) exceeds the sessions of one iteration"),
        ("learner.micro_batch_tokens=100", "exceeds learner.micro_batch_tokens (100)"),
        ("seed=true", "seed: neither true nor false, found True"),
        ("env.advice_cost=true", "env.advice_cost: neither true nor false, found True"),
        ("loop.evaluate_every=true", "loop.evaluate_every: neither true nor false, found True"),
        ("ppo.learning_rate=.inf", "ppo.learning_rate: Input should be a finite number, found inf"),
        ("run.name=a/b", "run.name: String should match pattern"),
        ("credit.mode=magic", "credit.mode: Input should be 'none', 'heuristic', 'fitted' or 'linked', found 'magic'"),
    ],
)
def test_a_bad_value_is_one_line_that_names_file_key_and_cure(tmp_path, override, says):
    with pytest.raises(ConfigError) as error:
        config(tmp_path, override)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 't.yaml'}: ")
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["- a\n", "run: {name: t", "", "run: {name: ${nowhere}}"])
def test_a_file_that_is_no_config_is_one_line(tmp_path, text):
    with pytest.raises(ConfigError) as error:
        config(tmp_path, text=text)
    assert "\n" not in str(error.value)


def test_a_loaded_config_is_frozen_and_its_hash_follows_its_content(tmp_path):
    one = config(tmp_path)
    with pytest.raises(ValidationError):
        one.env.advice_cost = 0.1  # pyright: ignore[reportAttributeAccessIssue]
    assert one.digest == config(tmp_path).digest
    assert one.digest != config(tmp_path, "seed=1").digest


def test_linked_credit_takes_no_discount(tmp_path):
    with pytest.raises(ConfigError, match=r"ppo.discount is 0.9, but credit.mode is linked"):
        config(tmp_path, "credit.mode=linked", "ppo.discount=0.9")
    assert config(tmp_path, "credit.mode=linked").ppo.discount == 1.0
    assert config(tmp_path, "credit.mode=fitted", "ppo.discount=0.9").credit.mode == "fitted"
