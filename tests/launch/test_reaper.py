"""The reaper: which processes it ends, and which it does not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from launch.cluster import reaper

ROOT = Path(__file__).resolve().parents[2]


def test_the_reaper_ends_recorded_processes_even_without_the_mark():
    watcher = """
import sys
from launch.cluster import reaper
reaper.NOTE_S = 0.2
print("up", flush=True)
reaper.reap("none", seen=reaper.watch(int(sys.argv[1])), grace_s=0.2)
"""
    driver = f"""
import os, subprocess, sys, time
quiet = {{"stdout": subprocess.DEVNULL}}
early = subprocess.Popen(["sleep", "60"], **quiet)
pipes = {{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}}
watch = subprocess.Popen([sys.executable, "-c", {watcher!r}, str(os.getpid())], **pipes)
watch.stdout.readline()
time.sleep(0.5)
late = subprocess.Popen(["sleep", "60"], **quiet)
time.sleep(1)
print(early.pid, late.pid, watch.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    answer = subprocess.run([sys.executable, "-c", driver], stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    early, late, watch = (psutil.Process(int(word)) for word in answer.stdout.split())
    try:
        psutil.wait_procs([late, watch], timeout=10)
        assert [process.is_running() for process in (early, late, watch)] == [True, False, False]
    finally:
        early.kill()


def test_the_reaper_ends_processes_with_its_mark_and_no_others():
    nap = [sys.executable, "-c", "import time; time.sleep(60)"]
    ours = subprocess.Popen(nap, env=os.environ | {reaper.MARK: "a1"})
    others = subprocess.Popen(nap, env=os.environ | {reaper.MARK: "a12"})
    try:
        while reaper.marked("a1") != {psutil.Process(ours.pid)}:  # only once the child has replaced this program
            assert ours.poll() is None
        reaper.reap("a1", grace_s=0)
        assert ours.wait(timeout=10) == -signal.SIGKILL
        assert reaper.marked("a12") == {psutil.Process(others.pid)}
    finally:
        others.kill()
        others.wait(timeout=10)


def test_the_reaper_ends_processes_that_start_while_it_waits():
    parent = """
import subprocess, time
time.sleep(0.5)
print(subprocess.Popen(["sleep", "60"], env={}, stdout=subprocess.DEVNULL).pid, flush=True)
time.sleep(1)
"""
    started = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    reaper.reap("none", seen={psutil.Process(started.pid)}, grace_s=3)
    assert started.stdout is not None
    late = int(started.stdout.readline())
    assert not psutil.pid_exists(late) or psutil.Process(late).status() == psutil.STATUS_ZOMBIE
    assert started.wait(timeout=10) == 0
