"""track_many.py --ray on a cluster of two nodes on this machine. Ray is not needed for anything else, and large.

Ray listens on the machine's own address; `unshare -n` before the command, with the loopback interface up, keeps all of
it on this machine.
"""

import threading
import time

import numpy as np
import pytest

from tests.many_videos import read_table, run, write_videos
from tests.trees import folder_bytes

ray = pytest.importorskip("ray")
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
    clip = tuple(np.concatenate([part] * 4) for part in clip)
    return write_videos(tmp_path_factory.mktemp("ray") / "videos", clip, NAMES, length=60)


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
