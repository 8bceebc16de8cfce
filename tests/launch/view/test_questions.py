"""Questions about a run, and what the viewer answers."""

from dataclasses import replace

import numpy as np
import pytest

from agile_ray.agent.functions import Function
from agile_ray.record import evaluations
from agile_ray.types import NO_WRITER, CreditShare, Ending, MemoryUse
from tests.fakes.older import age
from tests.fakes.played import played
from tests.fakes.worlds import changed
from tests.launch.test_show import STREAM, asking, keep, reading, then, turn
from tests.launch.view.conftest import ask, keys

FIRST = f"{STREAM}:0"


@pytest.mark.parametrize(
    ("writers", "used"), [((0,), "read"), ((1, 0), "read"), ((1,), "other"), ((1, NO_WRITER), None), ((), "nothing")]
)
def test_why_a_session_is_wrong_although_memory_held_the_answer(run, tokenizer, writers, used):
    reads = tuple(MemoryUse(kind="qa", writer=writer, similarity=0.5) for writer in writers)
    lost = changed(reading(tokenizer, 0, position=2, correct=False), reads=reads, same_item=(0, 2), known=True)
    evaluations.keep(run, "ppo", [asking(tokenizer), asking(tokenizer, position=1), lost])
    [found] = ask(run.path, "sessions", wrong=1, known=1)["rows"]
    assert (found["key"], found["result"]) == (f"{STREAM}:2", "predicted wrong")
    one = ask(run.path, "session", key=found["key"])["session"]
    assert one["memory_use"] == used
    assert [(read["given"], read["writer"] and read["writer"]["position"]) for read in one["reads"]] == [
        (writer == NO_WRITER, None if writer == NO_WRITER else writer) for writer in writers
    ]


def test_what_an_entry_that_was_read_had_cost_and_who_wrote_it(run, tokenizer):
    keep(run, 1, asking(tokenizer))
    keep(run, 2, reading(tokenizer, 0, position=1))
    one = ask(run.path, "session", source="training", key=f"{STREAM}:1:2")["session"]
    [read] = one["reads"]
    assert read["use"] == {"kind": "qa", "writer": 0, "similarity": 0.875}
    writer = read["writer"]
    assert (writer["key"], writer["asks"], writer["paid"], writer["advice"]) == (f"{STREAM}:0:1", 1, 0.3, "very")
    assert ask(run.path, "session", source="training", key=writer["key"])["session"]["receipts"][0]["source"] == "gold"


def test_which_asks_never_paid(run, tokenizer):
    asks = [asking(tokenizer, position=position) for position in range(3)]
    evaluations.keep(
        run, "ppo", [*asks, reading(tokenizer, 0, position=3), reading(tokenizer, 2, position=4, correct=False)]
    )
    assert keys(ask(run.path, "sessions", asked=1, served=0)) == [f"{STREAM}:1", f"{STREAM}:2"]
    assert keys(ask(run.path, "sessions", asked=1, served=1)) == [FIRST]


def test_where_credit_went_in_an_iteration(run, tokenizer):
    keep(run, 8, asking(tokenizer), credit=9.0)
    sessions = [asking(tokenizer, position=position) for position in (1, 2, 3)]
    keep(run, 9, sessions[0], credit=0.25)
    keep(run, 10, *sessions[1:], credit=0.5)
    found = ask(run.path, "sessions", source="training", iteration=9, sort="credit", descending=1)
    assert [(row["key"], row["credit"]) for row in found["rows"]] == [(f"{STREAM}:1:9", 0.25)]
    every = ask(run.path, "sessions", source="training", sort="credit", descending=1)
    assert [row["credit"] for row in every["rows"]] == [9.0, 0.5, 0.5, 0.25]


def test_which_entry_was_read_most(run, tokenizer):
    sessions = [asking(tokenizer, position=0), asking(tokenizer, position=1)]
    readers = [reading(tokenizer, writer, position=2 + index) for index, writer in enumerate((1, 0, 1, 1))]
    evaluations.keep(run, "ppo", [*sessions, *readers])
    first, second, *_ = ask(run.path, "sessions", sort="readers", descending=1)["rows"]
    assert (first["key"], first["readers"], second["key"], second["readers"]) == (f"{STREAM}:1", 3, FIRST, 1)
    read = ask(run.path, "session", key=first["key"])["session"]["readers"]
    assert [reader["row"]["position"] for reader in read] == [2, 4, 5]


