"""The upgrade, the way back, and the upgrade once more, each step checked: what docs/installing.md promises must hold for whoever
types its commands."""
import json
import re
import sys
import time

from demolib.cluster import OPERATOR
from demolib.telling import ROOT, Failed, run, until

from . import former
from .fleet import BUSY, FLEET, NAMESPACE, UNPINNED, Fleet
from .former import Former
from .pages import command, section, typed
from .visitors import Visitors
from .witness import Witness

# As the README of the former version and the chart of this one call it.
REPOSITORY = "registry.example/orders-operator"
OLD = f"{REPOSITORY}:{former.VERSION}"
NEW = f"{REPOSITORY}:" + re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
PAGE = (ROOT / "docs/installing.md").read_text()
UPGRADING = section(PAGE, f"Upgrading from {former.VERSION}")
UPGRADE = command(UPGRADING, "helm upgrade ")
AWAIT = command(UPGRADING, f"kubectl --namespace {OPERATOR} rollout status ")
BACK = command(section(PAGE, "The way back"), "helm rollback ")
# controller.rollout.maxConcurrent of the chart.
AT_ONCE = 3
# One is reserved in a second.
TICKETS = 2000
# Whose order another service has completed before the upgrade; that of the others is open, and stays so.
PAID = ("busy", "fourth")
# Who reserves, and never pays.
BUYER = "bob"


