"""What makes cores for the page's tests."""

from inference_core import InferenceCore


class TinyEngines:
    """Cores of the tests' network."""

    def __init__(self, network):
        self._network = network

    def core(self, size):
        return InferenceCore(self._network)
