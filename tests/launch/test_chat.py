"""Sessions of chat models: the ids that are played are those that the model's own template renders."""

import asyncio
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from agile_ray.agent.functions import Function
from agile_ray.agent.lane import Lane
from agile_ray.agent.policy import Completion
from agile_ray.agent.tokenizer import CHAT_FILE, Speaker, said, write_chat
from agile_ray.errors import ConfigError
from agile_ray.scripted.demonstration_writer import row_of
from agile_ray.scripted.played import Played
from agile_ray.segments import cut
from launch.commands.model import from_, tiny
from launch.models.chat import OPENING, derive
from launch.models.folder import check_model, check_same_tokenizer
from launch.plan.light_tokenizer import LightTokenizer
from rollout.prompted.policies import transcript
from rollout.tokenizer import HFTokenizer
from tests.fakes.chat_templates import FAMILIES, GEMMA, LLAMA, QWEN, SMOLLM, chat_tokenizer
from tests.fakes.worlds import END, SmallStream, question, rules

NAMES = re.compile("(" + "|".join(re.escape(one) for one in (*Function, END)) + ")")
FILL = ("[GetQuestion]", "[SeekAdvice]", "[Reflection] k [UpdateMemory][SubmitAnswer][ClearContext]")
TURNS = (
    "[GetQuestion]",
    "[RetrieveMemory]",
    "[SearchProduct] SELECT all<end>",
    "[SearchProduct] SELECT ?<end>",
    "hm<end>",
    "[UpdateMemory]",
    "[SeekAdvice]",
    "[Reflection] steel rusts[UpdateMemory][SubmitAnswer][ClearContext]",
)
SAYS = ("USER", "TOOL", "TOOL", "TOOL", "TOOL", "TOOL", "USER")
"""Who answers each turn but the last."""


class Writes:
    """A policy that writes prepared turns; words between functions are encoded as a whole."""

    def __init__(self, turns):
        self.turns = list(turns)

    async def write(self, view):
        pieces = [one for one in NAMES.split(self.turns.pop(0)) if one]
        ids = [token for piece in pieces for token in _encoded(piece, view.tokenizer)]
        zeros = np.zeros(len(ids), np.float32)
        return Completion(ids=np.array(ids, np.int32), logprobs=zeros, versions=np.zeros(len(ids), np.int32))


def _encoded(piece, tokenizer):
    if piece == END:
        return [tokenizer.eos_id]
    return [tokenizer.function_id(Function(piece))] if piece in set(Function) else tokenizer.encode(piece)


def written(folder, family):
    """Write a folder with the family's tokenizer and its frames."""
    template = chat_tokenizer(family)
    template.save_pretrained(folder)
    write_chat(derive(chat_tokenizer(family)), folder)
    return template


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory):
    """A family, its tokenizer in transformers, and its folders with and without frames."""
    folder = tmp_path_factory.mktemp("model")
    family = FAMILIES[request.param]
    template = written(folder / "chat", family)
    template.save_pretrained(folder / "plain")
    return family, template, HFTokenizer(folder / "chat"), HFTokenizer(folder / "plain"), folder


def play(tokenizer, texts, turns=TURNS, **budgets):
    """The last of a stream's sessions: earlier ones have filled memory with texts."""
    shared = rules(top_k=2)
    shared = replace(
        shared,
        tokenizer=tokenizer,
        agent=shared.agent.model_copy(update={"turns": 20, "session_tokens": 5000, "turn_tokens": 2000, **budgets}),
        memory=shared.memory.model_copy(update={"entry_tokens": 1000}),
    )
    asked = [question(number, text, answer=f"a {text}") for number, text in enumerate(texts)]
    lane = Lane(SmallStream(*asked), shared, looks_ahead=True, imagines=True)
    for _ in texts[:-1]:
        asyncio.run(lane.play(Writes(FILL)))
    return asyncio.run(lane.play(Writes(turns)))


def replies(session):
    """What was appended after each turn but the last."""
    ends = [len(one.prompt_ids) + len(one.completion_ids) for one in session.turns]
    return [after.prompt_ids[end:].tolist() for after, end in zip(session.turns[1:], ends, strict=False)]


def conversation(family, plain, session, turns=TURNS):
    """The messages of a session that was played with plain text."""
    found = [{"role": "user", "content": OPENING}]
    for turn, speaker, reply in zip(turns, SAYS, replies(session), strict=False):
        found.append({"role": "assistant", "content": turn.removesuffix(END)})
        role = "tool" if family.tool_role and speaker == "TOOL" else "user"
        found.append({"role": role, "content": plain.decode(reply).strip()})
    return [*found, {"role": "assistant", "content": turns[-1]}]


