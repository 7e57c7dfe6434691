"""The largest difference from PyTorch that each parity test saw, as a table printed at the end of the run."""

ROWS: dict[str, dict[str, float]] = {}
COLUMNS = ("float64 value", "float64 gradient", "float32 value", "float32 gradient")


def record(subject: str, dtype: str, quantity: str, error: float) -> None:
    """Keep the largest error: relative to the largest entry; quantity is "value" or "gradient"."""
    row = ROWS.setdefault(subject, {})
    column = f"{dtype} {quantity}"
    row[column] = max(error, row.get(column, 0.0))


def lines() -> list[str]:
    """The table: a line for each subject, in the order of the tests."""
    width = max(map(len, ROWS))
    head = f"{'largest difference / largest entry':<{width}}" + "".join(f"{column:>18}" for column in COLUMNS)
    body = [
        f"{subject:<{width}}" + "".join(f"{row[column]:>18.1e}" if column in row else f"{'':>18}" for column in COLUMNS)
        for subject, row in ROWS.items()
    ]
    return [head.rstrip(), *(line.rstrip() for line in body)]
