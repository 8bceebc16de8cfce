import re

import pytest
import yaml
from pydantic import ValidationError

from agile_ray.config import SPLITS, Env, RunConfig
from agile_ray.config_file import REPLACED, keys, load
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
        ("env.advice_cost=0.0005", "env.advice_cost: must be a whole number of thousandths, found 0.0005"),
        ("env.categories.tst=[a]", "env.categories: a split is one of train, validation, test; found tst"),
        (
            "env.categories=[a]",
            "env.categories: must be a mapping from split to categories, such as {test: [all_pans]}",
        ),
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
def test_a_bad_value_is_an_error_of_one_line_that_names_file_key_and_rule(tmp_path, override, says):
    with pytest.raises(ConfigError) as error:
        config(tmp_path, override)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 't.yaml'}: ")
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["- a\n", "run: {name: t", "", "run: {name: ${nowhere}}"])
def test_a_file_that_is_not_a_config_is_an_error_of_one_line(tmp_path, text):
    with pytest.raises(ConfigError) as error:
        config(tmp_path, text=text)
    assert "\n" not in str(error.value)


def test_a_loaded_config_is_frozen_and_its_hash_depends_on_its_content(tmp_path):
    one = config(tmp_path)
    with pytest.raises(ValidationError):
        one.env.advice_cost = 0.1  # pyright: ignore[reportAttributeAccessIssue]
    assert one.digest == config(tmp_path).digest
    assert one.digest != config(tmp_path, "seed=1").digest


@pytest.mark.parametrize("key", REPLACED)
def test_a_renamed_or_removed_key_is_refused_with_its_replacement(tmp_path, key):
    section, _, name = key.partition(".")
    sections = {"run": {"name": "t"}, "model": {"path": "m"}, "env": {"name": "shop"}}
    written = sections | {section: sections.get(section, {}) | {name: 1}}
    for text, overrides in ((yaml.safe_dump(written), ()), (MINIMAL, (f"{key}=1",))):
        with pytest.raises(ConfigError, match=re.escape(f"unknown key {key}; {REPLACED[key]}")):
            config(tmp_path, *overrides, text=text)


def test_the_replacement_of_a_renamed_key_exists():
    known = {*keys(RunConfig), *(f"env.categories.{split}" for split in SPLITS)}
    renamed = {key: re.fullmatch(r"it is named (\S+) now", said) for key, said in REPLACED.items()}
    assert {match[1] for match in renamed.values() if match} <= known
    assert known.isdisjoint(REPLACED)
    assert renamed["ppo.decay"]


@pytest.mark.parametrize("cost", [0.0, 0.1, 0.15, 0.29, 0.3, 0.55, 0.7, 0.999, 1.0])
def test_a_price_is_counted_in_thousandths(cost):
    assert Env(name="shop", advice_cost=cost).price / 1000 == cost


def test_categories_are_set_by_split(tmp_path):
    text = MINIMAL.replace("name: shop", "name: shop, categories: {test: [a, b], train: [c]}")
    one = config(tmp_path, "env.categories.test=[d]", "env.categories.validation=[e]", text=text)
    assert one.env.categories == {"train": ("c",), "validation": ("e",), "test": ("d",)}
    other = config(tmp_path, "env.categories={validation: [e], test: [d], train: [c]}", text=MINIMAL)
    assert other.digest == one.digest
    assert config(tmp_path).env.categories == {}


def test_a_base_is_found_next_to_the_file_or_by_name(tmp_path):
    (tmp_path / "low.yaml").write_text(MINIMAL + "ppo: {clip: 0.1, epochs: 7}\nloop: {evaluate_every: 3}\n")
    (tmp_path / "middle.yaml").write_text("base: low\nppo: {clip: 0.4}\nrun: {name: 't-${ppo.epochs}-${seed}'}\n")
    one = load(
        tmp_path / "middle.yaml", ["seed=5", "loop.evaluate_every=null"], find=lambda name: tmp_path / f"{name}.yaml"
    )
    assert (one.ppo.clip, one.ppo.epochs, one.run.name, one.loop.evaluate_every) == (0.4, 7, "t-7-5", None)
    (tmp_path / "top.yaml").write_text("base: low.yaml\n")
    assert load(tmp_path / "top.yaml").ppo.epochs == 7


@pytest.mark.parametrize(
    ("base", "says"), [("t.yaml", "a config can't be based on itself"), ("none.yaml", "none.yaml")]
)
def test_a_missing_or_circular_base_is_an_error_of_one_line(tmp_path, base, says):
    with pytest.raises(ConfigError, match=says) as error:
        config(tmp_path, text=f"base: {base}\n")
    assert "\n" not in str(error.value)
