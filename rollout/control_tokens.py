"""Tries whether a tokenizer keeps control tokens and plain text apart. Needs the library tokenizers alone."""

from collections import Counter
from collections.abc import Mapping

from tokenizers import Tokenizer

from agile_ray.agent.functions import Function
from agile_ray.errors import ConfigError

WORDS = ("a", "shop", "lamp", "price", "7")
"""Words of every environment: a tokenizer that can't tell them apart has no vocabulary."""
UNUSUAL = "naïve ☂ 東京"
"""Text that a tokenizer without bytes may not know; it must not become an end token."""


def as_plain_text(encoder: Tokenizer) -> Tokenizer:
    """Set an encoder to split special tokens that a text spells like ordinary words, and to return every id."""
    encoder.encode_special_tokens = True
    encoder.no_truncation()
    encoder.no_padding()
    return encoder


def control_tokens(encoder: Tokenizer, *, named: Mapping[str, str | None]) -> dict[str, int]:
    """Ids of the tokens that no text may become: function tokens, special tokens, begin and end token.

    The unknown token is none of them unless it also is the begin or end token: unknown text becomes it.

    Args:
        encoder: of the tokenizer.
        named: the tokenizer's tokens by role, such as {"eos_token": "</s>"}.
    """
    special = {token.content for token in encoder.get_added_tokens_decoder().values() if token.special}
    functions = {function.value for function in Function}
    kept = {text for role, text in named.items() if role != "unk_token" and text is not None}
    found = {text: encoder.token_to_id(text) for text in (special - {named.get("unk_token")}) | functions | kept}
    return {text: token_id for text, token_id in sorted(found.items()) if token_id is not None}


def check_encoder(encoder: Tokenizer, controls: Mapping[str, int], *, unknown: int | None, name: str) -> None:
    """Refuse a tokenizer that has no vocabulary, shares a control token's id, or finds control tokens in texts.

    Args:
        encoder: set by `as_plain_text`.
        controls: control tokens and their ids.
        unknown: id of the unknown token.
        name: of the tokenizer, which begins the error.

    Raises:
        ConfigError: the tokenizer does one of these.
    """
    _check_words(encoder, unknown=unknown, name=name)
    meanings = Counter(encoder.get_vocab(with_added_tokens=True).values())
    shared = [text for text, token_id in controls.items() if meanings[token_id] > 1]
    if shared:
        raise ConfigError(
            f"{name} gives {shared[0]} the id {controls[shared[0]]}, which another token has too; it leaves ids of its "
            "vocabulary unused: choose a model whose tokenizer has none unused"
        )
    reserved = frozenset(controls.values())
    if _has(encoder, UNUSUAL, reserved):
        raise ConfigError(f"{name} turns unknown text into a control token; choose a model whose tokenizer knows bytes")
    for text in controls:
        if any(_has(encoder, context, reserved) for context in (text, f"a {text} b", f"a{text}b", text * 2)):
            raise ConfigError(f"{name} {_found_in_text(text)}")


def _check_words(encoder: Tokenizer, *, unknown: int | None, name: str) -> None:
    encoded = {word: tuple(encoder.encode(word, add_special_tokens=False).ids) for word in WORDS}
    if len(set(encoded.values())) < len(WORDS) or any(not ids or unknown in ids for ids in encoded.values()):
        raise ConfigError(
            f"{name} can't encode plain words, {WORDS[1]!r} became {list(encoded[WORDS[1]])}; "
            "its vocabulary is missing: fetch the model with its tokenizer.json"
        )


def _has(encoder: Tokenizer, text: str, reserved: frozenset[int]) -> bool:
    return not reserved.isdisjoint(encoder.encode(text, add_special_tokens=False).ids)


def _found_in_text(text: str) -> str:
    if text in {function.value for function in Function}:
        return f"reads {text} in a text as the function; it must be a special token: run `agile-ray model from` on it"
    return (
        f"reads {text} in a text as the control token, so a question could end a session; "
        "choose a model whose tokenizer splits it, as a byte-level BPE does"
    )
