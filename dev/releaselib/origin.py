"""What says of a release where it comes from: its parts (CycloneDX), its files (SHA-256), and how it was made (SLSA)."""
import hashlib
import json
import os
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SUMS = "SHA256SUMS"


def output(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def revision():
    """The commit, and whether the files are those of the commit. Nothing where there is no repository."""
    try:
        return output("git", "rev-parse", "HEAD").strip(), not output("git", "status", "--porcelain")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return "unknown", False


def commit_time():
    """When the commit was made: what is packed has this time, so that the same sources give the same files."""
    try:
        return int(output("git", "log", "-1", "--format=%ct"))
    except (subprocess.CalledProcessError, FileNotFoundError):
        return 0


def linked(metadata):
    """The packages that are linked into the program: the normal dependencies, from the root on."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}

    def normal(node):
        return sorted(dep["pkg"] for dep in node["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"]))

    root = metadata["resolve"]["root"]
    found, waiting = {}, [root]
    while waiting:
        package = waiting.pop()
        if package not in found:
            found[package] = normal(nodes[package])
            waiting += found[package]
    return root, found


def given_binary(arch):
    """The path of the program that BINARY_AMD64 or BINARY_ARM64 names, in place of one that is compiled. Nothing if neither does."""
    return os.environ.get(f"BINARY_{arch.upper()}")


def given_binaries(archs):
    """What is not known to come from the commit."""
    return [{"name": f"BINARY_{arch.upper()}", "digest": {"sha256": digest(given_binary(arch))}} for arch in archs if given_binary(arch)]


def of_the_toolchain(toolchain):
    """Rust's own library, and glibc and libgcc of the C compiler's system."""
    for name, version, licence in toolchain.libraries():
        identity = f"pkg:generic/{name}@{version}"
        yield {"type": "library", "bom-ref": identity, "name": name, "version": version, "purl": identity, "licenses": [{"expression": licence}]}


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def bill_of_materials(toolchain):
    """CycloneDX 1.5 of the binary that this toolchain compiles."""
    target = toolchain.target
    metadata = json.loads(output("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target))
    packages = {package["id"]: package for package in metadata["packages"]}
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(package["name"], package["version"]): package.get("checksum") for package in locked}
    root, found = linked(metadata)

    def component(identity):
        package = packages[identity]
        described = {"type": "application" if identity == root else "library", "bom-ref": purl(package), "name": package["name"],
                     "version": package["version"], "purl": purl(package)}
        if package["license"]:
            # Some crates write `MIT/Apache-2.0`, which is not an expression of SPDX.
            described["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        if checksum := checksums.get((package["name"], package["version"])):
            described["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        return described

    ordered = sorted(found, key=lambda identity: purl(packages[identity]))
    toolchain = list(of_the_toolchain(toolchain))
    dependencies = {purl(packages[identity]): {purl(packages[dep]) for dep in found[identity]} for identity in ordered}
    dependencies[purl(packages[root])] |= {part["bom-ref"] for part in toolchain}
    dependencies |= {part["bom-ref"]: set() for part in toolchain}
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(root), "properties": [{"name": "cargo:target", "value": target}]},
        "components": [component(identity) for identity in ordered if identity != root] + toolchain,
        "dependencies": [{"ref": reference, "dependsOn": sorted(parts)} for reference, parts in dependencies.items()],
    }
    return json.dumps(bill, indent=1, ensure_ascii=False) + "\n"


def digest(file):
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def sums(out):
    """The digest of every file of the release, by its name, as `sha256sum --check` reads them."""
    files = sorted(file for file in out.rglob("*") if file.is_file() and file.name != SUMS)
    return {str(file.relative_to(out)): digest(file) for file in files}


def provenance(out, parameters, compilers):
    """An in-toto statement about all files so far. It is not signed: whoever publishes the release signs it."""
    commit, clean = revision()
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": value}} for name, value in sums(out).items()],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://ticketing.dev/orders-operator/make-release/v1",
                "externalParameters": parameters,
                "internalParameters": {"rustc": compilers, "sourcesAreThoseOfTheCommit": clean},
                "resolvedDependencies": [
                    {"name": "source", "digest": {"gitCommit": commit}},
                    {"name": "Cargo.lock", "digest": {"sha256": digest(ROOT / "Cargo.lock")}},
                ],
            },
            "runDetails": {"builder": {"id": "https://ticketing.dev/orders-operator/make-release"}},
        },
    }
    return json.dumps(statement, indent=1) + "\n"
