"""Convolution with fewer multiplications: Winograd's minimal filtering, by Cook and Toom's construction. NumPy.

A product of polynomials is known by its values at enough points: evaluate both factors there, multiply value by value,
interpolate. Convolution is such a product. In two dimensions, a tile of n x n pixels (n = m + r - 1) and a kernel of r x r give
m x m outputs by n^2 multiplications in place of m^2 r^2. And as each of the n^2 values is multiplied for all channels, these
are n^2 products of matrices:

    V = B X        the tiles' values at the points           (n^2, C, L), L tiles of all images
    U = G W        the kernels'                              (n^2, O, C)
    M_k = U_k V_k  for each of the n^2                       (n^2, O, L)
    Y = A^T M      the m x m outputs of each tile

Backward is the adjoint of each step: dM = A dY, dU_k = dM_k V_k^T, dW = G^T dU, dV_k = U_k^T dM_k, dX = B^T dV, added up
where tiles overlap. Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks".
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..threads import get_num_threads, parallel
from .scratch import scratch

POINTS = (0, 1, -1, 2, -2, 0.5, -0.5)  # and infinity; small ones, and their inverses, keep the rounding small
TILES = 512  # of all images, about so many at a time
LEAST_CHANNELS = 16


def tile_size(image, weight_shape, stride, padding, groups) -> int:
    """m, the outputs that a tile gives in each direction; 0 where im2col is the better way. image: (H, W).

    Depends on shapes alone: m takes the fewest multiplications, and these must be well below those of im2col.
    """
    O, C, r, KW = weight_shape
    if stride != (1, 1) or r != KW or r not in (3, 5) or min(O // groups, C) < LEAST_CHANNELS:
        return 0
    OH, OW = (n + 2 * p - r + 1 for n, p in zip(image, padding, strict=True))
    products = {m: -(-OH // m) * -(-OW // m) * (m + r - 1) ** 2 for m in (2, 3, 4)}
    m = min(products, key=lambda m: products[m])
    return m if products[m] < 0.6 * OH * OW * r * r else 0


@lru_cache
def transforms(m: int, r: int, dtype):
    """A (n^2, m^2), G (n^2, r^2) and B (n^2, n^2): what A, G and B do to both axes of a tile, on its flattened elements."""
    n = m + r - 1
    points = np.array(POINTS[: n - 1], float)[:, None]
    A, G = (np.vstack([points ** np.arange(k), np.eye(k)[-1]]) for k in (m, r))  # the last row is the point at infinity
    # y_i = sum_j w_j x_(i + j) for all w and x:  sum over k of A_ki G_kj B_kl = 1 where l = i + j, else 0.
    system = np.einsum("ki,kj->ijk", A, G).reshape(m * r, n)
    wanted = (np.add.outer(np.arange(m), np.arange(r)).reshape(-1, 1) == np.arange(n)).astype(float)
    B = np.linalg.lstsq(system, wanted, rcond=None)[0]
    return tuple(np.kron(one, one).astype(dtype) for one in (A, G, B))


def conv2d(x, weight, bias, padding, groups, m):
    """x (C, H, W, N), weight (O, C / groups, r, r), bias (O,) or None -> (O, OH, OW, N)."""
    O, CG, r, _ = weight.shape
    A, _, B = transforms(m, r, x.dtype)
    U, padded, (OH, OW) = _kernel_values(weight, m), _padded(x, padding, r, m), _output_size(x, padding, r)
    y = np.empty((O, OH, OW, x.shape[3]), x.dtype)

    def work(images: slice) -> None:
        for rows in _tile_rows(OH, OW, images, m):
            V, _ = _tile_values(padded, images, rows, m, r, B)
            M = scratch("M", (len(U), O, V.shape[2]), x.dtype)
            for inputs, outputs in _groups(O, CG, groups):
                np.matmul(U[:, outputs], V[:, inputs], out=M[:, outputs])
            tiles = np.matmul(A.T, M.reshape(len(M), -1), out=scratch("outputs", (m * m, M[0].size), x.dtype))
            for out, tile in _places(y, tiles, images, rows, m):
                if bias is None:
                    out[...] = tile
                else:
                    np.add(tile, bias[:, None, None, None], out=out)

    parallel(work, _image_parts(x.shape[3]))
    return y


def conv2d_gradients(grad, x, weight, padding, groups, m, needs):
    """(dx or None, dweight or None) from grad (O, OH, OW, N); needs: which of the two are wanted."""
    O, CG, r, _ = weight.shape
    n, (_, H, W, N) = m + r - 1, x.shape
    A, G, B = transforms(m, r, x.dtype)
    U, padded, (_, OH, OW, _) = _kernel_values(weight, m), _padded(x, padding, r, m), grad.shape
    parts = _image_parts(N)
    dU = [np.zeros_like(U) if needs[1] else None for _ in parts]
    dpadded = np.zeros_like(padded) if needs[0] else None

    def work(part: int) -> None:
        images = parts[part]
        for rows in _tile_rows(OH, OW, images, m):
            L = (rows.stop - rows.start) * -(-OW // m) * (images.stop - images.start)
            tiles = scratch("outputs", (m * m, O * L), x.dtype)
            tiles.fill(0)
            for source, tile in _places(grad, tiles, images, rows, m):
                tile[...] = source
            dM = np.matmul(A, tiles, out=scratch("M", (n * n, O * L), x.dtype)).reshape(n * n, O, L)
            V, spare = _tile_values(padded, images, rows, m, r, B)
            for inputs, outputs in _groups(O, CG, groups):
                if needs[1]:
                    product = scratch("dU", (n * n, O // groups, CG), x.dtype)
                    dU[part][:, outputs] += np.matmul(dM[:, outputs], V[:, inputs].transpose(0, 2, 1), out=product)
                if needs[0]:
                    np.matmul(U[:, outputs].transpose(0, 2, 1), dM[:, outputs], out=V[:, inputs])
            if needs[0]:
                np.matmul(B.T, V.reshape(n * n, -1), out=spare)
                for k, (target, count) in enumerate(_tile_pixels(dpadded, images, rows, m, n)):
                    target += spare[k].reshape(count)

    parallel(work, range(len(parts)))
    dx = dweight = None
    if needs[0]:
        dx = dpadded[:, padding[0] : padding[0] + H, padding[1] : padding[1] + W].copy()
    if needs[1]:
        for other in dU[1:]:
            dU[0] += other
        dweight = (G.T @ dU[0].reshape(n * n, -1)).reshape(r * r, O * CG).T.reshape(weight.shape).copy()
    return dx, dweight


def _kernel_values(weight, m):
    O, C, r, _ = weight.shape
    _, G, _ = transforms(m, r, weight.dtype)
    return (G @ weight.reshape(O * C, r * r).T).reshape(-1, O, C)


def _output_size(x, padding, r) -> tuple[int, int]:
    return x.shape[1] + 2 * padding[0] - r + 1, x.shape[2] + 2 * padding[1] - r + 1


def _padded(x, padding, r, m):
    """x with its zeros around it, and as many more below and to the right as the last tiles reach over."""
    C, H, W, N = x.shape
    size = [-(-n // m) * m + r - 1 for n in _output_size(x, padding, r)]
    padded = np.zeros((C, *size, N), x.dtype)
    padded[:, padding[0] : padding[0] + H, padding[1] : padding[1] + W] = x
    return padded


def _groups(O, CG, groups) -> Iterator[tuple[slice, slice]]:
    """For each group: its inputs and its outputs."""
    for g in range(groups):
        yield slice(g * CG, (g + 1) * CG), slice(g * O // groups, (g + 1) * O // groups)


def _image_parts(N: int) -> list[slice]:
    """The batch, cut into a part for each thread."""
    threads = max(1, min(get_num_threads(), N))
    ends = [N * i // threads for i in range(threads + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]


def _tile_rows(OH, OW, images: slice, m) -> Iterator[slice]:
    """Rows of tiles, as many at a time as make about TILES tiles of these images."""
    TH, TW = -(-OH // m), -(-OW // m)
    step = max(1, TILES // max(1, TW * (images.stop - images.start)))
    for start in range(0, TH, step):
        yield slice(start, min(start + step, TH))


def _tile_values(padded, images: slice, rows: slice, m, r, B):
    """(V (n^2, C, L), the tiles' pixels (n^2, C L), whose memory may be used again), in scratch."""
    n = m + r - 1
    c, h, w, s = padded.strides
    shape = (n, n, len(padded), rows.stop - rows.start, (padded.shape[2] - r + 1) // m, images.stop - images.start)
    tiles = scratch("tiles", shape, padded.dtype)
    np.copyto(tiles, as_strided(padded[:, rows.start * m :, :, images], shape, (h, w, c, h * m, w * m, s)))
    tiles = tiles.reshape(n * n, -1)
    V = np.matmul(B, tiles, out=scratch("V", tiles.shape, padded.dtype))
    return V.reshape(n * n, len(padded), -1), tiles


def _tile_pixels(padded, images: slice, rows: slice, m, n):
    """For each of the n^2 places in a tile: the view of `padded` at that place of these tiles, and its shape."""
    TW = (padded.shape[2] - n + m) // m
    for i in range(n):
        for j in range(n):
            view = padded[:, rows.start * m + i : rows.stop * m + i : m, j : j + TW * m : m, images]
            view = view[:, : rows.stop - rows.start, :TW]
            yield view, view.shape


def _places(y, tiles, images: slice, rows: slice, m):
    """For each of the m^2 places in a tile's outputs: the view of y there, and that of `tiles` without what lies beyond y."""
    O, _, OW, _ = y.shape
    tiles = tiles.reshape(m, m, O, rows.stop - rows.start, -(-OW // m), images.stop - images.start)
    for i in range(m):
        for j in range(m):
            view = y[:, rows.start * m + i : rows.stop * m : m, j::m, images]
            yield view, tiles[i, j, :, : view.shape[1], : view.shape[2]]
