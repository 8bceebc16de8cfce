import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from agile_ray.config import Env, RunConfig
from agile_ray.config_file import FIXED, REPLACED, keys, load, read_spec
from agile_ray.errors import ConfigError
from agile_ray.knobs import knobs
from agile_ray.units import PARTS
from launch.commands.keys import default_of

MINIMAL = "run: {name: t}\nmodel: {path: m}\nenv: {name: shop}\n"


def config(folder, *overrides, text=MINIMAL):
    path = folder / "t.yaml"
    path.write_text(text)
    return load(path, overrides)


def test_none_is_nothing_in_an_expert_too_and_its_names_are_texts(tmp_path):
    chat = ["env.expert.name=chat", "env.expert.url=http://h/v1", "env.expert.model=1.5", "env.expert.tokens=none"]
    found = config(tmp_path, *chat, "env.expert.colleague=none").env.expert
    assert (found.model, found.tokens, found.colleague) == ("1.5", None, None)


def test_overrides_win_over_the_file_and_defaults_fill_the_rest(tmp_path):
    one = config(tmp_path, "env.advice_cost=0.5", "loop.iterations=3")
    assert (one.env.advice_cost, one.loop.iterations, one.credit.mode) == (0.5, 3, "heuristic")
    assert str(one.run_folder) == "runs/t"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("env.advise_cost=0.3", "unknown key env.advise_cost; the nearest known one is env.advice_cost"),
        ("env.advice_cost=1.5", "env.advice_cost: a price is from 0 to 1, found 1.5"),
        ("env.advice_cost=[0.1,1.5]", "env.advice_cost: a price is from 0 to 1, found 1.5"),
        (
            "env.advice_cost=[0.1,0.10]",
            "env.advice_cost: a list holds at least one price, and each once, found [0.1, 0.1]",
        ),
        ("env.advice_cost=[]", "env.advice_cost: a list holds at least one price, and each once, found []"),
        ("env.advice_cost=cheap", "env.advice_cost: a price is a number, found 'cheap'"),
        ("env.advice_cost=0.0005", "env.advice_cost: must be a whole number of thousandths, found 0.0005"),
        ("env.categories.tst=[a]", "env.categories: a split is one of imitation, train, validation, test; found tst"),
        (
            "env.categories=[a]",
            "env.categories: must be a mapping from split to categories, such as {test: [all_pans]}",
        ),
        ("rollout.actors=0", "rollout.actors: Input should be greater than or equal to 1, found 0"),
        ("rollout.transport=nccl", "rollout.transport is nccl, but cluster.device is cpu"),
        ("ppo.minibatches=999999", "ppo.minibatches (999999) exceeds the sessions of one iteration"),
        ("imitation.search_rows=9 agent.bar=[SearchProduct]", "imitation.search_rows teaches queries, which agent.bar"),
        ("learner.micro_batch_tokens=100", "exceeds learner.micro_batch_tokens (100)"),
        ("seed=true", "seed: neither true nor false, found True"),
        ("env.expert=[gold]", "env.expert: an expert is a name or a mapping, found ['gold']"),
        ("env.expert=recorded:", "env.expert: recorded:RUN names the folder of a past run, or the export of an inbox"),
        ("env.expert.colleague=recorded:", "env.expert.colleague: recorded:RUN names the folder of a past run, or"),
        ("env.expert.wrong=true", "env.expert.wrong: neither true nor false, found True"),
        ("env.expert.price=0.2", "env.expert: the base price of the expert is env.advice_cost; set that, found 0.2"),
        ("env.advice_cost=true", "env.advice_cost: neither true nor false, found True"),
        ("loop.evaluate_every=true", "loop.evaluate_every: neither true nor false, found True"),
        ("ppo.learning_rate=.inf", "ppo.learning_rate: Input should be a finite number, found inf"),
        ("run.name=a/b", "run.name: String should match pattern"),
        (
            "credit.mode=magic",
            "credit.mode: one of fitted, heuristic, linked, none, an entry point of the group agile_ray."
            "credit_modes, or package.module:name; found magic",
        ),
    ],
)
def test_a_bad_value_is_an_error_of_one_line_that_names_file_key_and_rule(tmp_path, override, says):
    with pytest.raises(ConfigError) as error:
        config(tmp_path, *override.split(" "))
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 't.yaml'}: ")
    assert says in message
    assert "\n" not in message