class Upgrade:
    """The whole of it on a bed that is up."""

    def __init__(self, place, story):
        self.place, self.story, self.cluster = place, story, place.cluster
        self.fleet = Fleet(self.cluster, place.environment)
        self.visitors, self.witness = Visitors(), None
        # Whether what is installed is there because of this.
        self.is_ours = False

    def tell(self):
        """The versions one after the other; what is typed is printed."""
        self.install()
        self.fill()
        self.go("The upgrade to this version, as docs/installing.md has it", UPGRADE, NEW)
        self.check_moves()
        self.check()
        self.go(f"The way back to {former.VERSION}", BACK, OLD)
        self.check()
        self.go("The upgrade once more", UPGRADE, NEW)
        self.check_moves()
        self.check()

    def prepare(self, afresh):
        """Both images, and a node without an installation; what there is is only removed `afresh`."""
        step = self.story.step
        step(f"operator of {former.VERSION} (commit {former.COMMIT}) compiled", self._former)
        step(f"its image loaded, as {OLD}", lambda: self.former.load(OLD))
        step(f"that of this checkout, as {NEW}", lambda: self.place.load_also(NEW))
        step("nothing of a former installation is left" if afresh else "nothing is installed", self._take, afresh)

    def _take(self, afresh):
        if not afresh and self.cluster.kubectl("get", "crd", "ordersservices.ticketing.dev", "--ignore-not-found"):
            raise Failed("the node has OrdersServices already: --afresh removes them, and the operator")
        self.is_ours = True
        self.clear()

    def _former(self):
        self.former = Former(self.place.environment)
        return "it is in the cache" if self.former.was_there else None

    def install(self):
        """The former version, with its README in hand."""
        self.story.chapter(f"The installation of {former.VERSION}, as its README has it")
        line = command((self.former.source / "README.md").read_text(), "helm install ")
        self.story.step(line, lambda: self._type(line, self.former.source))
        self.story.step(AWAIT, lambda: self._type(AWAIT))

    def _type(self, line, folder=ROOT):
        typed(line, self.place.environment, folder)

    def fill(self):
        """OrdersServices with orders, and who comes to them."""
        step, base = self.story.step, self.place.address()
        step("kubectl apply", lambda: self.fleet.apply(OLD))
        step("each is ready, of its current generation", self._ready)
        tickets = [f"{number:024x}" for number in range(1, TICKETS + 1)]
        lines = "".join(json.dumps({"id": ticket, "title": "Match", "price": 20, "version": 0}) + "\n" for ticket in tickets)

        def offer():
            for service in FLEET:
                self.former.import_tickets(self.fleet.uri(service), lines if service is BUSY else lines[:lines.index("\n") + 1])

        step("orders-operator tickets import", offer)
        kept = {}

        def reserve():
            for service in FLEET:
                web = service.web(base)
                order = until(60, lambda: web.reserve(tickets[0]), f"a reservation at {service.host}")
                if service.name in PAID:
                    self.fleet.in_database("complete", service.database, order["id"])
                kept[service.name] = web.order(order["id"])
            return ", ".join(f"{name} {order['status']}" for name, order in kept.items())

        step("an order in each, some paid for", reserve)

        def begin():
            for service in FLEET:
                self.visitors.ask(service.web(base), kept[service.name])
            self.visitors.buy(BUSY.web(base, BUYER), tickets[1:])
            self.visitors.look(BUSY.web(base, BUYER))
            self.witness = Witness(self.place.environment)
            until(60, lambda: len(self.visitors.bought) > 5 and len(self.witness.pods) == sum(each.replicas for each in FLEET),
                  "visitors, and who sees the pods")
            return f"they ask each of the {len(FLEET)}, and reserve at one of them what expires after {BUSY.window} s"

        step("visitors come, and go on to", begin)
        self.original = self.fleet.objects()

    def go(self, title, line, image):
        """Types the command that brings another version, and waits until its image is everywhere."""
        self.story.chapter(title)
        self.witness.forget()
        self.since, self.requests = time.time(), self.visitors.requests
        self.pods_before, self.objects_before = self.fleet.pods(), self.fleet.objects()
        self.image = image
        self.story.step(line, lambda: self._type(line))
        self.story.step(AWAIT, lambda: self._type(AWAIT))
        self.story.step(f"those that name no image have {image}",
                        lambda: until(300, lambda: self.fleet.have(image), f"pods with {image}", pause=2) and None)

    def check_moves(self):
        """That they were moved a few at a time, none before its turn."""
        def moves():
            begun, most = self.witness.begun[self.image], self.witness.most
            if missing := [each.name for each in UNPINNED if each.name not in begun]:
                raise Failed(f"the status of {', '.join(missing)} never had the note of a move: {begun}")
            if others := begun.keys() - {each.name for each in UNPINNED}:
                raise Failed(f"moved, although they name their image: {', '.join(others)}")
            if most > AT_ONCE:
                raise Failed(f"{most} were on their way at the same time")
            for pod in self.witness.made():
                if pod.service in begun and pod.created < begun[pod.service].replace(microsecond=0):
                    raise Failed(f"{pod} of {pod.service} was made at {pod.created}, and the turn of that came at {begun[pod.service]}")
            first = min(begun.values())
            return f"{most} at once at most; after " + ", ".join(f"{name} {(at - first).total_seconds():.0f} s" for name, at in begun.items())

        self.story.step("a few at a time, and no pod before its turn", moves)

    def check(self):
        """What must hold whatever version has come."""
        self.story.step("nothing else was replaced, and no pod was restarted", self._pods)
        self.story.step("each is ready, of its current generation", self._ready)
        self.story.step("no field is lost", self._fields)
        web = BUSY.web(self.place.address(), BUYER)
        self.story.step("orders whose time was up meanwhile are cancelled, each once", lambda: self.visitors.judge_expiry(web, self.since))
        self.story.step("the visitors", lambda: self.visitors.judge(self.requests))

    def _ready(self):
        return until(240, self.fleet.ready, "every OrdersService ready", pause=1)

    def _pods(self):
        pinned = {each.name for each in FLEET if each.is_pinned}
        before, now = ({pod.uid for pod in pods if pod.service in pinned} for pods in (self.pods_before, self.fleet.pods()))
        if before != now:
            raise Failed(f"the pods of {', '.join(pinned)} were replaced, although it names its image")
        made = self.witness.made()
        for pod in made:
            if pod.image != self.image:
                raise Failed(f"{pod} of {pod.service} was made meanwhile")
        if restarted := [pod for pod in list(self.witness.pods.values()) if pod.restarts]:
            raise Failed(f"restarted: {', '.join(map(str, restarted))}")
        return f"{len(made)} pods were made, {len(now)} left as they were"

    def _fields(self):
        for name, item in self.fleet.objects().items():
            for before in (self.original[name], self.objects_before[name]):
                kept = {key: before["metadata"].get(key) for key in ("uid", "creationTimestamp", "generation", "labels", "annotations")}
                lacks({"metadata": kept, "spec": self.original[name]["spec"]}, item, name)
            # Nothing of the other version is left in it.
            if self.image == OLD and item["spec"] != self.original[name]["spec"]:
                raise Failed(f"{name} had {self.original[name]['spec']}, and has {item['spec']}")

    def clear(self):
        """Removes the operator, every OrdersService, and what this has made."""
        run("dev/afresh", env=self.place.environment)
        self.cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=300s")
        self.fleet.in_database("drop", *(each.database for each in FLEET))

    def show(self):
        """What is there, for who reads of a failure."""
        for words in (["-n", NAMESPACE, "get", "osvc,pods", "-o", "wide"], ["-n", OPERATOR, "get", "pods", "-o", "wide"],
                      ["-n", OPERATOR, "logs", "-l", f"app.kubernetes.io/name={OPERATOR}", "--all-containers", "--prefix", "--tail=15"]):
            try:
                print(f"\nkubectl {' '.join(words)}\n{self.cluster.kubectl(*words)}", file=sys.stderr)
            except Failed as failure:
                print(failure, file=sys.stderr)

    def end(self):
        """Whatever has happened: sends the visitors home, and clears."""
        self.visitors.end()
        if self.witness:
            self.witness.end()
        if self.is_ours:
            # Whatever has failed, an API server that answers slowly, say, may fail this too.
            until(300, lambda: self.clear() or True, "everything removed again", pause=5)


def lacks(before, after, path):
    """Fails if something of `before` is missing or another in `after`, which may have more."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            lacks(value, after.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for at, (one, other) in enumerate(zip(before, after)):
            lacks(one, other, f"{path}[{at}]")
    elif before != after:
        raise Failed(f"{path} was {before!r}, and is {after!r}")