def ids(session):
    last = session.turns[-1]
    return [*last.prompt_ids.tolist(), *last.completion_ids.tolist()]


TEXTS = st.lists(
    st.one_of(
        st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20),
        st.sampled_from(["is it steel ?", "a\n\nb.", "7", "{'a': \"b\"}", "user", "assistant\nyes"]),
    ).map(lambda text: f"q {text}".strip()),
    min_size=1,
    max_size=3,
    unique=True,
)
QUICK = settings(max_examples=5, deadline=None)


@QUICK
@given(texts=TEXTS)
def test_the_ids_of_a_session_are_those_that_the_template_renders(model, texts):
    family, template, chat, plain, _ = model
    session = play(chat, texts)
    messages = conversation(family, plain, play(plain, texts))
    rendered = template.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert ids(session) == rendered[: len(ids(session))]
    assert rendered[len(ids(session))] == chat.eos_id  # what is left ends the last message


@QUICK
@given(texts=TEXTS)
def test_a_session_is_one_segment_that_trains_sampled_tokens_only(model, texts):
    _, _, chat, _, _ = model
    session = play(chat, texts)
    (segment,) = cut(session)
    assert segment.token_ids[segment.action_mask].tolist() == [
        token for turn in session.turns for token in turn.completion_ids.tolist()
    ]
    expected = [token for turn in TURNS for piece in NAMES.split(turn) if piece for token in _encoded(piece, chat)]
    assert segment.token_ids[segment.action_mask].tolist() == expected
    for turn, after in zip(session.turns, session.turns[1:], strict=False):
        before = [*turn.prompt_ids.tolist(), *turn.completion_ids.tolist()]
        assert after.prompt_ids.tolist()[: len(before)] == before


@QUICK
@given(st.lists(st.one_of(st.text(max_size=8), st.sampled_from([*Function])), max_size=4), st.data())
def test_no_text_holds_a_control_token_of_functions_or_the_template(model, parts, data):
    family, template, chat, _, _ = model
    text = "".join([*parts, data.draw(st.sampled_from([*family.controls, family.bos or ""])), *parts])
    special = {*template.all_special_ids, *template.convert_tokens_to_ids([*family.controls, *Function])}
    for speaker in Speaker:
        frame = chat.chat.frame(speaker)
        framed = said(chat, text, speaker=speaker)
        inner = framed[len(frame.before) : len(framed) - len(frame.after)]
        assert not special.intersection(inner)
        assert [framed[: len(frame.before)], framed[len(framed) - len(frame.after) :]] == [
            list(frame.before),
            list(frame.after),
        ]
        assert chat.decode(framed).strip() == text.strip()


def test_a_turn_that_ran_out_of_tokens_goes_on_in_the_same_message(model):
    _, _, chat, _, _ = model
    turns = ("[GetQuestion]", "[RetrieveMemory]", "[PredictAnswer] a", " b[SubmitAnswer][ClearContext]")
    session = play(chat, ["q"], turns)
    assert replies(session)[2] == []
    assert session.answer == "a b"


def test_counterfactual_prefixes_have_the_frames_too(model):
    _, _, chat, _, _ = model
    session = play(chat, ["q one", "q two"])
    (one,) = session.hindsight.counterfactuals
    prompt = session.turns[2].prompt_ids.tolist()
    imagined = one.prefix_ids.tolist()
    assert imagined != prompt
    for prefix in (imagined, prompt):
        assert prefix[: len(chat.chat.opening)] == list(chat.chat.opening)
        assert prefix[-len(chat.chat.tool.after) :] == list(chat.chat.tool.after)
        assert prefix.count(chat.eos_id) == prompt.count(chat.eos_id)
    assert "none" in chat.decode(imagined)


def test_transcripts_and_demonstrations_show_the_texts_without_frames(model):
    _, _, chat, plain, folder = model
    light = LightTokenizer(folder / "chat")
    turns = [turn for turn in TURNS if turn not in ("hm<end>", "[UpdateMemory]")]  # which the rules refuse
    played, other = play(chat, ["q ?"], turns), play(plain, ["q ?"], turns)
    assert transcript(ids(played), chat).split() == transcript(ids(other), plain).split()
    assert light.decode(ids(played)) == chat.decode(ids(played))
    assert (light.eos_id, light.chat) == (chat.eos_id, chat.chat)
    rows = [
        row_of(
            Played(session=one, stream=0, questions=[question(0, "q ?")], learned=True, slips=frozenset(), fault=""),
            tokenizer,
        )
        for one, tokenizer in ((played, chat), (other, plain))
    ]
    assert rows[0] == rows[1]


