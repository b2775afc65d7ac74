"""The page about commands and flags, from what the program says by `--help`."""
import os
import re
import subprocess

from bedlib.report import BedError

HEAD = """# Commands and flags

What `--help` says of each command. Where a flag has `[env: NAME=]`, that variable sets it too; the flag wins. [Everyday
tasks](../tasks.md#run-a-command) says how to run a command in a cluster.
"""
COLUMNS = "100"


def asked(program, words):
    """The help of a command: independent of the caller's terminal and environment, whose values it would show."""
    told = subprocess.run([program, *words, "--help"], capture_output=True, text=True, env={"PATH": os.defpath, "COLUMNS": COLUMNS})
    if told.returncode:
        raise BedError(f"{program} {' '.join(words)} --help ended with {told.returncode}: {told.stderr}")
    return "\n".join(line.rstrip() for line in told.stdout.rstrip().splitlines())


def commands(program, words=()):
    told = asked(program, words)
    yield words, told
    listed = re.search(r"^Commands:\n((?:(?: .*)?\n)+)", told + "\n", re.MULTILINE)
    for name in re.findall(r"^  ([a-z][a-z-]*)(?:\s|$)", listed[1], re.MULTILINE) if listed else []:
        if name != "help":
            yield from commands(program, (*words, name))


def page(program):
    parts = [HEAD]
    for words, told in commands(program):
        parts.append(f"## {' '.join(('orders-operator', *words))}\n\n```text\n{told}\n```\n")
    return "\n".join(parts)
