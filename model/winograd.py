"""3×3 convolutions that need 16 multiplications for four results instead of 36 (Winograd's F(2×2, 3×3)).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: a tile d of 4×4 inputs gives
Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A, 2×2 results. Summed over the input channels, ⊙ is one matrix product for each of the
16 places of a tile. In float32 this is as exact as the direct sum, because there are fewer terms. In
half precision it is not.

    image of 4×4, with zeros around it      each tile's 16 places            4×4 results

      +---------+                            00 01 02 03
      | 0 0 0 0 | 0 0                        10 11 12 13                      Y Y | y y
      | 0 d d d | d 0           Bᵀ d B       20 21 22 23       Aᵀ ( ) A       Y Y | y y
      | 0 d d d | d 0         ---------->    30 31 32 33     ----------->     ----+----
      | 0 d d d | d 0                                                         y y | y y
      +---------+                            of each place a product          y y | y y
        0 d d d   d 0                        tiles×in @ in×out
        0 0 0 0   0 0                        with G g Gᵀ there

    The framed tile gives the four results Y. The next tile begins two columns to the right, or two rows below.
"""

import torch
from torch import nn

from model.onednn import Convolution, can_run

G = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
"""The matrix G that transforms a weight."""

TILES = 600
"""The number of tiles computed at a time: few enough for the caches, enough for fast matrix products."""

CHANNELS = 192
"""With fewer channels than this, the transforms take longer than they save."""


def is_faster(weight, stride, padding, dilation, groups):
    """Return whether this convolution is faster with Winograd's method. weight out×in×k×k; see `onednn.Convolution`."""
    return (weight.shape[2:] == (3, 3) and min(weight.shape[:2]) >= CHANNELS and groups == 1
            and stride == [1, 1] and padding == [1, 1] and dilation == [1, 1])


class Winograd(nn.Module):
    """A 3×3 convolution of stride 1 and padding 1 for the CPU, float32: activation(convolution(x) + other).

    Of the weight it keeps only the 16 products, each as a 1×1 convolution for one place of a tile. activation: None or
    "relu".
    """

    def __init__(self, weight, bias, activation=None):
        super().__init__()
        transform = torch.tensor(G, dtype=torch.float64, device=weight.device)
        # Each product has a tensor of its own, which is freed when it is packed. They are computed in blocks because
        # float64 takes much memory.
        products = [[weight.new_empty(*weight.shape[:2], 1, 1) for _ in range(4)] for _ in range(4)]
        for start in range(0, len(weight), 32):
            block = torch.einsum("ai,kcij,bj->abkc", transform, weight[start:start + 32].double(), transform)
            # Aᵀ subtracts the last row and column of a tile. With the sign changed here, everything is added.
            block[3].neg_()
            block[:, 3].neg_()
            for place in range(16):
                row, column = divmod(place, 4)
                products[row][column][start:start + 32, :, 0, 0] = block[row, column]
        # The place (1, 1) is added to all four results, so a bias there reaches each of them once.
        self.products = nn.ModuleList(
            nn.ModuleList(Convolution(products[row][column], bias if row == column == 1 else None,
                                      ([1, 1], [0, 0], [1, 1], 1)) for column in range(4))
            for row in range(4))
        self.activation = activation
        self._out = weight.shape[0]

    def forward(self, x, other=None):
        """x: B×in×h×w.

        other: None, or of the output's shape, or with one row for all of the batch. All are channels_last.
        """
        batch, channels, height, width = x.shape
        x = x.permute(0, 2, 3, 1)
        rows, columns = (height + 1) // 2, (width + 1) // 2
        result = x.new_empty(batch, 2 * rows, 2 * columns, self._out)
        # A frame has thousands of products: a module call and a check for each would take a few per cent of its time.
        packed = can_run(x) and all(product.packed for line in self.products for product in line)
        products = [[(product.run_packed, product.add_packed) if packed else (product, product.add_to)
                     for product in line] for line in self.products]
        band = max(1, TILES // (batch * columns))
        for top in range(0, rows, band):
            count = min(band, rows - top)
            # Input rows 2·top - 1 to 2·(top + count), zero outside the image.
            padded = x.new_zeros(batch, 2 * count + 2, 2 * columns + 2, channels)
            first, last = max(0, 2 * top - 1), min(height, 2 * (top + count) + 1)
            padded[:, first - 2 * top + 1:last - 2 * top + 1, 1:width + 1] = x[:, first:last]
            tiles = _transform_tiles(_transform_tiles(padded, 1, count), 3, columns)
            tiles = tiles.view(4, 4, 1, batch * count * columns, 1, channels).permute(1, 0, 2, 5, 3, 4)
            sums = zip(*(_multiply_column(tiles[:, column], [line[column] for line in products])
                         for column in range(4)), strict=True)
            for row, parts in enumerate(sums):
                parts = [part.permute(0, 2, 3, 1).view(batch, count, columns, -1) for part in parts]
                target = result[:, 2 * top + row:2 * (top + count):2]
                torch.add(parts[0].add_(parts[1]), parts[2], out=target[:, :, 0::2])
                torch.add(parts[1].sub_(parts[2]), parts[3], out=target[:, :, 1::2])
            target = result[:, 2 * top:2 * (top + count)]
            if other is not None:
                there = other.permute(0, 2, 3, 1)[:, 2 * top:2 * (top + count)]
                target[:, :there.shape[1], :width] += there
            if self.activation == "relu":
                target.relu_()
        return result[:, :height, :width].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _multiply_column(tiles, products):
    """Return the upper and the lower results of one column of places: its products, added up along it.

    products: for each of the four places two functions, which compute the product and which add it to a tensor.
    """
    middle, lower = products[1][0](tiles[1]), products[2][0](tiles[2])
    upper = middle + lower
    lower = middle.sub_(lower)
    products[0][1](upper, tiles[0])
    products[3][1](lower, tiles[3])
    return upper, lower


def _transform_tiles(x, dim, count):
    """Apply Bᵀ along `dim`, whose `count` tiles of four overlap by two. The four places become the first dimension."""
    places = [x.narrow(dim, start, 2 * count - 1).unfold(dim, 1, 2).squeeze(-1) for start in range(4)]
    result = x.new_empty(4, *places[0].shape)
    torch.sub(places[0], places[2], out=result[0])
    torch.add(places[1], places[2], out=result[1])
    torch.sub(places[2], places[1], out=result[2])
    torch.sub(places[1], places[3], out=result[3])
    return result