COLOCATED = ("cluster.colocate=true", "cluster.device=gpu", "rollout.actors=2", "learner.ranks=2")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("rollout.actors=1", "needs rollout.actors = learner.ranks, found 1 and 2"),
        ("rollout.tensor_parallel=2", "needs rollout.tensor_parallel = 1, found 2"),
        ("rollout.transport=nccl", "needs rollout.transport = ray_shm, found nccl"),
        ("loop.max_age=1", "needs loop.max_age = 0, found 1"),
        ("learner.zero_stage=3", "needs learner.zero_stage 1 or 2, found 3"),
    ],
)
def test_gpus_are_shared_only_by_pairs_that_can_leave_them(tmp_path, override, says):
    assert config(tmp_path, *COLOCATED).cluster.gpu_share == 0.5
    with pytest.raises(ConfigError, match=re.escape(says)):
        config(tmp_path, *COLOCATED, override)


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
    known = {*keys(RunConfig), *(f"env.categories.{split}" for split in PARTS)}
    renamed = {key: re.fullmatch(r"it is named (\S+) now", said) for key, said in REPLACED.items()}
    assert {match[1] for match in renamed.values() if match} <= known
    assert known.isdisjoint(REPLACED)
    assert renamed["ppo.decay"]


@pytest.mark.parametrize("key", FIXED)
def test_a_removed_key_may_keep_the_value_that_it_is_fixed_at(tmp_path, key):
    section, _, name = key.partition(".")

    def written(value):
        sections = {"run": {"name": "t"}, "model": {"path": "m"}, "env": {"name": "shop"}}
        return yaml.safe_dump(sections | {section: sections.get(section, {}) | {name: value}})

    assert config(tmp_path, text=written(FIXED[key])) == config(tmp_path)
    with pytest.raises(
        ConfigError, match=re.escape(f"unknown key {key}; {REPLACED.get(key, f'it is fixed at {FIXED[key]}')}")
    ):
        config(tmp_path, text=written(7))


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


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("run.name=0042", "0042"),
        ("run.name=1_5", "1_5"),
        ("run.name=off", "off"),
        ("run.name=1e5", "1e5"),
        ("run.name='12'", "12"),
        ("run.folder=/data/a #2", "/data/a #2"),
        ("run.folder=/data/k: v", "/data/k: v"),
        ("run.folder=[x]", "[x]"),
        ("run.folder=2024-01-31", "2024-01-31"),
        ("cluster.address=10.0.0.1:6379", "10.0.0.1:6379"),
        ("env.categories.test=[007, 1_0, no]", "('007', '1_0', 'no')"),
        ("seed=012", "12"),
        ("evaluate.sessions=2_000", "2000"),
        ("ppo.learning_rate=2e-5", "2e-05"),
    ],
)
def test_a_text_keeps_its_spelling_and_a_number_is_decimal(tmp_path, override, found):
    assert str(value(config(tmp_path, override), override)) == found


def value(found, override):
    for part in override.partition("=")[0].split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    return found


def test_a_text_keeps_its_spelling_in_a_file_and_when_a_stored_config_is_read_again(tmp_path):
    text = "run: {name: 007, folder: 1e3}\nmodel: {path: 010}\nenv: {name: shop, categories: {test: [01, yes]}}\n"
    one = config(tmp_path, text=text)
    assert (one.run.name, str(one.run.folder), str(one.model.path)) == ("007", "1e3", "010")
    assert one.env.categories == {"test": ("01", "yes")}
    assert config(tmp_path, text=one.yaml()) == one


