#!/usr/bin/env python3
"""Does stock duplicity accept what `export duplicity` writes? Every kind of archive, with every release that is given.

  accept.py --script ACCEPT.SH --keys DIR --program DEDUPLICITY --stock DUPLICITY [--stock ...] [--only KIND ...]

ACCEPT.SH judges an archive with one stock duplicity: it restores, verifies, lists, continues and cleans up. It is not part of
this project; where it is absent, this says "skipped" and ends with 0. DIR holds rsa.sec.asc and rsa.passphrase, an OpenPGP key.
A chain of six backups with everything that an archive can hold is made, exported in every kind, and judged. One line for each
pair of kind and release; 1 if any was rejected. Needs root, since owners and devices are compared, and gpg.
"""
import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

SYMMETRIC = "a pass phrase"
START = 1_700_000_000


def write(path, data, mtime):
    with open(path, "wb") as file:
        file.write(data)
    os.utime(path, (mtime, mtime))


def make_tree(root):
    """Everything that an archive of duplicity can hold; no negative times, which it cannot."""
    noise = random.Random(1).randbytes
    for folder in (b"dir/empty", b"dir/deep/" + b"d" * 120 + b"/" + b"e" * 120, b"gone", b"type", b"ord"):
        os.makedirs(root + b"/" + folder)
    for number, size in enumerate((0, 1, 511, 512, 513, 65_535, 65_536, 65_537, 131_072, 3_000_001)):
        write(root + b"/size-%d" % size, noise(size), START - 1000 * number)
    write(root + b"/dir/text", b"some text\n" * 1000, 1_234_567_890)
    write(root + b"/dir/deep/" + b"d" * 120 + b"/" + b"e" * 120 + b"/" + b"f" * 200, b"far down", START)
    write(root + b"/not \xff utf-8 \x01\n", b"named oddly", START)
    write(root + "/ümlaut ☃ 'quoted' \"twice\" back\\slash".encode(), b"odd", START)
    for name in (b"ord/1", b"ord-1", b"ord.1", b"gone/x", b" leading", b"trailing "):
        write(root + b"/" + name, name, START)
    os.link(root + b"/dir/text", root + b"/dir/second-name")
    os.symlink(b"nowhere/at/all", root + b"/dangling")
    os.symlink(b"dir", root + b"/to-dir")
    os.symlink(b"x" * 300, root + b"/long-link")
    os.mkfifo(root + b"/fifo", 0o640)
    os.mknod(root + b"/null", 0o020666, os.makedev(1, 3))
    os.mknod(root + b"/loop", 0o060640, os.makedev(7, 99))
    with open(root + b"/sparse", "wb") as file:
        file.truncate(2 << 20)
    for mode in (0o4755, 0o2755, 0o1777, 0o600):
        write(root + b"/mode-%o" % mode, b"x", START)
        os.chmod(root + b"/mode-%o" % mode, mode)
    os.chown(root + b"/size-513", 1234, 4321)
    os.lchown(root + b"/dangling", 99, 98)


def change_tree(root, step):
    """What happens between two backups."""
    rng = random.Random(100 + step)
    at = START + 100 * step
    with open(root + b"/size-3000001", "r+b") as file:
        file.seek(rng.randrange(3_000_000))
        file.write(b"changed")
    os.utime(root + b"/size-3000001", (at, at))
    write(root + b"/new-%d" % step, rng.randbytes(100_000 * step), at)
    if step == 1:
        shutil.rmtree(root + b"/gone")
        os.rmdir(root + b"/type")
        write(root + b"/type", b"a file now", at)
        os.chmod(root + b"/mode-600", 0o644)
    elif step == 2:
        os.unlink(root + b"/type")
        os.symlink(b"a link now", root + b"/type")
        os.unlink(root + b"/dangling")
        os.mkdir(root + b"/dangling")
        write(root + b"/size-65536", b"", at)
        os.chown(root + b"/size-512", 5, 6)
    elif step == 3:
        with open(root + b"/dir/text", "r+b") as file:
            text = file.read()
            file.seek(0)
            file.write(b"inserted\n" + text)
        os.utime(root + b"/dir/text", (at, at))
        os.rename(root + b"/ord/1", root + b"/ord/2")
    elif step == 4:
        os.unlink(root + b"/type")
        os.makedirs(root + b"/type/again/deep")
        os.unlink(root + b"/null")
        write(root + b"/null", b"no device", at)
    # Step 5 changes nothing but the large file and a new one.


def run(command, env, **more):
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)
    return done.returncode, done.stdout.decode("utf-8", "backslashreplace")


def must(command, env, **more):
    code, said = run(command, env, **more)
    if code != 0:
        sys.exit(f"accept.py: {command} ended with {code}:\n{said}")
    return said


