"""Which pictures there are, and how they are taken: of what Prometheus draws for some panels, and of its alerts."""
import glob
import io

from bedlib.report import BedError
from PIL import Image

from .panels import panels

# Each is a file, and the panels on it: their dashboard, their title and the legend of the query.
GRAPHS = {
    "monitoring-api": [("api", "Requests by answer", "{{status}}"), ("api", "Reservations", "{{outcome}}")],
    "monitoring-sweeper": [("sweeper", "Expired", "{{target}}"), ("sweeper", "Since the last look", "{{target}}")],
    "monitoring-events": [("events", "Published", "{{subject}}"), ("events", "Lag", "99 %")],
    "monitoring-controller": [("controller", "Who leads", "{{pod}}"), ("controller", "Reconciles", "{{result}}")],
}
# What one does with graphs, and not what they show; expressions are shown whole.
STYLE = """
.query-history, .execute_btn, .expression_select, #add_graph, a[name="remove"], .eval_stats, .legend .action { display: none !important; }
html, body { overflow-x: hidden; }
.rickshaw_legend { max-width: 100%; }
.rickshaw_legend .label { white-space: normal !important; }
.expression_input { field-sizing: content; resize: none; box-shadow: none !important; border-color: #ced4da !important; }
"""
WIDTH = 1000
# They are read beside text, and few of their colours differ.
COLOURS, MOST_BYTES = 128, 150_000


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
        await page.wait_for_function("times => $('.graph_area').filter((_, area) => $(area).find('svg path').length).length == times", arg=len(shown))
        await page.add_style_tag(content=STYLE)
        await picture(page, folder / f"{name}.png")
    page = await browser.new_page(viewport={"width": WIDTH, "height": 900})
    await page.goto(f"{prometheus.url}/classic/alerts")
    # Those that say something, and one of them in full.
    await page.locator("label:has(#inactiveAlerts)").click()
    await page.locator(".alert_header.alert-danger", has_text="OrdersNotSwept").click()
    await page.locator("div.show-annotations").click()
    await picture(page, folder / "monitoring-alerts.png")
    await browser.close()


async def picture(page, file):
    """Writes a picture of a whole page, and closes it."""
    taken = await page.screenshot(full_page=True, animations="disabled")
    await page.close()
    Image.open(io.BytesIO(taken)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
    if file.stat().st_size > MOST_BYTES:
        raise BedError(f"screenshots: {file} has {file.stat().st_size} bytes, more than {MOST_BYTES}")
