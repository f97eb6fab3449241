"""track_many.py --ray on a cluster of two nodes on this machine. Ray is not needed for anything else, and large.

Ray listens on the machine's own address; `unshare -n` before the command, with the loopback interface up, keeps all of
it on this machine.
"""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.many_videos import read_table, run, write_videos
from tests.trees import folder_bytes

ray = pytest.importorskip("ray")
yaml = pytest.importorskip("yaml")
cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = pytest.mark.slow

NAMES = [f"video{number}" for number in range(6)]


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def videos(clip, tmp_path_factory):
    clip = tuple(np.concatenate([part] * 8) for part in clip)
    return write_videos(tmp_path_factory.mktemp("ray") / "videos", clip, NAMES, length=120)


@pytest.fixture(scope="module")
def expected(videos, tiny_checkpoint, tmp_path_factory):
    output = tmp_path_factory.mktemp("expected")
    assert run(videos, output, tiny_checkpoint, "--workers", 1) == 0
    return {name: folder_bytes(output / name) for name in NAMES}


def test_two_nodes_give_the_same_masks(cluster, videos, expected, tiny_checkpoint, tmp_path):
    cluster.add_node(num_cpus=1)
    assert run(videos, tmp_path, tiny_checkpoint, "--ray", cluster.address) == 0
    assert {name: folder_bytes(tmp_path / name) for name in NAMES} == expected
    assert {row["attempts"] for row in read_table(tmp_path).values()} == {"1"}


def test_a_node_that_dies_costs_its_video_nothing(cluster, videos, expected, tiny_checkpoint, tmp_path):
    node = cluster.add_node(num_cpus=1)

    def kill_in_the_middle():
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("*/masks/00005.png"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    assert run(videos, tmp_path, tiny_checkpoint, "--ray", cluster.address) == 0
    killer.join()
    assert {name: folder_bytes(tmp_path / name) for name in NAMES} == expected
    assert "2" in {row["attempts"] for row in read_table(tmp_path).values()}


def test_no_cluster_is_told_in_one_line(videos, tiny_checkpoint, tmp_path, capsys):
    assert run(videos, tmp_path, tiny_checkpoint, "--ray", "127.0.0.1:1") == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1 and "127.0.0.1:1" in lines[0]


def list_processes(mark):
    """[(id, command line)] of the processes in whose environment a text is. Processes give it to those they start."""
    found = []
    for number in (entry.name for entry in os.scandir("/proc") if entry.name.isdecimal()):
        try:
            with open(f"/proc/{number}/environ") as environment, open(f"/proc/{number}/cmdline") as command:
                found += [(int(number), command.read())] if mark in environment.read() else []
        except (OSError, UnicodeDecodeError):
            continue
    return found


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number, moment", [(signal.SIGINT, "tracking"), (signal.SIGTERM, "tracking"),
                                            (signal.SIGTERM, "starting")])
def test_an_end_from_outside_leaves_no_process_and_nothing_is_lost(videos, expected, tiny_checkpoint, tmp_path, number,
                                                                   moment):
    output, mark = tmp_path / "out", f"RDE_TEST={tmp_path}"

    def one_is_finished_and_the_next_begun():
        return 0 < len(list(output.glob("*/.video.json"))) < len(list(output.glob("*/masks")))

    # With one core, videos come one after the other.
    core = min(os.sched_getaffinity(0))
    process = subprocess.Popen(
        [sys.executable, "track_many.py", str(videos), "--output", str(output), "--model", str(tiny_checkpoint),
         "--threads", "1", "--no-overlay", "--ray", "local"], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "RDE_TEST": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    try:
        assert wait_until(one_is_finished_and_the_next_begun if moment == "tracking" else
                          lambda: any("gcs_server" in command for _, command in list_processes(mark)))
        process.send_signal(number)
        _, told = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, told
    lines = [line for line in told.splitlines() if "interrupted" in line]
    assert len(lines) == 1 and "the same command goes on from here" in lines[0] and "Traceback" not in told
    assert wait_until(lambda: not list_processes(mark), 20), list_processes(mark)
    finished = {path.parent.name: path.stat().st_mtime_ns for path in output.glob("*/.video.json")}
    assert len(finished) < len(NAMES) and bool(finished) == (moment == "tracking")
    assert run(videos, output, tiny_checkpoint, "--workers", 1) == 0
    assert {name: folder_bytes(output / name) for name in NAMES} == expected
    for name, stamp in finished.items():
        assert (output / name / ".video.json").stat().st_mtime_ns == stamp


def test_the_file_for_ray_up_is_one_that_ray_takes():
    config = yaml.safe_load((ROOT / "docs" / "cluster" / "cluster.yaml").read_text())
    util = pytest.importorskip("ray.autoscaler._private.util")
    util.validate_config(util.prepare_config(config))
