"""Entries for torch.hub: networks and trackers in any program, from any folder.

    import torch

    core = torch.hub.load("/path/to/RDE-VOS", "tracker", source="local")    # or "OWNER/RDE-VOS" on GitHub
    ids = core.to_mask(core.step(image, mask))

    torch.hub.load(repository, "tracker", mode="gt-compress", size=480, device="cuda")
    torch.hub.load(repository, "tracker", checkpoint="pretrain/model_s012_final.pth")
    torch.hub.load(repository, "compact")       # the network that comes with the repository, a model.RDE
    torch.hub.load(repository, "rde", "pretrain/model_s012_final.pth")
    torch.hub.load(repository, "clicks")        # the click network, for inference_core.ClickSession

Our packages have names that other programs use, too: model, util, dataset. So that neither takes the other's, ours are
called rde_vos.model, rde_vos.util and so on here: after the first load, `from rde_vos.inference_core import
track_frames` works, and `import model` is yours. For that, a finder that answers for rde_vos alone joins
`sys.meta_path`; it loads our files with their imports of one another renamed. Nothing else of the process changes.
"""

import ast
import importlib
import importlib.machinery
import sys
import types
from pathlib import Path

# Torch looks for these before it calls an entry.
dependencies = ["torch", "numpy", "cv2", "PIL"]

ROOT = Path(__file__).resolve().parent
"""The folder of the repository."""

NAME = "rde_vos"
"""The package that holds ours: our `model.network` is `rde_vos.model.network` here."""

PACKAGES = ("dataset", "evaluation", "exporting", "inference_core", "interactive", "model", "runs", "util")
"""Our packages, whose imports of one another get NAME put before."""


class _Renamer(ast.NodeTransformer):
    """Turns `from model.network import RDE` into `from rde_vos.model.network import RDE`, wherever it stands.

    Our files have no other form of importing one another.
    """

    def visit_ImportFrom(self, node):
        if not node.level and node.module.partition(".")[0] in PACKAGES:
            node.module = f"{NAME}.{node.module}"
        return node


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a file of ours with its imports renamed."""

    def source_to_code(self, data, path, *, _optimize=-1):
        tree = _Renamer().visit(ast.parse(data, path))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def get_code(self, fullname):
        # Compiled files beside the sources belong to imports without NAME, so they are neither read nor written.
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _Finder:
    """Finds the modules below NAME, and no others."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        if not fullname.startswith(f"{NAME}."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def _load(name):
    """Return one of our modules, such as "model"."""
    package = sys.modules.get(NAME)
    if package is None:
        package = sys.modules[NAME] = types.ModuleType(NAME, "RDE-VOS, as hubconf.py loads it.")
        package.__path__ = [str(ROOT)]
        sys.meta_path.insert(0, _Finder)
    elif list(getattr(package, "__path__", ())) != [str(ROOT)]:
        places = ", ".join(getattr(package, "__path__", ["an unknown place"]))
        raise ImportError(f"{NAME} is loaded already, from {places}; one process can load one copy of it, and {ROOT} "
                          "is another one")
    return importlib.import_module(f"{NAME}.{name}")


def compact(device="auto"):
    """Return the compact network that comes with the repository, as `rde` does."""
    return rde(_load("util.hyper_para").COMPACT, device)


def rde(path, device="auto"):
    """Return the network of a checkpoint, such as a published one, as a `model.RDE`.

    path: the checkpoint's file. device: "cpu", "cuda", "cuda:1", "mps", or "auto", which is the fastest there is.
    """
    return _load("model").load_network(path, _load("util.device").pick_device(device))


def tracker(mode="two-frames-compress", *, checkpoint=None, device="auto", size="auto", **options):
    """Return an `inference_core.InferenceCore`, whose `step` tracks objects from frame to frame.

    mode, size, options: as for InferenceCore. checkpoint: its file; None is the compact network. device: as for `rde`.
    """
    network = compact(device) if checkpoint is None else rde(checkpoint, device)
    return _load("inference_core").InferenceCore(network, mode, size=size, **options)


def clicks(path=None, device="auto"):
    """Return the click network, for `inference_core.ClickSession`.

    path: a checkpoint's file; None is the one that comes with the repository. device: as for `rde`.
    """
    load_clicks, device = _load("model").load_clicks, _load("util.device").pick_device(device)
    return load_clicks(device=device) if path is None else load_clicks(path, device)
