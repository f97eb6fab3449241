"""An engine that is compiled, and on a GPU replayed as CUDA graphs."""

import functools
import sys

import torch

from model.exact import compile_function
from util.errors import InputError

GRAPHS = 16
"""The number of CUDA graphs kept for each function. Each graph has memory of its own."""


class CompiledEngine:
    """Another engine with its parts compiled, on a GPU as CUDA graphs.

    engine: an InferenceNetwork made with packed=False, or any other engine.
    growing: the memory grows (mode `stm`). Reading the memory is then not compiled, because it would have to be
        captured again after each memory frame.

    Raises InputError where nothing can be compiled.
    """

    def __init__(self, engine, *, growing=False):
        self.config, self.dtype, self.device, self.weights = engine.config, engine.dtype, engine.device, engine.weights
        _keep_compiler_from_other_threads()
        compiles, captures = can_compile(engine.device.type), can_capture(engine.device.type)
        if not (compiles or captures):
            raise InputError("nothing can be compiled here, because torch.compile needs a C++ compiler")
        if engine.device.type == "cpu" and getattr(engine, "packed", False):
            raise InputError("an engine with packed weights cannot be compiled: make it with packed=False")
        static = set()

        def prepare(function, **options):
            if compiles:
                function = compile_function(function)
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
    """A function of tensors that is replayed as a CUDA graph, one graph for each combination of shapes.

    static: the addresses of the tensors that graphs write their results to. Functions that feed one another share this
        set: an input at such an address is read where it lies, and any other is first copied to where the graph expects
        it.
    reused: return the graph's own results, which the next call with these shapes overwrites, instead of copies of them.
    kept: the number of graphs to keep. When there are more, the one used longest ago goes.

    Inputs and results may be tensors, other values, and tuples of these, also named ones. The function must not look at
    the values of tensors.
    """

    def __init__(self, function, static, *, reused=False, kept=GRAPHS):
        self._function = function
        self._static = static
        self._reused = reused
        self._kept = kept
        self._graphs = {}  # {shapes and values of the inputs: graph}, the one used longest ago first

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
        """Return what an input must have in common with a graph's input so that the graph can be replayed."""
        if not isinstance(x, torch.Tensor):
            return x
        return x.shape, x.stride(), x.dtype, x.data_ptr() if x.data_ptr() in self._static else None

    def _capture(self, inputs):
        """Capture the function for these inputs and return (graph, places, results).

        places has an entry for each leaf of the inputs: the tensor to copy it to, or None if it is not copied.
        """
        leaves = list(_iterate_leaves(inputs))
        places = [x.clone() if isinstance(x, torch.Tensor) and x.data_ptr() not in self._static else None
                  for x in leaves]
        arguments = _rebuild(inputs, (given if place is None else place
                                      for given, place in zip(leaves, places, strict=True)))
        graph, results = self._record(arguments)
        self._static.update(_list_addresses(results))
        return graph, places, results

    def _record(self, arguments):
        """Record a graph of the function, and return (graph, results)."""
        # Compiling, choosing algorithms and allocating workspaces cannot be captured, so these first calls do them.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._function(*arguments)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # This mode lets other threads go on, which read and write files meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            results = self._function(*arguments)
        return graph, results


def _iterate_leaves(x):
    """Yield what nested tuples hold, in order."""
    if isinstance(x, tuple):
        for part in x:
            yield from _iterate_leaves(part)
    else:
        yield x


def _rebuild(like, leaves):
    """Return nested tuples like `like`, with leaves taken from an iterator."""
    if not isinstance(like, tuple):
        return next(leaves)
    parts = [_rebuild(part, leaves) for part in like]
    return type(like)(*parts) if hasattr(like, "_fields") else type(like)(parts)


def _copy(x):
    return x.clone() if isinstance(x, torch.Tensor) else x


def _list_addresses(x):
    """Return the set of addresses of all tensors in nested tuples."""
    return {leaf.data_ptr() for leaf in _iterate_leaves(x) if isinstance(leaf, torch.Tensor)}


def can_capture(device_type):
    """Return whether there are CUDA graphs on such a device."""
    return device_type == "cuda"


@functools.cache
def _keep_compiler_from_other_threads():
    """Keep the process's first compilation from breaking what other threads do.

    While torch.fx traces a function symbolically, it takes the calls of all modules in the process for a part of that
    function, also those of other threads, which then fail. In a compilation, torch (2.4 to 2.14) does this once per
    process: it traces a function that returns its argument, and keeps the result, a placeholder. Here the compiler gets
    this placeholder without a trace.
    """
    try:
        from torch._inductor.loop_body import InterpreterShim
    except ImportError:
        return
    if not hasattr(InterpreterShim, "_dummy_gm"):
        return
    graph = torch.fx.Graph()
    graph.output(graph.placeholder("x"))
    placeholder = torch.fx.GraphModule({}, graph)
    InterpreterShim._dummy_gm = staticmethod(lambda: placeholder)


@functools.cache
def can_compile(device_type):
    """Return whether torch.compile works here. It needs a C++ compiler, and on a GPU also Triton.

    If it does not work, the reason goes to standard error.
    """
    try:
        torch.compile(lambda x: x.relu() + 1)(torch.zeros(8, device=device_type))
    except (RuntimeError, ImportError, OSError) as error:
        print(f"torch.compile does not work here: {str(error).strip().splitlines()[0]}", file=sys.stderr)
        return False
    return True
