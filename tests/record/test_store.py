from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agile_ray.config import Agent, Memory
from agile_ray.errors import ConfigError, ContractError
from agile_ray.evaluation.score import score
from agile_ray.record import evaluations, resume, store
from agile_ray.record.checkpoints import FolderCheckpoints
from agile_ray.record.folder import RunFolder
from agile_ray.record.parquet.columns import SCHEMA_VERSION
from agile_ray.record.parquet.tables import VERSION_KEY
from agile_ray.record.receipts import Journals, read_journals
from agile_ray.scripted.references import Habits, reference
from agile_ray.segments import cut
from agile_ray.types import (
    Counterfactual,
    CreditShare,
    Ending,
    Origin,
    RunState,
    Session,
    TokenScores,
)
from envs.shop import Shop
from tests.fakes.checkpoint import export
from tests.fakes.lineage import check_lineage
from tests.fakes.older import age
from tests.fakes.stored import BLANK, FAILED, ONE, REWRITTEN, rows, session, turn
from tests.fakes.streams import play_streams, script_rules
from tests.fakes.worlds import changed

ARRAYS = ("token_ids", "action_mask", "turn_ids", "behavior_logprobs", "versions", "rewards", "ask_probabilities")
LATER = str(SCHEMA_VERSION + 1)
"""Version of a schema that this code does not know."""


def test_a_stored_iteration_reads_back_unchanged(tmp_path):
    trained = rows(ONE, REWRITTEN)
    assert store.write(RunFolder(tmp_path), 12, [ONE, REWRITTEN], trained) == 3
    assert RunFolder(tmp_path).segment_file(12).exists()
    for found, expected in zip(store.read(RunFolder(tmp_path), 12), trained, strict=True):
        assert found.trained
        assert found.credit == pytest.approx(expected.credit)
        for name in ARRAYS:
            stored, original = getattr(found.segment, name), getattr(expected.segment, name)
            assert stored.dtype == original.dtype
            assert stored.tobytes() == original.tobytes()
        assert (found.segment.index, found.segment.last) == (expected.segment.index, expected.segment.last)
    fields = [name for name in Session.__slots__ if name != "turns"]
    assert [getattr(store.read(RunFolder(tmp_path), 12)[0].session, name) for name in fields] == [
        getattr(ONE, n) for n in fields
    ]


def test_files_of_versions_that_did_not_store_guesses_are_read(tmp_path):
    run, one = RunFolder(tmp_path), changed(ONE, guess_probability=0.75)
    store.write(run, 1, [one], rows(one))
    store.write_sessions(run.evaluation_file("ppo"), [one])
    assert [found.hindsight.guess_probability for found in store.outcomes(run, 1)] == [0.75]
    for path in (run.segment_file(1), run.evaluation_file("ppo")):
        pq.write_table(pq.read_table(path).drop_columns("guess_probability"), path)
    old = changed(one, guess_probability=None)
    assert store.outcomes(run, 1) == [changed(old, turns=())]
    assert [found.session for found in store.earned(run, 1)] == [changed(old, turns=())]
    assert evaluations.read(run, "ppo") == [changed(old, turns=())]
    assert len(store.sessions(run, 1)[0].turns) == len(one.turns)


def test_failed_sessions_are_stored_with_their_tokens_and_marked_untrained(tmp_path):
    assert store.write(RunFolder(tmp_path), 1, [FAILED, BLANK], []) == 2
    with_tokens, without = store.read(RunFolder(tmp_path), 1)
    assert with_tokens.segment.token_ids.tolist() == [1, 2]
    assert (with_tokens.trained, with_tokens.credit, with_tokens.session.error) == (False, None, "ToolError: gone")
    assert (without.segment, without.trained) == (None, False)


def listed(one):
    """The fields of a turn as bytes with their types, so that `==` compares them."""
    arrays = {name: np.asarray(getattr(one, name)) for name in type(one).__slots__}
    return {name: (array.dtype, array.tobytes()) for name, array in arrays.items()}


