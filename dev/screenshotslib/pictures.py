"""Which pictures there are, and how they are taken: of what Prometheus draws for some panels, and of its alerts."""
import glob

from bedlib.report import BedError

from .panels import panels

# Each is a file, and the panels on it: their dashboard, their title and the legend of the query.
GRAPHS = {
    "monitoring-api": [("api", "Requests by answer", "{{status}}"), ("api", "Reservations", "{{outcome}}")],
    "monitoring-sweeper": [("sweeper", "Expired", "{{target}}"), ("sweeper", "Since the last look", "{{target}}")],
    "monitoring-events": [("events", "Told", "{{subject}}"), ("events", "Lag", "99 %")],
    "monitoring-controller": [("controller", "Reconciles", "{{result}}"), ("controller", "Requests to the API server", "{{verb}} {{kind}}")],
}
WIDTH = 1000
MOST_BYTES = 150_000


async def take(playwright, prometheus, folder, minutes):
    """Writes all pictures to a folder."""
    program = next(iter(glob.glob("/usr/bin/chromium-headless-shell") + glob.glob("/usr/bin/chromium")), None)
    if not program:
        raise BedError("screenshots: there is no Chromium, although its package is installed")
    # For root Chromium has no sandbox; it sees pages of this machine only.
    browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--hide-scrollbars"])
    expressions = {(panel.dashboard, panel.title, panel.legend): panel.expression for panel in panels()}
    for name, shown in GRAPHS.items():
        missing = [each for each in shown if each not in expressions]
        if missing:
            raise BedError(f"screenshots: no panel {missing}")
        page = await browser.new_page(viewport={"width": WIDTH, "height": 1000})
        await page.goto(prometheus.graphs([expressions[each] for each in shown], minutes))
        await page.wait_for_function("times => document.querySelectorAll('.rickshaw_graph svg path').length >= times", arg=len(shown))
        await page.screenshot(path=folder / f"{name}.png", full_page=True, animations="disabled")
        await page.close()
    page = await browser.new_page(viewport={"width": WIDTH, "height": 900})
    await page.goto(f"{prometheus.url}/classic/alerts")
    await page.screenshot(path=folder / "monitoring-alerts.png", full_page=True, animations="disabled")
    await browser.close()
    for file in folder.glob("monitoring-*.png"):
        if file.stat().st_size > MOST_BYTES:
            raise BedError(f"screenshots: {file} has {file.stat().st_size} bytes, more than {MOST_BYTES}")
