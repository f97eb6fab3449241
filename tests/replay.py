"""A stand-in for CUDA graphs where there is no GPU."""



class Replay:
    """What is replayed instead of a graph: it calls the function again, into the tensors of the first call."""

    def __init__(self, function, arguments, results):
        self.function, self.arguments, self.results = function, arguments, results

    def replay(self):
        for place, result in zip(self._tensors(self.results), self._tensors(self.function(*self.arguments)),
                                 strict=True):
            place.copy_(result)

    def _tensors(self, x):
        return [leaf for part in x for leaf in self._tensors(part)] if isinstance(x, tuple) else [x]


def record_replay(captured, arguments):
    """Take the place of `CapturedFunction._record`. Return (Replay, results)."""
    results = captured._function(*arguments)
    return Replay(captured._function, arguments, results), results
