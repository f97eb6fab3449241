"""A running average of the weights of a network in training. It is often better than the weights of any one step."""

import torch


def mix_states(start, trained, share):
    """Return the state dict that lies this share, 0 to 1, of the way from one network's to another's.

    Both are of one architecture. What only the second one has is taken as it is (a network in training has a bound in
    SAM that earlier ones lack).
    """
    return {name: torch.lerp(start[name], value, share) if name in start and value.is_floating_point() else value
            for name, value in trained.items()}


class WeightAverage:
    """The average of a network's trained weights over about the last `window` samples.

    Until so many samples are seen, it is the plain mean over all steps; after that, each step's weights count with the
    share (samples of the step) / window, and all earlier ones fade by that much. Samples are counted, not steps, so
    that the average means the same for every batch size.
    """

    def __init__(self, network, window):
        """network: in training; weights that are not trained are left out. window: a number of samples."""
        self.window = window
        self.samples = 0
        self._weights = {name: value for name, value in network.named_parameters() if value.requires_grad}
        self._average = {name: value.detach().clone() for name, value in self._weights.items()}

    @torch.no_grad()
    def update(self, samples):
        """Take the network's weights in, after a step of so many samples."""
        self.samples += samples
        share = samples / min(self.window, self.samples)
        torch._foreach_lerp_(list(self._average.values()), list(self._weights.values()), share)

    def state_dict(self):
        return {"samples": self.samples, "weights": self._average}

    def load_state_dict(self, state):
        """Go on from what `state_dict` returned. Raises ValueError if it is that of other weights."""
        if {name: value.shape for name, value in state["weights"].items()} != {
                name: value.shape for name, value in self._average.items()}:
            raise ValueError("the average is that of other weights")
        self.samples = state["samples"]
        for name, value in state["weights"].items():
            self._average[name].copy_(value)
