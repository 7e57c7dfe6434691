"""Step 1: a derivative, measured and by hand.

The derivative says how much the output changes when the input changes a little. It can be measured.
"""


def derivative(f, x, eps=1e-5):
    """df/dx at x, as a central difference."""
    return (f(x + eps) - f(x - eps)) / (2 * eps)


def loss(a, b):
    return (a * b + a**2) * 2


def gradient_by_hand(a, b):
    """Forward, keeping every number that is computed on the way; then back, by the chain rule."""
    p = a * b
    q = a**2
    s = p + q
    L = 2 * s
    ds = 2.0  # L = 2 s
    dp, dq = ds, ds  # s = p + q
    da = dp * b + dq * 2 * a  # p = a b, and q = a^2
    db = dp * a
    return L, da, db


if __name__ == "__main__":
    a, b = 2.0, -3.0
    print("measured:", derivative(lambda a: loss(a, b), a), derivative(lambda b: loss(a, b), b))
    print("by hand: ", *gradient_by_hand(a, b))
