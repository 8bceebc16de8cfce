"""Writes a working environment, its config and its test into the working folder, as a beginning."""

from pathlib import Path

from agile_ray.errors import ConfigError

ENVIRONMENT = '''"""{name}: what is asked, and what is worth remembering."""

from agile_ray.agent.environment import Question
from agile_ray.config import Env
from envs.dataset.judges import exact
from envs.one_stream import OneStream

RIVERS = {{
    "train": {{"ubangi": "congo", "isar": "danube", "oka": "volga", "main": "rhine", "cher": "loire"}},
    "validation": {{"drava": "danube", "kama": "volga", "kasai": "congo"}},
    "test": {{"neckar": "rhine", "allier": "loire", "sava": "danube"}},
}}
WAYS = ("which river does the {{}} join ?", "where does the {{}} end ?")


def build(env: Env, *, seed: int) -> OneStream:
    """Each river is asked about twice, so advice on it is worth remembering."""
    del env, seed
    splits = {{split: questions(rivers) for split, rivers in RIVERS.items()}}
    return OneStream("{name}", splits=splits | {{"imitation": splits["train"]}}, judge=exact)


def questions(rivers: dict[str, str]) -> list[Question]:
    return [
        Question(id=f"{{river}}-{{number}}", text=way.format(river), answer=answer, item=river)
        for river, answer in rivers.items()
        for number, way in enumerate(WAYS)
    ]
'''
CONFIG = """# agile-ray model tiny --config {name}.yaml --output models/{name}
# agile-ray check {name}.yaml
# agile-ray train {name}.yaml
base: quickstart
run: {{name: {name}}}
model: {{path: models/{name}}}
env: {{name: "{name}:build"}}
imitation: {{sessions: 6400}}
loop: {{iterations: 8, sessions_per_lane: 10, evaluate_every: 4, checkpoint_every: 4}}
evaluate: {{sessions: null, validation_sessions: 6}}
"""
TEST = '''"""The environment keeps its contract."""

from pathlib import Path

from launch.extend.check import check
from launch.run.shipped_configs import read


def test_nothing_is_wrong(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)
    assert check(read("{name}.yaml")) == []
'''


def write_environment(name: str, folder: Path) -> list[Path]:
    """Write NAME.py, NAME.yaml and test_NAME.py; return their paths.

    Raises:
        ConfigError: the name is no module's, or one of the files exists.
    """
    if not (name.isidentifier() and name.isascii() and name == name.lower()):
        raise ConfigError(f"NAME: the name of a module: lower-case letters, digits and _, found {name}")
    texts = {f"{name}.py": ENVIRONMENT, f"{name}.yaml": CONFIG, f"test_{name}.py": TEST}
    paths = [folder / file for file in texts]
    there = [path for path in paths if path.exists()]
    if there:
        raise ConfigError(f"{there[0]}: it is there already; choose another name, or remove it")
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text.format(name=name), encoding="utf-8")
    return paths
