"""Dividing a range into parts: every index once, in order, in parts of the requested sizes."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minidl.partition import ceil_div, chunks, chunks_of_bytes, equal_chunks, length, shard

sizes, positive = st.integers(0, 200), st.integers(1, 50)


def cover(parts, start, stop):
    places = [place for part in parts for place in range(part.start, part.stop)]
    return places == list(range(start, stop))


@given(a=st.integers(-100, 100), b=positive)
def test_ceil_div(a, b):
    assert (ceil_div(a, b) - 1) * b < a <= ceil_div(a, b) * b


@given(size=sizes, most=positive)
def test_chunks(size, most):
    parts = chunks(size, most)
    assert cover(parts, 0, size) and all(length(part) == most for part in parts[:-1])
    assert chunks(7, 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]


@given(size=st.integers(1, 200), itemsize=st.integers(0, 100), most=st.integers(1, 1000), about=st.integers(1, 8))
@example(size=41, itemsize=13, most=91, about=1)  # 91 / 533 of 41 is a little more than 7 in floating point
def test_chunks_of_bytes(size, itemsize, most, about):
    parts = chunks_of_bytes(size, size * itemsize, most, about)
    assert cover(parts, 0, size) and len(parts) >= (min(about, size) // 2 if itemsize else 1)
    assert all(length(part) == 1 or length(part) * itemsize < most + itemsize for part in parts)


@given(start=sizes, size=st.integers(1, 200), most=positive, multiple=st.integers(1, 4))
def test_equal_chunks(start, size, most, multiple):
    parts = equal_chunks(slice(start, start + size), most, multiple)
    assert cover(parts, start, start + size) and max(map(length, parts)) <= most
    assert max(map(length, parts)) - min(map(length, parts)) <= 1
    assert len(parts) % multiple == 0 or len(parts) == size


@given(size=sizes, ranks=st.integers(1, 9))
def test_shards_cover_the_range_once_and_are_about_equal(size, ranks):
    parts = [shard(size, rank, ranks) for rank in range(ranks)]
    assert cover(parts, 0, size)
    assert max(map(length, parts)) - min(map(length, parts)) <= 1


@pytest.mark.parametrize("size, ranks, expected", [(2, 3, [0, 1, 1]), (7, 2, [3, 4])])
def test_uneven_shards(size, ranks, expected):
    assert [length(shard(size, rank, ranks)) for rank in range(ranks)] == expected