ids = st.lists(st.integers(0, 3), min_size=1, max_size=3)  # few, so that contexts extend one another by accident too
endings = st.sampled_from(list(Ending))


@st.composite
def played(draw, position):
    turns, seen = [], []
    for _ in range(draw(st.integers(0, 4))):
        prompt = (seen if draw(st.booleans()) else []) + draw(ids)
        turns.append(turn(prompt, draw(ids), ask=draw(st.sampled_from([0.125, 1.0, np.nan]))))
        seen = prompt + turns[-1].completion_ids.tolist()
    read = Counterfactual(writers=(0, 2), similarity=0.75, prefix_ids=np.array(draw(ids), np.int32))
    one = session(*turns, position=position, ending=draw(endings))
    return changed(one, counterfactuals=(read,) * draw(st.integers(0, 2)))


@given(st.tuples(*(played(position) for position in (5, 0, 1))))
def test_sessions_read_back_with_equal_turns_and_fields(tmp_path_factory, expected):
    folder = RunFolder(tmp_path_factory.mktemp("store"))
    store.write(folder, 1, expected, rows(*expected))
    found = store.sessions(folder, 1)
    assert [one.position for one in found] == [5, 0, 1]
    for one, original in zip(found, expected, strict=True):
        assert [listed(turn) for turn in one.turns] == [listed(turn) for turn in original.turns]
        assert [c.prefix_ids.tolist() for c in one.hindsight.counterfactuals] == [
            c.prefix_ids.tolist() for c in original.hindsight.counterfactuals
        ]
        bare = {"turns": (), "counterfactuals": ()}
        assert changed(one, **bare) == changed(original, **bare)
    assert store.outcomes(folder, 1) == [changed(one, turns=(), counterfactuals=()) for one in expected]
    store.write(folder, 2, found, rows(*found))
    assert folder.segment_file(2).read_bytes() == folder.segment_file(1).read_bytes()


def learned(one, seed):
    """The rows of a session with scores and advantages that all differ, float32, exact in half precision."""
    draw = np.random.default_rng(seed)

    def values(row):
        return draw.integers(-999, 999, row.segment.actions).astype(np.float32) / 256

    scored = [
        replace(row, scores=TokenScores(**{name: values(row) for name in TokenScores.__slots__})) for row in rows(one)
    ]
    return scored, [values(row) for row in scored]


def test_what_the_learner_computed_for_each_action_token_reads_back(tmp_path):
    first, of_first = learned(ONE, 1)
    second, of_second = learned(REWRITTEN, 2)
    trained, advantages = [*second, *first], [*of_second, *of_first]  # rows need not be in the order of the sessions
    store.write(RunFolder(tmp_path), 1, [ONE, REWRITTEN, FAILED], trained, advantages)
    *found, untrained = store.read(RunFolder(tmp_path), 1)
    expected = [*zip(first, of_first, strict=True), *zip(second, of_second, strict=True)]
    for line, (row, own) in zip(found, expected, strict=True):
        for name in TokenScores.__slots__:
            assert getattr(line.scores, name).tobytes() == getattr(row.scores, name).tobytes()
        assert line.advantages.tobytes() == own.tobytes()
    assert (untrained.scores, untrained.advantages, untrained.credit_shares) == (None, None, None)


def test_what_each_reader_gives_of_the_credit_reads_back(tmp_path):
    shares = (CreditShare(reader=4, amount=0.25), CreditShare(reader=7, amount=-0.125))
    first, *others = rows(ONE)
    store.write(RunFolder(tmp_path), 1, [ONE], [replace(first, credit_shares=shares), *others])
    assert [line.credit_shares for line in store.read(RunFolder(tmp_path), 1)] == [shares, *[()] * len(others)]


def test_what_the_learner_computed_is_stored_with_at_least_three_digits(tmp_path):
    played = session(turn([1], [2] * 400))
    [row], _ = learned(played, 3)
    exact = np.random.default_rng(4).normal(size=400).astype(np.float32)
    row = replace(row, scores=replace(row.scores, own_values=exact))
    store.write(RunFolder(tmp_path), 1, [played], [row], [exact[::-1]])
    [line] = store.read(RunFolder(tmp_path), 1)
    np.testing.assert_allclose(line.scores.own_values, exact, rtol=5e-4, atol=1e-7)
    np.testing.assert_allclose(line.advantages, exact[::-1], rtol=5e-4, atol=1e-7)


