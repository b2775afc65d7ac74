"""Visitors who come through the ingress without a break, whatever happens meanwhile: they ask, and reserve what they never pay for."""
import itertools
import json
import re
import statistics
import threading
import time
from dataclasses import dataclass

from demolib.story import moment
from demolib.telling import Failed

# Between two requests of a visitor: enough to meet every moment of an upgrade, and little enough for two processors.
ASK_PAUSE, BUY_PAUSE, LOOK_PAUSE = 0.2, 1.0, 0.5
# An order is cancelled as soon as its time is up. A machine that is busy with an upgrade may need a while, and we to see it.
LATE = 15.0
# The clocks are the same, but what is read of them is older.
EARLY = 0.5


@dataclass
class Bought:
    """A reservation that nobody pays for."""

    order: dict
    expires: float
    # When it was seen that it is no longer open.
    gone: float | None = None


class Visitors:
    """All of them; each has a thread, and a failure of a request ends none."""

    def __init__(self):
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.threads, self.failures, self.bought, self.requests = [], [], {}, 0

    def start(self, pause, action):
        """Does something again and again; each time counts as one request."""
        def visit():
            while not self.over.wait(pause):
                try:
                    action()
                except Exception as failure:  # pylint: disable=broad-except
                    with self.lock:
                        self.failures.append(f"{time.strftime('%H:%M:%S')} {failure}")
                with self.lock:
                    self.requests += 1

        thread = threading.Thread(target=visit, daemon=True)
        self.threads.append(thread)
        thread.start()

    def ask(self, web, kept):
        """Asks for a list of orders and for one of them, in turn; the answers must have what they had."""
        def one():
            differs(web.order(kept["id"]), kept)

        def many():
            if kept["id"] not in (order["id"] for order in orders(web, kept["status"])):
                raise Failed(f"{web.host}: order {kept['id']} is missing in the list")

        turns = itertools.cycle([one, many])
        self.start(ASK_PAUSE, lambda: next(turns)())

    def buy(self, web, tickets):
        """Reserves one ticket after the other."""
        left = iter(tickets)

        def action():
            order = web.reserve(next(left))
            with self.lock:
                self.bought[order["id"]] = Bought(order, moment(order["expiresAt"]).timestamp())

        self.start(BUY_PAUSE, action)

    def look(self, web):
        """Looks which reservations are open."""
        def action():
            with self.lock:
                known = [bought for bought in self.bought.values() if not bought.gone]
            still_open = {order["id"] for order in orders(web, "created")}
            now = time.time()
            for bought in known:
                if bought.order["id"] not in still_open:
                    bought.gone = now
                    if now < bought.expires - EARLY:
                        raise Failed(f"order {bought.order['id']} is no longer open {bought.expires - now:.1f} s before its time is up")

        self.start(LOOK_PAUSE, action)

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def judge(self, since):
        """Says how many requests there were since a number of them, if none has failed."""
        with self.lock:
            failures, requests = list(self.failures), self.requests
        if failures:
            raise Failed(f"{len(failures)} of {requests} requests failed:\n      " + "\n      ".join(failures[:20]))
        return f"{requests - since} requests, none failed"

    def judge_expiry(self, web, since):
        """Checks every reservation; says how late those were cancelled whose time was up since then."""
        stored = {order["id"]: order for order in orders(web)}
        now, late = time.time(), []
        with self.lock:
            all_bought = list(self.bought.values())
        for bought in all_bought:
            name = f"order {bought.order['id']}, whose time was up at {bought.order['expiresAt']},"
            order = stored.get(bought.order["id"])
            if not order:
                # It may be younger than the list.
                if bought.expires < now:
                    raise Failed(f"{name} is lost")
                continue
            is_cancelled = order["status"] == "cancelled"
            differs({**order, "status": "", "version": 0}, {**bought.order, "status": "", "version": 0})
            if order["version"] != bought.order["version"] + is_cancelled or not is_cancelled and order["status"] != "created":
                raise Failed(f"{name} is {order['status']} with version {order['version']}, and had version {bought.order['version']}")
            if not is_cancelled and now > bought.expires + LATE:
                raise Failed(f"{name} is not cancelled yet, {now - bought.expires:.1f} s later")
            if bought.gone and bought.expires >= since:
                late.append(bought.gone - bought.expires)
        if not late:
            raise Failed("no order has expired meanwhile")
        if max(late) > LATE:
            raise Failed(f"an order was cancelled {max(late):.1f} s after its time was up")
        return f"{len(late)} orders, seen {statistics.median(late):.1f} s after their time was up, the latest {max(late):.1f} s"


def differs(got, kept):
    """Fails if an answer lacks something that it had, or has another value of it. It may have more."""
    other = {key: (value, got.get(key)) for key, value in kept.items() if got.get(key) != value}
    if other:
        raise Failed(f"order {kept['id']} had something else: {other}")


def orders(web, status=None):
    """All orders of the user, page by page."""
    path, found = "/api/orders?limit=1000" + (f"&status={status}" if status else ""), []
    while path:
        headers, text = web.expect(200, "GET", path)
        found += json.loads(text)
        following = re.search(r'<([^>]*)>; *rel="next"', headers.get("Link") or "")
        path = following[1] if following else None
    return found
