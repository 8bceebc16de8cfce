"""`agile-ray show`: which sessions it lists, and what it shows of one."""

import json
from dataclasses import replace

import numpy as np
import pytest

from agile_ray.agent.functions import Function
from agile_ray.config import Env, Model, Run, RunConfig
from agile_ray.record import evaluations, provenance, store
from agile_ray.record.folder import RunFolder
from agile_ray.segments import cut
from agile_ray.types import (
    NO_WRITER,
    Counterfactual,
    Ending,
    MemoryUse,
    Outcome,
    Receipt,
    TokenScores,
    TrainingRow,
    Turn,
)
from launch.report.look import stored
from launch.report.look.parts import lacks, parts
from rollout.tokenizer import HFTokenizer
from tests.conftest import one_line
from tests.fakes.model_folder import write_model_folder
from tests.fakes.older import age
from tests.fakes.played import played
from tests.fakes.worlds import SESSION, changed

STREAM = "train/lamps/3"


def write_tokenizer(folder):
    """A model folder whose tokenizer transformers reads."""
    write_model_folder(folder)
    names = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return HFTokenizer(write_tokenizer(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def run(tmp_path, tokenizer):
    """A folder with its config and a tokenizer, but without sessions."""
    write_tokenizer(tmp_path / "runs" / "r" / "sft")
    config = RunConfig(
        run=Run(name="r", folder=tmp_path / "runs"), model=Model(path=tmp_path / "gone"), env=Env(name="shop")
    )
    provenance.write(config)
    return RunFolder.of(config)


def turn(tokenizer, prompt, *written, ask=0.125, reward=0.0, version=3):
    completion = []
    for one in written:
        if isinstance(one, int):
            completion.append(one)
        else:
            completion += [tokenizer.function_id(one)] if isinstance(one, Function) else tokenizer.encode(one)
    rewards = np.zeros(len(completion), np.float32)
    rewards[0] = reward
    return Turn(
        prompt_ids=np.array(prompt, np.int32),
        completion_ids=np.array(completion, np.int32),
        logprobs=np.full(len(completion), -0.25, np.float32),
        versions=np.full(len(completion), version, np.int32),
        rewards=rewards,
        ask_probability=ask,
    )


def then(tokenizer, before, reply):
    """The prompt of the turn that follows."""
    return [*before.prompt_ids.tolist(), *before.completion_ids.tolist(), *tokenizer.encode(reply)]


def asking(tokenizer, *, position=0, **changes):
    """A session that asks, writes and submits: its third turn's first token decides that it writes."""
    first = turn(tokenizer, [tokenizer.bos_id], Function.GET_QUESTION, ask=0.0)
    second = turn(tokenizer, then(tokenizer, first, "how bright?"), Function.SEEK_ADVICE, ask=0.75, reward=-0.3)
    third = turn(
        tokenizer, then(tokenizer, second, "advice: very"), Function.UPDATE_MEMORY, Function.SUBMIT_ANSWER, reward=1.0
    )
    return changed(
        SESSION,
        stream=STREAM,
        position=position,
        stream_length=4,
        turns=(first, second, third),
        answer="very",
        correct=True,
        receipts=(Receipt(key="k", price=300, source="gold", latency_s=0.5, advice="very", answer="very"),),
        writes=(MemoryUse(kind="qa", writer=position, similarity=1.0),),
        decided_after=3,
        **changes,
    )


def reading(tokenizer, writer, *, position, correct=True, known=True):
    """A session that reads what another one wrote, and answers from it."""
    first = turn(tokenizer, [tokenizer.bos_id], Function.RETRIEVE_MEMORY)
    second = turn(tokenizer, then(tokenizer, first, "history: very"), Function.SUBMIT_ANSWER, reward=float(correct))
    without = Counterfactual(writers=(writer,), similarity=0.875, prefix_ids=np.array([1, 2], np.int32))
    return changed(
        SESSION,
        stream=STREAM,
        position=position,
        stream_length=4,
        turns=(first, second),
        answer="very",
        correct=correct,
        reads=(MemoryUse(kind="qa", writer=writer, similarity=0.875),),
        known=known,
        counterfactuals=(without,) if writer != NO_WRITER else (),
    )


def rows(*sessions, credit):
    """Training rows with another value at each action token."""
    found = []
    for one in sessions:
        for segment in cut(one):
            line = np.arange(1, segment.actions + 1, dtype=np.float32) / 8
            scores = TokenScores(
                logprobs=-line, reference_logprobs=-line, own_values=line, write_probabilities=line / 2
            )
            found.append(
                TrainingRow(
                    segment=segment, scores=scores, credit=credit, credit_baseline=0.0, decided_after=1, wrote=True
                )
            )
    return found


def keep(run, iteration, *sessions, credit=0.5, shares=()):
    trained = rows(*(one for one in sessions if one.ending is not Ending.FAILED), credit=credit)
    trained = [replace(row, credit_shares=shares if row.credit else ()) for row in trained]
    advantages = [np.arange(row.segment.actions, dtype=np.float32) for row in trained]
    store.write(run, iteration, list(sessions), trained, advantages)


def test_a_session_is_split_by_who_wrote_its_tokens_with_what_is_stored_of_each_turn(run, tokenizer):
    keep(run, 1, asking(tokenizer))
    (one,) = stored.read(stored.Source(run=run, evaluation=None, iteration=1))
    found = parts(one, tokenizer)
    assert [(part.who, part.text) for part in found] == [
        ("policy", "[GetQuestion]"),
        ("question", "how bright?"),
        ("policy", "[SeekAdvice]"),
        ("expert", "advice: very"),
        ("policy", "[UpdateMemory][SubmitAnswer]"),
    ]
    turns = found[::2]
    assert [part.logprob for part in turns] == [-0.25, -0.25, -0.5]
    assert [part.ask_probability for part in turns] == [0.0, 0.75, 0.125]
    assert [part.value for part in turns] == [0.125, 0.25, 0.375]  # before the turn's first token
    assert [part.write_probability for part in turns] == [0.0625, 0.125, 0.1875]
    assert [part.advantage for part in turns] == [0.0, 1.0, 2.5]  # the mean over the turn's tokens
    assert [part.reward for part in turns] == [0.0, pytest.approx(-0.3), 1.0]
    assert [part.versions for part in turns] == [(3, 3)] * 3
    assert [part.decides for part in turns] == [False, False, True]
    assert one.credit == 0.5
    assert lacks(one, trained=True) == []


def test_the_deciding_turn_is_found_in_a_later_segment(run, tokenizer):
    whole = asking(tokenizer)
    apart = turn(tokenizer, [tokenizer.bos_id, *tokenizer.encode("anew")], Function.SUBMIT_ANSWER)
    session = replace(whole, turns=(whole.turns[0], apart))
    keep(run, 1, changed(session, decided_after=2), credit=0.0)
    (one,) = stored.read(stored.Source(run=run, evaluation=None, iteration=1))
    assert [(part.segment, part.decides) for part in parts(one, tokenizer) if part.who == "policy"] == [
        (0, False),
        (1, True),
    ]


def test_show_prints_a_session_with_those_that_it_read_and_those_that_read_it(call, run, tokenizer):
    keep(run, 1, asking(tokenizer, position=0))
    keep(run, 2, reading(tokenizer, 0, position=1), asking(tokenizer, position=2), reading(tokenizer, 2, position=3))
    code, out, _ = call("show", run.path, "--iteration", 2, "--session", 1)
    assert code == 0
    assert "read qa, similarity 0.875, of session 0 (right, asked and paid 0.3, question q, answer 'very')" in out
    assert "memory | history: very" in out
    code, out, _ = call("show", run.path, "--iteration", 2, "--session", 2)
    assert "P(ask) 0.750" in out
    assert "reward -0.3" in out
    assert [line for line in out.splitlines() if "<- credit" in line and "value 0.375" in line]
    assert "asked gold: paid 0.3, waited 0.50 s, advice 'very'" in out
    assert "wrote qa; read by 1 later sessions that are stored here" in out
    assert [
        line for line in out.splitlines() if line.startswith("session 3") and "compared with not reading it" in line
    ]


def test_an_ask_without_an_answer_is_shown_with_its_outcome(call, run, tokenizer):
    late = Receipt(key="k", price=0, source="http", latency_s=2, advice="", answer="", outcome=Outcome.LATE)
    keep(run, 1, replace(asking(tokenizer), receipts=(late,)))
    _, out, _ = call("show", run.path, "--session", 0)
    assert "asked http: paid 0, waited 2.00 s, no advice: late" in out


def test_an_ask_in_words_is_shown_with_them_and_its_answer_is_the_experts(call, run, tokenizer):
    first = turn(tokenizer, [tokenizer.bos_id], Function.GET_QUESTION)
    second = turn(
        tokenizer, then(tokenizer, first, "how bright?"), Function.SEEK_ADVICE, "very bright?", tokenizer.eos_id
    )
    third = turn(tokenizer, then(tokenizer, second, "advice: very"), "so?", tokenizer.eos_id)
    fourth = turn(tokenizer, then(tokenizer, third, "error"), Function.CLEAR_CONTEXT)
    asked = Receipt(key="k", price=300, source="http", latency_s=2, advice="very", answer="very", words="very bright?")
    one = changed(asking(tokenizer), turns=(first, second, third, fourth), receipts=(asked,))
    keep(run, 1, one)
    _, out, _ = call("show", run.path, "--session", 0)
    assert "asked http 'very bright?': paid 0.3, waited 2.00 s, advice 'very'" in out
    (kept,) = stored.read(stored.Source(run=run, evaluation=None, iteration=1))
    assert [part.who for part in parts(kept, tokenizer) if part.who != "policy"] == ["question", "expert", "tool"]


def test_what_memory_held_before_the_first_session_is_named(call, run, tokenizer):
    keep(run, 1, reading(tokenizer, NO_WRITER, position=1))
    _, out, _ = call("show", run.path, "--session", 1)
    assert "read qa, similarity 0.875, which memory held before the first session" in out


def test_a_writer_that_is_stored_nowhere_is_said_to_be(call, run, tokenizer):
    keep(run, 2, reading(tokenizer, 0, position=1))
    _, out, _ = call("show", run.path, "--session", 1)
    assert "of session 0, which is not stored" in out


@pytest.mark.parametrize(
    ("options", "positions"),
    [
        ((), [0, 1, 2, 3]),
        (("--wrong",), [1]),
        (("--asked",), [0]),
        (("--known",), [1, 2]),
        (("--known", "--wrong"), [1]),
        (("--failed",), [3]),
        (("--asked", "--wrong"), []),
    ],
)
def test_filters_are_combined(call, run, tokenizer, options, positions):
    lost = changed(reading(tokenizer, 0, position=3, known=False), ending=Ending.FAILED, error="ToolError: gone")
    sessions = [
        asking(tokenizer),
        reading(tokenizer, 0, position=1, correct=False),
        reading(tokenizer, 0, position=2),
        lost,
    ]
    keep(run, 1, *sessions)
    code, out, _ = call("show", run.path, *options)
    assert code == 0
    head, *lines = out.splitlines()
    assert head == f"iteration 1: {len(positions)} of 4 sessions"
    assert [int(line.split()[1]) for line in lines if line.startswith(STREAM)] == positions


def test_the_final_evaluation_is_shown_before_iterations_and_a_limit_is_said(call, run, tokenizer):
    keep(run, 1, asking(tokenizer))
    evaluations.keep(run, "ppo", [asking(tokenizer, position=i) for i in range(4)])
    _, out, _ = call("show", run.path, "--limit", 1)
    assert out.startswith("evaluation ppo: 4 of 4 sessions")
    assert "3 more; --limit shows them" in out
    _, out, _ = call("show", run.path, "--session", 2)
    assert "not stored: no values, advantages or credit: an evaluation computes none" in out
    assert "P(ask) 0.750" in out


def test_a_scripts_session_has_no_tokens_and_says_so(call, run):
    evaluations.keep(run, "oracle", played("oracle"))
    code, out, _ = call("show", run.path, "--evaluation", "oracle", "--stream", "test/0", "--session", 1)
    assert code == 0
    assert "not stored: no tokens: a script played it" in out


def test_an_older_file_says_what_it_lacks(call, run, tokenizer):
    keep(run, 1, asking(tokenizer))
    age(run.segment_file(1))
    _, out, _ = call("show", run.path, "--session", 0)
    assert "not stored: no probability of asking: versions before schema 4 do not store it" in out
    assert "not stored: no values and advantages: versions before schema 4 do not store them" in out
    assert "[SeekAdvice]" in out


def test_text_that_looks_like_markup_is_printed_as_it_is(call, run, tokenizer):
    first = turn(tokenizer, [tokenizer.bos_id], Function.GET_QUESTION)
    odd = turn(tokenizer, then(tokenizer, first, "[red]x[/red] :smile:"), Function.SUBMIT_ANSWER)
    keep(run, 1, replace(asking(tokenizer), turns=(first, odd), answer="[bold]"))
    _, out, _ = call("show", run.path, "--session", 0)
    assert "[red]x[/red] :smile:" in out
    assert "answer '[bold]'" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--evaluation", "pop"), "--evaluation: one of ppo in"),
        (("--iteration", "9"), "--iteration: one that"),
        (("--iteration", "1", "--evaluation", "ppo"), "give --evaluation or --iteration, found both"),
        (("--stream", "lamps"), f"--stream: names one of 1 streams, such as {STREAM}; found lamps"),
        (("--session", "7"), f"--session: {STREAM} has sessions 0 to 0, found 7"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(call, run, tokenizer, options, said):
    evaluations.keep(run, "ppo", [asking(tokenizer)])
    keep(run, 1, asking(tokenizer))
    code, _, err = call("show", run.path, *options)
    assert code == 2
    assert said in one_line(err)


def test_a_folder_without_sessions_is_refused(call, run):
    code, _, err = call("show", run.path)
    assert code == 2
    assert "a run's folder holds sessions in segments or evaluation, found none" in one_line(err)


def test_a_stream_is_named_by_the_end_of_its_id():
    sessions = [
        stored.Stored(session=changed(SESSION, stream=name), segments=())
        for name in ("a/test/3", "b/test/3", "a/test/13")
    ]
    assert stored.find_stream(sessions, "13") == "a/test/13"
    assert stored.find_stream(sessions, "b/test/3") == "b/test/3"
