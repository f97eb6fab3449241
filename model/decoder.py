"""The decoder: it turns memory readout and image features into one object's mask."""

import torch
import torch.nn.functional as F
from torch import nn

from model.modules import ResBlock, UpBlock, conv3x3, per_object


class Decoder(nn.Module):
    """Makes mask logits of a readout and image features.

    dims: channels at strides 16, 8, 4. f8_dim, f4_dim: channels of the key encoder's skip connections.
    """

    def __init__(self, value_dim, f8_dim, f4_dim, dims, skip_kernel):
        super().__init__()
        self.compress = ResBlock(2 * value_dim, dims[0], skip_kernel)
        self.up_16_8 = UpBlock(f8_dim, dims[0], dims[1], skip_kernel)
        self.up_8_4 = UpBlock(f4_dim, dims[1], dims[2], skip_kernel)
        self.pred = conv3x3(dims[2], 1)

    def forward(self, readout, f16_thin, f8, f4):
        """Return mask logits (B·O)×1×H×W.

        readout: (B·O)×value_dim×h×w, with the objects of one image in a row. f16_thin, f8, f4: B×..., once per image.
        """
        x = self.compress(torch.cat([readout, per_object(f16_thin, readout.shape[0])], 1))
        x = self.up_16_8(f8, x)
        x = self.up_8_4(f4, x)
        return F.interpolate(self.pred(F.relu(x)), scale_factor=4, mode="bilinear", align_corners=False)
