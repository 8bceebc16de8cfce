"""Finds what a model's chat template writes around the texts of a session.

Small conversations are rendered, and what stands between their texts is cut out: the opening, and one frame for the
user's texts and one for a tool's. Both must be the same whatever the texts are, and wherever in a conversation they
stand; further conversations, built from the frames, must have the very ids that the template renders. A template that
has no role for tools, or rewrites their texts, reads them as the user's.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from jinja2 import TemplateError
from tokenizers import Tokenizer

from agile_ray.agent.functions import Function
from agile_ray.agent.tokenizer import Chat, Frame, Speaker
from agile_ray.errors import ConfigError
from rollout.control_tokens import as_plain_text, control_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

OPENING = "Get the next question and answer it. Use your memory and your tools, or ask the expert at a price."
"""What the user says before the assistant's first message: templates begin with the user."""
USER, TOOL = Speaker.USER, Speaker.TOOL
SPEAKERS = ((USER, TOOL, TOOL, USER, TOOL), (USER,), (USER, TOOL), (USER, USER, TOOL, USER))
"""Who speaks after each of the assistant's messages, in the conversations that are rendered."""
TEXTS = (
    "progress 10 questions 2\nis the lamp of steel ?",
    "7",
    'error : "no such column" <b>{a: 1}</b> it\'s 3.5 % & more.\n\nhistory : none.',
    " ".join(["advice : yes ,"] * 40),
)
"""What they say."""
CALLS = (Function.GET_QUESTION, Function.RETRIEVE_MEMORY, Function.REFLECTION, Function.SEEK_ADVICE)
WORDS = (" steel rusts", "", " select 3 from a", " 7 .")
"""What the assistant writes after a function, in the conversations that try the frames."""

Piece = int | str
"""A control token, or plain text between two of them."""
Message = dict[str, str]


class _Refused(Exception):
    """A template can't be used; the text says why."""


def derive(tokenizer: "PreTrainedTokenizerBase") -> Chat:
    """Find the frames of a model's chat template.

    Args:
        tokenizer: with the function tokens.

    Raises:
        ConfigError: there is no template, or its frames depend on the texts, or hold no control tokens.
    """
    from transformers import PreTrainedTokenizerFast

    if not isinstance(tokenizer, PreTrainedTokenizerFast) or not tokenizer.chat_template:
        raise ConfigError("--chat: the model has no chat template; leave out --chat, as for every base model")
    try:
        return _derived(_Template(tokenizer, tools=True))
    except _Refused:
        pass  # its tools speak as the user
    try:
        return _derived(_Template(tokenizer, tools=False))
    except _Refused as error:
        raise ConfigError(f"--chat: {error}; leave out --chat, and sessions are plain text") from error


class _Template:
    """A model's template with its tokenizer."""

    def __init__(self, tokenizer: "PreTrainedTokenizerFast", *, tools: bool) -> None:
        self._tokenizer = tokenizer
        self._tools = tools
        core = tokenizer.backend_tokenizer.to_str()
        self._reads, self._plain = Tokenizer.from_str(core), as_plain_text(Tokenizer.from_str(core))
        self._reads.no_truncation()
        roles = {role: getattr(tokenizer, role) for role in ("bos_token", "eos_token", "pad_token", "unk_token")}
        self._controls = frozenset(control_tokens(self._plain, named=roles).values())
        listed = self._plain.get_added_tokens_decoder().items()
        self._marks = frozenset(token for token, one in listed if not one.special)

    def text(self, speakers: Sequence[Speaker], texts: Sequence[str], written: Sequence[str]) -> str:
        """A conversation, rendered: the assistant writes, then a speaker says a text, in turns.

        Raises:
            _Refused: the template has no such conversation.
        """
        messages: list[Message] = [{"role": "user", "content": OPENING}]
        for words, speaker, said in zip(written, speakers, texts, strict=False):
            messages.append({"role": "assistant", "content": words})
            messages.append({"role": (speaker if self._tools else USER).value, "content": said})
        messages.append({"role": "assistant", "content": written[len(speakers)]})
        try:
            return str(self._tokenizer.apply_chat_template(messages, tokenize=False))
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise _Refused(f"its chat template refuses the conversation of a session ({error})") from error

    def pieces(self, text: str) -> list[Piece]:
        """Control tokens, and the plain text between them."""
        encoding = self._reads.encode(text, add_special_tokens=False)
        found: list[Piece] = []
        at = 0
        for token, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token in self._controls:
                found += [text[at:begin], token]
                at = end
        return [piece for piece in (*found, text[at:]) if piece != ""]

    def ids(self, text: str) -> list[int]:
        """A rendered text as the template's own tokenizer reads it."""
        return self._reads.encode(text, add_special_tokens=False).ids

    def plain(self, text: str) -> list[int]:
        """Plain text, as the executor encodes it."""
        return self._plain.encode(text, add_special_tokens=False).ids

    def encoded(self, pieces: Sequence[Piece]) -> tuple[int, ...]:
        """Ids of pieces."""
        return tuple(one for piece in pieces for one in ([piece] if isinstance(piece, int) else self.plain(piece)))

    def function(self, function: Function) -> int:
        """Id of a function."""
        (token,) = self._reads.encode(function.value, add_special_tokens=False).ids  # a special token of its own
        return token

    def closes(self, ids: Sequence[int]) -> bool:
        """Whether a control token is among the ids, so that no text can pretend to be them."""
        return not self._controls.isdisjoint(ids)

    def imitable(self, text: str) -> bool:
        """Whether plain text of a frame has a token that other texts can become."""
        return not self._marks.isdisjoint(self.plain(text))


