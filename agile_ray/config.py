"""The schemas of a spec: the configuration of a run, with all knobs, and the axes of a sweep."""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from agile_ray.errors import ConfigError
from agile_ray.expert_spec import ExpertSpec, named, price
from agile_ray.knobs import Affects, Section
from agile_ray.plugins.resolver import is_known, unknown
from agile_ray.plugins.secrets import check_public
from agile_ray.units import PARTS, Part, thousandths

CREDIT_MODES = ("none", "heuristic", "fitted", "linked")
JUDGES = ("exact", "set", "number", "regex")
AGENT = Affects.TRAINING | Affects.IMITATION | Affects.EVALUATION | Affects.COMPARISON
"""What the rules and budgets of the agent affect: everything that plays sessions."""


def _is_none(value: object) -> bool:
    return str(value).lower() == "none"


class Run(Section):
    """Where a run is stored."""

    name: Annotated[str, Affects.NOTHING] = Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=255)
    """Name of the run's folder. Training again under the same name resumes the run."""
    folder: Annotated[Path, Affects.NOTHING] = Path("runs")
    """Folder that holds one folder per run. On a cluster it must be absolute, and shared by all nodes."""


class Model(Section):
    """The policy's initial weights."""

    path: Path
    """Hugging Face folder of the initial model, with the function tokens in its vocabulary; `agile-ray model` writes
    one."""


