"""How a range is cut into parts. *Chunks* have a largest size: work for threads, that fits a cache. *Shards* divide a range among
devices, a part each, about equal.
"""


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def length(part: slice) -> int:
    """The number of places in a slice."""
    return part.stop - part.start


def chunks(size: int, most: int) -> list[slice]:
    """range(size) in slices of `most`, the last one perhaps shorter."""
    return [slice(start, min(start + most, size)) for start in range(0, size, most)]


def chunks_of_bytes(size: int, nbytes: int, most_bytes: int, about: int = 1) -> list[slice]:
    """The axis of `size` of an array of nbytes, in slices of about most_bytes or less; about so many of them, or more."""
    most = ceil_div(size * min(most_bytes, nbytes // about), nbytes) if nbytes else size
    return chunks(size, max(1, most))


def shard(size: int, rank: int, world_size: int) -> slice:
    """Of world_size ranks, rank's share of range(size): about size / world_size in a row, perhaps none."""
    return slice(size * rank // world_size, size * (rank + 1) // world_size)


def equal_chunks(part: slice, most: int, multiple: int) -> list[slice]:
    """A slice in chunks of at most `most`, whose lengths differ by 1 at most; their number is a multiple of `multiple`, or the
    slice's length if that is smaller.
    """
    count = min(length(part), multiple * ceil_div(length(part), multiple * most))
    cuts = [shard(length(part), i, count) for i in range(count)]
    return [slice(part.start + cut.start, part.start + cut.stop) for cut in cuts]
