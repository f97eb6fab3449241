"""A click network without weights, for tests of what is around it."""

import torch


class PaintedNetwork:
    """Finds what has the colour of the last pixel that was clicked, and counts how often it looks at a picture."""

    device = torch.device("cpu")

    def __init__(self):
        self.seen = []

    def encode_image(self, image):
        self.seen.append(tuple(image.shape[2:]))
        return image[:, :1].float()

    def segment(self, red, hints):
        self.hints = hints
        value = red[hints[:, :1] > 0].median() if (hints[:, :1] > 0).any() else torch.tensor(200.0)
        near = ((red - value).abs() < 40).float() * 20 - 10
        return torch.nn.functional.avg_pool2d(near, 4)
