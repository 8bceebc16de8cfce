"""Whether a checkpoint can be loaded: every part is there, and none is cut off.

part                                  checked by
config.json                           being a JSON object
*.safetensors                         header and length, also in adapter/; with an index, every file that it names
resume/state.json                     its fields (checkpoints.py)
everything else in resume/            its length, which state.json lists; lanes/ and credit once PPO has begun
"""

import json
from collections.abc import Mapping
from pathlib import Path

from agile_ray.record.folder import CheckpointFolder
from agile_ray.types import RunState


def weights_fault(folder: Path) -> str | None:
    """Why a Hugging Face folder can't be loaded; None if it can."""
    if fault := _json_fault(folder / "config.json"):
        return fault
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        files = sorted(folder.glob("*.safetensors"))
    elif fault := _json_fault(index):
        return fault
    else:
        files = [folder / name for name in sorted(set(json.loads(index.read_bytes()).get("weight_map", {}).values()))]
    if not files:
        return "it has no *.safetensors"
    files += sorted(CheckpointFolder(folder).adapter.glob("*.safetensors"))
    return next((fault for file in files if (fault := _safetensors_fault(file))), None)


def resume_fault(folder: CheckpointFolder, state: RunState, sizes: Mapping[str, int]) -> str | None:
    """Why a run can't resume from a checkpoint, its weights and state.json apart; None if it can.

    Args:
        folder: the checkpoint.
        state: what state.json says.
        sizes: what `resume_sizes` found when it was written; may be empty, then no file may be.
    """
    found = resume_sizes(folder)
    filled = (folder.learners, *([folder.lanes] if state.iteration else []))
    for name in (_name(folder, path) for path in filled):
        if not any(file.startswith(f"{name}/") for file in found):
            return f"it has no files in {name}"
    needed = [_name(folder, folder.credit)] if state.iteration else []
    for name in (*needed, *sizes):
        if name not in found:
            return f"it has no {name}"
    for name, size in found.items():
        if sizes.get(name, size) != size:
            return f"{name} has {size} of {sizes[name]} bytes"
        if not size and not sizes:
            return f"{name} is empty"
    return None


def resume_sizes(folder: CheckpointFolder) -> dict[str, int]:
    """Bytes of each file in `resume/` but state.json, by its path in the checkpoint."""
    files = sorted(path for path in folder.state.parent.rglob("*") if path.is_file() and path != folder.state)
    return {_name(folder, file): file.stat().st_size for file in files}


def _name(folder: CheckpointFolder, path: Path) -> str:
    return path.relative_to(folder.path).as_posix()


def _json_fault(path: Path) -> str | None:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return f"it has no {path.name}"
    except (OSError, ValueError) as error:
        return f"{path.name} can't be read ({error})"
    return None if isinstance(content, dict) else f"{path.name} holds no JSON object"


def _safetensors_fault(path: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):  # reads the header, and compares the file's length with it
            return None
    except FileNotFoundError:
        return f"it has no {path.name}"
    except (OSError, SafetensorError) as error:
        return f"{path.name} can't be read ({error})"
