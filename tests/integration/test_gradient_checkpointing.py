"""That `learner.gradient_checkpointing` reaches the model under DeepSpeed, on one rank in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[2]
RANK = """
import json, sys
from pathlib import Path
import numpy as np
from torch import distributed
from agile_ray.config import Learner
from learner.compiler.folder import choose_folder
from learner.compiler.lock import compile_alone
from learner.engine import DeepSpeedEngine, RankInfo
from learner.losses import token_logprobs
from learner.messages import RankSettings
from learner.micro_batch import make_micro_batch
from learner.ragged import lay_out
from tests.fakes.tiny_policy import SEGMENTS, tiny

compile_alone(choose_folder())  # as an actor does: where it is compiled already, and never behind a dead owner
folder, stage, again = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "again"
tiny(attention_dropout=0.5).save_pretrained(folder)
learner = Learner(ranks=1, zero_stage=stage, gradient_checkpointing=again)
values = dict(folder=folder, learner=learner, deadline_s=100.0, attention="sdpa", temperature=1.0, function_ids=(3,))
settings = RankSettings(**{name: values.get(name) for name in RankSettings.__dataclass_fields__})
info = RankInfo(rank=0, ranks=1, store=distributed.HashStore(), device="cpu", seed=0)
engine = DeepSpeedEngine(settings, info)
passes = []
for layer in engine.language_model.model.layers:
    layer.self_attn.register_forward_hook(lambda *_: passes.append(1))
batch = make_micro_batch(lay_out(SEGMENTS), np.arange(3), engine.device)
loss = -token_logprobs(engine.forward(batch).logits, batch.actions, temperature=1.0).mean()
forward = len(passes)
engine.backward(loss)
norm = engine.step([loss.item()], learning_rate=1e-3, call="test")
after = engine.forward(batch).logits.detach().double().sum().item()
print("found:" + json.dumps([forward, len(passes) - forward, loss.item(), norm, after]))
"""


def rank(folder: Path, stage: int, how: str) -> list[float]:
    """Attention passes of two layers forward, and from there to the next forward pass; loss, norm, later logits."""
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{RANK}",
        str(folder),
        str(stage),
        how,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, cwd=ROOT)
    return json.loads(done.stdout.rpartition("found:")[2])


@pytest.mark.parametrize("stage", [2, 3])
def test_layers_run_again_in_the_backward_pass_and_no_bit_changes(tmp_path: Path, stage: int):
    plain, again = (rank(tmp_path / how, stage, how) for how in ("once", "again"))
    assert plain[:2] == [2, 2]  # forward; the forward pass after the step
    assert again[:2] == [2, 4]
    assert plain[2:] == again[2:]