def make_repository(args, work, env):
    """A repository with six backups; returns [(time, file that describes the tree)]."""
    source = os.path.join(work, "src").encode()
    os.mkdir(source)
    states = []
    for step in range(6):
        make_tree(source) if step == 0 else change_tree(source, step)
        at, listing = START + 10_000 * (step + 1), os.path.join(work, f"tree{step}.json")
        must([args.program, "backup", "--init", source, "--time", f"@{at}"], env)
        with open(listing, "wb") as file:
            script = os.path.join(os.path.dirname(os.path.abspath(args.script)), "gen/treejson.py")
            subprocess.run([sys.executable, script, source], check=True, stdout=file)
        states.append((at, listing))
    return states


def make_keyring(args, work, env):
    """Imports the key; returns gpg's home and the key's fingerprint."""
    home = os.path.join(work, "gnupg")
    os.mkdir(home, 0o700)
    own = dict(env, GNUPGHOME=home)
    gpg = ["gpg", "--batch", "--no-tty", "--pinentry-mode", "loopback"]
    must(gpg + ["--passphrase-file", args.keys + "/rsa.passphrase", "--import", args.keys + "/rsa.sec.asc"], own)
    listed = must(gpg + ["--with-colons", "--list-keys"], own)
    print_ = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
    subprocess.run(gpg + ["--import-ownertrust"], env=own, input=f"{print_}:6:\n".encode(), check=True, stderr=subprocess.DEVNULL)
    return home, print_


def kinds(home, key, phrase):
    """Kinds of archives: options of the export, of the script, and the pass phrase."""
    plain = ["--no-encryption"]
    public = ["--gnupghome", home, "--passphrase", phrase]
    to, hidden, by = f"--encrypt-key={key}", f"--hidden-encrypt-key={key}", f"--sign-key={key}"
    opts = lambda *options: [word for option in options for word in ("--opt=" + option,)]
    return {
        "plain": (plain + ["--no-compression"], plain, None),
        "gz": (plain, plain, None),
        "small volumes": (plain + ["--volsize", "1"], plain, None),
        "symmetric": (["--volsize", "1"], ["--passphrase", SYMMETRIC], SYMMETRIC),
        "public key": ([to], public + opts(to), phrase),
        "hidden key": ([hidden], public + opts(hidden), phrase),
        "signed and encrypted": ([to, by, "--volsize", "1"], public + opts(to, by), phrase),
        "signed, symmetric": ([by], public + opts(by) + ["--sign-passphrase", phrase], phrase),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--script", required=True)
    parser.add_argument("--keys", required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--stock", action="append", required=True)
    parser.add_argument("--only", action="append", default=[])
    args = parser.parse_args()
    if not os.path.exists(args.script):
        print(f"skipped: {args.script} is absent")
        return 0
    args.program = os.path.abspath(args.program)
    with tempfile.TemporaryDirectory(prefix="accept.") as work:
        env = {"PATH": os.environ["PATH"], "HOME": work, "TZ": "UTC", "LANG": "C.UTF-8"}
        env |= {"DEDUPLICITY_REPOSITORY": work + "/repo", "DEDUPLICITY_PASSWORD": "secret"}
        states = make_repository(args, work, env)
        home, key = make_keyring(args, work, env)
        with open(args.keys + "/rsa.passphrase", encoding="ascii") as file:
            phrase = file.read().strip()
        rejected = 0
        for number, (kind, (export, judge, secret)) in enumerate(kinds(home, key, phrase).items()):
            if args.only and kind not in args.only:
                continue
            archive, own = f"{work}/archive{number}", dict(env, GNUPGHOME=home)
            own |= {"PASSPHRASE": secret, "SIGN_PASSPHRASE": secret} if secret else {}
            snapshots = [f"latest~{back}" for back in range(5, 0, -1)] + ["latest"]
            must([args.program, "export", "duplicity", *snapshots, archive, *export], own)
            for stock in args.stock:
                at = [word for moment, listing in states for word in ("--at", f"{moment}={listing}")]
                start = time.monotonic()
                code, said = run([args.script, "--archive", archive, "--duplicity", stock, *at, *judge], env)
                passed = sum(line.startswith("ok ") for line in said.splitlines())
                verdict = "ACCEPTED" if code == 0 else "REJECTED"
                print(f"{kind:22} {os.path.basename(stock):14} {verdict} {passed:3} checks, {time.monotonic() - start:.0f} s", flush=True)
                if code != 0:
                    rejected += 1
                    print("\n".join(f"    {line}" for line in said.splitlines() if not line.startswith("ok ")), flush=True)
        subprocess.run(["gpgconf", "--kill", "all"], env=dict(env, GNUPGHOME=home), check=False)
    return 1 if rejected else 0


if __name__ == "__main__":
    sys.exit(main())
