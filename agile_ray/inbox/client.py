"""An expert who is a person: asks an inbox over HTTP, and waits there for the answer.

An ask is posted under its key, again and again until it is closed: each request waits a while at the inbox. A cut
connection, a restarted inbox and a restarted driver all lead to the same ask, so a person sees it once.
"""

import asyncio
import os
import ssl
import time
from functools import cache
from typing import TYPE_CHECKING

from pydantic import ValidationError

from agile_ray.agent.environment import Question
from agile_ray.agent.expert import Advice, AskKey
from agile_ray.errors import TURNED_AWAY, ExpertError, TurnedAwayError, described
from agile_ray.inbox.asks import POSTED, TOLD, Ask, Posted, State, Told, shortened
from agile_ray.plugins.secrets import redacted
from agile_ray.types import Outcome

if TYPE_CHECKING:
    import httpx

TOKEN = "AGILE_INBOX_TOKEN"  # noqa: S105  a name
"""Environment variable that holds the inbox's token."""
WAIT_S = 20.0
"""How long one request waits at the inbox for an answer."""
SLACK_S = 10.0
"""How much longer a request may take than it waits."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
"""Pause after a request that failed; it doubles with each further one, up to a limit."""
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
        return advice(await self._closed(ask), where=f"expert inbox: {key}")

    async def _closed(self, ask: Ask) -> Told:
        import httpx

        end = time.monotonic() + self._deadline_s + SLACK_S  # of an inbox that is gone; else it keeps the deadline
        pause, why = FIRST_PAUSE_S, "it was not reached"
        headers = {"Authorization": f"Bearer {os.environ.get(TOKEN, '')}", "Content-Type": "application/json"}
        async with httpx.AsyncClient(headers=headers, trust_env=False, verify=_certificates(self._url)) as client:
            while (left := end - time.monotonic()) > 0:
                wait_s = min(self._wait_s, left)
                posted = Posted(ask=ask, deadline_s=self._deadline_s, wait_s=wait_s)
                try:
                    reply = await client.post(
                        f"{self._url}/api/ask", content=POSTED.dump_json(posted), timeout=wait_s + SLACK_S
                    )
                    told = self._read(reply)
                except (httpx.TransportError, ValidationError) as error:  # a reply may be cut off in the middle
                    told, why = None, described(error)
                if told is not None:
                    if told.state is not State.OPEN:
                        return told
                    pause = FIRST_PAUSE_S
                    continue
                await asyncio.sleep(min(pause, max(end - time.monotonic(), 0)))
                pause = min(2 * pause, LONGEST_PAUSE_S)
        said = f"expert inbox: {ask.key}: no answer within its deadline ({self._deadline_s:g} s); last: {why}"
        raise ExpertError(said, late=True)

    def _read(self, reply: "httpx.Response") -> Told | None:
        """What the inbox says; None: ask again.

        Raises:
            ExpertError: it refuses the ask.
            TurnedAwayError: it refuses every request.
        """
        if reply.status_code == 200:
            return TOLD.validate_json(reply.content)
        if reply.status_code == 429 or reply.status_code >= 500:
            return None
        said = f"expert inbox: {self._url}: status {reply.status_code}: {redacted(' '.join(reply.text.split())[:200])}"
        if reply.status_code in TURNED_AWAY:
            raise TurnedAwayError(
                f"{said}; it refuses every request: check its address and its token, which is read from {TOKEN}, and "
                "start again"
            )
        raise ExpertError(said)


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


@cache  # loading them takes longer than an ask
def _certificates(url: str) -> ssl.SSLContext:
    """Those by which a server is known; none are loaded where no TLS is spoken."""
    return ssl.create_default_context() if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