@pytest.mark.parametrize("key", [knob.key for knob in knobs(RunConfig) if default_of(knob.field) == "none"])
@pytest.mark.parametrize("word", ["none", "None", "null", ""])
def test_a_key_whose_documented_default_is_none_takes_none(tmp_path, key, word):
    assert not value(config(tmp_path, f"{key}={word}"), key)
    section, name = key.split(".")
    text = MINIMAL.replace("name: shop", "name: shop, NAME") if section == "env" else MINIMAL + f"{section}: {{NAME}}\n"
    assert not value(config(tmp_path, text=text.replace("NAME", f"{name}: {word}")), key)


@pytest.mark.parametrize("key", ["run.folder", "model.path", "env.data"])
def test_a_tilde_is_the_home_folder_in_every_path(tmp_path, monkeypatch, key):
    monkeypatch.setenv("HOME", "/home/me")
    assert str(value(config(tmp_path, f"{key}=~/a b"), key)) == "/home/me/a b"
    assert "~" not in config(tmp_path, f"{key}=./~/a").yaml().replace(f"{Path.cwd()}/~/a", "")
    with pytest.raises(ConfigError, match=f"{key}: ~ must be the home folder of a user, found ~nobody-here/a"):
        config(tmp_path, f"{key}=~nobody-here/a")


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "a/..", "x" * 256, "ä", "''"])
def test_a_run_name_that_leads_elsewhere_or_fits_no_disk_is_one_line(tmp_path, name):
    with pytest.raises(ConfigError, match=r"run\.name: ") as error:
        config(tmp_path, f"run.name={name}")
    assert len(str(error.value)) < len(str(tmp_path)) + 250


@pytest.mark.parametrize("path", ["/d/\udce4", "/d/a\nb", "''"])
def test_a_path_that_no_file_can_hold_is_one_line(tmp_path, path):
    with pytest.raises(ConfigError, match=r"model\.path: a text must ") as error:
        config(tmp_path, f"model.path={path}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (MINIMAL + "seed: 1\nppo: {clip: 0.1}\nseed: 2\n", ()),
        (MINIMAL + "ppo: {clip: 0.1, epochs: 1, clip: 0.2}\n", ()),
        (MINIMAL, ("env.categories={test: [a], train: [b], test: [c]}",)),
    ],
)
def test_a_key_that_stands_twice_is_refused(tmp_path, text, overrides):
    with pytest.raises(ConfigError, match=r"every key stands once, found (seed|clip|test) twice"):
        config(tmp_path, *overrides, text=text)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    (tmp_path / "t.yaml").write_text(MINIMAL, encoding=encoding)
    assert load(tmp_path / "t.yaml").run.name == "t"


@pytest.mark.parametrize("temperature", [0.005, 0.0099])
def test_a_temperature_that_vllm_would_raise_is_refused(tmp_path, temperature):
    with pytest.raises(ConfigError, match=r"rollout.temperature: Input should be greater than or equal to 0.01"):
        config(tmp_path, f"rollout.temperature={temperature}")
    assert config(tmp_path, "rollout.temperature=0.01").rollout.temperature == 0.01


def test_of_several_included_files_the_later_wins_and_the_file_itself_last(tmp_path):
    (tmp_path / "one.yaml").write_text(MINIMAL + "ppo: {clip: 0.1, epochs: 7}\nloop: {iterations: 3}\n")
    (tmp_path / "two.yaml").write_text("ppo: {clip: 0.2, minibatches: 1}\nloop: {iterations: 4}\n")
    (tmp_path / "top.yaml").write_text("schema: 1\ninclude: [one.yaml, two.yaml]\nloop: {iterations: 5}\n")
    one = load(tmp_path / "top.yaml")
    assert (one.ppo.clip, one.ppo.epochs, one.ppo.minibatches, one.loop.iterations) == (0.2, 7, 1, 5)


