"""Convolution with fewer multiplications: Winograd's minimal filtering, by Cook and Toom's construction. NumPy.

The product of two polynomials with m and r coefficients is determined by its values at n = m + r - 1 points: evaluate both
polynomials there (A and G), multiply the values, interpolate (B^T). For a fixed kernel w this is a linear map, B^T diag(G w) A,
from m numbers to n. Its transpose, A^T diag(G w) B, is the correlation with w, from n pixels to m outputs. In two dimensions a
tile of n x n pixels gives m x m outputs by n^2 multiplications instead of m^2 r^2, and for all channels these are n^2 matrix
products:

    V = B X        the tiles, transformed                    (n^2, C, L), L tiles of all images
    U = G W        the kernels' values at the points         (n^2, O, C)
    M_k = U_k V_k  for each of the n^2                       (n^2, O, L)
    Y = A^T M      the m x m outputs of each tile            (m^2, O, L)

Backward has the transposed products: dM = A dY, dU_k = dM_k V_k^T, dW = G^T dU, dV_k = U_k^T dM_k, dX = B^T dV, summed where
tiles overlap. Source: Lavin and Gray 2016. They write B^T for the matrix that is B here, and B for B^T.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..partition import ceil_div, chunks, equal_chunks, length
from ..threads import CHUNK_BYTES, array_chunks, get_num_threads, parallel
from .columns import channel_groups
from .memory import scratch
from .windows import output_size

# The points of a tile besides infinity, by their number. Small numbers and their inverses keep the rounding error small. This
# set of eight had the smallest error of those tried, ten times smaller than the set of seven with another point added.
POINTS = {k: (0, 1, -1, 2, -2, 0.5, -0.5)[:k] for k in range(3, 8)} | {8: (0.25, -0.25, 0.75, -0.75, 1.125, -1.125, 2, -2)}
LEAST_CHANNELS, DTYPES = 16, (np.float32, np.float64)
TILES = 1600  # about the number of tiles in a chunk, over all images
FORWARD_CHANNELS, BACKWARD_CHANNELS = 64, 96  # the most channels whose kernels a thread transforms and multiplies at a time
SMALL = 1_000_000  # up to this number of multiplications, OpenBLAS computes a product without copying the factors first


def winograd_tile(image, weight_shape, stride, padding, groups, dtype=np.float32) -> int | None:
    """m, the number of outputs of a tile along each axis; None where im2col is faster. image: (H, W).

    Of all m, the one with the fewest multiplications, if they are well below those of im2col. It depends on the arguments
    only.
    """
    O, CG, r, KW = weight_shape
    if stride != (1, 1) or r != KW or r not in (3, 5) or min(O // groups, CG) < LEAST_CHANNELS or dtype not in DTYPES:
        return None
    OH, OW = (output_size(n, r, 1, p) for n, p in zip(image, padding, strict=True))

    def multiplications(m: int) -> int:
        n = m + r - 1
        return ceil_div(OH, m) * ceil_div(OW, m) * n * n * (CG * O + n * n * CG * groups + m * m * O)

    m = min((m for m in range(2, 8) if m + r - 2 in POINTS), key=multiplications)
    return m if multiplications(m) < 0.6 * OH * OW * r * r * CG * O else None


def cook_toom(m: int, r: int):
    """A (n, m), G (n, r), B (n, n): y = A^T ((G w) * (B x)) for all x (n,), w (r,) and y (m,), y_i = sum_j w_j x_(i + j)."""
    n = m + r - 1
    points = np.array(POINTS[n - 1], float)[:, None]
    A, G = (np.vstack([points ** np.arange(k), np.eye(k)[-1]]) for k in (m, r))  # the last row is the point at infinity
    # The factor of w_j x_l in y_i is  sum over k of A_ki G_kj B_kl.  It must be 1 if l = i + j, else 0. Solve this for B.
    system = np.einsum("ki,kj->ijk", A, G).reshape(m * r, n)
    wanted = (np.add.outer(np.arange(m), np.arange(r)).reshape(-1, 1) == np.arange(n)).astype(float)
    return A, G, np.linalg.lstsq(system, wanted, rcond=None)[0]


@lru_cache
def transforms(m: int, r: int, dtype):
    """A (n^2, m^2), G (n^2, r^2), B (n^2, n^2): those of cook_toom for both axes of a tile or kernel, on its flat elements."""
    return tuple(np.kron(one, one).astype(dtype) for one in cook_toom(m, r))


class TileChunk(NamedTuple):
    """Tiles that are processed together: some whole rows of tiles of some images."""

    rows: slice
    columns: int
    images: slice

    @property
    def shape(self) -> tuple[int, int, int]:
        return length(self.rows), self.columns, length(self.images)


def conv2d(x, weight, bias, padding, groups, m):
    """x (C, H, W, N), weight (O, C / groups, r, r), bias (O,) or None -> (O, OH, OW, N)."""
    (O, CG, r, _), (C, H, W, N) = weight.shape, x.shape
    A, G, B = transforms(m, r, x.dtype)
    n = m + r - 1
    y = np.empty((O, output_size(H, r, 1, padding[0]), output_size(W, r, 1, padding[1]), N), x.dtype)
    pairs = channel_groups(weight, groups)
    most = max(1, min(FORWARD_CHANNELS, CHUNK_BYTES // (n * n * CG * x.itemsize)))
    by_output = [(inputs, chunk) for inputs, outputs in pairs for chunk in equal_chunks(outputs, most, get_num_threads())]

    def convolve(chunk):
        L = math.prod(chunk.shape)
        V = scratch("V", (n * n, C, L), x.dtype)

        def transform(channels):
            _multiply(B, _read_tiles(x, channels, chunk, n, m, padding), V[:, channels])

        def multiply(part):
            inputs, outputs = part
            U = _multiply(G, _taps(weight[outputs]), scratch("U", (n * n, length(outputs), CG), x.dtype))
            M = np.matmul(U, V[:, inputs], out=scratch("M", (n * n, length(outputs), L), x.dtype))
            tiles = _multiply(A.T, M, scratch("tiles", (m * m, *M.shape[1:]), x.dtype))
            band, inside, image = _band(y, outputs, chunk, m, m, (0, 0))
            views = _tiles(band, chunk, m, m)
            np.copyto(views, tiles.reshape(views.shape))
            np.add(band[inside], 0 if bias is None else bias[outputs, None, None, None], out=y[image])

        parallel(transform, array_chunks(V, axis=1))
        parallel(multiply, by_output)

    for chunk in _tile_chunks(y, m):
        convolve(chunk)
    return y


def conv2d_backward(grad, x, weight, padding, groups, m, needs, out=None):
    """(dx or None, dweight or None) from grad (O, OH, OW, N); needs: which of them to compute. out: where to write dweight."""
    (O, CG, r, _), C = weight.shape, len(x)
    A, G, B = transforms(m, r, x.dtype)
    n = m + r - 1
    pairs = channel_groups(weight, groups)
    few, threads = BACKWARD_CHANNELS, get_num_threads()
    by_output = [(inputs, chunk) for inputs, outputs in pairs for chunk in equal_chunks(outputs, few, threads)]
    by_input = [(chunk, outputs) for inputs, outputs in pairs for chunk in equal_chunks(inputs, few, threads)]
    dx: Any = np.zeros(x.shape, x.dtype) if needs[0] else None
    dweight: Any = (np.empty(weight.shape, weight.dtype) if out is None else out) if needs[1] else None
    chunks_of_tiles = list(_tile_chunks(grad, m))
    if needs[1] and not chunks_of_tiles:
        dweight.fill(0)

    def add_gradients(chunk):
        L = math.prod(chunk.shape)
        V, dM = scratch("V", (n * n, C, L), x.dtype), scratch("dM", (n * n, O, L), x.dtype)

        def transform_grad(channels):
            _multiply(A, _read_tiles(grad, channels, chunk, m, m, (0, 0)), dM[:, channels])

        def transform(channels):
            _multiply(B, _read_tiles(x, channels, chunk, n, m, padding), V[:, channels])

        def multiply_for_weight(part):
            inputs, outputs = part
            dU = scratch("U", (n * n, length(outputs), CG), x.dtype)
            np.matmul(dM[:, outputs], V[:, inputs].transpose(0, 2, 1), out=dU)
            taps = _multiply(G.T, dU, scratch("M", (r * r, *dU.shape[1:]), x.dtype))
            into = dweight[outputs].reshape(-1, r * r).T
            np.add(into if chunk is not chunks_of_tiles[0] else 0, _flat(taps), out=into)

        def multiply_for_input(part):
            inputs, outputs = part
            first = inputs.start % CG
            taps = _taps(weight[outputs, first : first + length(inputs)])
            U = _multiply(G, taps, scratch("U", (n * n, length(outputs), length(inputs)), x.dtype))
            dV = np.matmul(U.transpose(0, 2, 1), dM[:, outputs], out=scratch("M", (n * n, length(inputs), L), x.dtype))
            tiles = _multiply(B.T, dV, scratch("tiles", dV.shape, x.dtype))
            band, inside, image = _band(dx, inputs, chunk, n, m, padding)
            band.fill(0)
            views = _tiles(band, chunk, n, m)
            tiles = tiles.reshape(views.shape)
            for i, j in np.ndindex(n, n):
                views[i, j] += tiles[i, j]
            dx[image] += band[inside]

        parallel(transform_grad, array_chunks(dM, axis=1))
        if needs[1]:
            parallel(transform, array_chunks(V, axis=1))
            parallel(multiply_for_weight, by_output)
        if needs[0]:
            parallel(multiply_for_input, by_input)

    for chunk in chunks_of_tiles:
        add_gradients(chunk)
    return dx, dweight


def _taps(weight):
    """(O, C, r, r) -> (r^2, O * C), contiguous."""
    return weight.reshape(-1, weight.shape[2] * weight.shape[3]).T.copy()


def _multiply(matrix, values, out):
    """matrix (a, b) @ values (b, ...) -> out (a, ...), which may be a slice of the channels of a larger array."""
    values, flat = _flat(values), _flat(out)
    columns = SMALL // matrix.size // 64 * 64
    for few in chunks(values.shape[1], columns) if columns >= 256 else [slice(None)]:
        np.matmul(matrix, values[:, few], out=flat[:, few])
    return out


def _flat(a):
    """(a, channels, L) -> the view (a, channels * L)."""
    return as_strided(a, (len(a), a[0].size), (a.strides[0], a.itemsize)) if a.ndim == 3 else a


def _tile_chunks(y, m) -> Iterator[TileChunk]:
    """The tiles of outputs y (O, OH, OW, N), in chunks of about TILES."""
    _, OH, OW, N = y.shape
    rows, columns = ceil_div(OH, m), ceil_div(OW, m)
    for images in chunks(N, max(1, TILES // columns)):
        for at in chunks(rows, max(1, TILES // (columns * length(images)))):
            yield TileChunk(at, columns, images)


def _band(x, channels, chunk, size, m, padding):
    """A band in scratch with the size of the pixels of a chunk's tiles, for some channels. It may reach beyond the image x.

    Returns (band (c, h, w, images), the part of it that is inside the image, the same part of the image).
    """
    inside, image = [slice(None)], [channels]
    extents = []
    for n, first, count, p in zip(x.shape[1:3], (chunk.rows.start, 0), chunk.shape[:2], padding, strict=True):
        origin, extent = first * m - p, (count - 1) * m + size
        start, stop = max(0, origin), max(0, min(n, origin + extent))
        inside.append(slice(start - origin, max(start, stop) - origin))
        image.append(slice(start, max(start, stop)))
        extents.append(extent)
    band = scratch("band", (length(channels), *extents, chunk.shape[2]), x.dtype)
    return band, tuple(inside), (*image, chunk.images)


def _tiles(band, chunk, size, m):
    """The view (size, size, c, rows, columns, images) of a band's tiles, which overlap if size > m."""
    c, h, w, s = band.strides
    return as_strided(band, (size, size, len(band), *chunk.shape), (h, w, c, h * m, w * m, s))


def _read_tiles(x, channels, chunk, size, m, padding):
    """The tiles of size x size pixels of x (C, H, W, N), zero outside it: (size^2, channels * L), in scratch."""
    band, inside, image = _band(x, channels, chunk, size, m, padding)
    band.fill(0)
    band[inside] = x[image]
    tiles = scratch("tiles", (size * size, band.shape[0] * math.prod(chunk.shape)), x.dtype)
    views = _tiles(band, chunk, size, m)
    np.copyto(tiles.reshape(views.shape), views)
    return tiles
