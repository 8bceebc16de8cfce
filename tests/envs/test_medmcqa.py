"""MedMCQA on small files, and on the real ones where they are available."""

import json
from pathlib import Path

import pytest

import envs
from agile_ray.agent.environment import Submission, remembered, skipped, taught_split
from agile_ray.config import Agent, Env
from agile_ray.config import Memory as MemoryConfig
from agile_ray.errors import ConfigError
from agile_ray.scripted.references import Habits, reference
from agile_ray.types import NO_WRITER
from envs.medmcqa import LETTERS
from tests.envs.test_productqa import DATA
from tests.fakes.streams import play_streams, script_rules

REAL = DATA / "medmcqa" if (DATA / "medmcqa").is_dir() else DATA.parent / "medmcqa"
AGENT = Agent(turn_tokens=128, session_tokens=1024)


def row(number: int, **changes: object) -> dict[str, object]:
    return {
        "id": f"q{number}",
        "question": f"Which &amp; drug number {number} ?",
        **{f"op{letter}": f"option {letter} of {number}" for letter in "abcd"},
        "cop": 1 + number % 3,
        "exp": None if number % 2 else f"drug {number} inhibits",
        "choice_type": "single" if number % 3 else "multi",
        "subject_name": "Pharmacology",
    } | changes


def write(file: Path, rows: list[dict[str, object]]) -> None:
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "train.jsonl", [row(number) for number in range(30)])
    write(tmp_path / "validation.jsonl", [row(number) for number in range(30, 34)])
    write(tmp_path / "test.jsonl", [row(number) for number in range(40, 46)])
    return tmp_path


def test_a_question_has_its_options_its_letter_and_its_explanation(folder: Path) -> None:
    question = envs.build(Env(name="medmcqa", data=folder), seed=0).stream(split="test", index=0).questions[0]
    assert question.shown.splitlines() == [
        "question : Which & drug number 40 ?",
        "A : option a of 40 | B : option b of 40 | C : option c of 40 | D : option d of 40",
    ]
    assert (question.answer, question.advice, question.knowledge) == ("B", "option b of 40", "drug 40 inhibits")
    assert question.guess in LETTERS
    assert 0.25 <= question.guess_probability <= 1


@pytest.mark.parametrize(("said", "right"), [("B", True), (" b\n", True), ("C", False), ("option b of 40", False)])
def test_an_answer_is_the_letter(folder: Path, said: str, right: bool) -> None:
    stream = envs.build(Env(name="medmcqa", data=folder), seed=0).stream(split="test", index=0)
    assert stream.judge(stream.questions[0], Submission(text=said, rows=None)) is right


def test_imitation_and_ppo_share_no_question_and_every_one_is_played(folder: Path) -> None:
    environment = envs.build(Env(name="medmcqa", data=folder), seed=0)
    parts = [
        {question.id for question in environment.stream(split=split, index=0).questions}
        for split in (taught_split(environment), "train", "validation", "test")
    ]
    assert sum(map(len, parts)) == len(set[str]().union(*parts)) == 40
    assert parts[0] | parts[1] == {f"q{number}" for number in range(30)}
    rounds = [environment.stream(split="train", index=index).questions for index in (0, 1)]
    assert rounds[0] != rounds[1]
    assert {*rounds[0]} == {*rounds[1]}


@pytest.mark.parametrize("split", ["imitation", "train", "test"])
def test_memory_starts_with_the_training_questions_but_never_a_sessions_own(folder: Path, split: str) -> None:
    environment = envs.build(Env(name="medmcqa", data=folder, stream_sessions=2), seed=0)
    stream = environment.stream(split=split, index=0)
    held = remembered(stream).questions
    assert len(held) == 30
    rules = script_rules(environment, agent=AGENT, memory=MemoryConfig(top_k=29, threshold=0.1))
    sessions = play_streams(
        reference("never_ask", environment, Habits()), environment, split=split, indices=[0], rules=rules, price=400
    )
    for session, question in zip(sessions, stream.questions, strict=True):
        read = rules.tokenizer.decode(session.turns[-1].prompt_ids.tolist())
        own = question.id in {one.id for one in held}
        assert read.count("history : Which") == 29
        assert f"history : {question.text} {question.advice}\n" not in read
        assert read.count("knowledge : drug") == (14 if own and question.knowledge else 15)
        assert {use.writer for use in session.reads} == {NO_WRITER}
        assert session.hindsight.counterfactuals == ()
        assert not session.hindsight.known
        assert session.hindsight.memory_sizes == {}


