#!/usr/bin/env python3
"""Reads and restores a repository from docs/format.md alone; shares no code with the engine.

    reader.py REPO --password-file FILE snapshots
    reader.py REPO --password-file FILE packs
    reader.py REPO --password-file FILE restore ID|latest TARGET [--from-packs]

`packs` rebuilds the index from the directories of the packs and prints what they hold; `restore --from-packs` uses that
index and leaves `index/` alone. Problems go to stderr; the exit code is 1 if there were any.

Needs Linux, Python 3.11, and blake3, zstandard, cryptography, pynacl, argon2-cffi, cbor2 from PyPI.
"""

import argparse
import hmac
import os
import re
import struct
import sys
from collections import OrderedDict
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import argon2.low_level
import cbor2
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as xchacha_decrypt
from nacl.exceptions import CryptoError

MAGIC = b"\x89ddup\r\n\n"
CONFIG, SLOT, PACK, SEGMENT, SNAPSHOT, CLOSE, FENCE, SEAL, DONE, FORGET = range(1, 11)
FILE, DIRECTORY, SYMLINK, FIFO, CHAR_DEVICE, BLOCK_DEVICE = range(6)
CONTEXTS = {"id": "blob id", "data": "packs", "index": "index", "meta": "metadata", "epochs": "epochs", "config": "config"}
# Entries compare as byte strings with "/" below all other bytes; NUL does not occur in paths.
ORDER = bytes.maketrans(b"/", b"\0")


class Damage(Exception):
    """An object breaks a rule of the format."""


# Whatever bytes can cause: ours, failed authentication, missing objects, fields that are absent or of another type.
ERRORS = (Damage, CryptoError, InvalidTag, OSError, LookupError, TypeError, ValueError, AttributeError, struct.error,
          zstandard.ZstdError, cbor2.CBORError)
problems = 0


def need(condition, what):
    if not condition:
        raise Damage(what)


def problem(where, error):
    global problems
    problems += 1
    print(f"{where}: {str(error) or 'does not authenticate'}", file=sys.stderr)


@contextmanager
def reported(where):
    """Reports what goes wrong within, and goes on after it."""
    try:
        yield
    except ERRORS as error:
        problem(where, error)


def prf(key, message, length=32):
    return blake3(message, key=key).digest(length=length)


def expand(data, compression, length):
    if compression == 1:
        need(zstandard.frame_content_size(data) == length, "zstd frame of another length")
        return zstandard.ZstdDecompressor().decompress(data)
    need(compression == 0 and len(data) == length, "unknown compression, or another length")
    return data


def decode(data):
    """A CBOR map. There is one form only of each, so whatever else shows when it is encoded again."""
    fields = cbor2.loads(data)
    need(cbor2.dumps(fields, canonical=True) == data, "CBOR in another form")
    return known(fields)


def known(fields):
    need(all(type(key) is int and 0 <= key < 1 << 32 for key in fields.keys()), "made by a newer program")
    return fields


def header(data, kind, repo, epoch):
    """Checks the 64 bytes at the start of every object but packs, and returns the nonce."""
    need(len(data) >= 64 and data[:10] == MAGIC + bytes([1, kind]), "other magic, version or kind")
    need(data[10:16] == bytes(6), "reserved bytes are set")
    need(data[16:32] == repo and struct.unpack_from("<Q", data, 32)[0] == epoch, "other repository or epoch")
    return data[40:64]


