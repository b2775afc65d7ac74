"""The cluster of KUBECONFIG as the place of the story: a guest there, which asks first and removes what it has made."""
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from .cluster import CHART, NAMESPACE, OPERATOR, Cluster, looks
from .guest_images import Images
from .telling import ROOT, Failed, paint, run, until
from .web import HOST

NAMESPACES = (NAMESPACE, OPERATOR)
CRD = "ordersservices.ticketing.dev"
# What dev/mongo.yaml names.
MONGO_IMAGE = "mongo:8"
# By it a later run knows the namespaces that the demo has made.
MARK = "ticketing.dev/demo"
# Where MONGO_URI names no database: not the product's default, which may be in use.
GUEST_DATABASE = "orders_demo"


class Current:
    """The cluster of the current context. Everything is asked for and checked before anything is made."""

    def __init__(self):
        self.keep = bool(os.environ.get("KEEP"))
        self.mongo_uri, self.mongo_image = os.environ.get("MONGO_URI"), os.environ.get("MONGO_IMAGE") or MONGO_IMAGE
        # Names no database: host names and options only.
        self.database = GUEST_DATABASE if self.mongo_uri and not re.match(r"[^/]*//[^/?]+/[^?]", self.mongo_uri) else None
        self.folder, self.made = None, False

    def prepare(self, story):
        self._check_database()
        self._connect()
        wide = self._cluster_wide()
        former = self._former(wide)
        self.images = Images(self.context)
        self.ingress_class = self._ingress_class()
        self._ask(wide, former)
        story.chapter(f"The cluster of the context {self.context}")
        self.made = True
        if former:
            story.step("what a former run left is removed", self._remove)
        story.step("the namespaces", self._make_namespaces)
        self.images.bring(story)
        self.image = self.images.operator

    def install(self):
        # Nobody's OrdersServices are in a cluster that had no such resource before, so the CRD may go with the rest.
        return self.cluster.install(self.image, "crds.keep=false")

    def apply_examples(self):
        other = {"localhost/stand-in:dev": self.images.stand_in, "className: traefik": f"className: {self.ingress_class}"}
        if image := os.environ.get("NATS_IMAGE"):
            other[re.search(r"image: nats:\S+", (ROOT / "examples" / "15-nats.yaml").read_text())[0]] = f"image: {image}"
        if self.mongo_uri:
            # A JSON string is a YAML string too.
            other["mongodb://orders-mongo:27017/orders"] = json.dumps(self.mongo_uri)
        else:
            manifest = (ROOT / "dev" / "mongo.yaml").read_text().replace(MONGO_IMAGE, self.mongo_image)
            self.cluster.kubectl("apply", "-f", "-", stdin=manifest)
            self.cluster.kubectl("-n", NAMESPACE, "rollout", "status", "deployment/orders-mongo", "--timeout=300s")
        if self.database:
            reference = "    uriSecretRef: {name: orders-mongo}\n"
            other[reference] = f"{reference}    name: {self.database}\n"
        return self.cluster.apply_examples(other)

    def address(self):
        if url := os.environ.get("INGRESS_URL"):
            return url.rstrip("/")

        def published():
            status = self.cluster.json("-n", NAMESPACE, "get", "ingress", "orders").get("status", {})
            return next((each.get("ip") or each.get("hostname") for each in status.get("loadBalancer", {}).get("ingress", [])), None)

        try:
            return f"http://{until(120, published, 'an address in the status of the Ingress')}"
        except Failed as failure:
            raise Failed(f"{failure}; if its controller does not write one, give the URL at which it is reached: INGRESS_URL=http://HOST:PORT") from None

    def look_around(self, base, cookie):
        if not self.keep:
            return "KEEP=1 would leave it, to look around."
        commands = "\n".join("  " + shlex.join(command) for command in removal())
        return f"Look around:\n\n{looks(base, cookie)}\n\nRemove it all, in this order:\n\n{commands}\n"

    def leave(self, failed):
        """Removes what was made, if anything was. Gives what is to be told."""
        try:
            if not self.made:
                return "Nothing was made in the cluster."
            if self.keep:
                return "KEEP=1: what was made is left there; the next run removes it." if failed else None
            print(f"\n{paint(1, 'Everything that was made is removed')} ...", flush=True)
            self._remove()
            print("Gone: " + ", ".join([*(f"namespace {name}" for name in NAMESPACES), "the release", "the CRD"]) + ".", flush=True)
            return None
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _connect(self):
        """Keeps the context as it is now: a `kubectl config use-context` meanwhile must not lead elsewhere."""
        self.folder = Path(tempfile.mkdtemp(prefix="orders-demo-"))
        self.context = run("kubectl", "config", "current-context")
        minified = run("kubectl", "config", "view", "--minify", "--flatten", "--raw")
        file = self.folder / "kubeconfig"
        file.touch(mode=0o600)
        file.write_text(minified)
        self.cluster = Cluster(os.environ | {"KUBECONFIG": str(file)})
        self.server = run("kubectl", "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
        self.cluster.kubectl("version", "--request-timeout=10s")

    def _ingress_class(self):
        classes = {each["metadata"]["name"]: each["metadata"].get("annotations", {}) for each in self.cluster.json("get", "ingressclasses")["items"]}
        wanted = os.environ.get("INGRESS_CLASS")
        default = next((name for name, annotations in classes.items()
                        if annotations.get("ingressclass.kubernetes.io/is-default-class") == "true"), None)
        if wanted and wanted not in classes or not (wanted or default):
            there = ", ".join(sorted(classes)) or "none: install an ingress controller first"
            why = f"there is no IngressClass {wanted}" if wanted else "no IngressClass is the default one"
            raise Failed(f"{why}; give INGRESS_CLASS=NAME. There are: {there}")
        return wanted or default

    def _check_database(self):
        if self.mongo_uri and re.search(r"(//|@|,)(localhost|127\.|\[::1\])", self.mongo_uri):
            raise Failed("MONGO_URI names this machine's loopback, which in a pod is the pod itself: give a host that pods reach, "
                         "or leave MONGO_URI out for a database in a pod")

    def _cluster_wide(self):
        """The objects of the chart that have no namespace, as pairs of kind and name."""
        rendered = self.cluster.helm("template", OPERATOR, CHART, "--namespace", OPERATOR)
        pairs = []
        for text in re.split(r"^---$", rendered, flags=re.M):
            kind, name = re.search(r"^kind: (\S+)", text, re.M), re.search(r"^  name: (\S+)", text, re.M)
            if kind and name and not re.search(r"^  namespace:", text, re.M):
                pairs.append((kind[1], name[1]))
        return pairs

    def _former(self, wide):
        """Whether a former run left something; anything that it did not make is an error."""
        namespaces = self.cluster.json("get", "namespaces")["items"]
        there = {each["metadata"]["name"]: each["metadata"].get("labels", {}) for each in namespaces}
        strangers = [f"namespace {name}" for name in NAMESPACES if MARK not in there.get(name, {MARK: ""})]
        release = {"meta.helm.sh/release-name": OPERATOR, "meta.helm.sh/release-namespace": OPERATOR}
        for kind, name in wide:
            found = self.cluster.kubectl("get", kind, name, "--ignore-not-found", "-o",
                                         r"jsonpath={.metadata.name} {.metadata.annotations.meta\.helm\.sh/release-name} {.metadata.annotations.meta\.helm\.sh/release-namespace}").split()
            if found and (found[1:] != list(release.values()) or MARK not in there.get(OPERATOR, {})):
                strangers.append(f"{kind} {name}")
        if strangers:
            raise Failed(f"the context {self.context} has these already, and they are not of a former run of the demo: {', '.join(strangers)}. "
                         "The demo would change or remove them: choose another cluster, or remove them yourself")
        return any(name in there for name in NAMESPACES)

    def _ask(self, wide, former):
        database = f"a pod with {self.mongo_image}, without a volume"
        if self.mongo_uri:
            hosts = re.sub(r"^[^/]*//(.*@)?", "", self.mongo_uri).split("/")[0].split("?")[0]
            database = f"{self.database or 'the one that MONGO_URI names'} at {hosts}, where tickets and orders are left"
        rows = [("context", f"{self.context} ({self.server})"), ("namespaces", ", ".join(NAMESPACES)),
                *zip(["cluster-wide", *[""] * len(wide)], (" ".join(each) for each in wide)),
                ("images", str(self.images)), ("database", database),
                ("ingress", f"class {self.ingress_class}, host {HOST}, reached at " + (os.environ.get("INGRESS_URL") or "the address in its status"))]
        print("This plays the demo on the cluster of KUBECONFIG, and makes there:\n")
        for name, value in rows:
            print(f"  {name:13} {value}")
        if former:
            print("\nWhat a former run left in these namespaces is removed first.")
        print("\nKEEP=1: it is left there." if self.keep else "\nAll of it is removed in the end, also after a failure or Ctrl-C.", flush=True)
        if os.environ.get("YES"):
            return
        if not sys.stdin.isatty():
            raise Failed("there is no terminal to ask on: give YES=1 to go on")
        if input("\nGo on? [y/N] ").strip().lower() not in ("y", "yes"):
            raise Failed("you did not say yes")

    def _make_namespaces(self):
        # Created, not applied: `kubectl apply` of examples/ would take a label away that another apply has set.
        namespaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {MARK: "yes"}}} for name in NAMESPACES]
        self.cluster.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": namespaces}))
        return ", ".join(NAMESPACES)

    def _remove(self):
        failures = []
        for command in removal():
            try:
                run(*command, env=self.cluster.environment)
            except Failed as failure:
                failures.append(str(failure))
            except KeyboardInterrupt:
                failures.append(f"`{shlex.join(command)}` was interrupted")
        if failures:
            commands = "\n".join("  " + shlex.join(command) for command in removal())
            raise Failed("not everything could be removed: " + "\n      ".join(failures) + f"\n\nDo it by hand, in the context {self.context}:\n\n{commands}")


def removal():
    """The commands that remove what the demo has made. The operator's namespace, whose mark says that the rest is ours, goes last."""
    return [["kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s"],
            ["helm", "uninstall", OPERATOR, "--namespace", OPERATOR, "--ignore-not-found", "--wait", "--timeout", "2m"],
            ["kubectl", "delete", "crd", CRD, "--ignore-not-found", "--timeout=60s"],
            ["kubectl", "delete", "namespace", OPERATOR, "--ignore-not-found", "--timeout=180s"]]
