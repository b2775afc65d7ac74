"""The manifest by which krew installs the program as a plugin of kubectl."""
from releaselib import origin

MANIFEST = """# Of krew: `kubectl krew install --manifest=osvc.yaml`, or by an index that has it. It names the archives of this release.
apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: osvc
spec:
  version: v{version}
  shortDescription: Look at OrdersServices and their cluster
  description: |
    Shows an OrdersService of the orders operator (status), says which rule and which pods take a URL
    (explain), checks a cluster before and after an installation (check), and cancels what is due in one
    database (sweep). It renders OrdersServices without a cluster (render), and translates hand-written
    manifests into one (migrate).
  caveats: |
    krew does not install what kubectl completes arguments by. To have it:

      krew="${{KREW_ROOT:-$HOME/.krew}}"
      cp "$krew/store/osvc/v{version}/{complete}" "$krew/bin/"
  platforms:
{platforms}"""
PLATFORM = """    - selector:
        matchLabels: {{os: linux, arch: {arch}}}
      uri: {downloads}/{archive}
      sha256: {digest}
      files:
{files}
      bin: orders-operator
"""
PROGRAM = "orders-operator"
# By this name kubectl finds what completes the arguments of the plugin.
COMPLETE = "kubectl_complete-osvc"
LICENCE = "LICENSE"
FILE = "        - {{from: {name}, to: .}}"
COMPLETE_SCRIPT = b"""#!/bin/sh
# kubectl runs this to complete the arguments of `kubectl osvc`.
exec kubectl-osvc __complete "$@"
"""


def files(program):
    """What the plugin needs of an archive: the name, the content and the mode of each file."""
    return [(PROGRAM, program.read_bytes(), 0o755), (COMPLETE, COMPLETE_SCRIPT, 0o755),
            (LICENCE, (origin.ROOT / LICENCE).read_bytes(), 0o644)]


def write(out, version, downloads):
    """The manifest for the archives that are in `out`; none without any."""
    name = f"orders-operator-{version}-linux-"
    archives = sorted(out.glob(f"{name}*.tar.gz"))
    platforms = [
        PLATFORM.format(
            arch=archive.name.removeprefix(name).removesuffix(".tar.gz"), downloads=downloads.rstrip("/"), archive=archive.name,
            digest=origin.digest(archive), files="\n".join(FILE.format(name=name) for name in (PROGRAM, COMPLETE, LICENCE)))
        for archive in archives
    ]
    if platforms:
        (out / "osvc.yaml").write_text(MANIFEST.format(version=version, complete=COMPLETE, platforms="".join(platforms)))