def test_advantages_of_some_rows_only_are_refused(tmp_path):
    trained, advantages = learned(REWRITTEN, 1)
    with pytest.raises(ContractError, match="got 1 for 2 rows"):
        store.write(RunFolder(tmp_path), 1, [REWRITTEN], trained, advantages[:1])


@pytest.mark.parametrize(("one", "segments"), [(ONE, 1), (REWRITTEN, 2), (FAILED, 0), (BLANK, 0)])
def test_stored_sessions_are_cut_into_the_same_segments(tmp_path, one, segments):
    store.write(RunFolder(tmp_path), 1, [one], rows(one))
    (found,) = store.sessions(RunFolder(tmp_path), 1)
    again, before = list(cut(found)), list(cut(one))
    assert len(again) == len(before) == segments
    for left, right in zip(again, before, strict=True):
        for name in ARRAYS:
            assert getattr(left, name).tobytes() == getattr(right, name).tobytes()
    assert len(found.turns) == len(one.turns)


def test_a_row_of_no_session_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ContractError, match="1 do not"):
        store.write(RunFolder(tmp_path), 1, [], rows(ONE))
    assert list(tmp_path.iterdir()) == []


def test_iterations_after_a_checkpoint_are_discarded_and_counted(tmp_path):
    run = RunFolder(tmp_path)
    for iteration in (1, 2, 3):
        store.write(run, iteration, [ONE, REWRITTEN], rows(ONE, REWRITTEN))
    (run.segments / ".iteration-00004.parquet.dead.aside").write_bytes(b"half")
    assert resume.discard_after(run, 1) == 6
    assert [path.name for path in run.segments.iterdir()] == ["iteration-00001.parquet"]
    assert resume.discard_after(run, 1) == 0
    assert resume.discard_after(RunFolder(tmp_path / "nowhere"), 0) == 0


