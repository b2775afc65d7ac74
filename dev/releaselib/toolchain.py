"""What a program is compiled with: this machine's Rust and C compiler, or those of a folder of Debian's."""
import os
import re
import shutil
import subprocess

from bedlib import tools
from bedlib.report import BedError, say

from . import origin

TARGETS = {"amd64": "x86_64-unknown-linux-gnu", "arm64": "aarch64-unknown-linux-gnu"}


def host():
    """The architecture of this machine, as Debian calls it; nothing if it is none of these."""
    triple = re.search(r"^host: (.+)$", origin.output("rustc", "-vV"), re.MULTILINE)[1]
    return next((arch for arch, target in TARGETS.items() if target == triple), None)


class Toolchain:
    """For one architecture, installed where it is not there."""

    def __init__(self, arch):
        self.target, self.is_cross, self.root = TARGETS[arch], arch != host(), None
        if not self.is_cross:
            return
        tools.apt(f"cross-{arch}")
        if origin.given_binary(arch):
            return
        why = "rustup is not here"
        if shutil.which("rustup"):
            added = subprocess.run(["rustup", "target", "add", self.target], cwd=origin.ROOT, capture_output=True, text=True)
            if not added.returncode:
                return
            why = f"rustup says: {added.stderr.strip()}"
        # Debian's Rust has a library for each of Debian's architectures.
        if os.geteuid():
            raise BedError(f"release: compiling for {arch} takes Debian's Rust here, and so root ({why}): run this as root, or leave {arch} out of ARCHS")
        say(f"Debian's Rust compiles for {arch}, since {why}")
        self.root = tools.rust(arch)

    def environment(self):
        """What dev/compile needs to know."""
        arch = next(arch for arch, target in TARGETS.items() if target == self.target)
        return {"ARCH": arch if self.is_cross else "", "RUST_ROOT": str(self.root or "")}

    def output(self, *command):
        if self.root is None:
            return origin.output(*command)
        environment = {**os.environ, "CARGO_TARGET_DIR": str(tools.CACHE)}
        run = subprocess.run(["dev/in-root", self.root, *command], cwd=origin.ROOT, env=environment, capture_output=True, text=True)
        if run.returncode:
            raise BedError(f"release: {command[0]} of {self.root} failed: {run.stderr}")
        return run.stdout

    def rust(self):
        """The version of Rust, as it says it."""
        return self.output("rustc", "--version").strip()

    def libraries(self):
        """What is linked into a program and is no crate, in the versions that are here: name, version and licence."""
        compiler = f"{self.target.split('-')[0]}-linux-gnu-gcc" if self.is_cross else "cc"
        macros = dict(re.findall(r"^#define (__GLIBC(?:_MINOR)?__) (\d+)$", self.output(
            compiler, "-E", "-dM", "-x", "c", "-include", "features.h", "/dev/null"), re.MULTILINE))
        return [
            ("glibc", f"{macros['__GLIBC__']}.{macros['__GLIBC_MINOR__']}", "LGPL-2.1-or-later"),
            ("libgcc", self.output(compiler, "-dumpfullversion").strip(), "GPL-3.0-or-later WITH GCC-exception-3.1"),
            ("rust-std", self.rust().split()[1], "MIT OR Apache-2.0"),
        ]
