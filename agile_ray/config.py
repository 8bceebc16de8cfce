"""The whole configuration of a run, in one file. A knob that is not here does not exist."""

import hashlib
import json
import typing
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator


class Section(BaseModel):
    """Read-only after loading; a misspelled key is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _takes_no_truth_value_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and bool not in (kind, *typing.get_args(kind)):
            raise ValueError(f"neither true nor false, found {value}")
        return value


class Run(Section):
    """Where a run lives."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    """Names the run's folder; the same name resumes it."""
    folder: Path = Path("runs")
    """Holds one folder per run; absolute or shared on a cluster."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Latest checkpoints that stay, beside the best on validation."""


class Model(Section):
    """The policy's starting weights."""

    path: Path
    """A Hugging Face folder with the function tokens, as `agile-ray model` writes it."""


class Env(Section):
    """The task and its expert."""

    name: str
    """Environment, by its name in envs/."""
    split: Literal["train", "validation", "test"] = "test"
    """What `agile-ray evaluate` plays."""
    advice_cost: float = Field(default=0.3, ge=0, le=1)
    """Price of one ask, in units of the reward for a right answer."""
    recorded: Path | None = None
    """Folder of a past run whose receipts answer the asks; default: the gold answer does."""
    data: Path | None = None
    """Folder of the environment's files, where it needs any."""
    categories: tuple[str, ...] | None = None
    """Categories to train on, and for `agile-ray evaluate` to play; default: the environment's own."""
    validation_categories: tuple[str, ...] | None = None
    """Categories that choose the best checkpoint."""
    test_categories: tuple[str, ...] | None = None
    """Categories of the final evaluation; never trained on."""
    tool_s: float = Field(default=2.0, gt=0)
    """Deadline of one query, in seconds."""

    @property
    def price(self) -> int:
        """Price of one ask, thousandths of the reward for a right answer."""
        return round(1000 * self.advice_cost)


class Agent(Section):
    """The executor's rules and budgets of one session."""

    forced: bool = False
    """The executor writes [GetQuestion] and [RetrieveMemory] itself, as the released code does."""
    status_line: bool = True
    """[GetQuestion] shows progress and how much of the like memory holds."""
    turns: int = Field(default=12, ge=1)
    """Engine calls in one session."""
    turn_tokens: int = Field(default=48, ge=1)
    """Tokens that the policy may write in one call."""
    session_tokens: int = Field(default=320, ge=16)
    """Tokens of one session, read and written; also the engine's context length."""
    asks: int = Field(default=2, ge=1)
    """Paid asks in one session; a further one is refused."""
    expert_s: float = Field(default=30.0, gt=0)
    """Deadline of one expert answer."""


class Memory(Section):
    """What the agent remembers."""

    embedder: Literal["hashed", "minilm"] = "hashed"
    """`hashed` needs no model; `minilm` is the paper's all-MiniLM-L6-v2."""
    top_k: int = Field(default=1, ge=1)
    """Entries of each kind that [RetrieveMemory] returns."""
    threshold: float = Field(default=0.46, ge=-1, le=1)
    """Cosine above which two questions count as similar (released code: 0.46)."""
    entry_tokens: int = Field(default=64, ge=1)
    """Tokens of one entry that are shown; the rest is cut off."""
    capacity: int = Field(default=10_000, ge=1)
    """Entries of each kind; a write beyond it is refused and counted."""


class Imitation(Section):
    """SFT on the teacher's sessions."""

    asking: Literal["random", "judgement"] = "random"
    """When the teacher asks: by chance, or when its guess is worth less than advice today."""
    asked_share: float = Field(default=0.25, ge=0, le=1)
    """Chance that the `random` teacher asks where memory and tool don't help (paper: 0.25)."""
    warm_share: float = Field(default=0.75, ge=0, le=1)
    """Share of the teacher's episodes that begin with the memory of an earlier pass, in which all advice was bought.
    Where few ask, little is remembered, and reading it would hardly be learned."""
    sessions: int = Field(default=20_000, ge=1)
    """Teacher sessions, each learned once."""
    batch: int = Field(default=128, ge=1)
    """Sessions in one optimizer step."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Peak; warmed up over the first twentieth, then down to a tenth along a cosine."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of imitation's matrix products; weights, optimizer and all of PPO keep `learner.dtype`. A CPU without bfloat16
    instructions takes float32."""
    value_coefficient: float = Field(default=3.0, ge=0)
    """Weight of the auxiliary value loss: the trunk learns how well each question can be guessed (docs/credit.md)."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Optimizer steps between checkpoints."""


