"""The OrdersServices that are there during the upgrade: each with a host and a database of its own."""
import json
from dataclasses import dataclass
from datetime import datetime

from demolib.telling import Failed, run
from demolib.web import Web

from bedlib.session import cookie

NAMESPACE = "try-upgrade"
KEY = "a-key"
# Who reserves, and has orders before the upgrade.
USER = "ada"


@dataclass
class Service:
    """One of them."""

    name: str
    replicas: int = 1
    # Whether it names the image of the former version as its own.
    is_pinned: bool = False
    # How long a reservation lasts; the default is longer than any upgrade takes.
    window: int | None = None

    @property
    def host(self):
        return f"{self.name}.{NAMESPACE}.example"

    @property
    def database(self):
        return f"{NAMESPACE}-{self.name}"

    def objects(self, server, image):
        """What its owner applies: nothing that the former version does not have."""
        spec = {
            "replicas": self.replicas, "auth": {"jwtSecretRef": {"name": "jwt-secret"}},
            "database": {"uriSecretRef": {"name": f"{self.name}-mongo"}},
            "ingress": {"hosts": [self.host], "className": "traefik"},
            # Something of everything that must not be lost.
            "podTemplate": {"labels": {"team": "tickets"}, "annotations": {"example.com/of": self.name}},
        }
        if self.is_pinned:
            spec["image"] = image
        if self.window:
            spec["expiration"] = {"windowSeconds": self.window}
        metadata = {"namespace": NAMESPACE, "labels": {"of": "try-upgrade"}, "annotations": {"example.com/owner": "ada"}}
        return [
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{self.name}-mongo", "namespace": NAMESPACE},
             "stringData": {"MONGO_URI": f"{server.rstrip('/')}/{self.database}"}},
            {"apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService", "metadata": {"name": self.name, **metadata}, "spec": spec}]

    def web(self, base, user=USER):
        return Web(base, cookie(user, KEY), self.host)


# More that name no image than may be on their way at the same time.
FLEET = [Service("plain", replicas=2), Service("pinned", replicas=2, is_pinned=True), Service("busy", window=15),
         Service("third"), Service("fourth")]
BUSY = next(each for each in FLEET if each.window)
UNPINNED = [each for each in FLEET if not each.is_pinned]


class Fleet:
    """All of them, by a cluster and an environment."""

    def __init__(self, cluster, environment):
        self.cluster, self.environment = cluster, environment

    def apply(self, image):
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "jwt-secret", "namespace": NAMESPACE},
                  "stringData": {"JWT_KEY": KEY}}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        self.cluster.apply(namespace, secret, *(
            each for service in FLEET for each in service.objects(self.environment["NODE_MONGO_URI"], image)))
        return ", ".join(service.name for service in FLEET)

    def uri(self, service):
        """Where its database is for programs outside of the cluster."""
        return f"{self.environment['MONGO_URI'].rstrip('/')}/{service.database}"

    def objects(self):
        """The OrdersServices as they are stored now, by their names."""
        items = self.cluster.json("-n", NAMESPACE, "get", "osvc")["items"]
        return {item["metadata"]["name"]: item for item in items}

    def pods(self):
        """The pods of all."""
        pods = self.cluster.json("-n", NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/name=orders-service")["items"]
        return [Pod.of(pod) for pod in pods]

    def have(self, image):
        """Whether every pod of those that name no image is ready with this one, there are as many as there should be, and no other
        is left, not even one that serves its last requests."""
        pods = self.pods()
        for service in FLEET:
            of_it = [pod for pod in pods if pod.service == service.name]
            is_other = any(pod.image != image and not service.is_pinned or not pod.is_ready or pod.is_ending for pod in of_it)
            if len(of_it) != service.replicas or is_other:
                raise Failed(f"the pods of {service.name}: " + ", ".join(map(str, of_it)))
        return pods

    def ready(self):
        """Whether each is ready, and says so of its current generation."""
        for name, item in self.objects().items():
            generation, status = item["metadata"]["generation"], item.get("status", {})
            ready = [each for each in status.get("conditions", []) if each["type"] == "Ready" and each["status"] == "True"]
            if not ready or ready[0].get("observedGeneration") != generation or status["observedGeneration"] != generation:
                raise Failed(f"{name} has generation {generation} and status {json.dumps(status)}")
        return f"{len(FLEET)} of {len(FLEET)}"

    def in_database(self, action, *words):
        """Does something in the databases that nobody has an endpoint for."""
        return run("node", "dev/upgradelib/database.js", action, self.environment["MONGO_URI"], *words, env=self.environment)


@dataclass(frozen=True)
class Pod:
    """A pod of the orders API."""

    uid: str
    name: str
    service: str
    image: str
    created: datetime
    is_ready: bool
    is_ending: bool
    restarts: int

    @classmethod
    def of(cls, pod):
        metadata, status = pod["metadata"], pod.get("status", {})
        ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", []))
        return cls(metadata["uid"], metadata["name"], metadata["labels"]["app.kubernetes.io/instance"], pod["spec"]["containers"][0]["image"],
                   datetime.fromisoformat(metadata["creationTimestamp"]), ready, "deletionTimestamp" in metadata,
                   sum(each["restartCount"] for each in status.get("containerStatuses", [])))

    def __str__(self):
        return f"{self.name} of {self.image}, {'ready' if self.is_ready else 'not ready'}"
