import pytest

from evaluation import references
from inference_core import InferenceCore
from tests.trees import davis_tree


@pytest.mark.parametrize("options", [(), ("--both-ways",)])
def test_a_table_with_a_column_for_each_set_of_references(clip, tiny_checkpoint, tmp_path, run, options):
    tree = davis_tree(tmp_path, clip, length=7) / "trainval"
    code, out, err = run("references", "--davis_path", tree, "--model", tiny_checkpoint, *options)
    assert code == 0, err
    header, *rows = out.splitlines()
    assert all(name in header for name in references.GIVEN)
    assert [row.split()[0] for row in rows] == ["bear", "camel", "dog", "mean"]
    means = [float(number) for number in rows[-1].split()[-4:]]
    assert all(0 < mean < 100 for mean in means) and len(set(means)) == 4


class RecordingCore(InferenceCore):
    """Notes the frames that it is given, and which of their masks are wanted."""

    def step(self, image, mask=None, objects=None, *, frame, needs_output=True):
        self.seen.append((frame, mask is not None, needs_output))
        return super().step(image, mask, objects, frame=frame, needs_output=needs_output)


@pytest.mark.parametrize("shares, ahead", [((), []), ((0.5,), [3]), ((1,), [6]), ((0.5, 1), [6, 3])])
def test_masks_are_given_ahead_and_the_same_frames_are_scored(clip, tiny_network, tmp_path, shares, ahead):
    root = davis_tree(tmp_path, clip, ["bear"], length=7)
    video, = references.EVALUATION_SETS["davis17"].find(root, "val")
    core = RecordingCore(tiny_network)
    core.seen = []
    assert len(references.score_video(core, video, shares)) == 2
    assert [frame for frame, given, _ in core.seen[:len(ahead)] if given] == ahead
    rest = core.seen[len(ahead):]
    assert [frame for frame, given, _ in rest if given] == sorted([0, *ahead])
    assert [frame for frame, _, scored in rest if scored] == [1, 2, 4, 5]
    assert set(core.references[1]) == {0, *ahead}