def test_memory_also_starts_filled_where_a_model_judges(folder: Path) -> None:
    environment = envs.build(Env(name="medmcqa", data=folder, judge="http://127.0.0.1:9/v1#m"), seed=0)
    assert len(remembered(environment.stream(split="test", index=0)).questions) == 30


def test_what_sessions_write_is_found_beside_what_memory_held(folder: Path) -> None:
    write(folder / "test.jsonl", [row(40), row(41, question="Which & drug number 40 again ?")])
    environment = envs.build(Env(name="medmcqa", data=folder), seed=0)
    rules = script_rules(environment, agent=AGENT, memory=MemoryConfig(top_k=1))
    asked = play_streams(
        reference("always_ask", environment, Habits()), environment, split="test", indices=[0], rules=rules, price=400
    )
    assert [use.writer for use in asked[0].reads] == [NO_WRITER, NO_WRITER]
    assert {use.writer for use in asked[1].reads} == {0}
    assert [session.reward for session in asked] == [600, 600]
    assert asked[1].hindsight.counterfactuals[0].writers == (0,)


def test_the_official_names_are_found_and_every_twentieth_question_validates(tmp_path: Path) -> None:
    write(tmp_path / "train.json", [row(number) for number in range(200)])
    write(tmp_path / "dev.json", [row(number) for number in range(200, 210)])
    write(tmp_path / "test.json", [{key: value for key, value in row(1).items() if key != "cop"}])
    environment = envs.build(Env(name="medmcqa", data=tmp_path), seed=0)
    validated = len(environment.stream(split="validation", index=0).questions)
    assert 3 <= validated <= 20
    assert len(remembered(environment.stream(split="test", index=0)).questions) == 200 - validated
    assert len(environment.stream(split="test", index=0).questions) == 10


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cop": 0}, "cop: the right option is 1 to 4, found 0"),
        ({"cop": None}, "cop: Input should be"),
        ({"opc": " "}, "opc: must hold a text, found ' '"),
        ({"id": "q0"}, "id: no two rows may have the same, found 'q0' again"),
    ],
)
def test_a_broken_row_is_named_and_may_be_left_out(folder: Path, changes: dict[str, object], said: str) -> None:
    write(folder / "train.jsonl", [row(0), row(1, **changes), *(row(number) for number in range(2, 30))])
    with pytest.raises(ConfigError, match=f"train.jsonl:2: {said}"):
        envs.build(Env(name="medmcqa", data=folder), seed=0)
    environment = envs.build(Env(name="medmcqa", data=folder, skip_bad=True), seed=0)
    assert len(skipped(environment)) == 1
    assert len(remembered(environment.stream(split="test", index=0)).questions) == 29


def test_a_missing_folder_or_file_says_in_one_line_what_to_get(tmp_path: Path) -> None:
    for data in (None, tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match="github.com/medmcqa/medmcqa") as error:
            envs.build(Env(name="medmcqa", data=data), seed=0)
        assert "\n" not in str(error.value)


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason="no MedMCQA files; set AGILE_DATA")
def test_references_play_the_real_files_as_a_direct_count_says() -> None:
    environment = envs.build(Env(name="medmcqa", data=REAL), seed=0)
    rows = [json.loads(line) for line in (REAL / "test.jsonl").read_text().splitlines()]
    rules = script_rules(environment, agent=AGENT, memory=MemoryConfig())
    for policy, right, paid in (
        ("always_ask", len(rows), 400 * len(rows)),
        ("never_ask", sum(one["cop"] == 1 for one in rows), 0),
    ):
        sessions = play_streams(
            reference(policy, environment, Habits()), environment, split="test", indices=[0], rules=rules, price=400
        )
        assert (sum(one.correct for one in sessions), sum(one.paid for one in sessions)) == (right, paid)
