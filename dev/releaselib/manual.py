"""What a binary says of itself, for shells and for man: completions and man pages."""
import os
import subprocess
import tempfile
from pathlib import Path

# The program is the plugin of kubectl under its second name.
NAMES = ("orders-operator", "kubectl-osvc")
COMPLETIONS = {"bash": "completions/{}.bash", "zsh": "completions/_{}", "fish": "completions/{}.fish"}


def files(program, emulator=()):
    """The name, the content and the mode of each file."""
    # Without the environment, which the texts must not depend on.
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    made = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name in NAMES:
            (folder / name).symlink_to(Path(program).resolve())
            for shell, path in COMPLETIONS.items():
                told = subprocess.run([*emulator, folder / name, "completion", shell], check=True, stdout=subprocess.PIPE, env=environment)
                made.append((path.format(name), told.stdout, 0o644))
        pages = folder / "pages"
        subprocess.run([*emulator, program, "man", "--out", pages], check=True, env=environment)
        made += [(f"man/man1/{page.name}", page.read_bytes(), 0o644) for page in sorted(pages.iterdir())]
    return made