class Pack:
    """The keys of one pack, from its header, and its frames, from its directory."""

    def __init__(self, name, data_key, repo, head):
        need(len(head) >= 96 and head[:10] == MAGIC + bytes([1, PACK]), "other magic, version or kind")
        need(head[10:12] == bytes(2) and head[13:16] == bytes(3) and head[12] in (1, 2), "made by a newer program")
        need(head[16:32] == repo, "other repository")
        keys = prf(data_key, b"pack" + repo + head[32:64], 64)
        self.name, self.frames, self.commitment = name, [], prf(keys[32:], head[:64])
        need(hmac.compare_digest(self.commitment, head[64:96]), "commitment does not match")
        self.cipher = (ChaCha20Poly1305 if head[12] == 1 else AESGCM)(keys[:32])

    def open(self, number, role, sealed):
        number = struct.pack("<Q", number)
        return self.cipher.decrypt(bytes(4) + number, sealed, self.commitment + number + bytes([role]))

    def take_directory(self, plain, end):
        """Keeps the frames and returns (id, frame, offset, length) of every blob. Frames must end before `end`."""
        frames, blobs = struct.unpack_from("<II", plain)
        need(frames <= 65536 and len(plain) == 8 + 18 * frames + 36 * blobs, "directory of an impossible length")
        lengths = struct.unpack_from(f"<{blobs}I", plain, 8 + 18 * frames)
        ids, last, found = len(plain) - 32 * blobs, 96, []
        for frame in struct.iter_unpack("<IIIIBB", plain[8:8 + 18 * frames]):
            start, sealed, raw, count, compression, kind = frame
            need(last <= start and start + sealed <= end and raw <= 32 << 20, "frames overlap or are too large")
            need(compression in (0, 1) and kind in (0, 1), "unknown compression or kind")
            need(sealed >= 16 and (compression or sealed == raw + 16), "lengths of a frame disagree")
            last, offset = start + sealed, 0
            for i in range(len(found), len(found) + count):
                found.append((plain[ids + 32 * i:ids + 32 * i + 32], len(self.frames), offset, lengths[i]))
                offset += lengths[i]
            need(offset == raw, "blobs do not add up to their frame")
            self.frames.append(frame)
        need(len(found) == blobs, "blobs outside of any frame")
        return found

    def directory_from_end(self, data):
        need(160 <= len(data) <= 256 << 20, "impossible size")
        offset, sealed, raw, compression = struct.unpack_from("<IIIB", self.open(2**64 - 1, 4, data[-64:]))
        need(offset >= 96 and offset + sealed + 64 == len(data) and raw <= 32 << 20, "locator points elsewhere")
        plain = expand(self.open(2**64 - 2, 3, data[offset:offset + sealed]), compression, raw)
        return self.take_directory(plain, offset)


