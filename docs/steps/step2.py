"""Step 2: a graph and a walk.

A number stores the numbers that it was made from, and its slope with respect to each. Then the program can apply the chain rule.
"""


class Number:
    def __init__(self, data, inputs=(), slopes=()):
        self.data = data
        self.inputs = inputs
        self.slopes = slopes  # d self / d input, for each input
        self.grad = None

    def __add__(self, other):
        return Number(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other):
        return Number(self.data * other.data, (self, other), (other.data, self.data))

    def backward(self):
        """Set grad = dself/dnumber for every number that self was made from. Only right if each is used once."""
        self.grad = 1.0
        stack = [self]
        while stack:
            number = stack.pop()
            for source, slope in zip(number.inputs, number.slopes, strict=True):
                source.grad = number.grad * slope
                stack.append(source)


if __name__ == "__main__":
    a, b, c = Number(2.0), Number(-3.0), Number(5.0)
    L = a * b + c
    L.backward()
    print("L:", L.data, " da:", a.grad, " db:", b.grad, " dc:", c.grad)