def _derived(template: _Template) -> Chat:
    openings: set[tuple[int, ...]] = set()
    frames: dict[Speaker, set[Frame]] = {speaker: set() for speaker in Speaker}
    for speakers in SPEAKERS:
        for turned in range(len(TEXTS)):
            said = [TEXTS[(number + turned) % len(TEXTS)] for number in range(len(speakers))]
            calls = [CALLS[number % len(CALLS)] for number in range(len(speakers) + 1)]
            pieces = template.pieces(template.text(speakers, said, [call.value for call in calls]))
            places = list(_places(pieces, [template.function(call) for call in calls]))
            openings.add(template.encoded(pieces[: places[0]]))
            for (begin, end), speaker, text in zip(pairwise(places), speakers, said, strict=True):
                frames[speaker].add(_frame(pieces[begin + 1 : end], text, template))
    if len(openings) > 1 or any(len(found) > 1 for found in frames.values()):
        raise _Refused("what its chat template writes around a text depends on the text, or on its place")
    chat = Chat(opening=openings.pop(), user=frames[USER].pop(), tool=frames[TOOL].pop())
    if chat.user.before[0] != chat.tool.before[0]:
        raise _Refused("its chat template ends the assistant's message in several ways")
    _try(chat, template)
    return chat


def _places(pieces: Sequence[Piece], calls: Sequence[int]) -> Iterator[int]:
    """Where each call stands among the pieces, in order."""
    at = 0
    for call in calls:
        try:
            at = list(pieces).index(call, at)
        except ValueError:
            raise _Refused("its chat template leaves out what the assistant wrote") from None
        yield at
        at += 1


def _frame(between: Sequence[Piece], text: str, template: _Template) -> Frame:
    """The frame around a text, from the pieces between two calls."""
    places = [number for number, piece in enumerate(between) if isinstance(piece, str) and text in piece]
    if not places:
        raise _Refused("its chat template changes the text of a message")
    at = places[-1]  # a short text may also be in the name of a role
    piece = between[at]
    assert isinstance(piece, str), "_frame: the text is in a piece of plain text"
    lead, _, tail = piece.rpartition(text)
    before, after = template.encoded(between[:at]), template.encoded(between[at + 1 :])
    if not (template.closes(before[:1]) and template.closes(before[1:]) and template.closes(after)):
        raise _Refused("its chat template separates messages by plain text, which a tool could write, too")
    if any(isinstance(one, str) and template.imitable(one) for one in (*between[:at], lead, tail, *between[at + 1 :])):
        raise _Refused("its chat template separates messages by tokens that a text can become")
    return Frame(before=before, lead=lead, tail=tail, after=after)


def _try(chat: Chat, template: _Template) -> None:
    """Compare conversations that are built from the frames with what the template renders."""
    for speakers in SPEAKERS:
        written = [(CALLS[n % len(CALLS)], WORDS[n % len(WORDS)]) for n in range(len(speakers) + 1)]
        said = [TEXTS[-n % len(TEXTS)] for n in range(len(speakers))]
        built = [*chat.opening, template.function(written[0][0]), *template.plain(written[0][1])]
        for speaker, text, (call, words) in zip(speakers, said, written[1:], strict=True):
            frame = chat.frame(speaker)
            built += [*frame.before, *template.plain(f"{frame.lead}{text}{frame.tail}"), *frame.after]
            built += [template.function(call), *template.plain(words)]
        rendered = template.ids(template.text(speakers, said, [f"{call.value}{words}" for call, words in written]))
        if rendered[: len(built)] != built:
            raise _Refused("its tokenizer reads a text in a conversation otherwise than the text alone")
