"""The reaper: which processes it ends, and which it does not."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from launch.cluster import reaper

ROOT = Path(__file__).resolve().parents[2]
LONG_S = 60.0
"""Longest wait for what comes at once, however busy the machine is, seconds."""


WATCHER = """
import sys
from contextlib import suppress
from launch.cluster import reaper
reaper.NOTE_S = 0.05
found = reaper._descendants

def told(process):
    now = found(process)
    with suppress(BrokenPipeError):  # the driver is gone
        print(*(one.pid for one in now), flush=True)
    return now

reaper._descendants = told
reaper.reap("none", seen=reaper.watch(int(sys.argv[1])), grace_s=0.2)
"""


def test_the_reaper_ends_recorded_processes_even_without_the_mark():
    driver = f"""
import os, subprocess, sys
quiet = {{"stdout": subprocess.DEVNULL}}
early = subprocess.Popen(["sleep", "600"], **quiet)
pipes = {{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}}
watch = subprocess.Popen([sys.executable, "-c", {WATCHER!r}, str(os.getpid())], text=True, **pipes)
watch.stdout.readline()
late = subprocess.Popen(["sleep", "600"], **quiet)
while str(late.pid) not in watch.stdout.readline().split():
    assert watch.poll() is None
print(early.pid, late.pid, watch.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    answer = subprocess.run([sys.executable, "-c", driver], stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    early, late, watch = (psutil.Process(int(word)) for word in answer.stdout.split())
    try:
        psutil.wait_procs([late, watch], timeout=LONG_S)
        assert [process.is_running() for process in (early, late, watch)] == [True, False, False]
    finally:
        early.kill()
        with suppress(psutil.NoSuchProcess):
            late.kill()


def test_the_reaper_ends_processes_with_its_mark_and_no_others():
    nap = [sys.executable, "-c", "import time; time.sleep(600)"]
    ours = subprocess.Popen(nap, env=os.environ | {reaper.MARK: "a1"})
    others = subprocess.Popen(nap, env=os.environ | {reaper.MARK: "a12"})
    try:
        while reaper.marked("a1") != {psutil.Process(ours.pid)}:  # only once the child has replaced this program
            assert ours.poll() is None
        reaper.reap("a1", grace_s=0)
        assert ours.wait(timeout=LONG_S) == -signal.SIGKILL
        assert reaper.marked("a12") == {psutil.Process(others.pid)}
    finally:
        others.kill()
        others.wait(timeout=LONG_S)


PARENT = """
import subprocess
input()
print(subprocess.Popen(["sleep", "600"], env={}, stdout=subprocess.DEVNULL).pid, flush=True)
while input() != "end":
    pass
"""


class Grace:
    """Stands for time: the grace is over once a process has ended by itself, or after a minute."""

    def __init__(self, process):
        self.process, self.end = process, time.monotonic() + LONG_S

    def monotonic(self):
        return 0.0 if self.process.poll() is None and time.monotonic() < self.end else 9.0

    def sleep(self, seconds):
        time.sleep(0.02)


def test_the_reaper_ends_processes_that_start_while_it_waits(monkeypatch):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    started = subprocess.Popen([sys.executable, "-c", PARENT], **pipes)
    descendants = reaper._descendants

    def looked(process):
        found = descendants(process)
        if process == started.pid:
            with suppress(BrokenPipeError):  # it has ended
                os.write(started.stdin.fileno(), b"end\n" if found else b"start\n")
        return found

    monkeypatch.setattr(reaper, "_descendants", looked)
    monkeypatch.setattr(reaper, "time", Grace(started))
    reaper.reap("none", seen={psutil.Process(started.pid)}, grace_s=3)
    late = int(started.stdout.readline())
    assert not psutil.pid_exists(late) or psutil.Process(late).status() == psutil.STATUS_ZOMBIE
    assert started.wait(timeout=LONG_S) == 0


SHARER = """
import multiprocessing, os, sys, time
from multiprocessing import resource_tracker, shared_memory
resource_tracker.register = lambda *_: None  # the tracker that would clean up is killed too
kept = shared_memory.SharedMemory(name=sys.argv[1], create=True, size=4096)
lock = multiprocessing.get_context("spawn").Lock()
print(lock._semlock.name.removeprefix("/"), flush=True)
time.sleep(600)
"""


MAPPER = """
import mmap, sys, time
files = [open(f"/dev/shm/{name}", "r+b") for name in sys.argv[1:]]
kept = [mmap.mmap(file.fileno(), 0) for file in files]
print("mapped", flush=True)
time.sleep(600)
"""


def sharer(name):
    """A process that shares memory of this name, and the names of its files in /dev/shm."""
    words = [sys.executable, "-c", SHARER, name]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    return process, {name, f"sem.{process.stdout.readline().strip()}"}


def in_shared_memory(names):
    return {name for name in names if (reaper.SHARED_MEMORY / name).exists()}


def test_what_the_ended_processes_shared_is_unlinked_and_nothing_else():
    token = secrets.token_hex(4)
    bystanders = [sharer(f"psm_early_{token}"), sharer(f"other_{token}")]  # before the run
    memory = reaper.SharedMemory()
    ours, names = sharer(f"odd-name.{token}")
    neighbour, theirs = sharer(f"psm_{token}")  # another run, which goes on
    joint = subprocess.Popen(
        [sys.executable, "-c", MAPPER, f"psm_{token}", f"psm_early_{token}"], stdout=subprocess.PIPE, text=True
    )
    own_folder = reaper.SHARED_MEMORY / f"models-{token}"
    own_folder.mkdir()
    (own_folder / "weights").write_bytes(b"mine")
    try:
        assert joint.stdout.readline() == "mapped\n"
        bystanders[0][0].kill()  # its file has no owner, but is older than the run
        bystanders[0][0].wait()
        memory.note([psutil.Process(ours.pid), psutil.Process(joint.pid)])
        reaper.reap("none", seen={psutil.Process(ours.pid), psutil.Process(joint.pid)}, memory=memory, grace_s=0)
        assert in_shared_memory(names) == set()
        assert in_shared_memory(theirs) == theirs  # ours had mapped it, but its owner lives
        assert in_shared_memory(bystanders[0][1]) == bystanders[0][1]
        assert in_shared_memory(bystanders[1][1]) == bystanders[1][1]
        assert (own_folder / "weights").exists()
    finally:
        shutil.rmtree(own_folder)
        for process in (ours, neighbour, joint, *(one for one, _ in bystanders)):
            process.kill()
            process.wait()
        for name in {*names, *theirs, *bystanders[0][1], *bystanders[1][1]}:
            (reaper.SHARED_MEMORY / name).unlink(missing_ok=True)


def test_shared_memory_of_a_process_that_ended_before_the_driver_is_unlinked_too():
    token = secrets.token_hex(4)
    memory = reaper.SharedMemory()
    process, names = sharer(f"psm_{token}")
    memory.note([psutil.Process(process.pid)])
    process.kill()
    process.wait()
    assert in_shared_memory(names) == names
    reaper.reap("none", memory=memory, grace_s=0)
    assert in_shared_memory(names) == set()


def test_without_dev_shm_there_is_nothing_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(reaper, "SHARED_MEMORY", tmp_path / "none")
    memory = reaper.SharedMemory()
    memory.note([psutil.Process()], changed_only=False)
    memory.unlink()
