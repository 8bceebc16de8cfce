"""HotpotQA on small files, and on the real ones where they are available."""

import json
from pathlib import Path

import pytest

import envs
from agile_ray.agent.environment import Found, SearchesWithin, Submission, skipped, taught_split
from agile_ray.config import Agent, Env
from agile_ray.config import Memory as MemoryConfig
from agile_ray.errors import ConfigError
from agile_ray.scripted.references import Habits, reference
from envs.hotpotqa import SEARCHES, exact, f1
from envs.predictions import exported
from tests.envs.test_productqa import DATA
from tests.fakes.endpoint import Reply, serving
from tests.fakes.streams import play_streams, script_rules

REAL = DATA / "hotpotqa" if (DATA / "hotpotqa").is_dir() else DATA.parent / "hotpotqa"
AGENT = Agent(turn_tokens=64, session_tokens=2048)


def row(number: int, **changes: object) -> dict[str, object]:
    return {
        "_id": f"h{number}",
        "question": f"Where was the author of Novel {number} born ?",
        "answer": f"City {number}",
        "type": "bridge",
        "level": "easy",
        "supporting_facts": [[f"Author {number}", 0], [f"Novel {number}", 1], [f"Author {number}", 1]],
        "context": [
            *([f"Other {place}", [f"Nothing about {number}."]] for place in range(6)),
            [f"Novel {number}", ["A book.", f" It is by Author {number}."]],
            [f"Author {number}", [f"Born in City {number}.", " Wrote."]],
        ],
    } | changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps(row(number)) for number in range(60)))
    (tmp_path / "hotpot_dev_distractor_v1.json").write_text(json.dumps([row(number) for number in range(60, 64)]))
    return tmp_path


def test_the_tool_looks_into_the_questions_own_paragraphs_and_shows_each_once(folder: Path) -> None:
    stream = envs.build(Env(name="hotpotqa", data=folder, stream_sessions=3), seed=0).stream(split="test", index=0)
    assert isinstance(stream, SearchesWithin)
    one, other = stream.questions[:2]
    found: list[Found] = []
    for query, text in (
        ("novel 61", "Novel 60 : A book. It is by Author 60."),
        ("novel 61", None),
        ("Author 60", "Author 60 : Born in City 60. Wrote."),
        (" ", "error : the query is empty"),
        ("Other 3", "Other 3 : Nothing about 60."),
        ("Other 4", f"error : at most {SEARCHES} searches"),
    ):
        result = stream.search_within(query, question=one, found=found)
        assert text is None or result.text == text
        assert result.rows is None
        assert result.text not in {earlier.text for earlier in found}
        found.append(result)
    assert stream.search_within("novel", question=other, found=[]).text.startswith("Novel 61 : ")


def test_scripts_search_read_and_answer(folder: Path) -> None:
    environment = envs.build(Env(name="hotpotqa", data=folder), seed=0)
    rules = script_rules(environment, agent=AGENT, memory=MemoryConfig())
    sessions = play_streams(
        reference("never_ask", environment, Habits()), environment, split="test", indices=[0], rules=rules, price=300
    )
    for session, number in zip(sessions, range(60, 64), strict=True):
        read = rules.tokenizer.decode(session.turns[-1].prompt_ids.tolist())
        assert read.index(f"[Search] Novel {number}") < read.index(f"[Search] Author {number}")
        assert f"Born in City {number}." in read
        assert (session.correct, session.answer, session.remarks) == (True, f"City {number}", ())


