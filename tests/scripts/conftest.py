"""Data that several tests of scripts train on."""

import pytest

from tests.trees import davis_tree, static_tree


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Five images with their masks."""
    return static_tree(tmp_path_factory.mktemp("static"))


@pytest.fixture(scope="module")
def videos(clip, tmp_path_factory):
    """Three videos of eight frames, two objects each."""
    return davis_tree(tmp_path_factory.mktemp("videos"), clip, length=8) / "trainval"