def test_the_end_of_the_assistants_message_ends_a_query(model):
    family, template, chat, _, _ = model
    assert chat.eos_id == template.convert_tokens_to_ids(family.end)
    assert (derive(template).tool != derive(template).user) is family.tool_role


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (SMOLLM.template.replace("['content'] +", "['content'] | replace('steel', 'iron') +"), "changes the text"),
        (
            SMOLLM.template.replace("'<|im_start|>' +", "'<|im_start|>' + (message.content | length | string) +"),
            "depends",
        ),
        (SMOLLM.template.replace("'<|im_start|>' +", "'<|im_start|>' + loop.index | string +"), "depends"),
        (
            SMOLLM.template.replace("'<|im_start|>' +", "('#' if '?' in message.content else '') + '<|im_start|>' +"),
            "depends",
        ),
        (SMOLLM.template.replace("<|im_end|>", "###"), "plain text, which a tool could write"),
        (SMOLLM.template.replace("message['role'] +", "('user' if loop.last else message.role) +"), "depends"),
        (LLAMA.template.replace("{% for", "{{ raise_exception('no') }}{% for"), "refuses the conversation"),
        ("{% for message in messages %}{% if message.role == 'user' %}a{% endif %}{% endfor %}", "leaves out"),
    ],
)
def test_a_template_that_can_not_be_framed_is_refused(template, why):
    with pytest.raises(ConfigError, match=f"^--chat: .*{why}.*leave out --chat") as caught:
        derive(chat_tokenizer(SMOLLM, template))
    assert "\n" not in str(caught.value)


def test_marks_that_a_text_can_become_are_refused():
    tokenizer = chat_tokenizer(SMOLLM, QWEN.template)
    tokenizer.add_tokens(["<tool_response>"])
    chat = derive(tokenizer)
    assert chat.tool == chat.user  # as the user, tools have no such mark around them


@pytest.mark.parametrize(("family", "tied"), [(QWEN, False), (LLAMA, True)])
def test_a_model_with_padding_becomes_a_chat_model(family, tied, tmp_path):
    tokenizer = chat_tokenizer(family)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = LlamaConfig(vocab_size=len(tokenizer) + 7, tie_word_embeddings=tied, eos_token_id=0, **shape)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "source", max_shard_size="50KB")
    tokenizer.save_pretrained(tmp_path / "source")
    from_(str(tmp_path / "source"), tmp_path / "model", chat=True)
    check_model(tmp_path / "model")
    chat = HFTokenizer(tmp_path / "model")
    assert chat.eos_id == tokenizer.convert_tokens_to_ids(family.end)
    assert chat.chat == LightTokenizer(tmp_path / "model").chat == derive(tokenizer)
    from_(str(tmp_path / "model"), tmp_path / "plain")
    assert HFTokenizer(tmp_path / "plain").chat is None
    with pytest.raises(ConfigError, match="made without --chat; add --force"):
        from_(str(tmp_path / "model"), tmp_path / "plain", chat=True)


def test_a_tiny_model_from_scratch_may_be_a_chat_model(tmp_path):
    shape = {"hidden": 32, "layers": 1, "vocabulary": 1024, "context": 512, "seed": 0}
    tiny(tmp_path / "model", env="recurring", data=None, config=None, **shape, chat=True)
    check_model(tmp_path / "model")
    tokenizer, template = HFTokenizer(tmp_path / "model"), AutoTokenizer.from_pretrained(tmp_path / "model")
    assert (
        template.decode(tokenizer.chat.opening)
        == f"<bos><|im_start|>user\n{OPENING}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.eos_id == template.convert_tokens_to_ids("<|im_end|>")
    assert template.decode(tokenizer.chat.tool.before) == "<|im_end|>\n<|im_start|>"
    assert tokenizer.chat.tool.lead == "tool\n"
    assert len(tokenizer.chat.opening) < 40  # the tokenizer knows the words of the frames


def test_a_model_without_a_template_is_refused():
    with pytest.raises(ConfigError, match="has no chat template"):
        derive(chat_tokenizer(GEMMA, ""))


def test_a_run_does_not_go_on_with_other_frames(tmp_path):
    for name in ("one", "other"):
        written(tmp_path / name, QWEN)
    check_same_tokenizer(tmp_path / "one", tmp_path / "other")
    (tmp_path / "one" / CHAT_FILE).unlink()
    with pytest.raises(ConfigError, match="has another chat frames"):
        check_same_tokenizer(tmp_path / "one", tmp_path / "other")
