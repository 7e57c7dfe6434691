"""How many threads the matrix products run on."""

import threadpoolctl


def set_num_threads(n: int) -> None:
    """Let NumPy's BLAS library use n threads from now on, in this process."""
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"set_num_threads takes an integer of at least 1; got {n!r}")
    threadpoolctl.threadpool_limits(n, user_api="blas")


def get_num_threads() -> int:
    """The number of threads that NumPy's BLAS library uses; 1 where it cannot tell."""
    return max((pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"), default=1)
