"""Runs cargo where nobody watches a terminal: how far it is every half minute, in place of a line for each crate."""
import os
import re
import subprocess
import sys

from . import tools
from .report import BedError

# What cargo tells of each crate, and its bar, which is drawn with carriage returns.
CHATTER = re.compile(r"\s*(Compiling|Checking|Documenting|Downloading|Downloaded|Updating|Locking|Adding|Fresh|Dirty|Fetch|Building)\b")
BAR = re.compile(r"\s*Building \[.*\] (\d+)/(\d+)")


def run(title, seconds, words):
    """Runs a command of cargo's to its end; what it tells but for its progress is passed on. Gives its exit code."""
    if sys.stderr.isatty():
        # There its own bar is better.
        return subprocess.run(words).returncode
    environment = os.environ | {"CARGO_TERM_PROGRESS_WHEN": "always", "CARGO_TERM_PROGRESS_WIDTH": "100"}
    try:
        with tools.step(title, "crates", seconds) as progress, \
                subprocess.Popen(words, stderr=subprocess.PIPE, env=environment) as child:
            for line in lines(child.stderr):
                if bar := BAR.match(line):
                    progress.done, progress.total = map(int, bar.groups())
                elif line.strip() and not CHATTER.match(line):
                    print(line.rstrip(), file=sys.stderr, flush=True)
            return child.wait()
    except FileNotFoundError as error:
        raise BedError(f"{words[0]} is not installed on this machine") from error


def lines(stream):
    """The lines of a stream as they come, carriage returns ending them too."""
    rest = ""
    while text := os.read(stream.fileno(), 65536).decode(errors="replace"):
        *whole, rest = re.split(r"[\r\n]", rest + text)
        yield from whole
    yield rest