def test_two_files_may_include_the_same_third_one_but_none_may_include_itself(tmp_path):
    (tmp_path / "low.yaml").write_text(MINIMAL)
    (tmp_path / "a.yaml").write_text("base: low.yaml\nseed: 3\n")
    (tmp_path / "b.yaml").write_text("base: low.yaml\nloop: {iterations: 4}\n")
    (tmp_path / "top.yaml").write_text("include: [a.yaml, b.yaml]\n")
    assert (load(tmp_path / "top.yaml").seed, load(tmp_path / "top.yaml").loop.iterations) == (3, 4)
    (tmp_path / "low.yaml").write_text("include: [b.yaml]\n")
    with pytest.raises(ConfigError, match=r"low.yaml: include: a config can't be based on itself, found b.yaml"):
        load(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("base: low.yaml\ninclude: [low.yaml]\n", "base is short for include with one name, found both"),
        ("include: [3]\n", "include: names or paths of configs are needed, found 3"),
        ("schema: 2\nbase: low.yaml\n", "schema: this version of agile-ray reads specs of schema 1, found 2"),
        (
            "base: low.yaml\nppo: {clip: '${ppo.gae_lambda}', gae_lambda: '${ppo.clip}'}\n",
            r"ppo.clip refers to itself through \$\{...\}; break the circle",
        ),
        ("base: low.yaml\nseed: '${sed}'\n", "seed: Interpolation key 'sed' not found"),
        ("base: low.yaml\nincludes: [a]\n", "unknown key includes; the nearest known one is include"),
        ("base: low.yaml\ngrid: {seed: [1, 2]}\n", "one run is needed, found a sweep; `agile-ray sweep` trains all"),
    ],
)
def test_a_wrong_spec_is_an_error_of_one_line_that_names_its_file(tmp_path, text, says):
    (tmp_path / "low.yaml").write_text(MINIMAL)
    (tmp_path / "top.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"top.yaml: .*{says}") as error:
        load(tmp_path / "top.yaml")
    assert "\n" not in str(error.value)


def test_a_spec_with_axes_is_read_as_a_run_if_an_override_names_the_run(tmp_path):
    (tmp_path / "low.yaml").write_text(MINIMAL)
    (tmp_path / "top.yaml").write_text(
        "base: low.yaml\nseed: 9\ngrid: {env.advice_cost: [0.1, 0.50]}\ntogether: true\n"
    )
    one = load(tmp_path / "top.yaml", ["run.name=one", "env.advice_cost=0.1"])
    assert (one.seed, one.env.advice_cost) == (9, 0.1)
    spec = read_spec(tmp_path / "top.yaml")
    assert spec.axes.grid == {"env.advice_cost": ("0.1", "0.50")}
    assert (spec.axes.together, spec.axes.vary, spec.origin) == (True, True, str(tmp_path / "top.yaml"))


def test_a_spec_that_only_adds_axes_starts_its_runs_from_what_it_includes(tmp_path):
    (tmp_path / "low.yaml").write_text(MINIMAL)
    (tmp_path / "top.yaml").write_text("include: [low.yaml]\ngrid: {seed: [1]}\n")
    assert read_spec(tmp_path / "top.yaml").origin == str(tmp_path / "low.yaml")


def test_axes_of_an_included_sweep_are_extended(tmp_path):
    (tmp_path / "low.yaml").write_text(MINIMAL + "grid: {seed: [1, 2], ppo.clip: [0.1]}\n")
    (tmp_path / "top.yaml").write_text("base: low.yaml\ngrid: {seed: [7]}\ncompare: {key: seed, to: 7}\n")
    axes = read_spec(tmp_path / "top.yaml").axes
    assert axes.grid == {"seed": ("7",), "ppo.clip": ("0.1",)}
    assert axes.compare.to == "7"
