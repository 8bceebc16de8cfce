"""The schema of `env.expert`: who answers, how well, and by which rule an ask is priced.

expert: gold                                                       a name alone
expert: {name: gold, wrong: 0.1, abstains: 0.05}                   a fallible one
expert: {name: chat, url: http://localhost:8000/v1, model: qwen, tokens: 200000}
expert: {name: inbox, url: http://localhost:8322, late: alone}     people
expert: {price: {token: 0.001, most: 0.5}}                         env.advice_cost, and more for a long answer
expert: {colleague: {wrong: 0.3, price: 0.05}}                     whom [AskColleague] asks
expert: {words: true}                                      who is told what the agent wants to know
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from agile_ray.knobs import Part
from agile_ray.plugins.resolver import is_known, unknown
from agile_ray.plugins.secrets import check_public
from agile_ray.units import thousandths

RECORDED = "recorded:"
"""How the name of an expert begins where a past run, or the export of an inbox, answers."""
NO_RUN = f"{RECORDED}RUN names the folder of a past run, or the export of an inbox, found none"
BUILT_IN = ("chat", "gold", "http", "inbox")
ENDPOINTS = ("chat", "http", "inbox")
"""Experts that need a `url`."""
OWNERS = {
    "tokens": ("chat",),
    "cache": ("chat",),
    "deadline_s": ("inbox",),
    "url": ENDPOINTS,
    "reliability": ENDPOINTS,
}
"""Experts that have a field."""


def price(value: object) -> float:
    """Check a price.

    Raises:
        ValueError: it is no number from 0 to 1, or no whole number of thousandths.
    """
    if isinstance(value, bool):
        raise ValueError(f"neither true nor false, found {value}")
    try:
        found = float(str(value))
    except ValueError:
        raise ValueError(f"a price is a number, found {value!r}") from None
    if not 0 <= found <= 1:
        raise ValueError(f"a price is from 0 to 1, found {value}")
    thousandths(found)
    return found


def named(value: object) -> object:
    """A name alone as the mapping that it stands for.

    Raises:
        ValueError: it is neither a name nor a mapping, or `recorded:` without a run.
    """
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping | ExpertSpec):
        raise ValueError(f"an expert is a name or a mapping, found {value!r}")
    if isinstance(value, Mapping) and value.get(RECORDED.rstrip(":"), value) is None:  # YAML of `recorded:` alone
        raise ValueError(NO_RUN)
    return value


Price = Annotated[float, BeforeValidator(price)]


class _Part(Part):
    """Part of the schema; what has its default is not written."""

    def _set(self) -> dict[str, object]:
        """The fields that differ from their defaults."""
        fields = type(self).model_fields
        return {name: value for name in fields if (value := getattr(self, name)) != fields[name].default}


class PriceRule(_Part):
    """How the price of an ask follows from the question, its place in the episode, or the length of the answer."""

    base: Price | None = None
    """Price where nothing else is said. None: `env.advice_cost`; the colleague needs one."""
    kinds: Mapping[str, Price] = {}
    """Price by kind of question."""
    steps: Mapping[int, Price] = {}
    """Price from a session of the episode on, such as `{24: 0.5}`; before the first of them, `base`."""
    token: Price = 0.0
    """Price of each token of the question, of the words of the ask and of the answer, on top of `base`."""
    most: Price | None = None
    """Highest price of an ask that is priced by tokens; the agent is told this one."""

    @model_validator(mode="after")
    def _is_one_rule(self) -> Self:
        rules = [name for name in ("kinds", "steps", "token") if getattr(self, name)]
        if len(rules) > 1:
            raise ValueError(f"a price follows one rule, found {' and '.join(rules)}")
        if bool(self.token) != (self.most is not None):
            raise ValueError("token and most go together: the agent is told the highest price; give both or none")
        if self.most is not None and self.base is not None and self.most < self.base:
            raise ValueError(f"most is at least base, found {self.most:g} and {self.base:g}")
        if any(step < 1 for step in self.steps):
            raise ValueError(f"steps begin at session 1 or later, found {min(self.steps)}; session 0 has the base")
        return self

    @property
    def name(self) -> str:
        """What receipts call the rule."""
        return "kind" if self.kinds else "schedule" if self.steps else "tokens" if self.token else "constant"

    @property
    def changes_within(self) -> bool:
        """The agent is told different prices in one episode."""
        return bool(self.kinds or self.steps)


def _check_host(address: str) -> None:
    parts = urlsplit(address)
    try:
        wrong = not parts.hostname or parts.port == 0 or " " in address
    except ValueError:  # of the port
        wrong = True
    if wrong:
        raise ValueError(f"an address names a host and a port, such as http://localhost:8000/v1, found {address}")


class ExpertSpec(_Part):
    """An expert."""

    name: str = "gold"
    """`gold`, the gold answers; `recorded:RUN`, the receipts of the run in the folder RUN, or the export of an inbox;
    `http`, a service; `chat`, a chat model behind an OpenAI-compatible endpoint; `inbox`, people; an entry point, or
    `package.module:name`."""
    wrong: float = Field(default=0.0, ge=0, le=1)
    """Share of its answers that are replaced by wrong ones; drawn for each question of a stream."""
    abstains: float = Field(default=0.0, ge=0, le=1)
    """Share of questions that it does not answer; drawn for each question of a stream."""
    price: PriceRule = PriceRule()
    """A number, or a rule."""
    charges: Literal["answers", "asks"] = "answers"
    """What is paid for: `answers`, so an expert that abstains or refuses is not paid; `asks`, so it is."""
    late: Literal["fail", "alone"] = "fail"
    """What a deadline that passes, or an expert that breaks, does to the session: it ends as failed, or the agent is
    told that there is no advice and goes on alone. Nothing is paid either way."""
    url: str | None = None
    """Address of `http`, of the endpoint of `chat`, or of the `inbox`."""
    words: bool = False
    """Asks carry words: after its function, the agent writes what it wants to know, up to the end token."""
    deadline_s: float | None = Field(default=None, gt=0)
    """How long an ask stays in the `inbox`, in seconds from when it is first there, whoever asks again. None:
    `agent.expert_s`, which is the longest, and is counted anew by whoever asks again."""
    model: str | None = None
    """Model of `chat`."""
    tokens: int | None = Field(default=None, ge=1)
    """Number of tokens that `chat` may use, read and written together; then nobody is asked. None: no limit."""
    cache: Path | None = None
    """SQLite file of `chat`, with answers by question and the tokens used, which processes of one machine share, and
    which later runs reuse. None: in the memory of each process."""
    reliability: float = Field(default=1.0, ge=0, le=1)
    """Share of right answers of `http`, `chat` or `inbox`, as far as it is known. Only the oracle uses it."""
    colleague: "ExpertSpec | None" = None
    """A second expert, whom [AskColleague] asks."""

    def __str__(self) -> str:
        given = self._set()
        return self.name if given.keys() <= {"name"} else str(self.model_dump(mode="json"))

    @field_validator("price", mode="before")
    @classmethod
    def _is_a_number_or_a_rule(cls, value: object) -> object:
        return value if isinstance(value, Mapping | PriceRule) else {"base": value}

    @field_validator("colleague", mode="before")
    @classmethod
    def _may_be_a_name(cls, value: object) -> object:
        return None if value in (None, "none") else named(value)

    @field_validator("name")
    @classmethod
    def _names_an_expert(cls, value: str) -> str:
        if value.startswith(RECORDED):
            if not value.removeprefix(RECORDED):
                raise ValueError(NO_RUN)
        elif not is_known(value, kind="experts", built_in=BUILT_IN):
            raise ValueError(unknown(value, (*BUILT_IN, f"{RECORDED}RUN"), kind="experts"))
        return value

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None:
            if not value.startswith(("http://", "https://")):
                raise ValueError(f"an address begins with http:// or https://, found {value}")
            check_public(value)
            _check_host(value)
        return value

    @model_validator(mode="after")
    def _does_not_contradict_itself(self) -> Self:
        if self.name in ENDPOINTS and self.url is None:
            raise ValueError(f"{self.name} needs a url")
        if (self.name == "chat") != (self.model is not None):
            raise ValueError(f"model belongs to chat, which needs one, found {self.name} with model {self.model}")
        given = self._set()
        needless = [field for field, owners in OWNERS.items() if field in given and self.name not in owners]
        if needless:
            raise ValueError(f"{self.name} has no {', '.join(needless)}; leave it out")
        if self.colleague is not None:
            if self.colleague.colleague is not None:
                raise ValueError("a colleague has no colleague")
            if self.colleague.price.base is None:
                raise ValueError("a colleague needs a price, such as {colleague: {name: gold, price: 0.1}}")
        return self

    @model_serializer(mode="wrap")
    def _briefly(self, full: SerializerFunctionWrapHandler) -> object:
        written = full(self)
        kept = {name: written[name] for name in self._set()} if isinstance(written, dict) else {}
        return written if not isinstance(written, dict) else self.name if kept.keys() <= {"name"} else kept

    @property
    def recorded(self) -> Path | None:
        """Folder of the past run, or export of an inbox, that answers; None: another expert does."""
        name = self.name
        return Path(name.removeprefix(RECORDED)).expanduser() if name.startswith(RECORDED) else None

    @property
    def wherever(self) -> Self:
        """The same expert, without the places where it is: it may move while a run is stopped."""
        colleague = None if self.colleague is None else self.colleague.wherever
        return self.model_copy(update={"url": None, "cache": None, "colleague": colleague})

    @property
    def by_key(self) -> "Mapping[str, ExpertSpec]":
        """The expert, and the colleague if there is one, by the key that describes it."""
        return {"env.expert": self} | ({} if self.colleague is None else {"env.expert.colleague": self.colleague})

    @property
    def recordings(self) -> Mapping[str, Path]:
        """Folders of past runs, or exports of an inbox, that answer, by the key that names each."""
        return {key: one.recorded for key, one in self.by_key.items() if one.recorded is not None}
