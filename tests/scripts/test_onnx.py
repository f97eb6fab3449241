"""The ONNX graphs against the core, with onnxruntime where it is installed."""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import export_onnx
import track_onnx
from inference_core import InferenceCore
from inference_core.graphs import TENSORS, BicubicRows, Encode, Give, Remember, Segment, Sizes
from model import PRESETS, load_network
from model.inference import take_snapshot
from tests.conftest import ROOT, recipe_network
from tests.tracking_runs import one_line_error
from util.errors import run_script
from util.hyper_para import COMPACT
from util.image_io import write_mask

SIZE = 60
"""The shorter side that the network sees of the clip's 72×100 pixels: it is resized, and padded on all sides."""


def export(*arguments):
    return run_script(export_onnx.get_args_parser(), export_onnx.main, [str(argument) for argument in arguments])


def track(*arguments):
    return run_script(track_onnx.get_args_parser(), track_onnx.main, [str(argument) for argument in arguments])


def compare(tracker, core, frames, given):
    """Hold a tracker against a core. given: {frame's number: mask}."""
    for number, frame in enumerate(frames):
        mask = given.get(number)
        prob = core.step(frame, mask, replace=True)
        ids = tracker.step(frame, mask)
        if mask is not None:
            assert np.array_equal(ids, mask)
            continue
        assert np.abs(prob.numpy() - tracker.probabilities).max() <= 1e-4
        second, first = np.sort(prob.numpy(), axis=0)[-2:]
        assert not ((core.to_mask(prob).numpy() != ids) & (first - second > 1e-3)).any()


class Session:
    """A graph as an onnxruntime.InferenceSession, run by torch."""

    def __init__(self, name, module, config, sizes):
        cells = sizes.cells[0] * sizes.cells[1]
        shapes = {"frame": [*sizes.frame, 3], "keys": [3, config.key_dim, cells],
                  "values": [3, cells, "objects", config.value_dim], "counts": [3]}
        inputs, outputs = TENSORS[name]
        self.module = module
        self.inputs = [types.SimpleNamespace(name=each, shape=shapes.get(each)) for each in inputs]
        self.outputs = [types.SimpleNamespace(name=each) for each in outputs]

    def get_inputs(self):
        return self.inputs

    def get_outputs(self):
        return self.outputs

    @torch.no_grad()
    def run(self, wanted, tensors):
        results = self.module(*(torch.tensor(tensors[each.name]) for each in self.inputs))
        return [each.numpy() for each in (results if isinstance(results, tuple) else (results,))]


@pytest.mark.parametrize("size", [None, SIZE])
def test_functions_of_the_graphs_track_as_the_core_does(tiny_network, clip, tmp_path, size):
    """Without onnxruntime: the functions that become graphs, run by torch."""
    engine, sizes = take_snapshot(tiny_network, packed=False), Sizes((72, 100), size)
    modules = {"encode": Encode(engine, sizes), "give": Give(sizes), "segment": Segment(engine, sizes, 40),
               "remember": Remember(engine, sizes)}
    for name in modules:
        (tmp_path / f"{name}.onnx").touch()
    tracker = track_onnx.OnnxTracker(
        tmp_path, open_graph=lambda path: Session(path.stem, modules[path.stem], engine.config, sizes))
    frames, truth = clip
    compare(tracker, InferenceCore(tiny_network, size=size, places=False), frames,
            {0: truth[0], 11: truth[11]})


@pytest.mark.parametrize("length, wanted", [(72, 60), (100, 83), (37, 50), (480, 480), (1080, 480), (3, 2), (2, 5)])
def test_rows_are_resized_as_torch_does(length, wanted):
    x = torch.rand(length, 5, 3, generator=torch.Generator().manual_seed(length))
    expected = F.interpolate(x.permute(2, 0, 1)[None], size=(wanted, 5), mode="bicubic")[0].permute(1, 2, 0)
    assert torch.allclose(BicubicRows(length, wanted)(x), expected, atol=1e-6)


