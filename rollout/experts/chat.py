"""A chat model behind an OpenAI-compatible endpoint as the expert.

It sees what the agent was shown, and its words, not the gold answer. Equal questions are asked once. A limit of tokens
is never exceeded: where the most that an attempt may cost does not fit, it is not made, and the outcome is `capped`.
"""

from agile_ray.agent.environment import Question
from agile_ray.agent.expert import Advice, AskKey
from agile_ray.errors import EndpointError, ExpertError
from agile_ray.types import Outcome
from envs.endpoints.chat import Chat
from rollout.experts.spending import CappedError, Claim, Paid, Spending

INSTRUCTION = """\
You are an expert whom an assistant asks. Answer its question in one line: the short answer alone, in lower case and \
without a full stop, such as yes, no, the letter of an option, or a few words. If you do not know, write UNKNOWN."""
WORDS = "The assistant wants to know: "
"""How the words of an ask begin, behind the question."""
UNKNOWN = "unknown"
REFUSED = "\0refused"
"""How a refusal is kept among the answers."""
REPLY_TOKENS = 60
TEMPLATE_TOKENS = 64
"""More than what chat templates add to two messages."""


class ChatExpert:
    """Asks a model. May be called from several threads."""

    source = "chat"

    def __init__(self, chat: Chat, spending: Spending, *, reliability: float = 1.0) -> None:
        """Combine an endpoint with its books.

        Args:
            chat: the endpoint.
            spending: what it was asked before, and what it may cost.
            reliability: share of its advice that is right, as far as it is known.
        """
        self.chat = chat
        self.spending = spending
        self.reliability = reliability

    async def advise(self, question: Question, *, key: AskKey) -> Advice:
        """Ask the model.

        Raises:
            ExpertError, TurnedAwayError: there is no answer, as `Spending.once` and `Chat.reply` say.
        """
        # All that the answer depends on:
        asked = f"{question.shown}\n{WORDS}{key.words}" if key.words else question.shown
        messages = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": asked}]
        read = sum(len(one["content"].encode()) for one in messages)  # a token has at least one byte
        most = read + TEMPLATE_TOKENS + REPLY_TOKENS

        def pay(claim: Claim) -> Paid:
            reply = self.chat.reply(messages, max_tokens=REPLY_TOKENS, meter=claim)
            return Paid(said=REFUSED if reply.refused else reply.text, tokens=reply.tokens or most)

        try:
            said = self.spending.once(asked, most=most, pay=pay)
        except CappedError:
            return Advice.none(Outcome.CAPPED)
        except EndpointError as error:
            raise ExpertError(str(error), late=error.late) from error
        if said == REFUSED:
            return Advice.none(Outcome.REFUSED)
        words = " ".join(said.split())
        if not words or words.lower().strip(".!") == UNKNOWN:
            return Advice.none(Outcome.ABSTAINED)
        return Advice(text=words, answer=words.rstrip("."))
