"""A chat model behind an OpenAI-compatible endpoint: text in, text out, with deadlines, retries and counted tokens.

A request may take several attempts. All of them carry the same `Idempotency-Key`, and only the reply that is used is
counted, once. What is tried again: no connection, one that is cut off, 408, 409, 429 (after what `Retry-After` says)
and 5xx. A wrong key, a missing model or an unknown address ends the run: no later request would succeed either.

An endpoint that does not know `Idempotency-Key` may work on every attempt. A `Meter` is told of each of them.
"""

import os
import random
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from agile_ray.errors import TURNED_AWAY, ConfigError, EndpointError, TurnedAwayError, described
from agile_ray.plugins.secrets import redacted

if TYPE_CHECKING:
    from openai import APIError, APIStatusError, OpenAI
    from openai.types.chat import ChatCompletionMessageParam

KEY = "OPENAI_API_KEY"
"""Environment variable that holds the endpoint's key; a local server needs none."""
CONCURRENT = 8
"""Requests that are in flight at the same time; further ones wait."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Wait before the second attempt, which doubles with each further one, and its limit, also that of `Retry-After`."""
REACHED_S = 10.0
"""Longest wait for the connection that `Chat.check` tries."""
AGAIN = frozenset({408, 409, 429})
FREE = TURNED_AWAY | {429, 503}
"""Statuses of an attempt that was turned away, so nothing was paid for it."""
UNMET = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})
"""Errors without a connection, by name: it depends on the version of openai which library they are from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an endpoint was used for so far."""

    requests: int = 0  # that were answered
    failed: int = 0  # that were given up
    retries: int = 0  # attempts after the first of a request
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def cost(self, prices: tuple[float, float]) -> float:
        """Cost, given the prices of a million prompt tokens and of a million completion tokens."""
        return (self.prompt_tokens * prices[0] + self.completion_tokens * prices[1]) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One reply."""

    text: str
    refused: bool  # the text is the refusal
    tokens: int  # read and written, as the endpoint counts them; 0 if it does not


class Meter(Protocol):
    """Counts what the attempts of one request may cost."""

    def reserve(self) -> None:
        """An attempt begins. An error that this raises ends the request."""
        ...

    def release(self) -> None:
        """The attempt cost nothing, for certain: it met nobody, or was turned away."""
        ...


class Chat:
    """One model of one endpoint. May be called from several threads."""

    def __init__(self, *, url: str, model: str, deadline_s: float, name: str = "endpoint") -> None:
        """Connect at the first request.

        Args:
            url: of the endpoint, such as http://localhost:8000/v1.
            model: name by which it serves the model.
            deadline_s: longest wait for one request, all attempts and waits included.
            name: how errors call the endpoint.
        """
        self._url = url
        self._model = model
        self._deadline_s = deadline_s
        self._name = f"{name} {url}"
        self._seats = threading.BoundedSemaphore(CONCURRENT)
        self._lock = threading.Lock()
        self._client: OpenAI | None = None
        self._usage = Usage()

    @property
    def usage(self) -> Usage:
        """What was used so far."""
        return self._usage

    def check(self) -> None:
        """Refuse an endpoint where nothing is, or that does not know the key, before many sessions wait for it.

        Raises:
            ConfigError: there is no connection. Whether it serves the model, the first request shows.
            TurnedAwayError: it does not know the key.
        """
        from httpx import ReadTimeout
        from openai import APIConnectionError, APIError, AuthenticationError

        try:
            self._connected().models.list(timeout=REACHED_S)
        except APIConnectionError as error:
            cause = error.__cause__ or error
            if not isinstance(cause, ReadTimeout):  # a busy one answers late
                raise ConfigError(
                    f"{self._name}: nothing answers there ({described(cause)}); start the server, or mend the address"
                ) from error
        except AuthenticationError as error:
            raise self._turned_away(error) from error
        except (APIError, ValueError):
            pass  # something answers; the key may have no right to list models, or there is no list

    def ask(self, messages: Sequence[Mapping[str, str]], *, max_tokens: int) -> str:
        """Return the text of the model's greedy reply; arguments and errors are those of `reply`."""
        return self.reply(messages, max_tokens=max_tokens).text

    def reply(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        meter: Meter | None = None,
    ) -> Said:
        """Return the model's greedy reply; a refusal is a reply.

        Args:
            messages: of the conversation: each has a `role` and a `content`.
            max_tokens: of the reply.
            meter: told of every attempt.

        Raises:
            TurnedAwayError: the endpoint has no such model or address, or refuses the key.
            EndpointError: it refuses the request, its reply is malformed, or none came by the deadline.
        """
        try:
            with self._seats:
                return self._ask(messages, max_tokens=max_tokens, meter=meter)
        except EndpointError:
            self._count(failed=1)
            raise

    def _ask(self, messages: Sequence[Mapping[str, str]], *, max_tokens: int, meter: Meter | None) -> Said:
        from openai import APIConnectionError, APIError, APIStatusError

        end = time.monotonic() + self._deadline_s
        key, wait, why = uuid.uuid4().hex, FIRST_WAIT_S, "no attempt was made"
        while (left := end - time.monotonic()) > 0:
            pause = wait * random.uniform(0.75, 1.25)
            try:
                return self._metered(messages, max_tokens=max_tokens, key=key, timeout_s=left, meter=meter)
            except APIStatusError as error:
                if error.status_code in TURNED_AWAY:
                    raise self._turned_away(error) from error
                why = _said(error)
                if error.status_code not in AGAIN and error.status_code < 500:
                    raise EndpointError(f"{self._name}: {why}") from error
                pause = _retry_after(error.response.headers, otherwise=pause)
            except APIConnectionError as error:  # a timeout is one, too
                why = described(error)
            except (APIError, ValueError) as error:  # the latter: the reply is no JSON
                raise EndpointError(f"{self._name}: malformed reply: {described(error)}") from error
            wait = min(2 * wait, LONGEST_WAIT_S)
            if time.monotonic() + pause >= end:
                break
            self._count(retries=1)
            time.sleep(pause)
        said = f"{self._name}: no answer within its deadline ({self._deadline_s:g} s); last: {why}"
        raise EndpointError(said, late=True)

    def _turned_away(self, error: "APIStatusError") -> TurnedAwayError:
        return TurnedAwayError(
            f"{self._name}, model {self._model}: {_said(error)}; it refuses every request: check its address, its "
            f"model and the key, which is read from {KEY}, and start again"
        )

    def _metered(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        key: str,
        timeout_s: float,
        meter: Meter | None,
    ) -> Said:
        from openai import APIError

        if meter is not None:
            meter.reserve()
        try:
            return self._attempt(messages, max_tokens=max_tokens, key=key, timeout_s=timeout_s)
        except APIError as error:
            if meter is not None and _is_free(error):
                meter.release()
            raise

    def _attempt(self, messages: Sequence[Mapping[str, str]], *, max_tokens: int, key: str, timeout_s: float) -> Said:
        reply = self._connected().chat.completions.create(
            model=self._model,
            messages=[_message(one) for one in messages],
            max_tokens=max_tokens,
            temperature=0.0,
            timeout=timeout_s,
            extra_headers={"Idempotency-Key": key},
        )
        choices = getattr(reply, "choices", None)  # the client does not check what a server of another kind replies
        message = choices[0].message if choices else None
        if message is None or not isinstance(said := message.content or message.refusal or "", str):
            raise EndpointError(f"{self._name}: malformed reply: no message in {str(reply)[:200]!r}")
        usage = reply.usage
        read, written = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
        self._count(requests=1, prompt_tokens=read, completion_tokens=written)
        return Said(text=said, refused=not message.content and bool(message.refusal), tokens=read + written)

    def _connected(self) -> "OpenAI":
        from openai import OpenAI

        with self._lock:
            if self._client is None:
                self._client = OpenAI(base_url=self._url, api_key=os.environ.get(KEY) or "none", max_retries=0)
            return self._client

    def _count(self, **more: int) -> None:
        with self._lock:
            self._usage = replace(self._usage, **{name: getattr(self._usage, name) + n for name, n in more.items()})


def _message(one: Mapping[str, str]) -> "ChatCompletionMessageParam":
    if one["role"] == "system":
        return {"role": "system", "content": one["content"]}
    if one["role"] == "assistant":
        return {"role": "assistant", "content": one["content"]}
    return {"role": "user", "content": one["content"]}


def _said(error: "APIStatusError") -> str:
    return redacted(f"status {error.status_code}: {' '.join(error.message.split())[:200]}")


def _is_free(error: "APIError") -> bool:
    """Whether the attempt cost nothing, for certain: it met nobody, or was turned away."""
    from openai import APIStatusError

    if isinstance(error, APIStatusError):
        return error.status_code in FREE
    return type(error.__cause__).__name__ in UNMET


def _retry_after(headers: Mapping[str, str], *, otherwise: float) -> float:
    try:
        return min(max(float(headers.get("retry-after", "")), 0.0), LONGEST_WAIT_S)
    except ValueError:
        return otherwise
