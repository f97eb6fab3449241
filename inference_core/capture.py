"""A engine of the network compiled, and on a GPU replayed as CUDA graphs."""

import functools
import sys

import torch

from util.errors import InputError

GRAPHS = 16
"""CUDA graphs kept of each function; each has memory of its own."""


class CompiledEngine:
    """Another inference engine with its parts compiled, on a GPU as CUDA graphs.

    engine: an InferenceNetwork made with packed=False, or what has the same methods.
    growing: the memory grows (mode `stm`); reading it is left as it is, since it would be captured anew with each
        memory frame.

    Raises InputError where nothing can be compiled.
    """

    def __init__(self, engine, *, growing=False):
        self.config, self.dtype, self.device = engine.config, engine.dtype, engine.device
        compiles, captures = can_compile(engine.device.type), engine.device.type == "cuda"
        if not (compiles or captures):
            raise InputError("nothing can be compiled here: torch.compile needs a C++ compiler")
        if engine.device.type == "cpu" and getattr(engine, "packed", False):
            raise InputError("a engine with packed weights cannot be compiled: make it with packed=False")
        static = set()

        def prepare(function, **options):
            if compiles:
                function = torch.compile(function)
            return CapturedFunction(function, static, **options) if captures else function

        self.encode = prepare(engine.encode, reused=True)
        self.read = engine.read if growing else prepare(engine.read)
        self.decode = prepare(engine.decode)
        self.distribution = prepare(engine.distribution)
        self.encode_value = prepare(engine.encode_value)
        if engine.config.sam:
            self.aggregate_key = prepare(engine.aggregate_key)
            self.aggregate_value = prepare(engine.aggregate_value)


class CapturedFunction:
    """A function of tensors that replays as a CUDA graph, one for each combination of shapes.

    static: addresses of the tensors that graphs write their results to, shared by functions that feed one another:
        such an input is read where it lies, any other is copied to where the graph expects it.
    reused: return the tensors that the next call with these shapes overwrites, instead of copies of them.
    kept: how many graphs; the one used longest ago goes when another one comes.

    The function may also take what is no tensor; it must not look at values of tensors. Inputs and results may be
    tuples, also named ones, of such.
    """

    def __init__(self, function, static, *, reused=False, kept=GRAPHS):
        self._function = function
        self._static = static
        self._reused = reused
        self._kept = kept
        self._graphs = {}  # the one used longest ago first

    def __call__(self, *inputs):
        leaves = list(_iterate_leaves(inputs))
        signature = tuple(self._describe(x) for x in leaves)
        captured = self._graphs.pop(signature, None)
        if captured is None:
            if len(self._graphs) == self._kept:
                _, _, results = self._graphs.pop(next(iter(self._graphs)))
                self._static.difference_update(_list_addresses(results))
            captured = self._capture(inputs)
        self._graphs[signature] = captured
        graph, places, results = captured
        for place, given in zip(places, leaves, strict=True):
            if place is not None:
                place.copy_(given, non_blocking=True)
        graph.replay()
        return results if self._reused else _rebuild(results, (_copy(x) for x in _iterate_leaves(results)))

    def _describe(self, x):
        if not isinstance(x, torch.Tensor):
            return x
        return x.shape, x.stride(), x.dtype, x.data_ptr() if x.data_ptr() in self._static else None

    def _capture(self, inputs):
        """(graph, for each tensor or other leaf of the inputs the tensor to copy it to or None, results)."""
        leaves = list(_iterate_leaves(inputs))
        places = [x.clone() if isinstance(x, torch.Tensor) and x.data_ptr() not in self._static else None
                  for x in leaves]
        arguments = _rebuild(inputs, (given if place is None else place
                                      for given, place in zip(leaves, places, strict=True)))
        graph, results = self._record(arguments)
        self._static.update(_list_addresses(results))
        return graph, places, results

    def _record(self, arguments):
        """(graph, results)."""
        # Compiling, choosing algorithms and allocating workspaces cannot be captured: they are done before.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._function(*arguments)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads, which read and write files, may go on meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            results = self._function(*arguments)
        return graph, results


def _iterate_leaves(x):
    """What nested tuples hold, in order."""
    if isinstance(x, tuple):
        for part in x:
            yield from _iterate_leaves(part)
    else:
        yield x


def _rebuild(like, leaves):
    """`like` with other leaves, taken from an iterator."""
    if not isinstance(like, tuple):
        return next(leaves)
    parts = [_rebuild(part, leaves) for part in like]
    return type(like)(*parts) if hasattr(like, "_fields") else type(like)(parts)


def _copy(x):
    return x.clone() if isinstance(x, torch.Tensor) else x


def _list_addresses(x):
    return {leaf.data_ptr() for leaf in _iterate_leaves(x) if isinstance(leaf, torch.Tensor)}


@functools.cache
def can_compile(device_type):
    """Does torch.compile work here? It needs a C++ compiler, on a GPU Triton, too."""
    try:
        torch.compile(lambda x: x.relu() + 1)(torch.zeros(8, device=device_type))
    except (RuntimeError, ImportError, OSError) as error:
        print(f"torch.compile does not work here: {str(error).strip().splitlines()[0]}", file=sys.stderr)
        return False
    return True
