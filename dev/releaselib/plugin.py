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
        - {{from: orders-operator, to: .}}
        - {{from: {complete}, to: .}}
        - {{from: LICENSE, to: .}}
      bin: orders-operator
"""
# By this name kubectl finds what completes the arguments of the plugin.
COMPLETE = "kubectl_complete-osvc"
COMPLETE_SCRIPT = b"""#!/bin/sh
# kubectl runs this to complete the arguments of `kubectl osvc`.
exec kubectl-osvc __complete "$@"
"""


def write(out, version, downloads):
    """The manifest for the archives that are in `out`; none without any."""
    name = f"orders-operator-{version}-linux-"
    archives = sorted(out.glob(f"{name}*.tar.gz"))
    platforms = [
        PLATFORM.format(
            arch=archive.name.removeprefix(name).removesuffix(".tar.gz"), downloads=downloads.rstrip("/"), archive=archive.name,
            digest=origin.digest(archive), complete=COMPLETE)
        for archive in archives
    ]
    if platforms:
        (out / "osvc.yaml").write_text(MANIFEST.format(version=version, complete=COMPLETE, platforms="".join(platforms)))
