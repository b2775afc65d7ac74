"""The story: an installation, and two buyers who go through the ingress by host name. Each step is checked."""
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

from .cluster import NAMESPACE, OPERATOR
from .telling import Failed, Teller, paint, until
from .web import HOST, Web


def moment(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def tell(place, chaos):
    """The whole story; `place` says where, as own_bed.py and current.py do."""
    story = Teller()
    place.prepare(story)
    cluster = place.cluster

    story.chapter("The installation, as a user does it")
    story.step("helm install", place.install)
    story.step("kubectl apply -f examples/", place.apply_examples)
    story.step("kubectl wait --for=condition=Ready osvc/orders", cluster.wait_ready)
    story.step("routes in order, the client last", cluster.routes)
    ticket, other, *crowd = (secrets.token_hex(12) for _ in range(6))
    story.step("orders-operator tickets import", lambda: cluster.import_tickets(
        place.image, [(ticket, "Concert"), (other, "Theatre"), *((each, "Match") for each in crowd)], place.database))

    story.chapter(f"The story, through the ingress at http://{HOST}")
    web = Web(place.address())

    def page():
        text = until(180, lambda: web.served_by("client", "/"), "the client's page at /")
        if "<title>Ticketing" not in text:
            raise Failed(f"no page: {text[:200]}")

    story.step("/ shows the client's page", page)
    for service, path in [("auth", "/api/users/currentuser"), ("tickets", "/api/tickets"), ("payments", "/api/payments")]:
        story.step(f"{path} goes to {service}",
                   lambda: until(60, lambda: web.served_by(service, path), f"{service} at {path}") and None)
    story.step("/some/page goes to the client", lambda: web.served_by("client", "/some/page") and None)
    story.step("/api/orders goes to the orders API, which asks to sign in",
               lambda: until(60, lambda: web.expect(401, "GET", "/api/orders"), "401")[1])
    buyers = {}

    def sign_in():
        for name in ("alice", "bob"):
            buyers[name] = web.sign_in(f"{name}@{HOST}")
        return "by the auth service's cookie"

    story.step("alice and bob sign in", sign_in)
    held = {}

    def reserve():
        order = buyers["alice"].reserve(ticket)
        if order["status"] != "created" or order["ticket"]["id"] != ticket:
            raise Failed(f"an order of another kind: {order}")
        held.update(order)
        left = (moment(order["expiresAt"]) - datetime.now(timezone.utc)).total_seconds()
        return f"201, order {order['id']}, {left:.0f} s to pay"

    story.step("alice reserves the concert", reserve)
    story.step("bob is refused",
               lambda: "400 " + buyers["bob"].expect(400, "POST", "/api/orders", {"ticketId": ticket})[1])
    story.step("bob cannot see alice's order",
               lambda: "401 " + buyers["bob"].expect(401, "GET", f"/api/orders/{held['id']}")[1])
    story.step("kubectl get osvc", cluster.table)
    if chaos:
        story.chapter("Chaos: what was killed must come back by itself")
        story.step("the controller's and the sweeper's pod is killed", lambda: cluster.kill(OPERATOR, f"app.kubernetes.io/name={OPERATOR}"))
        story.step("every pod of the orders API is killed", lambda: cluster.kill(NAMESPACE, "app.kubernetes.io/name=orders-service"))
        story.step("the children are deleted while no controller runs", lambda: cluster.kubectl(
            "-n", NAMESPACE, "delete", "ingress/orders", "service/orders", "--wait=true").replace("\n", ", "))

    def expired():
        order = until(90, lambda: (found := buyers["alice"].order(held["id"]))["status"] == "cancelled" and found,
                      "alice's order cancelled")
        if order["version"] != held["version"] + 1:
            raise Failed(f"cancelled, but not exactly once: version {held['version']} became {order['version']}")
        late = (datetime.now(timezone.utc) - moment(held["expiresAt"])).total_seconds()
        return f"seen {late:.1f} s after it expired"

    story.step("alice does not pay; her order is cancelled", expired)
    story.step("bob gets the ticket",
               lambda: "201, order " + until(10, lambda: buyers["bob"].reserve(ticket), "a reservation")["id"])
    story.step("alice is refused now",
               lambda: "400 " + buyers["alice"].expect(400, "POST", "/api/orders", {"ticketId": ticket})[1])

    def cancel():
        order = buyers["alice"].reserve(other)
        buyers["alice"].expect(204, "DELETE", f"/api/orders/{order['id']}")
        return f"204, then {buyers['alice'].order(order['id'])['status']}"

    story.step("alice reserves the theatre and cancels", cancel)
    if chaos:
        story.step("kubectl wait --for=condition=Ready osvc/orders", cluster.wait_ready)
        story.step("routes in order, the client last", cluster.routes)

    def roll():
        over = threading.Event()

        def buy(wanted):
            requests = 0
            while not over.is_set():
                order = buyers["alice"].reserve(wanted)["id"]
                buyers["alice"].order(order)
                buyers["alice"].expect(204, "DELETE", f"/api/orders/{order}")
                requests += 3
            return requests

        with ThreadPoolExecutor() as pool:
            buying = [pool.submit(buy, each) for each in crowd]
            try:
                pods = cluster.roll()
            finally:
                over.set()
            return f"{pods} pods, {sum(each.result() for each in buying)} requests, none lost"

    story.step("every pod is replaced while alice reserves and cancels four at a time", roll)
    print(f"\n{paint(1, 'All of it held')}, in {story.took():.0f} s. {place.look_around(web.base, buyers['bob'].cookie)}", flush=True)
