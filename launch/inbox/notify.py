"""Tells a webhook that asks wait: not each of them, but at most once in a while. Its failures stop nothing."""

import asyncio
import os
import sys
from collections.abc import Sequence

from launch.inbox.queue import Waiting

URL = "AGILE_INBOX_WEBHOOK"
"""Environment variable that holds the webhook's address, which is often a secret."""
EVERY_S = 60.0
"""Shortest time between two notifications."""
REQUEST_S = 10.0
"""Deadline of one notification."""


class Webhook:
    """One address. Posts {"text", "waiting", "oldest_s"}."""

    def __init__(self, url: str, *, every_s: float = EVERY_S) -> None:
        self._url = url
        self._every_s = every_s
        self._last_s = 0.0
        self._told_s = 0.0  # when the newest ask came of which it was told
        self._sending: asyncio.Task[None] | None = None
        self.failures = 0

    async def tell(self, waiting: Sequence[Waiting], *, count: int, now: float) -> None:
        """Begin to notify if an ask came since the last notification, and that is long enough ago; do not wait.

        Args:
            waiting: open asks, the oldest first.
            count: of all open asks.
            now: seconds since 1970.
        """
        newest = max((one.asked_s for one in waiting), default=0.0)
        if newest <= self._told_s or now - self._last_s < self._every_s:
            return
        self._last_s, self._told_s = now, newest
        oldest_s = round(now - waiting[0].asked_s)
        note = {"text": f"{count} asks wait for a person", "waiting": count, "oldest_s": oldest_s}
        self._sending = asyncio.create_task(self._send(note))

    async def _send(self, note: dict[str, str | int]) -> None:
        import httpx

        try:
            async with httpx.AsyncClient(timeout=REQUEST_S) as client:
                (await client.post(self._url, json=note)).raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.failures += 1
            # Not what httpx says: that may hold the address, in a form of its own.
            why = (
                f"status {error.response.status_code}"
                if isinstance(error, httpx.HTTPStatusError)
                else type(error).__name__
            )
            print(f"inbox: notification failed ({self.failures} so far): {why}", file=sys.stderr, flush=True)


def webhook() -> Webhook | None:
    """The webhook of the environment; None: there is none."""
    url = os.environ.get(URL)
    return Webhook(url) if url else None
