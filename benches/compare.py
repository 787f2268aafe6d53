#!/usr/bin/env python3
"""Measures deduplicity against restic, rustic, borg and bupstash, in turn on one machine, and prints a table.

  benches/compare.py --source DIR --work DIR [--next DIR ...] [--tools deduplicity,restic,...] [--rounds 2]

Programs come from PATH, or from COMPARE_<NAME> (a path). Steps: W1 first backup; W2 again, unchanged (the only one with a warm cache); W3
all files read again, nothing new; W5 restore; W6 check of all data; W4 each --next in the place of the source, as its later versions.
Dropping caches needs root. Each figure is the median over the rounds (and versions); within a round the tools take turns, so that a
machine whose speed drifts is fair to all. Sizes of the repository are given after W1 and after W4.
"""
import argparse
import contextlib
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import time

PASSWORD = "benchmark-password"


class Tool:
    def __init__(self, name, work):
        self.dir = os.path.join(work, name)
        self.repo = os.path.join(self.dir, "repo")
        self.exe = os.environ.get("COMPARE_" + name.upper(), name)
        self.env = dict(os.environ, HOME=self.dir, XDG_CACHE_HOME=self.dir + "/.cache")



class Deduplicity(Tool):
    def __init__(self, name, work):
        super().__init__(name, work)
        self.env.update(DEDUPLICITY_REPOSITORY=self.repo, DEDUPLICITY_PASSWORD=PASSWORD)

    def commands(self, src, dst):
        e = self.exe
        return {"init": [e, "init", "-q"], "W1": [e, "backup", "-q", src], "W2": [e, "backup", "-q", src],
                "W3": [e, "backup", "-q", "--force", src], "W4": [e, "backup", "-q", src],
                "W5": [e, "restore", "-q", "latest:" + src, "--target", dst],
                "W6": [e, "check", "-q", "--read-data"]}


class Restic(Tool):
    def __init__(self, name, work):
        super().__init__(name, work)
        self.env.update(RESTIC_REPOSITORY=self.repo, RESTIC_PASSWORD=PASSWORD)

    def commands(self, src, dst):
        e = self.exe
        return {"init": [e, "init", "-q"], "W1": [e, "backup", "-q", src], "W2": [e, "backup", "-q", src],
                "W3": [e, "backup", "-q", "--force", src], "W4": [e, "backup", "-q", src],
                "W5": [e, "restore", "-q", "latest:" + src, "--target", dst],
                "W6": [e, "check", "-q", "--read-data"]}


class Rustic(Tool):
    def __init__(self, name, work):
        super().__init__(name, work)
        self.env.update(RUSTIC_REPOSITORY=self.repo, RUSTIC_PASSWORD=PASSWORD, RUSTIC_NO_PROGRESS="true", RUSTIC_LOG_LEVEL="warn")

    def commands(self, src, dst):
        e = self.exe
        return {"init": [e, "init"], "W1": [e, "backup", src], "W2": [e, "backup", src], "W3": [e, "backup", "--force", src],
                "W4": [e, "backup", src], "W5": [e, "restore", "latest:" + src, dst], "W6": [e, "check", "--read-data"]}


class Borg(Tool):
    def __init__(self, name, work):
        super().__init__(name, work)
        self.env.update(BORG_REPO=self.repo, BORG_PASSPHRASE=PASSWORD, BORG_BASE_DIR=self.dir)

    def commands(self, src, dst):
        e = self.exe
        create = lambda label, *more: [e, "create", "-C", "zstd,3", *more, "::" + label, src]
        return {"init": [e, "init", "-e", "repokey"], "W1": create("a"), "W2": create("b"),
                "W3": create("c", "--files-cache=disabled"), "W4": create("{now}"), "W6": [e, "check", "--verify-data"],
                "W5": ["sh", "-c", f"mkdir -p {dst} && cd {dst} && exec {e} extract ::a"]}