class Repository:
    def __init__(self, root, password):
        self.root, self.index, self.cache = Path(root), {}, OrderedDict()
        config = self.read("config")
        self.repo = config[16:32]
        header(config, CONFIG, self.repo, 0)
        secret = self.unlock(password)
        self.keys = {k: blake3(secret, derive_key_context=f"deduplicity v1 {c}").digest() for k, c in CONTEXTS.items()}
        need(hmac.compare_digest(prf(self.keys["config"], config[:-32]), config[-32:]), "config: MAC does not match")
        features = decode(config[64:-32])[3]
        need(features == [], f"needs unknown features to be read: {features}")

    def names(self, pattern):
        """Names of this pattern in order, each with the parts that vary."""
        found = sorted(p.relative_to(self.root).as_posix() for p in (self.root / pattern.partition("/")[0]).glob("**/*"))
        pattern = pattern.replace("<E>", "([0-9]{10})").replace("<id>", "([0-9a-f]{64})")
        return [(m[0], *m.groups()) for m in (re.fullmatch(pattern, name) for name in found) if m]

    def read(self, name, identity=None):
        data = (self.root / name).read_bytes()
        need(identity in (None, blake3(data).hexdigest()), "bytes do not have the hash in their name")
        return data

    def unlock(self, password):
        wrong = 0
        for name, _ in self.names("keys/<id>"):
            with reported(name):
                slot = self.read(name)  # Not by its hash: damage to the note alone must not lock anyone out.
                nonce = header(slot, SLOT, self.repo, 0)
                kind, memory, passes, lanes = struct.unpack_from("<4I", slot, 64)
                if kind != 1:
                    continue
                need(len(slot) == 744, "slot of another size")
                need(memory <= 1 << 20 and passes <= 16 and lanes <= 64, "stretching costs too much")
                stretched = argon2.low_level.hash_secret_raw(password, slot[80:112], passes, memory, lanes, 32,
                                                             argon2.low_level.Type.ID, 0x13)
                both = prf(stretched, b"key slot", 64)
                if hmac.compare_digest(both[32:], slot[112:144]):
                    return xchacha_decrypt(slot[144:192], slot[:144], nonce, both[:32])
                wrong += 1
        raise Damage(f"the password opens none of {wrong} slots")

    def open_sealed(self, key, name, identity, kind, epoch):
        """The body of a sealed object, and the hash of the object."""
        data = self.read(name, identity)
        need(len(data) <= 64 << 20, "too large")
        text = xchacha_decrypt(data[64:], data[:64], header(data, kind, self.repo, epoch), self.keys[key])
        length, stored, compression = struct.unpack_from("<IIB", text)
        need(length <= 128 << 20 and 12 + stored <= len(text), "impossible lengths")
        return decode(expand(text[12:12 + stored], compression, length)), blake3(data).digest()

    # What counts

    def load_epochs(self):
        """Opens all epoch objects, finds the latest seal, and reports gaps."""
        marks = {"close": {}, "fence": {}, "seal": {}, "done": {}}
        for kind, (role, found) in enumerate(marks.items(), CLOSE):
            for name, epoch in self.names(rf"epochs/<E>\.{role}"):
                with reported(name):
                    found[int(epoch)] = self.open_sealed("epochs", name, None, kind, int(epoch))
        for epoch in {e for found in marks.values() for e in found} - marks["close"].keys():
            problem(f"epoch {epoch}", "has other marks, but no close")
        seals = marks["seal"]
        self.latest = max(seals, default=-1)
        for epoch in range(self.latest + 1):
            before = seals.get(epoch - 1, (None, None))[1]
            if epoch not in seals or seals[epoch][0].get(0) != before:
                problem(f"seal of epoch {epoch}", "is missing, or does not follow the one before")
        self.seal = seals.get(self.latest, ({1: [], 2: []}, None))[0]

    def counting(self, folder, field):
        """What the latest seal names in this field, and what belongs to later epochs: (name, id, epoch)."""
        later = [(name, i, int(epoch)) for name, epoch, i in self.names(f"{folder}/<E>/<id>") if int(epoch) > self.latest]
        return [(f"{folder}/{epoch:010}/{i.hex()}", i.hex(), epoch) for epoch, i in self.seal[field]] + later

    def snapshots(self):
        """Valid ones, oldest first, without those to be forgotten and partial ones whose session has ended."""
        found, ended, forgotten = [], set(), set()
        for name, identity in self.names("forget/<id>"):
            with reported(name):
                forgotten.update((epoch, i.hex()) for epoch, i in self.open_sealed("meta", name, identity, FORGET, 0)[0][0])
        for name, identity, epoch in self.counting("snapshots", 1):
            with reported(name):
                fields, _ = self.open_sealed("meta", name, identity, SNAPSHOT, epoch)
                need(fields[9] in (0, 1), "unknown kind of snapshot")
                ended.update([fields[12]] if fields[9] == 0 else [])
                found.append(SimpleNamespace(id=identity, epoch=epoch, time=fields[0], host=fields[2], root=fields.get(7),
                                             totals=fields[8], partial=fields[9] == 1, session=fields[12]))
        found = [s for s in found if (s.epoch, s.id) not in forgotten and not (s.partial and s.session in ended)]
        return sorted(found, key=lambda s: s.time)

    # Blobs

    def load_segments(self):
        for name, identity, epoch in self.counting("index", 2):
            with reported(name):
                for fields in map(known, self.open_sealed("index", name, identity, SEGMENT, epoch)[0][0]):
                    pack = Pack(f"packs/{fields[0]:010}/{fields[1].hex()}", self.keys["data"], self.repo, fields[3])
                    self.add(pack, pack.take_directory(fields[4], fields[2]))

    def load_packs(self):
        for name, _, identity in self.names("packs/<E>/<id>"):
            with reported(name):
                data = self.read(name, identity)
                pack = Pack(name, self.keys["data"], self.repo, data[:96])
                blobs = pack.directory_from_end(data)
                self.add(pack, blobs)
                yield f"{name} {len(data)} bytes, {len(pack.frames)} frames, {len(blobs)} blobs"

    def add(self, pack, blobs):
        for identity, *place in blobs:
            self.index.setdefault(identity, []).append((pack, *place))

    def blob(self, identity):
        """A blob, verified; every known copy is tried."""
        error = "no pack has it"
        for pack, number, offset, length in self.index.get(identity, []):
            try:
                data = self.frame(pack, number)[offset:offset + length]
                need(prf(self.keys["id"], data) == identity, "other bytes than its id says")
                return data
            except ERRORS as e:
                error = f"{pack.name}, frame {number}: {str(e) or 'does not authenticate'}"
        raise Damage(f"blob {identity.hex()}: {error}")

    def frame(self, pack, number):
        key = (pack.name, number)
        if key not in self.cache:
            start, sealed, raw, _, compression, kind = pack.frames[number]
            with open(self.root / pack.name, "rb") as file:
                file.seek(start)
                self.cache[key] = expand(pack.open(number, kind, file.read(sealed)), compression, raw)
            if len(self.cache) > 16:
                self.cache.popitem(last=False)
        self.cache.move_to_end(key)
        return self.cache[key]

    # Catalogs and content

    def entries(self, root):
        last = None
        for e in self.walk(root) if root else []:
            order = e.path.translate(ORDER)
            need(last is None or last < order, "entries out of order")
            last = order
            yield e

    def walk(self, identity, level=None):
        """Entries below a node, which must be of this level: 0 for a leaf, None for the root of a catalog."""
        node = decode(self.blob(identity))
        found = (0, node[1])[node[0]]
        need(level in (None, found) and (0 < found <= 16 or node[0] == 0) and node[2], "not the node expected here")
        path = b""
        for item in node[2]:
            if node[0] == 0:
                shared = known(item).get(0, 0)
                need(shared <= len(path), "more bytes shared than there are")
                path = path[:shared] + item[1]
                yield entry(path, item, node[1])
            else:
                for e in self.walk(item[1], found - 1):
                    yield e
                need(e.path == item[0], "node ends with another path than its parent says")

    def data(self, fields):
        """The blobs of a file's data."""
        if 14 in fields:
            need(13 not in fields and 1 <= fields[15] <= 16, "impossible content")
            yield from self.listed(fields[14], fields[15])
        for (identity,) in struct.iter_unpack("32s", fields.get(13, b"")):
            yield self.blob(identity)

    def listed(self, identity, level):
        node = decode(self.blob(identity))
        need(node[0] == 2 and node[1] == level and node[2], "not the blob list expected here")
        for below, length in struct.iter_unpack("<32sQ", node[2]):
            for blob in [self.blob(below)] if level == 1 else self.listed(below, level - 1):
                length -= len(blob)
                yield blob
            need(length == 0, "blob list with wrong lengths")


