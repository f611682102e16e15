"""Reports as a person opens them: in headless Chromium, at the width of a desk and of a phone."""

import html
import json
import re
import shutil
import subprocess

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = (1280, 400)
# The page tells what it asked for, which errors it met, and what sticks out of its window, as JSON in its last element.
PROBE = """
<script>
window.faults = [];
addEventListener("error", (event) => faults.push(event.message || "an element did not load"), true);
addEventListener("load", () => {
  const asked = performance.getEntriesByType("resource").map((entry) => entry.name);
  const wide = [...document.querySelectorAll("table, img, p, dl")].filter((element) => {
    for (let e = element.parentElement; e !== document.body; e = e.parentElement)
      if (getComputedStyle(e).overflowX === "auto") element = e;
    return element.getBoundingClientRect().right > document.documentElement.clientWidth + 1;
  }).map((element) => element.tagName + " " + (element.textContent || element.alt).trim().slice(0, 40));
  const broken = [...document.images].filter((image) => !image.naturalWidth).map((image) => image.alt);
  const found = {asked: asked.filter((name) => !name.startsWith("data:")), faults, wide, broken,
    width: document.documentElement.clientWidth};
  const element = document.createElement("pre");
  element.id = "probe";
  element.textContent = JSON.stringify(found);
  document.body.append(element);
});
</script>
"""


def check_page(path, folder):
    """Open a report at both widths: no request, no error, no picture missing, nothing wider than the window.

    Args:
        path: The page.
        folder: An empty folder for Chromium's own files.
    """
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed; on Debian: apt-get install chromium")
    probed = folder / "probed.html"
    probed.write_text(path.read_text().replace("<head>", f"<head>{PROBE}", 1))
    for width in WIDTHS:
        command = [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
            *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=20000"),
            *(f"--user-data-dir={folder / str(width)}", f"--window-size={width},1000", "--hide-scrollbars"),
            *("--dump-dom", probed.as_uri()),
        ]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        told = re.search(r'<pre id="probe">(.*?)</pre>', shown, re.DOTALL)
        assert told, f"{path.name} did not finish loading"
        found = json.loads(html.unescape(told.group(1)))
        assert abs(found.pop("width") - width) <= 100, "Chromium's narrowest window is 500 px wide"
        assert found == {"asked": [], "faults": [], "wide": [], "broken": []}, f"{path.name} at {width} px"
