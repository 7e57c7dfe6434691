"""Step 3: adding up.

A number that is used twice gets a gradient from both uses, and passes on their sum. So it must wait until both are there.
"""


class Number:
    def __init__(self, data, inputs=(), slopes=()):
        self.data = data
        self.inputs = inputs
        self.slopes = slopes
        self.grad = 0.0

    def __add__(self, other):
        return Number(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other):
        return Number(self.data * other.data, (self, other), (other.data, self.data))

    def backward(self):
        self.grad = 1.0
        for number in reversed(ancestors(self)):
            for source, slope in zip(number.inputs, number.slopes, strict=True):
                source.grad += number.grad * slope


def ancestors(number):
    """The number and all numbers that it was made from, each after its own inputs. No recursion: a chain may be long."""
    order, seen, stack = [], set(), [(number, False)]
    while stack:
        n, inputs_done = stack.pop()
        if inputs_done:
            order.append(n)
        elif n not in seen:
            seen.add(n)
            stack.append((n, True))
            stack.extend((source, False) for source in n.inputs)
    return order


if __name__ == "__main__":
    a, b = Number(2.0), Number(-3.0)
    L = (a * b + a * a) * Number(2.0)
    L.backward()
    print("L:", L.data, " da:", a.grad, " db:", b.grad)