def entry(path, fields, owners):
    names = path.split(b"/") if path else []
    need(len(path) <= 4095 and len(names) <= 2048, "path too long")
    need(all(0 < len(n) <= 255 and n not in (b".", b"..") and b"\0" not in n for n in names), "unsafe path")
    kind, nanos, size, pairs = fields[2], fields.get(6, 0), fields.get(12, 0), fields.get(19, [])
    need(0 <= kind <= 5 and 0 <= fields[3] <= 0o7777 and 0 <= nanos < 10**9, "impossible metadata")
    need(kind == FILE or not {12, 13, 14, 15, 19} & fields.keys(), "content of something that is no file")
    need(len(pairs) % 2 == 0 and len(pairs) <= 2 * 4096, "impossible holes")
    extents, end = [], 0
    for start, length in zip(pairs[::2], pairs[1::2]):
        need(end <= start and length > 0 and start + length <= size, "holes overlap or lie outside of the file")
        extents.append((end, start - end))
        end = start + length
    extents.append((end, size - end))
    # What names of one file agree in.
    file = (fields.get(10, 0), fields[9], kind, size, fields[5] * 10**9 + nanos, repr([fields.get(key) for key in range(13, 17)]))
    return SimpleNamespace(path=path, names=names, kind=kind, mode=fields[3], owner=owners[fields.get(4, 0)][:2], size=size,
                           mtime=fields[5] * 10**9 + nanos, extents=extents, target=fields.get(16), xattrs=fields.get(18, []),
                           device=fields.get(17, [0, 0]), file=file, links=fields.get(11, 1),
                           fields=fields)