def half(content):
    return content[: len(content) // 2]


DAMAGES = pytest.mark.parametrize("damaged", [half, lambda _: b"", lambda content: b"\0" * len(content)])


@DAMAGES
def test_a_damaged_file_after_the_checkpoint_is_discarded_and_counted_and_the_receipts_of_others_are_kept(
    tmp_path, damaged
):
    run = RunFolder(tmp_path)
    for iteration in (1, 2, 3):
        store.write(run, iteration, [ONE], rows(ONE))
    path = run.segment_file(3)
    path.write_bytes(damaged(path.read_bytes()))
    for receipt in ONE.receipts:
        Journals(run, "0.0.ab").buy(4, receipt)
    assert resume.damaged_after(run, 1) == ("iteration-00003.parquet",)
    assert resume.discard_after(run, 1) == 1
    assert run.stored_iterations() == [1]
    assert sorted(run.journals().values()) == [2, 4]
    assert read_journals(run.journals()).receipts == ONE.receipts


@DAMAGES
def test_a_damaged_file_before_the_checkpoint_is_named(tmp_path, damaged):
    run = RunFolder(tmp_path)
    state = RunState(imitation_steps=0, iteration=2, version=2)
    learners = SimpleNamespace(export=export, save=lambda folder: (folder / "one").write_text("1"))
    lanes = SimpleNamespace(save=lambda folder, earlier: (folder / "one").write_text("1"))
    credit = SimpleNamespace(state=lambda: b"1")
    FolderCheckpoints(
        run, keep=1, learners=learners, lanes=lanes, credit=credit, resumed=lambda _: None, sft=run.sft
    ).save(state, score=None)
    for iteration in (1, 2, 3):
        store.write(run, iteration, [ONE], rows(ONE))
    for iteration in (3, 2):
        resume.check_record(run, run.sft)
        path = run.segment_file(iteration)
        path.write_bytes(damaged(path.read_bytes()))
    with pytest.raises(ConfigError, match=r"iteration-00002.parquet: must be a whole Parquet file, .*put back a copy"):
        resume.check_record(run, run.sft)


@DAMAGES
def test_a_damaged_evaluation_is_not_taken_for_one_and_is_named(tmp_path, damaged):
    run = RunFolder(tmp_path)
    evaluations.keep(run, "oracle", [ONE])
    path = run.evaluation_file("oracle")
    path.write_bytes(damaged(path.read_bytes()))
    assert not evaluations.has(run, "oracle")
    with pytest.raises(ConfigError, match=r"oracle.parquet: must be a whole Parquet file, found \d+ bytes"):
        evaluations.kept(run)


def test_lineage_counts_the_sessions_that_were_trained(tmp_path):
    store.write(RunFolder(tmp_path), 1, [ONE, FAILED], rows(ONE))
    store.write(RunFolder(tmp_path), 2, [REWRITTEN], rows(REWRITTEN))
    assert check_lineage(RunFolder(tmp_path)) == 2


def test_lineage_refuses_a_session_trained_twice(tmp_path):
    store.write(RunFolder(tmp_path), 1, [ONE], rows(ONE))
    store.write(RunFolder(tmp_path), 2, [ONE], rows(ONE))
    with pytest.raises(ContractError, match="1 were trained again: \\('train/cups/0', 0, 0\\)"):
        check_lineage(RunFolder(tmp_path))


def test_lineage_refuses_a_session_trained_in_part(tmp_path):
    store.write(RunFolder(tmp_path), 1, [REWRITTEN], rows(REWRITTEN)[1:])
    with pytest.raises(ContractError, match="whole or not at all"):
        check_lineage(RunFolder(tmp_path))


def test_lineage_refuses_a_missing_iteration(tmp_path):
    store.write(RunFolder(tmp_path), 2, [ONE], rows(ONE))
    with pytest.raises(ContractError, match=r"from 1, found \[2\]"):
        check_lineage(RunFolder(tmp_path))


def test_sessions_of_an_evaluation_read_back_without_their_turns(tmp_path):
    path = RunFolder(tmp_path).evaluation_file("ppo")
    store.write_sessions(path, [ONE, BLANK])
    first, second = store.read_sessions(path)
    assert first.turns == ()
    assert (first.receipts, first.origin, first.price) == (ONE.receipts, Origin.ADVICE, 300)
    assert second == BLANK


@pytest.mark.parametrize("one", [ONE, REWRITTEN, FAILED, BLANK])
def test_sessions_of_an_evaluation_read_back_with_their_turns(tmp_path, one):
    run = RunFolder(tmp_path)
    evaluations.keep(run, "ppo", [one, changed(ONE, position=7)])
    found, other = evaluations.read_whole(run, "ppo")
    assert [listed(turn) for turn in found.turns] == [listed(turn) for turn in one.turns]
    assert replace(found, turns=()) == replace(one, turns=())
    assert other.position == 7
    assert [replace(found, turns=()), replace(other, turns=())] == evaluations.read(run, "ppo")


def aged(session):
    """What is read of a session that schema 3 stored, without turns."""
    return changed(replace(session, turns=()), same_item=(), guess_probability=None)


@pytest.mark.parametrize("version", ["3", None])
def test_segments_of_an_older_version_are_read_and_what_they_lack_is_unknown(tmp_path, version):
    run, played = RunFolder(tmp_path), [ONE, REWRITTEN, FAILED, BLANK]
    for iteration in (1, 2):
        store.write(run, iteration, played, rows(ONE, REWRITTEN), [row.scores.logprobs for row in rows(ONE, REWRITTEN)])
    age(run.segment_file(2), version=version)
    for before, old in zip(store.sessions(run, 1), store.sessions(run, 2), strict=True):
        silent = [replace(one, ask_probability=np.nan) for one in before.turns]
        assert [listed(one) for one in old.turns] == [listed(one) for one in silent]
        assert replace(old, turns=()) == aged(before)
    assert store.outcomes(run, 2) == [aged(one) for one in store.outcomes(run, 1)]
    assert [one.rewards.tolist() for one in store.earned(run, 2)] == [
        one.rewards.tolist() for one in store.earned(run, 1)
    ]
    assert [(line.trained, line.credit) for line in store.read(run, 2)] == [
        (line.trained, line.credit) for line in store.read(run, 1)
    ]
    assert {(line.scores, line.advantages, line.credit_shares) for line in store.read(run, 2)} == {(None, None, None)}


def test_a_reader_that_needs_what_an_older_version_did_not_store_is_told_its_name(tmp_path):
    run = RunFolder(tmp_path)
    store.write(run, 1, [ONE], rows(ONE))
    evaluations.keep(run, "ppo", [ONE, FAILED])
    assert store.table(run, 1, ["own_values", "credit"]).column_names == ["own_values", "credit"]
    age(run.segment_file(1))
    age(run.evaluation_file("ppo"))
    assert store.table(run, 1, ["credit"]).num_rows == 1
    with pytest.raises(
        ConfigError, match=r"00001.parquet: must have own_values, but was stored with schema 3, .*again"
    ):
        store.table(run, 1, ["own_values", "credit"])
    assert evaluations.read(run, "ppo") == [aged(ONE), aged(FAILED)]
    with pytest.raises(ConfigError, match=r"ppo.parquet: must have .*token_ids, .* stored with schema 3"):
        evaluations.read_whole(run, "ppo")


def test_a_column_that_had_another_name_is_named(tmp_path):
    run = RunFolder(tmp_path)
    store.write(run, 1, [ONE], rows(ONE))
    path = run.segment_file(1)
    table = pq.read_table(path)
    names = ["question" if name == "question_id" else name for name in table.column_names]
    pq.write_table(table.rename_columns(names).replace_schema_metadata({VERSION_KEY: "2"}), path)
    with pytest.raises(ConfigError, match=r"must have question_id, but was stored with schema 2"):
        store.outcomes(run, 1)


@pytest.mark.parametrize("version", [LATER, "next"])
def test_a_file_of_a_newer_version_is_refused(tmp_path, version):
    run = RunFolder(tmp_path)
    store.write(run, 1, [ONE], rows(ONE))
    evaluations.keep(run, "ppo", [ONE])
    for path in (run.segment_file(1), run.evaluation_file("ppo")):
        pq.write_table(pq.read_table(path).replace_schema_metadata({VERSION_KEY: version}), path)
    for read in (store.read, store.sessions, store.outcomes, store.earned, store.table):
        with pytest.raises(ConfigError, match=f"schema version must be at most 6, found {version}; read it with"):
            read(run, 1)
    with pytest.raises(ConfigError, match=f"at most 6, found {version}"):
        evaluations.kept(run)


def test_a_file_names_its_schema(tmp_path):
    run = RunFolder(tmp_path)
    store.write(run, 1, [ONE], rows(ONE))
    evaluations.keep(run, "ppo", [ONE])
    for path in (run.segment_file(1), run.evaluation_file("ppo")):
        assert pq.read_schema(path).metadata == {b"agile_ray_schema": b"6"}


def test_an_iteration_that_is_not_stored_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        store.read(RunFolder(tmp_path), 1)


def test_stored_sessions_keep_their_score_and_the_origin_of_their_answers(tmp_path):
    shop = Shop(seed=0)
    rules = script_rules(shop, agent=Agent(), memory=Memory())
    policy = reference("ask_unless_search", shop, Habits())
    sessions = play_streams(policy, shop, split="validation", indices=range(2), rules=rules, price=300)
    store.write_sessions(tmp_path / "played.parquet", sessions)
    found = store.read_sessions(tmp_path / "played.parquet")
    assert score(found) == score(sessions)
    assert {played.origin for played in found} == {Origin.ADVICE, Origin.ROWS}
    assert all((played.origin is Origin.ADVICE) == (played.asks == 1) for played in found)
