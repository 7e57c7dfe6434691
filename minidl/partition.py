"""How a range is cut into parts. *Chunks* have a largest size: work for threads, that fits a cache. *Shards* are one for each
of several devices or threads, and about equal.
"""

import math


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def length(part: slice) -> int:
    return part.stop - part.start


def chunks(size: int, most: int) -> list[slice]:
    """range(size) in slices of `most`, the last one perhaps shorter."""
    return [slice(start, min(start + most, size)) for start in range(0, size, most)]


def chunks_of_bytes(size: int, nbytes: int, most: int, at_least: int = 1) -> list[slice]:
    """The axis of `size` of an array of nbytes, in slices of about `most` bytes or less; `at_least` of them, if it is so long."""
    share = min(most, nbytes // at_least) / nbytes if nbytes else 1
    return chunks(size, max(1, math.ceil(share * size)))


def equal_chunks(part: slice, most: int, multiple: int) -> list[slice]:
    """A slice in about equal ones of at most `most`; as many as a multiple of `multiple`, if it is so long."""
    count = multiple * ceil_div(length(part), multiple * most)
    cut = chunks(length(part), ceil_div(length(part), count))
    return [slice(part.start + chunk.start, part.start + chunk.stop) for chunk in cut]


def shard(size: int, rank: int, world_size: int) -> slice:
    """Of world_size ranks, rank's share of range(size): about size / world_size in a row, perhaps none."""
    return slice(size * rank // world_size, size * (rank + 1) // world_size)
