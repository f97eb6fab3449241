import numpy as np

from dataset.synthetic import render_clip
from tests.trees import photograph


def test_clip_is_what_it_says():
    textures = [photograph(2), photograph(3)]
    clips = [list(render_clip(photograph(1), textures, (60, 90), 12, seed=5)) for _ in range(2)]
    for frame, ids in clips[0]:
        assert frame.shape == (60, 90, 3) and frame.dtype == ids.dtype == np.uint8
        assert set(np.unique(ids)) == {0, 1, 2}
    assert all((one == other).all() for first, second in zip(*clips, strict=True)
               for one, other in zip(first, second, strict=True))
    centres = [np.argwhere(ids == 2).mean(0) for _, ids in clips[0]]
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    assert steps.min() > 0.2 and steps.max() < 15


def test_masks_are_exact():
    """A white object on black: it is drawn where its mask is, to half a pixel."""
    black, white = np.zeros((120, 160, 3), np.uint8), np.full((120, 160, 3), 255, np.uint8)
    for frame, ids in render_clip(black, [white], (60, 90), 5):
        assert ((frame[..., 0] > 127) == (ids == 1)).all()