class Bupstash(Tool):
    def __init__(self, name, work):
        super().__init__(name, work)
        self.env.update(BUPSTASH_REPOSITORY=self.repo, BUPSTASH_KEY=self.dir + "/key")

    def commands(self, src, dst):
        e = self.exe
        put = lambda label, *more: [e, "put", "-q", "--xattrs", "--compression", "zstd:3", *more, "label=" + label, src]
        return {"init": ["sh", "-c", f"{e} init && {e} new-key -o {self.dir}/key"], "W1": put("a"), "W2": put("b"),
                "W3": put("c", "--no-stat-caching"), "W4": put("d"),
                "W5": ["sh", "-c", f"mkdir -p {dst} && exec {e} restore -q --ownership --xattrs --into {dst} label=a"]}


TOOLS = {"deduplicity": Deduplicity, "restic": Restic, "rustic": Rustic, "borg": Borg, "bupstash": Bupstash}
STEPS = ("init", "W1", "W2", "W3", "W5", "W6", "W4")
WARM = {"init", "W2"}


def drop_caches():
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("3")
    except OSError:
        print("cannot drop caches (not root): figures are for a warm cache", file=sys.stderr)


def measure(tool, command, cold):
    if cold:
        drop_caches()
    report = os.path.join(tool.dir, "time")
    start = time.monotonic()
    run = subprocess.run(["/usr/bin/time", "-q", "-o", report, "-f", "%U %S %M", *command], env=tool.env, stdout=subprocess.DEVNULL)
    wall = time.monotonic() - start
    if run.returncode:
        raise SystemExit(f"{command} failed with {run.returncode}")
    user, system, kib = map(float, open(report).read().split()[-3:])
    return wall, user + system, kib / 1024


def size(path):
    return sum(os.lstat(os.path.join(d, f)).st_size for d, _, files in os.walk(path) for f in files) / 1e6


def parse(description, *more):
    """The options, and the tools among them that are there."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True)
    parser.add_argument("--work", required=True)
    for option in more:
        parser.add_argument(option, action="append", default=[])
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    return options, [t for t in options.tools.split(",") if shutil.which(os.environ.get("COMPARE_" + t.upper(), t))]


@contextlib.contextmanager
def in_place_of(source, other):
    """`other` under the name of `source`."""
    if other == source:
        yield
        return
    aside = source + ".aside"
    os.rename(source, aside)
    os.rename(other, source)
    try:
        yield
    finally:
        os.rename(source, other)
        os.rename(aside, source)


def main():
    options, tools = parse(__doc__, "--next")
    source, work = os.path.abspath(options.source), os.path.abspath(options.work)
    figures, sizes = {}, {}
    for number in range(options.rounds):
        for name in tools:
            tool = TOOLS[name](name, work)
            shutil.rmtree(tool.dir, ignore_errors=True)
            os.makedirs(tool.dir)
        steps = [(step, tree) for step in STEPS for tree in (map(os.path.abspath, options.next) if step == "W4" else [source])]
        for (step, tree), name in itertools.product(steps, tools):
            tool = TOOLS[name](name, work)
            command = tool.commands(source, os.path.join(tool.dir, "restored")).get(step)
            if not command:
                continue
            with in_place_of(source, tree):
                result = measure(tool, command, step not in WARM)
            sizes[step, name] = size(tool.repo)
            if step != "init":
                figures.setdefault((step, name), []).append(result)
                print(f"round {number} {step} {name}: %.2f s, %.2f s of CPU, %.0f MiB" % result, file=sys.stderr)
    print("| step | " + " | ".join(tools) + " |\n|---" + "|---" * len(tools) + "|")
    for step in STEPS[1:]:
        cells = []
        for name in tools:
            runs = figures.get((step, name))
            median = [statistics.median(column) for column in zip(*runs)] if runs else None
            cells.append("%.2f s, %.1f CPU s, %.0f MiB" % tuple(median) if median else "–")
        print(f"| {step} | " + " | ".join(cells) + " |")
    for step in ("W1", "W4") if options.next else ("W1",):
        print(f"| repository after {step} | " + " | ".join("%.1f MB" % sizes[step, name] for name in tools) + " |")


if __name__ == "__main__":
    main()