class Env(Section):
    """The task and its expert."""

    affects: ClassVar[Affects] = AGENT

    name: str
    """Name of the environment: one of envs/, an entry point, or `package.module:name` (docs/extending.md)."""
    advice_cost: Annotated[float | tuple[float, ...], Affects.TRAINING | Affects.IMITATION | Affects.EVALUATION] = 0.3
    """Price of one ask, in units of the reward for a right answer; a whole number of thousandths. In place of a number,
    a list: each episode draws its price from it, and the status line shows the price, so that one policy learns to play
    at all of them. A list of one number plays such a policy at that price."""
    expert: ExpertSpec = ExpertSpec()
    """Who answers the asks: `gold`, the gold answers; `recorded:RUN`, the stored receipts of the past run in the folder
    RUN, or the export of an inbox; an entry point, or `package.module:name`. Or a mapping: such a `name`, or a service,
    a chat model, or people at an `inbox`, with their address; how often the expert is `wrong` or `abstains`, its
    `price` rule, and a `colleague` at another price (docs/experts.md)."""
    data: Path | None = None
    """Folder of the environment's data files, if it needs any; of `dataset`, the file."""
    skip_bad: bool = False
    """Leave out broken rows of the data files, and demonstrations that can't be played, and count them. Otherwise they
    are an error."""
    columns: Literal["names", "values"] | Mapping[str, str] = "values"
    """What questions of ProductQA show of the searchable table: the `names` of its columns, or also their `values`:
    those of texts, the units of numbers (the paper's schema; about 65 tokens more). Of `dataset`: the file's columns
    that hold the fields of a question, such as `{text: prompt, answer: label}`; others are named as the field."""
    categories: Mapping[Part, tuple[str, ...]] = {}
    """Categories of each split, such as `{train: [mice, litter], test: [all_pans]}`: the policy trains on those of
    `train`, those of `validation` choose the best checkpoint, those of `test` are for the final evaluation. Imitation
    plays those of `imitation`, if there are any, else those of `train`: PPO then plays categories whose answers the
    policy has not learned. No category is in two splits. A split that is left out has the environment's own."""
    stream_sessions: int | None = Field(default=None, ge=2)
    """Maximum number of sessions in one training episode. A longer stream of files becomes several, each with a memory
    of its own. Streams that never end are cut in evaluations too. None: streams are played whole."""
    tool_s: float = Field(default=2.0, gt=0)
    """Deadline of one query to the tool, in seconds; for SQL, of CPU time."""
    judge: str | None = None
    """Who judges answers in words: `exact`, `set`, `number`, `regex`, an entry point, or `package.module:name`, in
    place of the environment's own judge. `URL#MODEL`, such as `http://localhost:8000/v1#qwen`: a model behind an
    OpenAI-compatible endpoint, which judges what the environment's own judge takes for wrong. Its key is read from
    OPENAI_API_KEY. None: the environment judges."""

    @field_validator("advice_cost", mode="before")
    @classmethod
    def _is_a_price_or_several(cls, value: object) -> object:
        if not isinstance(value, list | tuple):
            return price(value)
        prices = tuple(map(price, value))
        if not prices or len(set(prices)) < len(prices):
            raise ValueError(f"a list holds at least one price, and each once, found {list(prices)}")
        return prices

    @field_validator("categories", mode="before")
    @classmethod
    def _names_known_splits(cls, value: object) -> object:
        if _is_none(value):
            return {}
        if not isinstance(value, Mapping):
            raise ValueError(f"must be a mapping from split to categories, such as {{test: [all_pans]}}, found {value}")
        for split in value:
            if split not in PARTS:
                raise ValueError(f"a split is one of {', '.join(PARTS)}; found {split}")
        given = (split for split in PARTS if not _is_none(value.get(split)))
        return {split: value[split] for split in given}  # in order: equal mappings have equal digests

    @field_validator("columns", mode="before")
    @classmethod
    def _is_a_word_or_a_mapping(cls, value: object) -> object:
        if not isinstance(value, Mapping) and value not in ("names", "values"):
            raise ValueError(
                f"names, values, or a mapping from fields to columns such as {{text: prompt}}, found {value}"
            )
        return value

    @field_validator("expert", mode="before")
    @classmethod
    def _may_be_a_name(cls, value: object) -> object:
        return named(value)

    @field_validator("expert")
    @classmethod
    def _has_its_price_in_advice_cost(cls, value: ExpertSpec) -> ExpertSpec:
        if value.price.base is not None:
            raise ValueError(
                f"the base price of the expert is env.advice_cost; set that, found {value.price.base:g} here"
            )
        return value

    @field_validator("judge")
    @classmethod
    def _names_a_judge(cls, value: str | None) -> str | None:
        if value is None or is_known(value, kind="judges", built_in=JUDGES):
            return value
        if not re.fullmatch(r"https?://[^#]+#.+", value):
            raise ValueError(unknown(value, (*JUDGES, "URL#MODEL"), kind="judges"))
        check_public(value.partition("#")[0])
        return value

    @model_validator(mode="after")
    def _has_one_price_in_each_episode(self) -> Self:
        price = self.expert.price
        if self.tells_price and price.changes_within:
            raise ValueError(
                f"expert.price: with a list of advice_cost each episode has one price, found the {price.name} rule, "
                "which changes it within an episode; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _may_cost_as_much(self) -> Self:
        most = self.expert.price.most
        if most is not None and thousandths(most) < max(self.prices):
            raise ValueError(f"expert.price.most is at least advice_cost, found {most:g} and {self.advice_cost}")
        return self

    @property
    def prices(self) -> tuple[int, ...]:
        """Prices of one ask that an episode may have, in thousandths of the reward for a right answer."""
        costs = self.advice_cost
        return tuple(map(thousandths, costs if isinstance(costs, tuple) else (costs,)))

    @property
    def tells_price(self) -> bool:
        """The status line shows the price of the episode."""
        return isinstance(self.advice_cost, tuple)

    @property
    def price(self) -> int:
        """The only price of one ask, in thousandths.

        Raises:
            ConfigError: there are several.
        """
        price, *others = self.prices
        if others:
            raise ConfigError(f"env.advice_cost: must be one price here, found {self.advice_cost}")
        return price


class Agent(Section):
    """The executor's rules, and the budgets of one session."""

    affects: ClassVar[Affects] = AGENT

    forced: bool = False
    """The executor itself writes [GetQuestion] and [RetrieveMemory], as AGILE's released code does."""
    turns: int = Field(default=12, ge=1)
    """Maximum number of turns (calls of the policy) in one session."""
    turn_tokens: int = Field(default=48, ge=1)
    """Maximum number of tokens that the policy may write in one turn."""
    session_tokens: Annotated[int, AGENT | Affects.MACHINES] = Field(default=320, ge=16)
    """Maximum number of tokens in one session, read and written together; also the engine's context length."""
    asks: int = Field(default=2, ge=1)
    """Maximum number of paid asks in one session. Further asks are refused."""
    expert_s: float = Field(default=30.0, gt=0)
    """Deadline of one expert answer, in seconds."""
    bar: tuple[
        Literal[
            "RetrieveMemory",
            "SearchProduct",
            "Search",
            "CallTool",
            "SeekAdvice",
            "AskColleague",
            "Reflection",
            "UpdateMemory",
        ],
        ...,
    ] = ()
    """Functions that the agent may not use, such as `[SeekAdvice]`, for ablations: scripts and the teacher leave them
    out, and a call by the policy is refused. `[UpdateMemory]` leaves the agent without memory: it stays empty."""


class Memory(Section):
    """What the agent remembers."""

    affects: ClassVar[Affects] = AGENT

    embedder: Literal["hashed", "minilm"] = "hashed"
    """What embeds texts: `hashed` hashes character n-grams and needs no model; `minilm` is the paper's
    all-MiniLM-L6-v2."""
    top_k: int = Field(default=1, ge=1)
    """Maximum number of QA pairs, and of pieces of knowledge, that [RetrieveMemory] returns."""
    threshold: float = Field(default=0.46, ge=-1, le=1)
    """Cosine similarity above which two questions count as similar. 0.46, the released code's, suits `minilm`; with
    `hashed`, set about 0.7 here and in `credit.threshold`."""
    entry_tokens: int = Field(default=64, ge=1)
    """Maximum number of tokens that the policy reads of one entry; the rest is cut off."""


class Imitation(Section):
    """SFT on sessions of a teacher."""

    affects: ClassVar[Affects] = Affects.TRAINING | Affects.IMITATION | Affects.COMPARISON

    asking: Literal["random", "judgement"] = "random"
    """When the teacher asks: `random`, in every session with probability `asked_share`, also where memory or the tool
    has the answer; `judgement`, if neither helps and its guess is wrong with a probability above the price."""
    asked_share: float = Field(default=0.25, ge=0, le=1)
    """Share of all sessions in which the `random` teacher asks (paper: 0.25)."""
    answers: Literal["gold", "guess"] = "gold"
    """What the teacher answers if it does not ask and neither memory nor the tool helps: `gold`, the right answer
    (paper); `guess`, the question's best constant guess. From gold answers the policy learns their distribution: if one
    of two answers is right with probability 0.7, greedy play scores 0.7, sampled play 0.58; from guesses, both score
    0.7. In an environment with finitely many streams, each question's unaided gold answer is learned at most once, so
    that the weights do not memorize it."""
    warm_share: float = Field(default=0.75, ge=0, le=1)
    """Share of the teacher's episodes that start with the memory of an earlier pass, which asked wherever neither
    memory nor the tool helped. Without them, a teacher that asks rarely finds little in memory, and the policy hardly
    learns to read it."""
    sessions: int | Path = 20_000
    """What is learned. A number: so many sessions of the scripted teacher, which the other keys describe. A file, such
    as `demonstrations.jsonl`: the sessions in it (docs/extending.md). 0: none, so PPO starts from `model.path`. Each
    session is trained on at most once."""
    search_rows: int = Field(default=0, ge=0)
    """Number of further rows that are only a question and its gold query, each of another question that the tool
    answers. They are shorter than sessions, and teach queries faster."""
    wrong_queries: float = Field(default=0.0, ge=0, le=1)
    """Share of the teacher's searches that begin with a query that the tool refuses, so that the policy learns to read
    the error and to try again. The wrong query itself is not trained on."""
    batch: int = Field(default=128, ge=1)
    """Sessions in one optimizer step."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Peak learning rate: linear warm-up over the first twentieth of the steps, then a cosine decay to a tenth."""
    dtype: Annotated[
        Literal["float32", "bfloat16"],
        Affects.TRAINING | Affects.IMITATION | Affects.COMPARISON | Affects.MACHINES,  # sets the attention of learners
    ] = "float32"
    """Data type of imitation's matrix products. Weights and optimizer keep `learner.dtype`. A CPU without bfloat16
    instructions uses float32."""
    checkpoint_every: Annotated[int, Affects.NOTHING] = Field(default=200, ge=1)
    """Optimizer steps between checkpoints."""

    @field_validator("sessions", mode="before")
    @classmethod
    def _is_a_number_or_a_file(cls, value: object) -> object:
        try:
            found = int(value) if isinstance(value, str) else value
        except ValueError:
            return value
        if isinstance(found, Path) or (isinstance(found, int) and not isinstance(found, bool) and found >= 0):
            return found
        raise ValueError(f"a number from 0 on, or a file of demonstrations, found {value}")

    @property
    def played(self) -> int:
        """Number of sessions that the scripted teacher plays; 0 if a file has them."""
        return 0 if isinstance(self.sessions, Path) else self.sessions

    @property
    def demonstrations(self) -> Path | None:
        """File of the sessions; None: the scripted teacher plays them."""
        return self.sessions if isinstance(self.sessions, Path) else None


class Credit(Section):
    """How the value of what a session remembers reaches that session."""

    affects: ClassVar[Affects] = Affects.TRAINING | Affects.COMPARISON

    mode: str = "heuristic"
    """Credit A_i of AGILE, Appendix A: `none` is 0; `heuristic` is eq. 7; `fitted` is a regression of V on the state of
    memory; `linked` is what later sessions gain by reading the entry. Also an entry point, or `package.module:name`."""
    beta: float = Field(default=0.1, ge=0)
    """For `heuristic`: scale of the bonus, in units of reward (paper: 0.1)."""
    threshold: float = Field(default=0.46, ge=-1, le=1)
    """For `linked`: minimum cosine similarity between a session's question and that of the session whose entry it read,
    for the two to be linked."""
    window: int = Field(default=5, ge=1)
    """For `fitted`: number of iterations in the regression, the current one included."""

    @field_validator("mode")
    @classmethod
    def _names_a_mode(cls, value: str) -> str:
        if not is_known(value, kind="credit_modes", built_in=CREDIT_MODES):
            raise ValueError(unknown(value, CREDIT_MODES, kind="credit_modes"))
        return value


class PPO(Section):
    """Policy optimization."""

    affects: ClassVar[Affects] = Affects.TRAINING | Affects.COMPARISON

    learning_rate: float = Field(default=3e-4, gt=0)
    """Initial learning rate. Decays linearly to a tenth of it by the last iteration."""
    critic_learning_rate: Annotated[float, Affects.TRAINING | Affects.COMPARISON | Affects.IMITATION] = Field(
        default=3e-3, gt=0
    )
    """Constant learning rate of the heads (auxiliary value, critic, write probability), in imitation as well."""
    dtype: Annotated[
        Literal["float32", "bfloat16"],
        Affects.TRAINING | Affects.COMPARISON | Affects.MACHINES,  # sets the attention of learners
    ] = "float32"
    """Data type of PPO's matrix products, as `imitation.dtype`. In bfloat16 logprobs are rounded, as those of an engine
    in bfloat16 are; importance weights correct for the gap. The check of published weights keeps `learner.dtype`."""
    clip: float = Field(default=0.2, gt=0, lt=1)
    """Half-width of the trust region on the probability ratio."""
    update_kl_coefficient: float = Field(default=0.25, ge=0)
    """Weight of the KL to the policy before the update, between each action token and all other tokens taken together
    (docs/stability.md)."""
    value_coefficient: float = Field(default=5.0, ge=0)
    """Weight of the auxiliary value loss, which trains the trunk. The critic only reads the trunk, and has no weight
    to set."""
    kl_coefficient: float = Field(default=0.05, ge=0)
    """Weight of the KL to the frozen SFT policy (k3), per action token; its initial weight if `adaptive_kl_target` is
    set."""
    adaptive_kl_target: float | None = Field(default=None, gt=0)
    """Target for the KL to the SFT policy, in nats per action token; each update adapts `kl_coefficient` toward it
    (Ziegler et al., 2019). None: the coefficient is constant."""
    early_stop_kl: float | None = Field(default=None, gt=0)
    """Maximum KL between the policies before and within an update, in nats per action token. A step that finds more,
    and all later steps of the update, do not change the weights. None: no limit."""
    entropy_coefficient: float = Field(default=0.0, ge=0)
    """Weight of the entropy bonus, per action token. Only function tokens receive it; on other tokens it would disturb
    copying."""
    gae_lambda: float = Field(default=1.0, ge=0, le=1)
    """Lambda of GAE, per action token. Below 1, while the critic is inaccurate, asking is underrated because its
    sessions are longer."""
    epochs: int = Field(default=2, ge=1)
    """Passes over the sessions of one iteration."""
    minibatches: int = Field(default=4, ge=1)
    """Optimizer steps in one pass."""

    @model_validator(mode="after")
    def _can_reach_its_target(self) -> Self:
        if self.adaptive_kl_target is not None and self.kl_coefficient == 0:
            raise ValueError("adaptive_kl_target scales kl_coefficient, which is 0; set it above 0")
        return self


SIZES = Affects.MACHINES | Affects.IMITATION | Affects.COMPARISON
"""What knobs affect that save memory. They change results in the last bits only, so a resumed run may set others."""


class Learner(Section):
    """The DeepSpeed ranks."""

    affects: ClassVar[Affects] = Affects.TRAINING | Affects.MACHINES | Affects.IMITATION | Affects.COMPARISON

    ranks: int = Field(default=2, ge=1)
    """Number of learner ranks. Each takes one GPU if `cluster.device` is `gpu`."""
    zero_stage: Literal[1, 2, 3] = 2
    """What DeepSpeed ZeRO shards: 1 the optimizer's state, 2 gradients too, 3 weights too."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Data type of the weights in forward and backward passes. The optimizer keeps float32."""
    micro_batch_tokens: Annotated[int, SIZES] = Field(default=4096, ge=16)
    """Maximum number of tokens, padding included, in one forward and backward pass of one rank."""
    gradient_checkpointing: Annotated[bool, SIZES] = False
    """Recompute activations in the backward pass, which takes more time and less memory."""
    lora_rank: int | None = Field(default=None, ge=1)
    """Rank of LoRA: only adapters of the linear layers and the embeddings of the function tokens are trained, at about
    ten times the learning rate. None: all weights are trained."""

    @model_validator(mode="after")
    def _holds_frozen_weights_whole(self) -> Self:
        if self.lora_rank is not None and self.zero_stage == 3:
            raise ValueError(
                "zero_stage 3 shards weights, but with lora_rank every rank holds the frozen ones whole; set "
                "zero_stage to 1 or 2"
            )
        return self


class Rollout(Section):
    """The vLLM actors."""

    affects: ClassVar[Affects] = Affects.TRAINING | Affects.MACHINES | Affects.EVALUATION | Affects.COMPARISON

    actors: int = Field(default=1, ge=1)
    """Number of actors, each with one engine."""
    seats: int | None = Field(default=None, ge=1)
    """Episodes that one actor plays at the same time; its other lanes wait. None: all of its share of `loop.lanes`."""
    temperature: float = Field(default=1.0, ge=0.01)
    """Sampling temperature in training and in sampled evaluations. The learner divides its logits by it as well. vLLM
    would raise one below 0.01."""
    deterministic: bool = False
    """Sample in lockstep, each turn with a seed of its own, so that a training repeats bit for bit on the same machine
    (docs/operations.md). At each turn, lanes then wait for the slowest one."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Data type of the engine's weights."""
    kv_cache_gib: Annotated[float, Affects.MACHINES] = Field(default=1.0, gt=0)
    """On a CPU: size of one engine's key-value cache, in GiB."""
    gpu_memory: Annotated[float, Affects.MACHINES] = Field(default=0.85, gt=0, le=1)
    """On a GPU: share of its memory that one engine may take."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs of one engine."""
    transport: Literal["ray_shm", "nccl"] = "ray_shm"
    """vLLM weight-transfer backend: `ray_shm` is this project's own and needs no GPU; `nccl` is vLLM's."""


class Loop(Section):
    """How much is collected, and how often the run is evaluated and saved."""

    iterations: Annotated[int, Affects.COMPARISON] = Field(default=20, ge=0)
    """Iterations of collect, learn and publish in the whole run. 0: the run ends after imitation."""
    lanes: Annotated[int, Affects.TRAINING | Affects.MACHINES | Affects.EVALUATION | Affects.COMPARISON] = Field(
        default=64, ge=1
    )
    """Episodes that are played side by side, shared among the actors."""
    sessions_per_lane: Annotated[int, Affects.TRAINING | Affects.COMPARISON] = Field(default=48, ge=1)
    """Sessions that each lane plays in one iteration."""
    max_age: Annotated[int, Affects.TRAINING | Affects.COMPARISON] = Field(default=0, ge=0)
    """Maximum age of a token when it is learned from, in versions. Above 0, lanes play on while the learner works. 0:
    playing and learning take turns."""
    checkpoint_every: Annotated[int, Affects.COMPARISON] = Field(default=5, ge=1)
    """Iterations between checkpoints."""
    evaluate_every: Annotated[int | None, Affects.COMPARISON] = Field(default=5, ge=1)
    """Iterations between evaluations on validation. None: no evaluations, and the last checkpoint is the final one."""


class Evaluate(Section):
    """How many sessions an evaluation plays."""

    sessions: Annotated[int | None, Affects.EVALUATION | Affects.COMPARISON] = Field(default=None, ge=1)
    """Sessions that `agile-ray evaluate` and the final evaluation of a training play, in a split that ends shared among
    all its streams. None: all sessions of all streams."""
    validation_sessions: Annotated[int, Affects.COMPARISON] = Field(default=768, ge=1)
    """Sessions of each evaluation on validation, shared likewise; also of the one after imitation. By its asking shares
    the first memories of lanes are grown."""


class Cluster(Section):
    """Where the actors run."""

    address: Annotated[str | None, Affects.MACHINES] = None
    """Address of a Ray cluster to join; `local` is a new one on this machine. None: the cluster that the environment
    variable RAY_ADDRESS names, as it does in a Ray job, or else a new local one."""
    device: Annotated[Literal["cpu", "gpu"], Affects.MACHINES | Affects.EVALUATION] = "cpu"
    """Device that learners and engines compute on."""
    colocate: Annotated[bool, Affects.MACHINES] = False
    """Each GPU holds one engine and one learner rank, which take turns: while one computes, the other keeps its weights
    in main memory (docs/cluster.md). For few GPUs, down to one."""
    deadline_s: Annotated[float, Affects.MACHINES] = Field(default=1800.0, gt=0)
    """Longest wait for one unit of an actor's work, in seconds: of play, a step of a session (a request to the engine,
    or what one turn asks for); of learning, a micro-batch; of published weights, a bucket; of all else, the call."""

    @property
    def gpu_share(self) -> float:
        """What an actor takes of each GPU that it uses; 0 on a CPU."""
        if self.device == "cpu":
            return 0.0
        return 0.5 if self.colocate else 1.0


class RunConfig(Section):
    """One run."""

    seed: Annotated[int, Affects.TRAINING | Affects.IMITATION | Affects.EVALUATION] = Field(default=0, ge=0)
    """Seed from which every other seed is derived."""
    run: Run
    model: Model
    env: Env
    agent: Agent = Agent()
    memory: Memory = Memory()
    imitation: Imitation = Imitation()
    credit: Credit = Credit()
    ppo: PPO = PPO()
    learner: Learner = Learner()
    rollout: Rollout = Rollout()
    loop: Loop = Loop()
    evaluate: Evaluate = Evaluate()
    cluster: Cluster = Cluster()

    @model_validator(mode="after")
    def _can_take_turns(self) -> Self:
        if not self.cluster.colocate:
            return self
        # Each: what sharing needs, whether it holds, what was found.
        rules = (
            (
                "rollout.actors = learner.ranks",
                self.rollout.actors == self.learner.ranks,
                f"{self.rollout.actors} and {self.learner.ranks}",
            ),
            ("rollout.tensor_parallel = 1", self.rollout.tensor_parallel == 1, self.rollout.tensor_parallel),
            ("rollout.transport = ray_shm", self.rollout.transport == "ray_shm", self.rollout.transport),
            ("loop.max_age = 0", self.loop.max_age == 0, self.loop.max_age),
            ("learner.zero_stage 1 or 2", self.learner.zero_stage < 3, self.learner.zero_stage),
        )
        for rule, holds, found in rules:
            if not holds:
                raise ValueError(
                    f"cluster.colocate puts one engine and one learner rank on each GPU, which needs {rule}, found "
                    f"{found}"
                )
        return self

    @model_validator(mode="after")
    def _does_not_contradict_itself(self) -> Self:
        if self.rollout.transport == "nccl" and self.cluster.device != "gpu":
            raise ValueError("rollout.transport is nccl, but cluster.device is cpu; use ray_shm or cluster.device=gpu")
        if self.rollout.actors > self.loop.lanes:
            raise ValueError(
                f"rollout.actors ({self.rollout.actors}) exceeds loop.lanes ({self.loop.lanes}); every actor needs a "
                "lane"
            )
        if self.rollout.deterministic and self.loop.max_age:
            raise ValueError(
                f"rollout.deterministic needs loop.max_age 0, found {self.loop.max_age}: how far lanes play ahead "
                "depends on time"
            )
        sessions = self.loop.lanes * self.loop.sessions_per_lane
        if self.ppo.minibatches > sessions:
            raise ValueError(
                f"ppo.minibatches ({self.ppo.minibatches}) exceeds the sessions of one iteration "
                f"(loop.lanes x loop.sessions_per_lane = {sessions})"
            )
        if self.agent.session_tokens > self.learner.micro_batch_tokens:
            raise ValueError(
                f"agent.session_tokens ({self.agent.session_tokens}) exceeds learner.micro_batch_tokens "
                f"({self.learner.micro_batch_tokens}); one session must fit into one pass"
            )
        for key, expert in self.env.expert.by_key.items():
            if expert.deadline_s is not None and expert.deadline_s > self.agent.expert_s:
                raise ValueError(
                    f"{key}.deadline_s ({expert.deadline_s:g}) exceeds agent.expert_s ({self.agent.expert_s:g}), which "
                    "ends every wait; raise agent.expert_s"
                )
        price = self.env.expert.price
        if self.credit.mode == "fitted" and price.changes_within:
            raise ValueError(
                f"credit.mode fitted needs one price in each episode, found the {price.name} rule of "
                "env.expert.price; use linked or heuristic"
            )
        if self.imitation.search_rows and {"Search", "SearchProduct"} & set(self.agent.bar):
            raise ValueError("imitation.search_rows teaches queries, which agent.bar forbids; leave one of them out")
        return self

    @property
    def seats(self) -> int:
        """Episodes that one actor plays at the same time."""
        share = -(-self.loop.lanes // self.rollout.actors)
        return share if self.rollout.seats is None else min(self.rollout.seats, share)

    @property
    def run_folder(self) -> Path:
        """The run's own folder."""
        return self.run.folder / self.run.name

    @property
    def digest(self) -> str:
        """Content hash of the resolved configuration, 16 hex digits."""
        return hashlib.sha256(self.yaml().encode()).hexdigest()[:16]

    def yaml(self) -> str:
        """The resolved configuration, every default spelled out."""
        return yaml.safe_dump(json.loads(self.model_dump_json()), sort_keys=False)


class ComparedKey(Section):
    """A configuration key, and its value in the runs that all others are compared with."""

    key: str
    """The key, such as credit.mode."""
    to: str
    """Its value in the baseline run, such as heuristic."""

    def value(self, config: RunConfig) -> str:
        """The key's value in a configuration.

        Raises:
            ConfigError: the configuration has no such key.
        """
        try:
            return str(reduce(getattr, self.key.split("."), config))
        except AttributeError as error:
            raise ConfigError(
                f"compare {self.key}={self.to}: the key must be one of a run's, found {self.key}; "
                "`agile-ray keys` lists them"
            ) from error


class Axes(Section):
    """The runs of a sweep. A spec without any of these keys is one run."""

    runs: tuple[tuple[str, ...], ...] = ()
    """One list of overrides per run."""
    grid: dict[str, tuple[str | None, ...]] = {}
    """Values by key; every combination is a run. Seeds are those of the key `seed`."""
    together: bool = False
    """Train all runs in one process, on the same engines and learners, sharing imitation."""
    compare: ComparedKey | None = None
    """Which runs to compare."""
    imitation_ignores: tuple[str, ...] = ()
    """Keys that imitation disregards, such as env.advice_cost: runs that differ by them alone share one imitation."""

    @property
    def vary(self) -> bool:
        """Whether they name runs."""
        return bool(self.runs or self.grid)
