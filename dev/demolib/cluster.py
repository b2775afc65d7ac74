"""What the story does to a cluster, by the commands that a user has: kubectl and helm."""
import json
import secrets

from .telling import ROOT, Failed, run, until
from .web import HOST

NAMESPACE = "ticketing"
OPERATOR = "orders-operator"
CHART = "charts/orders-operator"


class Cluster:
    """A cluster, by an environment whose KUBECONFIG leads there."""

    def __init__(self, environment):
        self.environment = environment

    def kubectl(self, *arguments, stdin=None):
        return run("kubectl", *arguments, env=self.environment, stdin=stdin)

    def helm(self, *arguments):
        return run("helm", *arguments, env=self.environment)

    def json(self, *arguments):
        return json.loads(self.kubectl(*arguments, "-o", "json"))

    def apply(self, *objects):
        """Applies objects; what is secret in them is on no command line."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def install(self, image, *values):
        self.helm("upgrade", "--install", OPERATOR, CHART, "--namespace", OPERATOR, "--create-namespace",
                  "--set", ",".join([*image_values(image), "log.format=text", *values]), "--wait", "--timeout", "5m")
        pods = self.json("-n", OPERATOR, "get", "pods")["items"]
        return f"pod {pods[0]['metadata']['name']}, containers " + " and ".join(
            container["name"] for container in pods[0]["spec"]["containers"])

    def apply_examples(self, other=None):
        """Applies examples/, with `other` texts in place of those that this cluster cannot take."""
        other, seen, applied = other or {}, set(), 0
        for file in sorted((ROOT / "examples").glob("*.yaml")):
            text = file.read_text()
            for old, new in other.items():
                if old in text:
                    seen.add(old)
                    text = text.replace(old, new)
            applied += len(self.kubectl("apply", "-f", "-", stdin=text).splitlines())
        if unknown := other.keys() - seen:
            raise Failed(f"examples/ does not have what the demo replaces: {', '.join(unknown)}")
        return f"{applied} objects"

    def wait_ready(self):
        self.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "osvc/orders", "--timeout=180s")

    def routes(self):
        rules = self.json("-n", NAMESPACE, "get", "ingress", "orders")["spec"]["rules"]
        for rule in rules:
            paths = [path["path"] for path in rule["http"]["paths"]]
            if paths[-1] != "/" or paths.count("/") != 1 or "/api/orders" not in paths:
                raise Failed(f"the client is not the last rule: {paths}")
        return " > ".join(paths)

    def import_tickets(self, image, tickets, database=None):
        """Runs `tickets import` in a pod, which reaches the database as the orders API does."""
        name = f"tickets-import-{secrets.token_hex(4)}"
        lines = "".join(json.dumps({"id": ticket, "title": title, "price": 20, "version": 0}) + "\n"
                        for ticket, title in tickets)
        container = {
            "name": "import", "image": image, "imagePullPolicy": "IfNotPresent",
            "args": ["tickets", "import", "/tickets/tickets.ndjson"],
            "env": [{"name": "MONGO_URI", "valueFrom": {"secretKeyRef": {"name": "orders-mongo", "key": "MONGO_URI"}}},
                    *([{"name": "MONGO_DATABASE", "value": database}] if database else [])],
            "volumeMounts": [{"name": "tickets", "mountPath": "/tickets", "readOnly": True}],
            "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "128Mi"}}}
        pod = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container],
               "volumes": [{"name": "tickets", "configMap": {"name": name}}],
               "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}}
        metadata = {"name": name, "namespace": NAMESPACE}
        self.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"tickets.ndjson": lines}},
                   {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata,
                    "spec": {"backoffLimit": 0, "template": {"spec": pod}}})

        def ended():
            status = self.json("-n", NAMESPACE, "get", "job", name).get("status", {})
            return status.get("succeeded") or status.get("failed")

        until(120, ended, f"the end of job {name}")
        told = self.kubectl("-n", NAMESPACE, "logs", f"job/{name}").splitlines() or ["it says nothing"]
        if self.json("-n", NAMESPACE, "get", "job", name)["status"].get("failed"):
            raise Failed(f"tickets import failed: {told[-1]}")
        # The Job takes its pod with it.
        self.kubectl("-n", NAMESPACE, "delete", f"job/{name}", f"configmap/{name}")
        return told[-1]

    def table(self):
        table = self.kubectl("-n", NAMESPACE, "get", "osvc")
        if " True " not in table:
            raise Failed(f"not Ready:\n{table}")
        return "\n" + "\n".join("              " + line for line in table.splitlines())

    def roll(self):
        """Changes what the pods are started with, and waits until none of the old ones is left."""
        old = set(self.pods())
        window = self.json("-n", NAMESPACE, "get", "osvc", "orders")["spec"]["expiration"]["windowSeconds"]
        self.kubectl("-n", NAMESPACE, "patch", "osvc", "orders", "--type=merge", "-p", json.dumps({"spec": {"expiration": {"windowSeconds": window + 1}}}))
        until(120, lambda: (now := set(self.pods())) and not now & old, "new pods in place of the old ones")
        self.wait_ready()
        return len(old)

    def pods(self):
        return self.kubectl("-n", NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/name=orders-service", "-o", "name").split()

    def kill(self, namespace, selector):
        """Ends pods at once, as a lost node would, without waiting for what comes after."""
        self.kubectl("-n", namespace, "delete", "pods", "-l", selector, "--grace-period=0", "--force", "--wait=false")
        return selector


def image_values(image):
    """The chart's values for an image."""
    repository, tag = image.rsplit(":", 1)
    return f"image.repository={repository}", f"image.tag={tag}"


def looks(base, cookie):
    """Commands that show what the story left."""
    return f"""  kubectl -n {NAMESPACE} get osvc,deploy,svc,ingress,pods
  kubectl -n {NAMESPACE} describe osvc orders
  kubectl -n {OPERATOR} logs deploy/{OPERATOR} -c sweeper
  curl -H 'Host: {HOST}' {base}/
  curl -H 'Host: {HOST}' -H 'Cookie: {cookie}' {base}/api/orders"""
