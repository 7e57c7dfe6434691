"""Solution 4: the linear layer.

    y[n, o] = sum over f of x[n, f] weight[o, f]  +  bias[o]

Write the chain rule with indices, and read the product of matrices from what is summed over:
    dx[n, f]      = sum over o of grad[n, o] weight[o, f]   so  dx = grad weight
    dweight[o, f] = sum over n of grad[n, o] x[n, f]        so  dweight = grad^T x
    dbias[o]      = sum over n of grad[n, o]                as the bias is repeated for every n.
If N, F and O differ, only one product has the right shape. If they are equal, only the indices tell which it is.
"""

from minidl import Function


class Linear(Function):
    def forward(self, x, weight, bias):
        self.x, self.weight = x, weight
        return x @ weight.T + bias

    def backward(self, grad):
        return grad @ self.weight, grad.T @ self.x, grad.sum(axis=0)
