"""A /dev/shm that is too small for the engines is refused before anything starts."""

import shutil
from types import SimpleNamespace

import pytest

from agile_ray.errors import ConfigError
from launch.run import preflight

MIB = 2**20


def check(monkeypatch, *, free_mib, actors=1, device="cpu", tensor_parallel=1):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_mib * MIB))
    config = SimpleNamespace(
        cluster=SimpleNamespace(device=device), rollout=SimpleNamespace(actors=actors, tensor_parallel=tensor_parallel)
    )
    preflight.check_shared_memory(config)


@pytest.mark.parametrize(
    "found", [{"free_mib": 64}, {"free_mib": 239, "actors": 2}, {"free_mib": 64, "device": "gpu", "tensor_parallel": 2}]
)
def test_too_little_is_refused_and_the_option_of_docker_named(monkeypatch, found):
    with pytest.raises(ConfigError, match=rf"^/dev/shm: .* found {found['free_mib']} MiB free; .*--shm-size="):
        check(monkeypatch, **found)


@pytest.mark.parametrize("found", [{"free_mib": 241}, {"free_mib": 400, "actors": 2}, {"free_mib": 1, "device": "gpu"}])
def test_enough_is_accepted(monkeypatch, found):
    check(monkeypatch, **found)


def test_a_machine_without_dev_shm_is_left_to_vllm(monkeypatch, tmp_path):
    monkeypatch.setattr(preflight, "SHARED_MEMORY", tmp_path / "none")
    check(monkeypatch, free_mib=0)