def test_what_is_missing_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(track_onnx, "onnxruntime", None)
    assert track(tmp_path, "clip.mp4", "mask.png") == 2
    assert one_line_error(capsys, "pip install onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert export("--frame-size", "100x72", "--output", tmp_path / "graphs") == 2
    assert one_line_error(capsys, "requirements-onnx.txt")
    assert not (tmp_path / "graphs").exists()


@pytest.mark.parametrize("text", ["100", "100x", "100x72x3", "0x72", "-100x72", "axb"])
def test_a_size_that_is_none_is_refused(text, capsys):
    assert export("--frame-size", text) == 2
    assert one_line_error(capsys, "--frame-size")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """The compact network's graphs, and what the script that wrote them has printed."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder, printed = tmp_path_factory.mktemp("graphs"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert export("--frame-size", "100x72", "--size", SIZE, "--output", folder) == 0
    return folder, printed.getvalue()


@pytest.mark.slow
def test_graphs_of_an_export_track_as_the_core_does(graphs, clip):
    folder, printed = graphs
    assert "ONNX opset 18" in printed and "checked with onnxruntime" in printed
    frames, truth = clip
    core = InferenceCore(load_network(COMPACT, "cpu"), size=SIZE, places=False)
    tracker = track_onnx.OnnxTracker(folder, threads=1)
    compare(tracker, core, frames, {0: truth[0], 11: truth[11]})
    # One object, whose id is not 1, and then three.
    core.reset()
    compare(tracker, core, frames[:8], {0: (truth[0] == 2) * np.uint8(200)})
    three = truth[0].copy()
    three[:20, :20] = 9
    core.reset()
    compare(tracker, core, frames[:8], {0: three})


WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = sys.modules["torchvision"] = None
sys.argv[1:] = sys.argv[2:]
runpy.run_path("track_onnx.py", run_name="__main__")
"""


@pytest.mark.slow
def test_script_tracks_without_torch(graphs, clip, tmp_path, capsys):
    frames, truth = clip
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "frames" / f"{number:05d}.png")
    write_mask(tmp_path / "first.png", truth[0])
    arguments = [graphs[0], tmp_path / "frames", tmp_path / "first.png", "--output", tmp_path / "out"]
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, "track_onnx.py", *map(str, arguments)], cwd=ROOT,
                          capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    core = InferenceCore(load_network(COMPACT, "cpu"), size=SIZE, places=False)
    for number, frame in enumerate(frames):
        ids = core.to_mask(core.step(frame, truth[0] if number == 0 else None)).numpy()
        written = np.array(Image.open(tmp_path / "out" / "masks" / f"{number:05d}.png"))
        assert (ids != written).mean() < 0.001

    assert track(*arguments) == 2
    assert one_line_error(capsys, "masks already")
    Image.fromarray(frames[0][:, :80]).save(tmp_path / "small.png")
    assert track(graphs[0], tmp_path / "small.png", tmp_path / "first.png", "--output", tmp_path / "small") == 2
    assert one_line_error(capsys, "--frame-size 80x72")
    assert track(tmp_path, *arguments[1:]) == 2
    assert one_line_error(capsys, "encode.onnx")
    write_mask(tmp_path / "empty.png", np.zeros_like(truth[0]))
    assert track(*arguments[:2], tmp_path / "empty.png", "--output", tmp_path / "empty") == 2
    assert one_line_error(capsys, "holds no object")
    (tmp_path / "encode.onnx").write_bytes((graphs[0] / "encode.onnx").read_bytes()[:100])
    assert track(tmp_path, *arguments[1:]) == 2
    assert one_line_error(capsys, "encode.onnx: damaged")


@pytest.mark.slow
def test_graphs_that_compute_something_else_are_refused(graphs, monkeypatch, capsys):
    step = track_onnx.OnnxTracker.step

    def disturb(tracker, frame, given=None):
        ids = step(tracker, frame, given)
        if given is None:
            tracker.probabilities[:, :5] += 0.1
        return ids

    monkeypatch.setattr(track_onnx.OnnxTracker, "step", disturb)
    # The graphs that are there already are checked.
    monkeypatch.setattr(export_onnx, "export_graphs", lambda *arguments: [])
    assert export("--frame-size", "100x72", "--size", SIZE, "--output", graphs[0]) == 2
    assert one_line_error(capsys, "do not use these graphs", "7%")


