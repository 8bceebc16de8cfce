"""What a run asks of a cluster, and what it says where there is too little."""

import pytest

from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError
from launch.cluster.room import Needs, check
from launch.plan import this_machine
from launch.run import preflight


def config(**sections: dict[str, object]) -> RunConfig:
    return RunConfig.model_validate({"run": {"name": "t"}, "model": {"path": "m"}, "env": {"name": "shop"}, **sections})


GPUS = config(
    cluster={"device": "gpu"}, rollout={"actors": 2, "tensor_parallel": 2, "dtype": "bfloat16"}, learner={"ranks": 3}
)
SHARED = config(cluster={"device": "gpu", "colocate": True}, rollout={"actors": 2}, learner={"ranks": 2})


def test_each_engine_and_each_rank_has_a_bundle() -> None:
    needs = Needs.of(GPUS, engines=2, ranks=3)
    assert [needs.bundles[place] for place in needs.engines] == [{"CPU": 1, "GPU": 2}] * 2
    assert [needs.bundles[place] for place in needs.ranks] == [{"CPU": 1, "GPU": 1}] * 3
    assert len({*needs.engines, *needs.ranks}) == len(needs.bundles) == 5
    assert needs.total == {"CPU": 5, "GPU": 7}


def test_on_a_cpu_no_gpu_is_asked_for() -> None:
    needs = Needs.of(config(learner={"ranks": 1}), engines=1, ranks=1)
    assert needs.bundles == ({"CPU": 1}, {"CPU": 1})


def test_colocated_an_engine_shares_the_bundle_of_a_rank() -> None:
    needs = Needs.of(SHARED, engines=2, ranks=2)
    assert needs.bundles == ({"CPU": 2, "GPU": 1},) * 2
    assert needs.engines == needs.ranks == (0, 1)
    assert SHARED.cluster.gpu_share == 0.5


def test_too_little_in_all_is_refused_with_what_is_needed_there_and_free() -> None:
    nodes = [{"CPU": 8.0, "GPU": 4.0, "memory": 1.0}, {"CPU": 8.0, "GPU": 2.0}]
    with pytest.raises(ConfigError) as caught:
        check(Needs.of(GPUS, engines=2, ranks=3), nodes=nodes, free={"CPU": 15.0, "GPU": 5.0})
    assert str(caught.value) == (
        "cluster: 2 engines and 3 learner ranks need 7 GPUs and 5 CPUs, the cluster has 6 GPUs and 16 CPUs, free are 5 "
        "GPUs and 15 CPUs; add nodes, or lower rollout.actors, rollout.tensor_parallel or learner.ranks, or share GPUs "
        "with cluster.colocate=true"
    )


def test_an_engine_that_no_node_can_hold_is_refused_although_there_are_enough_gpus() -> None:
    with pytest.raises(
        ConfigError, match="one node must have 2 GPUs and 1 CPUs, and the largest has 1 GPUs and 4 CPUs"
    ):
        check(Needs.of(GPUS, engines=1, ranks=1), nodes=[{"CPU": 4.0, "GPU": 1.0}] * 5, free={})


@pytest.mark.parametrize(
    ("gpus", "driver", "refused"), [(0, False, True), (2, True, True), (7, True, False), (0, True, False)]
)
def test_a_run_on_this_machine_is_refused_before_ray_starts(monkeypatch, tmp_path, gpus, driver, refused) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(this_machine, "_gpus", lambda: [("H100", 80 << 30)] * gpus)
    monkeypatch.setattr(preflight, "GPUS", str(tmp_path if driver else tmp_path / "none"))
    if refused:
        with pytest.raises(ConfigError, match=f"need 7 GPUs and 5 CPUs, the cluster has {gpus} GPUs and 5 CPUs"):
            preflight.check_gpus(GPUS)
    else:  # where nvidia-smi does not answer, Ray counts
        preflight.check_gpus(GPUS)


def test_what_fits_is_accepted_also_where_none_of_it_is_free() -> None:
    check(Needs.of(GPUS, engines=2, ranks=3), nodes=[{"CPU": 4.0, "GPU": 4.0}, {"CPU": 1.0, "GPU": 3.0}], free={})


@pytest.mark.parametrize(
    ("needs", "advice"),
    [
        (Needs.of(SHARED, engines=2, ranks=2), "lower rollout.actors, rollout.tensor_parallel or learner.ranks$"),
        (Needs.of(GPUS, engines=0, ranks=3), "lower learner.ranks$"),
        (Needs.of(config(), engines=1, ranks=0), "lower rollout.actors$"),
    ],
)
def test_the_advice_names_only_keys_that_help(needs: Needs, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        check(needs, nodes=[{}], free={})
