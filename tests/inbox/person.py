"""A person who answers at an inbox as a script does: over HTTP, after log-normal times, and not always rightly."""

import random
import threading
import time


class Person:
    """Answers in a thread, from `begin` until `end`."""

    def __init__(self, inbox, right, *, name, median_s=0.01, wrong=0.1):
        """`right`: the right answer to an ask; `wrong`: share of asks that are answered otherwise."""
        self._inbox, self._right = inbox, right
        self._name, self._median_s, self._wrong = name, median_s, wrong
        self._random = random.Random(name)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._ended = threading.Event()
        self.rests = threading.Event()
        """While it is set, the person begins with no further ask."""
        self.given = {}
        """Answers that the inbox took, by the key of the ask."""

    def begin(self):
        self._thread.start()
        return self

    def end(self):
        self._ended.set()
        self._thread.join(60)

    def _work(self):
        while not self._ended.wait(0.02):
            for one in () if self.rests.is_set() else self._inbox.waiting():
                if self.rests.is_set() or self._ended.is_set():
                    break
                if self._inbox.post("claim", key=one["key"], who=self._name).status_code == 200:
                    self._answer(one)

    def _answer(self, one):
        time.sleep(self._median_s * self._random.lognormvariate(0.0, 1.0))
        answer = "wrong" if self._random.random() < self._wrong else self._right(one)
        found = self._inbox.finish(one["key"], who=self._name, answer=answer)
        assert found.status_code == 200, found.text  # nobody else holds it
        assert one["key"] not in self.given
        self.given[one["key"]] = answer