class Restorer:
    """Writes below a new or empty directory. Each directory on the way is opened by its name in the one above, never
    through a symlink, so nothing can be written outside."""

    def __init__(self, repository, target):
        self.repository, self.linked, self.directories = repository, {}, []
        os.makedirs(target, mode=0o700, exist_ok=True)
        self.target = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        need(not os.listdir(self.target), f"{target} is not empty")

    @contextmanager
    def directory(self, names):
        fd = os.dup(self.target)
        try:
            for name in names:
                try:
                    os.mkdir(name, 0o700, dir_fd=fd)
                except FileExistsError:
                    pass
                above, fd = fd, os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                os.close(above)
            yield fd
        finally:
            os.close(fd)

    def restore(self, e):
        if e.kind == DIRECTORY:
            self.directories.append(e)  # Its metadata comes last: what is written into it would change them.
            with self.directory(e.names):
                return
        *above, name = e.names
        with self.directory(above) as parent:
            first = self.linked.get(e.file) if e.links > 1 else None
            if first:
                with self.directory(first[:-1]) as source:
                    os.link(first[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
                    return
            self.create(e, parent, name)
            self.linked[e.file] = e.names

    def create(self, e, parent, name):
        if e.kind == FILE:
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent)
            try:
                self.write(fd, e)
                return self.finish(e, fd)
            except ERRORS:
                os.unlink(name, dir_fd=parent)
                raise
            finally:
                os.close(fd)
        if e.kind == SYMLINK:
            os.symlink(e.target, name, dir_fd=parent)
        else:
            kind = {FIFO: 0o010000, CHAR_DEVICE: 0o020000, BLOCK_DEVICE: 0o060000}[e.kind]
            os.mknod(name, kind | 0o600, os.makedev(*e.device), dir_fd=parent)
        self.finish(e, b"/proc/self/fd/%d/%s" % (parent, name))

    def write(self, fd, e):
        """Lays the data around the holes."""
        os.ftruncate(fd, e.size)
        extents = iter(e.extents)
        start, left = next(extents)
        for blob in self.repository.data(e.fields):
            rest = memoryview(blob)
            while rest:
                while left == 0:
                    start, left = next(extents, (0, -1))
                need(left > 0, "more data than the file's length")
                n = os.pwrite(fd, rest[:left], start)
                start, left, rest = start + n, left - n, rest[n:]
        need(left == 0 and not any(length for _, length in extents), "less data than the file's length")

    def finish(self, e, place):
        """Metadata of a descriptor or of a path. Owners first: a change clears setuid bits and capabilities."""
        follow = {} if isinstance(place, int) else {"follow_symlinks": False}
        if os.geteuid() == 0:
            os.chown(place, *e.owner, **follow)
        if e.kind != SYMLINK:
            os.chmod(place, e.mode)
        for name, value in e.xattrs:
            with reported(f"{os.fsdecode(e.path)}: attribute {os.fsdecode(name)}"):
                os.setxattr(place, name, value, **follow)
        os.utime(place, ns=(e.mtime, e.mtime), **follow)

    def run(self, root):
        with reported("catalog"):
            for e in self.repository.entries(root):
                with reported(os.fsdecode(e.path)):
                    self.restore(e)
        for e in reversed(self.directories):
            with reported(os.fsdecode(e.path)), self.directory(e.names) as fd:
                self.finish(e, fd)


def run(args):
    repository = Repository(args.repo, Path(args.password_file).read_bytes().removesuffix(b"\n"))
    if args.command == "packs":
        for line in repository.load_packs():
            print(line)
        print(len(repository.index), "distinct blobs")
        return
    repository.load_epochs()
    found = repository.snapshots()
    if args.command == "snapshots":
        for s in found:
            time = datetime(1970, 1, 1) + timedelta(seconds=s.time[0])
            state = ("partial" if s.partial else "complete") + (", unconfirmed" if s.epoch > repository.latest else "")
            print(s.id, f"{time.isoformat()}Z {s.host}: {s.totals[0]} entries, {s.totals[3]} bytes, {state}")
        return
    found = found[-1:] if args.snapshot == "latest" else [s for s in found if s.id.startswith(args.snapshot)]
    need(len(found) == 1, f"{len(found)} snapshots match")
    if args.from_packs:
        list(repository.load_packs())
    else:
        repository.load_segments()
    Restorer(repository, args.target).run(found[0].root)


def main():
    parser = argparse.ArgumentParser(description="Independent reader of the repository format.")
    parser.add_argument("repo")
    parser.add_argument("--password-file", required=True, help="its bytes, less one newline at the end")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("snapshots")
    commands.add_parser("packs")
    restore = commands.add_parser("restore")
    restore.add_argument("snapshot", help="start of an id, or latest")
    restore.add_argument("target", help="new or empty directory")
    restore.add_argument("--from-packs", action="store_true", help="ignore index/")
    args = parser.parse_args()
    with reported(args.repo):
        run(args)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
