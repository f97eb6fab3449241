"""Functions compiled, and on a GPU replayed as CUDA graphs."""

import functools
import sys

import torch


class Captured:
    """A function of tensors that replays as a CUDA graph, one for each combination of shapes.

    static: addresses of the tensors that graphs write their results to, shared by functions that feed one another:
        such an input is read where it lies, any other is copied to where the graph expects it.
    reused: return the tensors that the next call with these shapes overwrites, instead of copies of them.

    The function may also take what is no tensor; it must not look at values of tensors.
    """

    def __init__(self, function, static, *, reused=False):
        self._function = function
        self._static = static
        self._reused = reused
        self._graphs = {}

    def __call__(self, *inputs):
        signature = tuple(self._describe(x) for x in inputs)
        if signature not in self._graphs:
            self._graphs[signature] = self._capture(inputs)
        graph, places, results = self._graphs[signature]
        for place, given in zip(places, inputs, strict=True):
            if place is not None:
                place.copy_(given, non_blocking=True)
        graph.replay()
        if self._reused:
            return results
        return results.clone() if isinstance(results, torch.Tensor) else tuple(result.clone() for result in results)

    def _describe(self, x):
        if not isinstance(x, torch.Tensor):
            return x
        return x.shape, x.stride(), x.dtype, x.data_ptr() if x.data_ptr() in self._static else None

    def _capture(self, inputs):
        """(graph, for each input the tensor to copy it to or None, results)."""
        places = [x.clone() if isinstance(x, torch.Tensor) and x.data_ptr() not in self._static else None
                  for x in inputs]
        arguments = [given if place is None else place for given, place in zip(inputs, places, strict=True)]
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
        for result in [results] if isinstance(results, torch.Tensor) else results:
            self._static.add(result.data_ptr())
        return graph, places, results


@functools.cache
def can_compile(device_type):
    """Does torch.compile work here? It needs a C++ compiler, on a GPU Triton, too."""
    try:
        torch.compile(lambda x: x.relu() + 1)(torch.zeros(8, device=device_type))
    except (RuntimeError, ImportError, OSError) as error:
        print(f"torch.compile does not work here: {str(error).strip().splitlines()[0]}", file=sys.stderr)
        return False
    return True
