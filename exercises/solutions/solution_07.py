"""Solution 7: batch normalisation.

    y[n, c, h, w] = gamma[c] xhat[n, c, h, w] + beta[c],   xhat[n, c, h, w] = (x[n, c, h, w] - mean[c]) / sqrt(var[c] + eps)

Within a channel, let g = grad gamma = dL/dxhat, s = sqrt(var + eps), and < > the mean over its m values. x_i is in xhat_j
three times: as x_j where j = i, in mean (dmean/dx_i = 1 / m), and in var (dvar/dx_i = 2 (x_i - mean) / m, so that
ds/dx_i = xhat_i / m). From xhat_j = (x_j - mean) / s follows dxhat_j/dx_i = ([i = j] - 1 / m - xhat_j xhat_i / m) / s, and
    dx_i = sum over j of g_j dxhat_j/dx_i = (g_i - <g> - xhat_i <g xhat>) / s.
"""

import numpy as np

from minidl import Function


class BatchNorm(Function):
    def __init__(self, eps):
        self.eps = eps

    def forward(self, x, gamma, beta):
        mean = x.mean(axis=(0, 2, 3), keepdims=True)
        var = x.var(axis=(0, 2, 3), keepdims=True)
        self.inverse_std = 1 / np.sqrt(var + self.eps)
        self.xhat = (x - mean) * self.inverse_std
        self.gamma = gamma[:, None, None]
        return self.gamma * self.xhat + beta[:, None, None]

    def backward(self, grad):
        dgamma = (grad * self.xhat).sum(axis=(0, 2, 3))
        dbeta = grad.sum(axis=(0, 2, 3))
        g = grad * self.gamma
        through_mean = g.mean(axis=(0, 2, 3), keepdims=True)
        through_var = self.xhat * (g * self.xhat).mean(axis=(0, 2, 3), keepdims=True)
        return (g - through_mean - through_var) * self.inverse_std, dgamma, dbeta