class Credit(Section):
    """How the value of what was remembered reaches the session that wrote it."""

    mode: Literal["none", "heuristic", "fitted", "linked"] = "heuristic"
    """A_i of AGILE, Appendix A: 0; eq. 7; a regression of V on the state of memory; what later sessions read."""
    beta: float = Field(default=0.1, ge=0)
    """Scale of `heuristic`, reward (paper: 0.1)."""
    threshold: float = Field(default=0.46, ge=-1, le=1)
    """Cosine from which on a session's question is like that of the session whose entry it read, for `linked`."""
    window: int = Field(default=5, ge=1)
    """Iterations that `fitted` learns from, the present one included."""
    decay: float = Field(default=0.9, ge=0, le=1)
    """Lambda of `fitted`, per session."""


class PPO(Section):
    """Policy optimization."""

    learning_rate: float = Field(default=3e-4, gt=0)
    """At first; falls along a straight line to a tenth at `loop.iterations`: the last ones mend what noise broke."""
    critic_learning_rate: float = Field(default=3e-3, gt=0)
    """Of the heads: auxiliary value, critic, chance of a write; constant, in imitation too."""
    clip: float = Field(default=0.2, gt=0, lt=1)
    """Half-width of the trust region on the probability ratio."""
    update_kl_coefficient: float = Field(default=0.25, ge=0)
    """Weight of the KL from the policy before the update, of each action token against all others: see stability.md."""
    value_clip: float = Field(default=0.2, gt=0)
    """Half-width of the trust region on the critic's values, reward."""
    value_coefficient: float = Field(default=5.0, ge=0)
    """Weight of the auxiliary value loss, which teaches the trunk; the critic only reads it, and needs no weight."""
    kl_coefficient: float = Field(default=0.05, ge=0)
    """Weight of the k3 term to the frozen SFT policy, per action token; at first, if `kl_target` is given."""
    kl_target: float | None = Field(default=None, gt=0)
    """KL to the SFT policy, in nats per action token, toward which each update moves `kl_coefficient` (Ziegler et al.,
    2019); none: it stays."""
    stop_kl: float | None = Field(default=None, gt=0)
    """KL between the policies before and within an update, in nats per action token, beyond which no further step of it
    moves the weights; none: all do."""
    entropy_coefficient: float = Field(default=0.0, ge=0)
    """Weight of the entropy bonus, per action token; only function tokens earn it: elsewhere it would blur copying."""
    discount: float = Field(default=1.0, gt=0, le=1)
    """Gamma, per action token."""
    decay: float = Field(default=1.0, ge=0, le=1)
    """Lambda of GAE, per action token. Below 1, under a young critic, asking loses to guessing by its length alone."""
    epochs: int = Field(default=2, ge=1)
    """Passes over what one iteration collected."""
    minibatches: int = Field(default=4, ge=1)
    """Optimizer steps in one pass."""

    @model_validator(mode="after")
    def _can_reach_its_target(self) -> Self:
        if self.kl_target is not None and self.kl_coefficient == 0:
            raise ValueError("kl_target scales kl_coefficient, which is 0; set it above 0")
        return self


class Learner(Section):
    """The DeepSpeed ranks."""

    ranks: int = Field(default=2, ge=1)
    """Learner actors; each takes a GPU where cluster.device is gpu."""
    zero_stage: Literal[1, 2, 3] = 2
    """What DeepSpeed shards: 1 optimizer, 2 and gradients, 3 and weights."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights in forward and backward; the optimizer keeps float32."""
    micro_batch_tokens: int = Field(default=4096, ge=16)
    """Tokens, padding included, in one forward-backward pass of one rank."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of AdamW."""
    gradient_checkpointing: bool = False
    """Trade compute for memory."""
    deadline_s: float = Field(default=1800.0, gt=0)
    """Longest wait for one call of the ranks."""


