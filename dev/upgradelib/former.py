"""The version before this one: its program, its image, its chart and its pages, of the commit that stands for it. They stay in the
cache, since they never change."""
import os
import subprocess

from bedlib import images, tools
from demolib.own_bed import BED
from demolib.telling import ROOT, Failed, run

# The newest of those that dev/versions.toml names.
VERSION, COMMIT = list(tools.VERSIONS["released"].items())[-1]
# Alone in the target folder until the program is copied. An example, as dev/program.rs is: so it shares what it can of the
# dependencies with the tests and the demo.
COMPILE = """cp "$1/source/src/main.rs" "$1/source/program.rs"
printf '\n[[example]]\nname = "program"\npath = "program.rs"\n' >>"$1/source/Cargo.toml"
dev/bed cargo "compiling the operator of the former version" 200 -- \
  cargo rustc --manifest-path "$1/source/Cargo.toml" --locked --example program -- -C target-feature=+crt-static -C strip=symbols >&2
mkdir -p "$1/stage/out"
cp "$CARGO_TARGET_DIR/debug/examples/program" "$1/stage/out/orders-operator"
"""


class Former:
    """What the commit has, in the folder `source`, and what is made of it."""

    def __init__(self, environment):
        self.environment = environment
        self.was_there = (tools.CACHE / "former" / COMMIT).exists()
        folder = tools.cached(f"former/{COMMIT}", self._build)
        self.source, self.stage = folder / "source", folder / "stage"
        self.program = self.stage / "out" / "orders-operator"

    def _build(self, folder):
        source = folder / "source"
        source.mkdir()
        packed = subprocess.run(["git", "archive", "--format=tar", COMMIT], cwd=ROOT, capture_output=True)
        if packed.returncode:
            raise Failed(f"the commit {COMMIT}, which stands for {VERSION}, cannot be had from this repository (a shallow clone lacks it: "
                         f"`git fetch --unshallow`): {packed.stderr.decode().strip()}")
        subprocess.run(["tar", "-x", "-C", source], input=packed.stdout, check=True)
        # Its own profile keeps lines for backtraces, which nobody looks at here.
        run("dev/locked", "sh", "-ec", COMPILE, "compile", folder, env=self.environment | {"CARGO_PROFILE_DEV_DEBUG": "0"}, quiet=False)

    def load(self, name):
        """Brings its image onto the node, by this name too."""
        image = f"localhost/orders-operator-former:{COMMIT}"
        if not images.archive_of(image).exists():
            run(BED, "image", "build", image, self.source, "--build-context", f"build={self.stage}", env=self.environment, quiet=False)
        run(BED, "image", "load", image, "--also", name, env=self.environment)

    def import_tickets(self, uri, lines):
        """Runs its `tickets import`."""
        told = run(self.program, "tickets", "import", "-", stdin=lines, env=os.environ | {"MONGO_URI": uri})
        return told.splitlines()[-1] if told else "it says nothing"
