"""Which allocator a run's actors load."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from agile_ray.config import Cluster
from launch.cluster import allocator

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch):
    for name in ("LD_PRELOAD", "MALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)


def test_on_cpus_actors_load_the_one_of_ray_s_package():
    found = allocator.variables(Cluster())
    assert found["MALLOC_CONF"] == allocator.CONFIGURATION
    library = Path(found["LD_PRELOAD"])
    assert library.is_file()
    assert library.is_relative_to(Path(ray.__file__).parent)


def test_what_the_user_sets_stays(monkeypatch):
    monkeypatch.setenv("MALLOC_CONF", "narenas:1")
    assert allocator.variables(Cluster())["MALLOC_CONF"] == "narenas:1"
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libtcmalloc.so")
    assert allocator.variables(Cluster()) == {}


def test_a_process_that_computes_itself_begins_anew_once(tmp_path):
    script = tmp_path / "computes.py"
    script.write_text(
        "import sys\nfrom agile_ray.config import Cluster\nfrom launch.cluster import allocator\n"
        "allocator.begin_anew(Cluster())\n"
        "print('jemalloc' in open('/proc/self/maps').read(), bool(allocator.variables(Cluster())), *sys.argv[1:])"
    )
    found = subprocess.run(
        [sys.executable, script, "a b"],
        capture_output=True,
        text=True,
        timeout=110,
        check=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert found.stdout == "True True a b\n"


def test_nothing_is_loaded_on_gpus_or_where_it_is_not_there(monkeypatch, tmp_path):
    assert allocator.variables(Cluster(device="gpu")) == {}
    monkeypatch.setattr(allocator, "find_spec", lambda _: type("Spec", (), {"origin": str(tmp_path / "__init__.py")}))
    assert allocator.variables(Cluster()) == {}