@pytest.mark.parametrize("stream_sessions", [None, 3])
def test_a_judging_model_leaves_the_task_as_it_is_and_judges_its_words(
    folder: Path, stream_sessions: int | None
) -> None:
    (folder / "train.jsonl").write_text("\n".join(json.dumps(row(number)) for number in range(60)) + "\n{}\n")
    with serving(Reply(said="The same.\nVERDICT: right")) as endpoint:
        env = Env(name="hotpotqa", data=folder, stream_sessions=stream_sessions, skip_bad=True)
        plain = envs.build(env, seed=0)
        judged = envs.build(env.model_copy(update={"judge": f"{endpoint.url}#m"}), seed=0)
        stream = judged.stream(split="test", index=0)
        asked = stream.questions[0]
        assert stream.judge(asked, Submission(text=asked.answer, rows=None))
        assert endpoint.asked == []
        assert stream.judge(asked, Submission(text=f"the town of {asked.answer}", rows=None))
        assert len(endpoint.asked) == 1
    assert taught_split(judged) == taught_split(plain) == "imitation"
    assert [*skipped(judged)] == [*skipped(plain)] != []
    rules = script_rules(judged, agent=AGENT, memory=MemoryConfig())
    policy = reference("ask_unless_search", judged, Habits())
    alone, wrapped = (
        play_streams(policy, world, split="test", indices=[0], rules=rules, price=300) for world in (plain, judged)
    )
    assert [one.correct for one in wrapped] == [one.correct for one in alone] == [True] * len(alone)
    assert [one.turns[-1].completion_ids.tolist() for one in wrapped] == [
        one.turns[-1].completion_ids.tolist() for one in alone
    ]
    assert exported(judged, wrapped) == exported(plain, alone) != {}


def test_a_paragraph_is_no_answer(folder: Path) -> None:
    stream = envs.build(Env(name="hotpotqa", data=folder), seed=0).stream(split="test", index=0)
    assert not stream.judge(stream.questions[0], Submission(text="City 60", rows=("City 60",)))
    assert stream.judge(stream.questions[0], Submission(text="the city, 60!", rows=None))
    assert stream.judge(stream.questions[0], Submission(text="City 60", rows=None, advised=True))


@pytest.mark.parametrize(
    ("said", "gold", "same", "share"),
    [
        ("The Beatles", "beatles.", True, 1.0),
        ("a  York, England", "York England", True, 1.0),
        ("New York City", "New York", False, 0.8),
        ("yes", "yes", True, 1.0),
        ("yes it is", "yes", False, 0.0),
        ("no", "yes", False, 0.0),
        ("", "York", False, 0.0),
    ],
)
def test_answers_are_compared_by_hotpotqas_rules(said: str, gold: str, same: bool, share: float) -> None:
    assert exact(said, gold) is same
    assert f1(said, gold) == pytest.approx(share)


def test_imitation_ppo_and_validation_play_different_questions(folder: Path) -> None:
    environment = envs.build(Env(name="hotpotqa", data=folder), seed=0)
    parts = [
        {question.id for question in environment.stream(split=split, index=0).questions}
        for split in ("imitation", "train", "validation", "test")
    ]
    assert sum(map(len, parts)) == len(set[str]().union(*parts)) == 64
    assert len(parts[0]) > len(parts[1]) > len(parts[2]) > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"supporting_facts": [["Gone", 0]]}, r"supporting_facts: each must be .* found \['Gone'\]"),
        ({"answer": ""}, "answer: must hold a text"),
        ({"context": "x"}, "context: Input should be"),
    ],
)
def test_a_broken_row_is_named_and_may_be_left_out(folder: Path, changes: dict[str, object], said: str) -> None:
    file = folder / "hotpot_dev_distractor_v1.json"
    file.write_text(json.dumps([row(60), row(61, **changes)]))
    with pytest.raises(ConfigError, match=f"{file.name}: row 2: {said}"):
        envs.build(Env(name="hotpotqa", data=folder), seed=0)
    environment = envs.build(Env(name="hotpotqa", data=folder, skip_bad=True), seed=0)
    assert len(skipped(environment)) == 1
    assert len(environment.stream(split="test", index=0).questions) == 1


def test_a_missing_folder_says_in_one_line_what_to_get(tmp_path: Path) -> None:
    for data in (None, tmp_path):
        with pytest.raises(ConfigError, match="hotpotqa.github.io"):
            envs.build(Env(name="hotpotqa", data=data), seed=0)


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason="no HotpotQA files; set AGILE_DATA")
def test_references_play_the_real_files() -> None:
    environment = envs.build(Env(name="hotpotqa", data=REAL), seed=0)
    rows = (REAL / "test.jsonl").read_text().splitlines()
    rules = script_rules(environment, agent=AGENT, memory=MemoryConfig())
    for policy, paid in (("always_ask", 300 * len(rows)), ("never_ask", 0)):
        sessions = play_streams(
            reference(policy, environment, Habits()), environment, split="test", indices=[0], rules=rules, price=300
        )
        assert (sum(one.correct for one in sessions), sum(one.paid for one in sessions)) == (len(rows), paid)
        assert not any(session.remarks for session in sessions)
