"""Division of a range into parts. *Chunks* have a largest size, such as work for threads that fits the cache. *Shards* are about
equal parts, one for each device.
"""


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def length(part: slice) -> int:
    """The length of a slice."""
    return part.stop - part.start


def chunks(size: int, most: int) -> list[slice]:
    """range(size) in slices of length `most`; the last one may be shorter."""
    return [slice(start, min(start + most, size)) for start in range(0, size, most)]


def chunks_of_bytes(size: int, nbytes: int, most_bytes: int, about: int = 1) -> list[slice]:
    """Slices of an axis of length `size` of an array of nbytes, each of about most_bytes at most.

    about: there are about this many slices, or more.
    """
    most = ceil_div(size * min(most_bytes, nbytes // about), nbytes) if nbytes else size
    return chunks(size, max(1, most))


def shard(size: int, rank: int, world_size: int) -> slice:
    """The shard of range(size) for rank `rank` of world_size: consecutive, about size / world_size long, perhaps empty."""
    return slice(size * rank // world_size, size * (rank + 1) // world_size)


def equal_chunks(part: slice, most: int, multiple: int) -> list[slice]:
    """A slice in chunks of length `most` at most, whose lengths differ by 1 at most.

    Their number is a multiple of `multiple`, or the length of the slice if that is smaller.
    """
    count = min(length(part), multiple * ceil_div(length(part), multiple * most))
    cuts = [shard(length(part), i, count) for i in range(count)]
    return [slice(part.start + cut.start, part.start + cut.stop) for cut in cuts]
