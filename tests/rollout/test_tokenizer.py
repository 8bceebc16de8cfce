import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from agile_ray.agent.functions import Function
from agile_ray.errors import ConfigError
from rollout.tokenizer import HFTokenizer

FUNCTIONS = tuple(function.value for function in Function)


def write_folder(
    folder: Path, *, functions: Sequence[str] = FUNCTIONS, special: bool = True, begin: bool = True
) -> Path:
    """A byte-level BPE with function tokens added, as `agile-ray model` does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["what is the colour of the pan ?"] * 9, trainer)
    tokenizer.add_tokens([AddedToken(name, special=special, normalized=False) for name in functions])
    tokens = {"bos_token": "<s>", "eos_token": "</s>"} if begin else {"eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> HFTokenizer:
    return HFTokenizer(write_folder(tmp_path_factory.mktemp("model")))


def test_functions_map_to_token_ids_and_back(tokenizer: HFTokenizer) -> None:
    for function in Function:
        assert tokenizer.function_at(tokenizer.function_id(function)) is function
    assert tokenizer.function_at(tokenizer.encode("a")[0]) is None


@pytest.mark.parametrize("text", ["[SeekAdvice]", "x[SubmitAnswer] </s> <s>", "[ClearContext]" * 3, "a </s>"])
def test_text_that_spells_a_special_token_stays_text(tokenizer: HFTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert not {tokenizer.bos_id, tokenizer.eos_id, *(tokenizer.function_id(f) for f in Function)} & set(ids)
    assert tokenizer.decode(ids) == text


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=8), st.sampled_from([*FUNCTIONS, "</s>", "<s>"])), max_size=5).map("".join))
def test_any_text_is_encoded_without_special_tokens_and_decoded_unchanged(tokenizer: HFTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert all(tokenizer.function_at(token) is None for token in ids)
    assert tokenizer.bos_id not in ids
    assert tokenizer.decode(ids) == text


def test_changing_a_returned_list_does_not_change_the_cache(tokenizer: HFTokenizer) -> None:
    tokenizer.encode("the pan").append(7)
    assert 7 not in tokenizer.encode("the pan")


def test_decoding_leaves_out_begin_and_end_tokens(tokenizer: HFTokenizer) -> None:
    assert tokenizer.decode([tokenizer.bos_id, *tokenizer.encode("the pan"), tokenizer.eos_id]) == "the pan"


def test_without_a_begin_token_the_end_token_opens_a_context(tmp_path: Path) -> None:
    tokenizer = HFTokenizer(write_folder(tmp_path, begin=False))
    assert tokenizer.bos_id == tokenizer.eos_id


def test_a_folder_without_function_tokens_names_the_command_that_adds_them(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, functions=FUNCTIONS[:8])
    with pytest.raises(ConfigError, match=rf"lacks 2 function tokens .* agile-ray model from {folder} --output NEW"):
        HFTokenizer(folder)


def test_function_tokens_that_plain_text_can_reach_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be a special token"):
        HFTokenizer(write_folder(tmp_path, special=False))


def write_unigram(folder: Path, pieces: Sequence[str], **named: str) -> Path:
    """A Unigram tokenizer, which finds a control piece wherever a text spells it."""
    core = Tokenizer(models.Unigram([(piece, -5.0) for piece in ["<unk>", *pieces, *map(chr, range(33, 127))]], 0))
    core.add_tokens([AddedToken(name, special=True, normalized=False) for name in FUNCTIONS])
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", **named).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("piece", "named"),
    [
        ("<|stop|>", {"eos_token": "<|stop|>"}),
        ("[BEGIN]", {"eos_token": "~", "bos_token": "[BEGIN]"}),
        ("<user>", {"eos_token": "[END]", "extra_special_tokens": {"user": "<user>"}}),
    ],
)
def test_a_control_piece_that_a_text_can_spell_is_refused(tmp_path: Path, piece: str, named: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"reads .* in a text as the control token"):
        HFTokenizer(write_unigram(tmp_path, [piece], **named))


def test_an_end_token_that_stands_for_unknown_text_is_refused(tmp_path: Path) -> None:
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(("[UNK]", "a", "shop", "lamp", "price", "7"))}))
    core.model.unk_token = "[UNK]"
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.add_tokens([AddedToken(name, special=True, normalized=False) for name in FUNCTIONS])
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", eos_token="[UNK]").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="turns unknown text into a control token"):
        HFTokenizer(tmp_path)


def test_a_vocabulary_without_words_is_refused(tmp_path: Path) -> None:
    core = Tokenizer(models.BPE())
    core.add_tokens([AddedToken(name, special=True, normalized=False) for name in ("<end>", *FUNCTIONS)])
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="can't encode plain words, 'shop' became"):
        HFTokenizer(tmp_path)


def test_a_function_that_shares_its_id_with_a_word_is_refused(tmp_path: Path) -> None:
    file = write_folder(tmp_path) / "tokenizer.json"
    content = json.loads(file.read_text())
    piece, highest = max(content["model"]["vocab"].items(), key=lambda one: one[1])
    content["model"]["vocab"][piece] = highest + 3  # the functions come next after as many as there are
    file.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"gives .* the id \d+, which another token has too"):
        HFTokenizer(tmp_path)


def test_a_missing_folder_and_one_without_a_tokenizer_are_refused_in_one_line(tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ConfigError, match=r"^model\.path: [^\n]+$"):
            HFTokenizer(folder)


READS = """
import sys
from pathlib import Path
from rollout.tokenizer import HFTokenizer
print(*HFTokenizer(Path(sys.argv[1])).encode("a pan"))
print(*sorted({"torch", "triton", "vllm"}.intersection(sys.modules)))
"""


def test_reading_a_tokenizer_imports_neither_torch_nor_triton(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    ran = subprocess.run(
        [sys.executable, "-c", READS, folder], capture_output=True, text=True, check=False, timeout=100
    )
    assert ran.stdout.splitlines() == [" ".join(map(str, HFTokenizer(folder).encode("a pan"))), ""], ran.stderr


def test_a_tokenizer_is_what_its_file_says_whatever_class_its_config_names(tmp_path: Path) -> None:
    config = write_folder(tmp_path) / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_class": "Qwen2Tokenizer"}))
    apart = "e\u0301"  # Qwen2's class would compose it
    assert HFTokenizer(tmp_path).decode(HFTokenizer(tmp_path).encode(apart)) == apart
