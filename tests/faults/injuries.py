"""Damage to the bytes of a file, as random as its seed."""

from __future__ import annotations

import random
from collections.abc import Callable

SECTOR = 512


def flip_a_bit(data: bytearray, page_size: int, choose: random.Random) -> str:
    place, bit = choose.randrange(len(data)), choose.randrange(8)
    data[place] ^= 1 << bit
    return f"bit {bit} of byte {place} flipped"


def flip_a_bit_of_structure(data: bytearray, page_size: int, choose: random.Random) -> str:
    """Where a bit means most: headers of pages, their cell pointers, and the beginnings of cells."""
    page = choose.randrange(len(data) // page_size) * page_size
    place = page + (choose.randrange(100) if page == 0 and choose.random() < 0.5 else choose.randrange(40))
    if choose.random() < 0.3:  # the page's content begins where its header says
        place = page + min(int.from_bytes(data[page + 5 : page + 7], "big") + choose.randrange(60), page_size - 1)
    bit = choose.randrange(8)
    data[place] ^= 1 << bit
    return f"bit {bit} of byte {place} flipped"


def overwrite(data: bytearray, page_size: int, choose: random.Random) -> str:
    length = choose.choice([2, 4, 16, 64, 700])
    start = choose.randrange(len(data) - length)
    data[start : start + length] = choose.randbytes(length)
    return f"{length} bytes from {start} overwritten"


def swap(data: bytearray, page_size: int, choose: random.Random) -> str:
    size = choose.choice([SECTOR, page_size])
    one, two = (choose.randrange(len(data) // size) * size for _ in range(2))
    data[one : one + size], data[two : two + size] = data[two : two + size], data[one : one + size]
    return f"{size} bytes from {one} and from {two} swapped"


def copy(data: bytearray, page_size: int, choose: random.Random) -> str:
    """A write that went to another place, a whole block or what is as long as a row."""
    size = choose.choice([SECTOR, page_size, 40, 1600])
    step = size if size in (SECTOR, page_size) else 1
    source, target = (choose.randrange((len(data) - size) // step + 1) * step for _ in range(2))
    data[target : target + size] = data[source : source + size]
    return f"{size} bytes from {source} copied to {target}"


def zero(data: bytearray, page_size: int, choose: random.Random) -> str:
    size = choose.choice([SECTOR, page_size]) * choose.choice([1, 2, 8])
    start = choose.randrange(len(data) // SECTOR) * SECTOR
    stop = min(start + size, len(data))
    data[start:stop] = bytes(stop - start)
    return f"bytes {start} to {stop} zeroed"


def cut(data: bytearray, page_size: int, choose: random.Random) -> str:
    at = choose.randrange(page_size, len(data))  # an empty file would be a new one
    if choose.random() < 0.5:
        at -= at % page_size
    elif choose.random() < 0.1:
        at = choose.randrange(1, page_size)
    del data[at:]
    return f"cut to {at} bytes"


def extend(data: bytearray, page_size: int, choose: random.Random) -> str:
    n_bytes = choose.choice([1, SECTOR, page_size, page_size * 3, choose.randrange(1, 3 * page_size)])
    data += choose.randbytes(n_bytes)
    return f"{n_bytes} bytes of garbage at the end"


Injury = Callable[[bytearray, int, random.Random], str]

BIT_FLIPS: list[Injury] = [flip_a_bit, flip_a_bit_of_structure]
MULTI_BYTE: list[Injury] = [overwrite, swap, copy, zero]
TRUNCATIONS: list[Injury] = [cut, cut, cut, extend]

KINDS = {"bit flips": BIT_FLIPS, "damage of many bytes": MULTI_BYTE, "truncations": TRUNCATIONS}


def injure(data: bytearray, page_size: int, kind: str, seed: int) -> str:
    """Damage the bytes in place, and say how."""
    injuries = KINDS[kind]
    return injuries[seed % len(injuries)](data, page_size, random.Random(f"{kind} {seed}"))
