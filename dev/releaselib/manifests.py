"""The chart as a package, and as YAML for those who have no Helm."""
import re
import shutil
import subprocess

from bedlib import tools
from releaselib import archives

NAMESPACE = NAME = "orders-operator"
NAMESPACED = ("--set", f"watchNamespaces={{{NAMESPACE}}},ingressClasses.enabled=false,rbac.aggregateClusterRoles=false")
# What only Helm needs.
OF_HELM = re.compile(r"^ +(app\.kubernetes\.io/managed-by: Helm|helm\.sh/chart: .*|helm\.sh/resource-policy: keep)\n", re.MULTILINE)
REMOVAL = """# `kubectl delete -f` of this file deletes the CRD too, and with it every OrdersService and its pods. How to remove the
# operator and keep them: docs/installing.md, "Removing it, without Helm".
"""
NAMESPACE_OBJECT = f"""---
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels: {{pod-security.kubernetes.io/enforce: restricted}}
"""
OWN_NAMESPACE = "- {name: WATCH_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}"

KUSTOMIZATION = """# {what}
# Take it as a base; an overlay may set `namespace`, and `images` together with `configurations`, by which the image that the
# pods of the orders API have follows that of the operator. See ../overlay.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
{resources}
"""
OVERLAY = """# An example: the operator in another namespace, with an image of another registry.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: {namespace}
resources:
  - ../base
images:
  - {{name: {repository}, newName: mirror.example/{name}, newTag: "{version}"}}
configurations:
  - images.yaml
"""
IMAGES_CONFIGURATION = """# The controller gives the pods of OrdersServices the image in this variable.
images:
  - {kind: Deployment, group: apps, path: "spec/template/spec/containers/env/value"}
"""


def helm(*words):
    command = [shutil.which("helm") or tools.cluster() / "helm", *words]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"dev/release: helm {' '.join(map(str, words))}: {result.stderr}")
    return result.stdout


def package(chart, repository, source, out, work, time):
    """The chart, whose images are those of `repository`, and whose pages are those of `source`, as a package that `helm push` takes."""
    copy = work / "orders-operator"
    shutil.copytree(chart, copy)
    runbooks = f"{source}/docs/runbooks.md"
    for name, before, after in (
        ("values.yaml", "repository: orders-operator\n", f"repository: {repository}\n"),
        ("README.md", '`"orders-operator"`', f'`"{repository}"`'),
        ("values.yaml", "runbooks: docs/runbooks.md\n", f"runbooks: {runbooks}\n"),
        ("README.md", '`"docs/runbooks.md"`', f'`"{runbooks}"`'),
    ):
        file = copy / name
        text = file.read_text()
        if before not in text:
            raise SystemExit(f"dev/release: {file.name} of the chart does not have {before!r}")
        file.write_text(text.replace(before, after, 1))
    chart_file = copy / "Chart.yaml"
    chart_file.write_text(f"{chart_file.read_text()}home: {source}/README.md\nsources: [{source}]\n")
    helm("package", copy, "--destination", work / "packed")
    for packed in (work / "packed").iterdir():
        # helm packs with the time of day.
        archives.again(packed, time)
        shutil.move(packed, out)
    return copy


def without_helm(text):
    """A manifest without what only Helm needs: its comments about templates, its labels and its annotation."""
    text = OF_HELM.sub("", text)
    text = re.sub(r"^# Source: .*\n", "", text, flags=re.MULTILINE)
    # An annotation that was the only one.
    return re.sub(r"^ +annotations:\n(?=  \S)", "", text, flags=re.MULTILINE)


def rendered(chart, *words):
    return without_helm(helm("template", NAME, chart, "--namespace", NAMESPACE, *words))


def write(chart, repository, version, out, work, time):
    """install.yaml, namespace-install.yaml, crd.yaml, and the same for kustomize in an archive."""
    crd = without_helm(helm("template", NAME, chart, "--show-only", "templates/crd.yaml"))
    operator = rendered(chart, "--set", "crds.enabled=false")
    namespaced = rendered(chart, "--set", "crds.enabled=false", *NAMESPACED)
    namespaced = re.sub(r"- \{name: WATCH_NAMESPACE, value: .*\}", OWN_NAMESPACE, namespaced)
    (out / "crd.yaml").write_text(crd)
    (out / "install.yaml").write_text(REMOVAL + crd + NAMESPACE_OBJECT + operator)
    (out / "namespace-install.yaml").write_text(namespaced)

    kustomize = work / "kustomize"
    for folder, what, files in (
        ("crd", "The CustomResourceDefinition alone.", {"crd.yaml": crd}),
        ("base", "The operator for the whole cluster, with its CRD; without a Namespace.", {"operator.yaml": operator, "../crd": None}),
        ("namespaced", "The operator for its own namespace only; the CRD must be there.", {"operator.yaml": namespaced}),
    ):
        (kustomize / folder).mkdir(parents=True)
        for name, text in files.items():
            if text is not None:
                (kustomize / folder / name).write_text(text)
        resources = "\n".join(f"  - {name}" for name in files)
        (kustomize / folder / "kustomization.yaml").write_text(KUSTOMIZATION.format(what=what, resources=resources))
    overlay = kustomize / "overlay"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(OVERLAY.format(namespace="operators", repository=repository, name=NAME, version=version))
    (overlay / "images.yaml").write_text(IMAGES_CONFIGURATION)
    archives.of_folder(out / "kustomize.tar.gz", kustomize, time)