def test_network_without_sam_is_refused(tmp_path, capsys):
    pytest.importorskip("onnxscript")
    network = recipe_network(PRESETS["tiny"])
    torch.save({name: value for name, value in network.state_dict().items() if "mem_compress" not in name},
               tmp_path / "stcn.pth")
    assert export("--model", tmp_path / "stcn.pth", "--frame-size", "100x72", "--output", tmp_path / "graphs") == 2
    assert one_line_error(capsys, "SAM")
    assert not Path(tmp_path / "graphs").exists()


WEB = ROOT / "node_modules" / "onnxruntime-web" / "dist"
"""What `npm install --no-save onnxruntime-web` brings."""

KINDS = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".onnx": "application/onnx"}

PAGE = """<!doctype html><script src="/ort.wasm.min.js"></script><script>
RUN
async function track(images, size, first, ids, shapes) {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = "/";
  const load = (name) => ort.InferenceSession.create(`/${name}.onnx`, {executionProviders: ["wasm"]});
  const [encode, give, segment, remember] = [await load("encode"), await load("give"), await load("segment"),
                                             await load("remember")];
  const bytes = (values, shape) => new ort.Tensor("uint8", Uint8Array.from(values), shape);
  const given = bytes(first, size), objects = bytes(ids, [ids.length]);
  const zeros = Object.fromEntries(Object.entries(shapes).map(([name, shape]) =>
    [name, new ort.Tensor("float32", new Float32Array(shape.reduce((a, b) => a * b)), shape)]));
  const shown = [], show = (data) => shown.push(Array.from(data));
  let number = 0, frame = bytes(images[0], [...size, 3]);
  FIRST
  for (number = 1; number < images.length; number++) {
    frame = bytes(images[number], [...size, 3]);
    OTHER
  }
  return shown;
}
</script>"""


@pytest.mark.slow
def test_code_of_the_document_tracks_in_a_browser(graphs, clip):
    """The JavaScript of docs/ONNX.md, with onnxruntime-web in a Chromium, against onnxruntime."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not WEB.is_dir():
        pytest.skip("onnxruntime-web is not there: npm install --no-save onnxruntime-web")
    frames, truth = clip[0][:10], clip[1]
    tracker = track_onnx.OnnxTracker(graphs[0], threads=1)
    wanted = [(tracker.step(frame, None if number else truth[0]), tracker.probabilities)
              for number, frame in enumerate(frames)][1:]
    memory = {tensor.name: [int(size) if isinstance(size, int) else len(tracker.objects) for size in tensor.shape]
              for tensor in tracker.graphs["segment"].get_inputs() if tensor.name in ("keys", "values", "counts")}
    code = re.search(r"```js\n(.*?)```", (ROOT / "docs" / "ONNX.md").read_text(), re.S)[1]
    page = PAGE
    for place, part in zip(("RUN", "FIRST", "OTHER"), code.split("\n\n"), strict=True):
        page = page.replace(place, part)

    def answer(route):
        name = route.request.url.rpartition("/")[2]
        if not name:
            return route.fulfill(body=page, content_type="text/html")
        file = (graphs[0] if name.endswith(".onnx") else WEB) / name
        return route.fulfill(path=file, content_type=KINDS[file.suffix])

    with playwright.sync_playwright() as started:
        try:
            chromium = shutil.which("chromium") or shutil.which("chromium-browser")
            browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        except playwright.Error as error:
            if os.environ.get("RDE_NEEDS_BROWSER"):
                raise
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        tab = browser.new_page()
        tab.route("**/*", answer)
        tab.goto("http://page.invalid/")
        found = tab.evaluate("given => track(...given)", [
            [frame.ravel().tolist() for frame in frames], list(truth[0].shape), truth[0].ravel().tolist(),
            tracker.objects.tolist(), memory])
        browser.close()
    assert len(found) == len(wanted) and np.array(found).any()
    for ids, (right, prob) in zip(found, wanted, strict=True):
        ids = np.array([0, *tracker.objects], np.uint8)[np.array(ids).reshape(right.shape)]
        second, first = np.sort(prob, axis=0)[-2:]
        assert not ((ids != right) & (first - second > 1e-3)).any()
