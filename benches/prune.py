#!/usr/bin/env python3
"""Measures how long deduplicity and others take to give up the older of two snapshots of which every third file was deleted.

  benches/prune.py --source DIR --work DIR [--tools deduplicity,restic,...] [--rounds 2]

Programs as in compare.py. Each tool backs up a copy of DIR, twice, and forgets the first snapshot; nothing unused may be left.
Both steps are measured, in turn, on a fresh copy of the repository in each round. Printed are medians, and the size at the end.
"""
import os
import shutil
import statistics
import subprocess
import sys

from compare import TOOLS, measure, parse, size


def steps(name, exe):
    """Forgetting the first snapshot, and removing what only it needed."""
    return {
        "deduplicity": ([exe, "forget", "-q", "--keep-last", "1", "--yes"], [exe, "prune", "-q", "--now", "--max-unused", "0%"]),
        "restic": ([exe, "forget", "-q", "--keep-last", "1"], [exe, "prune", "-q", "--max-unused", "0"]),
        "rustic": ([exe, "forget", "--keep-last", "1"],
                   [exe, "prune", "--max-unused", "0%", "--keep-pack", "0d", "--keep-delete", "0d", "--instant-delete"]),
        "borg": ([exe, "delete", "::a"], [exe, "compact", "--threshold", "0"]),
        "bupstash": ([exe, "rm", "-q", "label=a"], [exe, "gc", "-q"]),
    }[name]


def thin_out(root):
    """Deletes every third file."""
    files = sorted(os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names)
    for path in files[::3]:
        os.unlink(path)


def must(tool, command):
    if subprocess.run(command, env=tool.env, stdout=subprocess.DEVNULL, check=False).returncode:
        raise SystemExit(f"{command} failed")


def main():
    options, names = parse(__doc__)
    work = os.path.abspath(options.work)
    tree = os.path.join(work, "tree")
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    subprocess.run(["cp", "-a", os.path.abspath(options.source), tree], check=True)
    tools = {name: TOOLS[name](name, work) for name in names}
    for name, tool in tools.items():
        os.makedirs(tool.dir)
        for step in ("init", "W1"):
            must(tool, tool.commands(tree, "/nowhere")[step])
    thin_out(tree)
    for tool in tools.values():
        must(tool, tool.commands(tree, "/nowhere")["W2"])
        os.rename(tool.dir, tool.dir + ".saved")
    figures = {}
    for number in range(options.rounds):
        for name, tool in tools.items():
            shutil.rmtree(tool.dir, ignore_errors=True)
            subprocess.run(["cp", "-a", tool.dir + ".saved", tool.dir], check=True)
        for name, tool in tools.items():
            results = []
            for command in steps(name, tool.exe):
                os.sync()
                results.append(measure(tool, command, False))
            both = (sum(r[0] for r in results), sum(r[1] for r in results), max(r[2] for r in results))
            row = (results[0][0], results[1][0], *both, size(tool.repo))
            figures.setdefault(name, []).append(row)
            print(f"round {number} {name}: forget %.2f s, prune %.2f s; both %.2f s, %.1f CPU s, %.0f MiB; %.1f MB" % row,
                  file=sys.stderr)
    print("| tool | forget | prune | both | CPU | memory | repository |\n|---|---|---|---|---|---|---|")
    for name, rows in figures.items():
        row = tuple(statistics.median(column) for column in zip(*rows))
        print(f"| {name} | %.2f s | %.2f s | %.2f s | %.1f s | %.0f MiB | %.1f MB |" % row)


if __name__ == "__main__":
    main()
