"""Arguments that PyTorch takes as a number or a pair."""


def pair(value, name: str, at_least: int = 1) -> tuple[int, int]:
    """3 -> (3, 3) and (3, 5) -> (3, 5), for the axes H and W."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2 or any(not isinstance(v, int) or v < at_least for v in values):
        raise ValueError(f"{name} must be an integer of at least {at_least}, or a pair of them; got {value!r}")
    return values


def require_4d(x, function: str) -> None:
    if x.ndim != 4:
        raise ValueError(f"{function} takes x of shape (N, C, H, W); got {x.shape}")