class Rollout(Section):
    """The vLLM actors."""

    actors: int = Field(default=1, ge=1)
    """Engines, one to an actor."""
    lanes: int = Field(default=64, ge=1)
    """Episodes that one actor plays at once."""
    temperature: float = Field(default=1.0, gt=0)
    """Of sampling while training; the learner divides its logits by it too."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the engine's weights."""
    kv_cache_gib: float = Field(default=1.0, gt=0)
    """Key-value cache of one engine on CPU."""
    gpu_memory: float = Field(default=0.85, gt=0, le=1)
    """Share of one GPU that one engine may take."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs of one engine."""
    transport: Literal["ray_shm", "nccl"] = "ray_shm"
    """vLLM weight-transfer backend: `ray_shm` is ours and needs no GPU, `nccl` is vLLM's own."""
    deadline_s: float = Field(default=1800.0, gt=0)
    """Longest wait for one call of the actors."""


class Loop(Section):
    """How much is collected, and when to stop and look."""

    iterations: int = Field(default=20, ge=0)
    """Rounds of collect, learn, publish in the whole run; 0 stops after imitation."""
    sessions: int = Field(default=48, ge=1)
    """Sessions that each lane plays in one iteration."""
    checkpoint_every: int = Field(default=5, ge=1)
    """Iterations between checkpoints."""
    evaluate_every: int | None = Field(default=5, ge=1)
    """Iterations between evaluations on validation; none: never, and the last checkpoint is the final one."""


class Evaluate(Section):
    """How much is measured."""

    sessions: int | None = Field(default=None, ge=1)
    """Sessions that an evaluation plays; default: every stream, whole."""
    final_sessions: int | None = Field(default=None, ge=1)
    """Sessions of the comparison that ends a training, where fewer are enough."""
    validation_sessions: int = Field(default=768, ge=1)
    """Sessions of an evaluation on validation."""


class Cluster(Section):
    """Where the actors run."""

    address: str | None = None
    """A Ray cluster to join; default: the cluster of this job, else a fresh local one."""
    device: Literal["cpu", "gpu"] = "cpu"
    """What learners and engines compute on."""
    dashboard_port: int | None = Field(default=None, ge=1, le=65535)
    """Port of a local cluster's dashboard; default: no dashboard."""


class RunConfig(Section):
    """One run."""

    seed: int = Field(default=0, ge=0)
    """Root of every other seed."""
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
    def _does_not_contradict_itself(self) -> Self:
        if self.rollout.transport == "nccl" and self.cluster.device != "gpu":
            raise ValueError("rollout.transport is nccl, but cluster.device is cpu; use ray_shm or cluster.device=gpu")
        if self.ppo.minibatches > self.rollout.actors * self.rollout.lanes * self.loop.sessions:
            raise ValueError(
                f"ppo.minibatches ({self.ppo.minibatches}) exceeds the sessions of one iteration (rollout.actors x "
                f"rollout.lanes x loop.sessions = {self.rollout.actors * self.rollout.lanes * self.loop.sessions})"
            )
        if self.agent.session_tokens > self.learner.micro_batch_tokens:
            raise ValueError(
                f"agent.session_tokens ({self.agent.session_tokens}) exceeds learner.micro_batch_tokens "
                f"({self.learner.micro_batch_tokens}); one session must fit into one pass"
            )
        if self.credit.mode == "linked" and self.ppo.discount < 1:
            raise ValueError(
                f"ppo.discount is {self.ppo.discount:g}, but credit.mode is linked, which sets what readers earned, "
                "undiscounted, against the critic's V_own, which would be discounted; use ppo.discount=1"
            )
        return self

    @property
    def test_sessions(self) -> int | None:
        """Sessions of the comparison that ends a training; None: all."""
        given = [n for n in (self.evaluate.sessions, self.evaluate.final_sessions) if n is not None]
        return min(given, default=None)

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