@pytest.mark.parametrize("shares", [(CreditShare(reader=1, amount=0.25),), ()])
def test_from_which_readers_credit_comes(make_run, tokenizer, shares):
    run = make_run("r")
    later = [reading(tokenizer, 0, position=position) for position in (1, 2)]
    keep(run, 1, asking(tokenizer), *later, shares=shares)
    keep(run, 2, reading(tokenizer, 0, position=3))  # another iteration: it comes too late for credit
    one = ask(run.path, "session", source="training", key=f"{FIRST}:1")["session"]
    assert [(reader["row"]["key"], reader["similarity"]) for reader in one["readers"]] == [
        (f"{STREAM}:1:1", 0.875),
        (f"{STREAM}:2:1", 0.875),
        (f"{STREAM}:3:2", None),
    ]
    assert [reader["credit"] for reader in one["readers"]] == ([0.25, None, None] if shares else [None] * 3)
    assert (one["row"]["credit"], one["unshared"]) == (0.5, 0.25 if shares else 0.5)
    assert not [lack for lack in one["lacks"] if "share" in lack]


def test_where_two_policies_part(make_run, tokenizer):
    first, second = make_run("a"), make_run("b")
    silent = replace(asking(tokenizer, position=1), turns=asking(tokenizer).turns[:1], receipts=(), correct=False)
    evaluations.keep(first, "ppo", [asking(tokenizer), asking(tokenizer, position=1), asking(tokenizer, position=2)])
    evaluations.keep(first, "sft", [asking(tokenizer), silent])
    evaluations.keep(second, "ppo", [changed(asking(tokenizer), question_id="another"), silent])
    both = {"run": "a", "source": "ppo", "other_source": "sft"}
    found = ask([first.path, second.path], "sessions", **both, parted=1)
    [row] = found["rows"]
    assert (row["key"], row["result"], row["other_result"], row["other_asks"]) == (
        f"{STREAM}:1",
        "right",
        "predicted wrong",
        0,
    )
    one = ask([first.path, second.path], "session", **both, key=row["key"])
    assert one["parted"] == {"part": 1, "who": "question"}  # the shorter session ends before it
    assert [part["text"] for part in one["other"]["parts"]] == ["[GetQuestion]"]
    assert ask(first.path, "session", **both, key=FIRST)["parted"] is None
    gone = ask(first.path, "session", **both, key=f"{STREAM}:2")
    assert (gone["other"], gone["other_lacks"]) == (None, f"a, sft stores no session 2 of {STREAM}")
    across = {"run": "a", "source": "ppo", "other_run": "b", "other_source": "ppo"}
    assert keys(ask([first.path, second.path], "sessions", **across, parted=1)) == [f"{STREAM}:1"]
    other = ask([first.path, second.path], "session", **across, key=FIRST)
    assert other["other_lacks"] == "b, ppo has another question there: another, not q"


def test_which_sessions_failed_and_why(run, tokenizer):
    lost = changed(asking(tokenizer, position=1), ending=Ending.FAILED, error="ToolError: the table is gone")
    keep(run, 1, asking(tokenizer), lost)
    found = ask(run.path, "sessions", failed=1)
    assert [(row["result"], row["error"]) for row in found["rows"]] == [("failed", "ToolError: the table is gone")]
    assert found["summary"] == {"sessions": 1, "failed": 1, "right": None, "asked": None, "reward": None}
    assert keys(ask(run.path, "sessions", text="TABLE is gone")) == [f"{STREAM}:1:1"]
    assert keys(ask(run.path, "sessions", wrong=1)) == []


def test_which_kind_of_question_is_answered_wrong(run):
    evaluations.keep(run, "ppo", played("never_ask"))
    found = ask(run.path, "sessions")["by_kind"]
    shares = {kind: (one["sessions"], one["right"], one["asked"]) for kind, one in found.items()}
    assert shares == {"fact": (2, 0.5, 0.0), "search": (2, 0.0, 0.0)}
    assert keys(ask(run.path, "sessions", kind="search")) == ["test/0:1", "test/1:1"]


def test_how_memory_grew_along_a_stream(run, tokenizer):
    sizes = [{}, {"a": 1}, {"a": 1, "b": 2}]
    for iteration, memory in enumerate(sizes, start=1):
        keep(run, iteration, asking(tokenizer, position=iteration - 1, memory_sizes=memory))
    keep(run, 4, changed(asking(tokenizer), stream="train/lamps/13"))
    found = ask(run.path, "stream", source="training", stream="3")  # the end of the id
    assert found["stream"] == STREAM
    assert [(one["iteration"], one["memory"]) for one in found["sessions"]] == [(1, 0), (2, 1), (3, 3)]


