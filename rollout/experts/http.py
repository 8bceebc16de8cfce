"""An expert behind an HTTP service of one's own.

    POST URL    Idempotency-Key: 3f9c0a61d2b47e58#train/shop/0#3#0
                {"key": "train/shop/0#3#0", "question": "is it waterproof ?", "shown": "...", "kind": "fact"}
                and "words": "does rain get in ?" where asks carry words, and the agent wrote some
    200         {"answer": "yes", "text": "yes , it is waterproof"}    may lack the `text` to read and remember
    200         {"outcome": "abstained"}                               or "refused"

No connection, one that is cut off, a reply that is no JSON, 408, 409, 425, 429 and 5xx are tried again until the
deadline, always with the same Idempotency-Key, so a service that keeps its answers by it works, and is paid, once. Its
first part is a digest of the question: equal keys of two runs with other questions are told apart. An ask that is made
again keeps its key, also with other words, so the service's first answer stands. The second part is the key of the ask;
characters other than letters, digits and -._~/#@ are percent-encoded. 401, 403 and 404 end the run. Any other status
breaks the ask.
"""

import asyncio
import hashlib
import random
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from agile_ray.agent.environment import Question
from agile_ray.agent.expert import Advice, AskKey
from agile_ray.errors import TURNED_AWAY, ExpertError, TurnedAwayError, described
from agile_ray.types import Outcome

if TYPE_CHECKING:
    from httpx import AsyncClient

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
"""Wait before the second attempt, which doubles with each further one, and its limit."""
AGAIN = frozenset({408, 409, 425, 429})
SILENT = frozenset({Outcome.ABSTAINED, Outcome.REFUSED})
"""Outcomes that a service may give in place of an answer."""


class HttpExpert:
    """Asks a service. May be called from several threads: each call has a connection of its own."""

    source = "http"

    def __init__(self, url: str, *, deadline_s: float, reliability: float = 1.0) -> None:
        """Connect at the first ask.

        Args:
            url: of the service.
            deadline_s: longest wait for one answer, all attempts and waits included.
            reliability: share of its advice that is right, as far as it is known.
        """
        self._url = url
        self._deadline_s = deadline_s
        self.reliability = reliability

    async def advise(self, question: Question, *, key: AskKey) -> Advice:
        """Ask the service.

        Raises:
            ExpertError: it refuses the request, or gives no usable reply until the deadline.
            TurnedAwayError: it would refuse every request.
        """
        from httpx import AsyncClient

        asked = {"key": str(key), "question": question.text, "shown": question.shown, "kind": question.kind}
        if key.words:
            asked["words"] = key.words
        digest = hashlib.sha256(f"{question.id}\0{question.shown}".encode()).hexdigest()[:16]
        headers = {"Idempotency-Key": f"{digest}#{quote(str(key), safe='/#@')}"}  # a header is ASCII
        end, wait = time.monotonic() + self._deadline_s, FIRST_WAIT_S
        async with AsyncClient(timeout=self._deadline_s) as client:
            while True:
                advice, why = await self._attempt(client, asked, headers)
                if advice is not None:
                    return advice
                pause = wait * random.uniform(0.75, 1.25)
                if time.monotonic() + pause >= end:
                    said = f"expert http: no answer within {self._deadline_s:g} s; last: {why}"
                    raise ExpertError(said, late=True)
                await asyncio.sleep(pause)
                wait = min(2 * wait, LONGEST_WAIT_S)

    async def _attempt(
        self, client: "AsyncClient", asked: dict[str, str], headers: dict[str, str]
    ) -> tuple[Advice | None, str]:
        """The advice; or None, and why the ask is worth another attempt."""
        from httpx import HTTPError

        try:
            reply = await client.post(self._url, json=asked, headers=headers)
        except HTTPError as error:
            return None, described(error)
        if reply.status_code in AGAIN or reply.status_code >= 500:
            return None, f"status {reply.status_code}"
        if reply.status_code in TURNED_AWAY:
            raise TurnedAwayError(
                f"expert http: {self._url}: status {reply.status_code}; it refuses every request: check "
                "env.expert.url, and that the service needs no key, and start again"
            )
        if reply.status_code != 200:
            raise ExpertError(f"expert http: {self._url}: status 200 is needed, found {reply.status_code}")
        try:
            return _advice(reply.json()), ""
        except ValueError as error:  # cut off, or another program answers
            return None, f"malformed reply: {described(error)}"


def _advice(said: object) -> Advice:
    found = said if isinstance(said, dict) else {}
    answer, outcome = found.get("answer"), found.get("outcome")
    if outcome in SILENT:
        return Advice.none(Outcome(outcome))
    if not isinstance(answer, str) or not isinstance(text := found.get("text", answer), str):
        raise ExpertError(f"expert http: a reply has an answer or an outcome, both texts, found {str(said)[:200]!r}")
    return Advice(text=text, answer=answer)
