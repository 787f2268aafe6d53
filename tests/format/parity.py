#!/usr/bin/env python3
"""Checks the parity of a repository from docs/format.md alone, without a key; shares no code with the engine.

    parity.py REPO

Prints one line for each parity object. Problems go to stderr; the exit code is 1 if there were any.

Needs Python 3.11, and blake3 from PyPI.
"""

import struct
import sys
from pathlib import Path

from blake3 import blake3

MAGIC = b"\x89ddup\r\n\n"
FOLDERS = {2: "keys", 3: "packs", 4: "index", 5: "snapshots", 10: "forget", 12: "damaged"}
ROLES = {6: "close", 7: "fence", 8: "seal", 9: "done"}
BASIS = [0x0001, 0xACCA, 0x3C0E, 0x163E, 0xC582, 0xED2E, 0x914C, 0x4012, 0x6C98, 0x10D8, 0x6A72, 0xB900, 0xFDB8, 0xFB34,
         0xFF38, 0x991E]
# Symbols of each codeword that are held against the definition of the code: all would take minutes.
SYMBOLS = [0, 31, 1000, 20000]


class Damage(Exception):
    """An object breaks a rule of the format."""


def need(condition, what):
    if not condition:
        raise Damage(what)


def member_name(kind, epoch, identity):
    if kind == 1:
        return "config"
    if kind in ROLES:
        return f"epochs/{epoch:010}.{ROLES[kind]}"
    within = f"{epoch:010}/" if kind in (3, 4, 5) else ""
    return f"{FOLDERS[kind]}/{within}{identity.hex()}"


def element(number):
    value = 0
    for bit in range(16):
        if number >> bit & 1:
            value ^= BASIS[bit]
    return value


def times(a, b):
    product = 0
    for bit in range(16):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(30, 15, -1):
        if product >> bit & 1:
            product ^= 0x1002D << (bit - 16)
    return product


def symbol(shard, number):
    block, place = divmod(number, 32)
    return shard[64 * block + place] + 256 * shard[64 * block + place + 32]


def check_codeword(data, parity, size):
    """Sums over all positions, as far as they are known: of the R of parity, only the first m are stored."""
    m, r = len(parity), 1
    while r < len(parity):
        r *= 2
    points = [element(r + i) for i in range(len(data))]
    for number in [n for n in SYMBOLS if n < size // 2]:
        values = [element(symbol(shard, number)) for shard in data]
        sums = []
        for _ in range(r):
            total = 0
            for value in values:
                total ^= value
            sums.append(total)
            values = [times(value, point) for value, point in zip(values, points)]
        # Solve for the r values of parity by elimination, and compare those that are stored.
        rows = [[1] * r + [sums[0]]]
        for t in range(1, r):
            rows.append([times(v, element(x)) for x, v in enumerate(rows[-1][:r])] + [sums[t]])
        solved = solve(rows)
        need(solved[:m] == [element(symbol(shard, number)) for shard in parity], "parity is not what the code calls for")


def inverse(a):
    result, power = 1, a
    for _ in range(15):
        power = times(power, power)
        result = times(result, power)
    return result


def solve(rows):
    count = len(rows)
    for column in range(count):
        pivot = next(row for row in range(column, count) if rows[row][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        scale = inverse(rows[column][column])
        rows[column] = [times(scale, v) for v in rows[column]]
        for row in range(count):
            if row != column and rows[row][column]:
                factor = rows[row][column]
                rows[row] = [a ^ times(factor, b) for a, b in zip(rows[row], rows[column])]
    return [row[-1] for row in rows]


def hashed(shard):
    return blake3(shard).digest()[:16]


def check(root, path):
    name, data = str(path.relative_to(root)), path.read_bytes()
    header, epoch = data[:64], struct.unpack_from("<Q", data, 32)[0]
    need(header[:10] == MAGIC + bytes([1, 13]) and header[10:16] == bytes(6), "no header of parity")
    length = struct.unpack_from("<I", header, 40)[0]
    table = data[64:64 + length]
    need(blake3(header[:44] + table).digest()[:20] == header[44:], "damaged table")
    layout, size, m, count = table[0], *struct.unpack_from("<III", table, 4)
    need(layout in (1, 2) and table[1:4] == bytes(3) and length == 48 + 56 * count, "impossible table")
    members, hashes = [], []
    for at in range(16, 16 + 56 * count, 56):
        kind, member_epoch, member_size = table[at], *struct.unpack_from("<QQ", table, at + 8)
        object_name = member_name(kind, member_epoch, table[at + 24:at + 56])
        body = (root / object_name).read_bytes()
        need(len(body) == member_size and blake3(body).digest() == table[at + 24:at + 56], f"{object_name} is another object")
        shards = [body[i:i + size].ljust(size, b"\0") for i in range(0, len(body), size)]
        hashes += map(hashed, shards)
        members.append((object_name, shards))
    longest = max(len(shards) for _, shards in members)
    if layout == 1:
        need(count == 1 and name == f"parity/{members[0][0]}", "parity of another object")
        codewords = [members[0][1]]
    else:
        need(name == f"parity/groups/{epoch:010}/{blake3(data).hexdigest()}", "a group of another name")
        codewords = [[shards[c] if c < len(shards) else bytes(size) for _, shards in members] for c in range(longest)]
    listed = 16 * (len(hashes) + len(codewords) * m)
    copy = 64 + length + listed
    stored = data[copy:len(data) - copy]
    parity = [stored[i:i + size] for i in range(0, len(stored), size)]
    need(len(stored) == len(codewords) * m * size, "another number of parity shards")
    hashes += map(hashed, parity)
    expected = b"".join(hashes)
    need(blake3(expected).digest() == table[-32:] and data[64 + length:copy] == expected, "other hashes of shards")
    need(data[len(data) - copy:] == expected + table + header, "the copies differ")
    for number, codeword in enumerate(codewords):
        check_codeword(codeword, parity[number * m:(number + 1) * m], size)
    print(f"{name}: {count} objects, {len(codewords)} codewords, {m} parity shards in each")


def main():
    root, problems = Path(sys.argv[1]), 0
    for path in sorted(path for path in (root / "parity").rglob("*") if path.is_file() and not path.name.startswith(".")):
        try:
            check(root, path)
        except (Damage, OSError, LookupError, struct.error) as error:
            problems += 1
            print(f"{path.relative_to(root)}: {error}", file=sys.stderr)
    return min(problems, 1)


if __name__ == "__main__":
    sys.exit(main())