def test_where_the_policy_nearly_asked(run, tokenizer):
    calm, near = reading(tokenizer, 0, position=1), reading(tokenizer, 0, position=2)
    near = replace(
        near, turns=tuple(replace(one, ask_probability=p) for one, p in zip(near.turns, (0.375, 0.0), strict=True))
    )
    evaluations.keep(run, "ppo", [asking(tokenizer), calm, near])
    found = ask(run.path, "sessions", asked=0, sort="ask_probability", descending=1)
    assert [(row["key"], row["ask_probability"]) for row in found["rows"]] == [
        (f"{STREAM}:2", 0.375),
        (f"{STREAM}:1", 0.125),
    ]


def test_what_each_token_of_a_session_was_worth(run, tokenizer):
    keep(run, 1, asking(tokenizer))
    one = ask(run.path, "session", source="training", key=f"{FIRST}:1")["session"]
    parts = one["parts"]
    assert [part["who"] for part in parts] == ["policy", "question", "policy", "expert", "policy"]
    assert "".join(token["text"] for token in parts[1]["tokens"]) == "how bright?"
    assert all(token.keys() == {"text"} for token in parts[1]["tokens"] + parts[3]["tokens"])
    first, second = parts[4]["tokens"]
    assert first == {
        "text": "[UpdateMemory]", "logprob": -0.25, "learner_logprob": -0.375, "reference_logprob": -0.375,
        "value": 0.375,
        "write_probability": 0.1875, "advantage": 2.0, "reward": 1.0, "version": 3,
    }  # fmt: skip
    assert (second["text"], second["value"], second["advantage"]) == ("[SubmitAnswer]", 0.5, 3.0)
    assert (parts[2]["ask_probability"], parts[4]["decides"], parts[0]["decides"]) == (0.75, True, False)
    assert parts[2]["reward"] == pytest.approx(-0.3)


def test_the_sessions_before_and_after_are_those_of_the_list(run, tokenizer):
    evaluations.keep(run, "ppo", [asking(tokenizer, position=position) for position in range(4)])
    shown = {"sort": "position", "descending": 1}
    found = ask(run.path, "session", key=f"{STREAM}:2", **shown)["neighbours"]
    assert found == {"index": 1, "before": f"{STREAM}:3", "after": f"{STREAM}:1", "found": 4}
    ends = [ask(run.path, "session", key=f"{STREAM}:{position}", **shown)["neighbours"] for position in (3, 0)]
    assert [(one["before"], one["after"]) for one in ends] == [(None, f"{STREAM}:2"), (f"{STREAM}:1", None)]
    assert ask(run.path, "session", key=FIRST, asked=0)["neighbours"]["index"] is None


def test_what_an_older_run_lacks_is_said_by_name(run, tokenizer):
    keep(run, 1, asking(tokenizer))
    evaluations.keep(run, "ppo", [asking(tokenizer)])
    age(run.segment_file(1))
    age(run.evaluation_file("ppo"))
    assert ask(run.path, "sessions", source="training")["lacks"] == [
        "no probability of asking: scripts have none, and versions before schema 4 do not store it"
    ]
    one = ask(run.path, "session", source="training", key=f"{FIRST}:1")["session"]
    assert "no values and advantages: versions before schema 4 do not store them" in one["lacks"]
    assert [part["text"] for part in one["parts"]][0] == "[GetQuestion]"
    [row] = ask(run.path, "sessions", source="ppo")["rows"]
    assert (row["asks"], row["ask_probability"]) == (1, None)
    [lack, *_] = ask(run.path, "session", source="ppo", key=FIRST)["session"]["lacks"]
    assert lack.startswith(
        "no tokens: a script played it, it failed before its first turn, or a version before schema 4"
    )


def test_a_tokenizer_that_is_gone_is_named_and_the_rest_is_shown(run, tokenizer):
    evaluations.keep(run, "ppo", [asking(tokenizer)])
    (run.sft.path / "tokenizer.json").unlink()
    one = ask(run.path, "session", key=FIRST)["session"]
    assert (one["parts"], one["row"]["answer"]) == ([], "very")
    assert "no text of tokens: the tokenizer can't be read (model.path: " in "".join(one["lacks"])


def test_a_number_that_json_lacks_is_left_out(run, tokenizer):
    first = turn(tokenizer, [tokenizer.bos_id], Function.GET_QUESTION)
    odd = turn(tokenizer, then(tokenizer, first, "x"), Function.SUBMIT_ANSWER)
    odd = replace(odd, logprobs=np.array([-np.inf], np.float32))
    evaluations.keep(run, "ppo", [replace(asking(tokenizer), turns=(first, odd))])
    parts = ask(run.path, "session", key=FIRST)["session"]["parts"]
    assert ("logprob" in parts[2]["tokens"][0], parts[2]["logprob"]) == (False, None)
