"""docs/tour.ipynb runs from top to bottom."""

import ast
import shutil

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_notebook_runs_from_top_to_bottom(tmp_path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    # It writes into the folder of the repository, so that gets another one here.
    for name in ("dataset", "evaluation", "inference_core", "model", "util", "weights", "track.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "tour.ipynb", tmp_path / "docs")
    notebook = nbformat.read(tmp_path / "docs" / "tour.ipynb", as_version=4)
    assert len(notebook.cells) == 10
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3",
                            resources={"metadata": {"path": str(tmp_path / "docs")}}).execute()
    results = [cell.outputs[-1].data["text/plain"] for cell in notebook.cells
               if cell.cell_type == "code" and cell.outputs and cell.outputs[-1].output_type == "execute_result"]
    size, _, _, scores, _, corrected, ids, files = (None if "Image" in text else ast.literal_eval(text)
                                                    for text in results)
    assert size == (24, (240, 427, 3), (240, 427))
    assert set(scores) == set(corrected) == {1, 2}
    assert 0.8 < sum(scores.values()) / 2 < sum(corrected.values()) / 2
    assert ids == ([0, 2], [0, 1, 2])
    assert files == 24
