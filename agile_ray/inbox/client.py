"""An expert who is a person: asks an inbox over HTTP, and waits there for the answer.

All asks of an event loop wait on one line to the inbox (line.py). A cut connection, a restarted inbox and a restarted
driver all lead to the same ask, so a person sees it once.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agile_ray.agent.environment import Question
from agile_ray.agent.expert import Advice, AskKey
from agile_ray.errors import ExpertError
from agile_ray.inbox.asks import Ask, State, Told, shortened
from agile_ray.inbox.line import WAIT_S, Line
from agile_ray.types import Outcome

WITHOUT_ANSWER = {State.REFUSED: Outcome.REFUSED, State.UNKNOWN: Outcome.ABSTAINED}
"""What comes of an ask that a person closes without an answer."""


class InboxExpert:
    """The people who answer at an inbox."""

    source = "inbox"
    patient = True  # thousands of sessions may wait

    def __init__(self, url: str, *, deadline_s: float, wait_s: float = WAIT_S, reliability: float = 1.0) -> None:
        """Connect at the first ask.

        Args:
            url: of the inbox, such as http://127.0.0.1:8322.
            deadline_s: of an ask, from when it is first posted; the inbox keeps it.
            wait_s: how long one request waits there.
            reliability: share of the people's answers that is right, as far as it is known.
        """
        import httpx  # noqa: F401  here, since importing it takes longer than `advise` may block

        self._url = url.rstrip("/")
        self._deadline_s = deadline_s
        self._wait_s = wait_s
        self.reliability = reliability
        self._lines: dict[asyncio.AbstractEventLoop, Line] = {}

    async def advise(self, question: Question, *, key: AskKey) -> Advice:
        """Wait for the answer of a person, who may also refuse or not know.

        Raises:
            ExpertError: nobody answered by the deadline, or the inbox refuses the ask. It says which.
            TurnedAwayError: the inbox refuses every request.
        """
        ask = Ask(
            key=str(key),
            stream=key.stream,
            question_id=question.id,
            kind=question.kind,
            topic=question.topic,
            text=shortened(question.text),
            context=shortened(question.shown if question.shown != question.text else ""),
            ask_probability=None if key.ask_probability is None else min(key.ask_probability, 1.0),  # it is rounded
            words=shortened(key.words),
        )
        async with self._line() as line:
            told = await line.closed(ask, deadline_s=self._deadline_s)
        return advice(told, where=f"expert inbox: {key}")

    @asynccontextmanager
    async def _line(self) -> AsyncIterator[Line]:
        """The line of this event loop, which lasts while an ask is on it."""
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            line = self._lines[loop] = Line(self._url, wait_s=self._wait_s)
        line.users += 1
        try:
            yield line
        finally:
            line.users -= 1
            if not line.users:
                del self._lines[loop]
                await line.close()


def advice(told: Told, *, where: str) -> Advice:
    """What an inbox says of a closed ask, as an expert says it.

    Raises:
        ExpertError: nobody answered by the deadline.
    """
    if told.state is State.LATE:
        raise ExpertError(f"{where}: nobody answered by the deadline", late=True)
    if told.state is State.ANSWERED:
        return Advice(text=told.text, answer=told.answer)
    return Advice.none(WITHOUT_ANSWER[told.state])
