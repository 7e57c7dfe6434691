"""Opens pages in headless Chromium, offline. A page that reports an error or requests an address fails the test."""

import shutil
from contextlib import contextmanager

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None)
SIZES = {"wide": (1280, 900), "narrow": (380, 800)}

# The texts on a page whose contrast with their background is below 4.5 to 1, which WCAG requires.
FAINT = """() => {
  const shades = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = shades(colour).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if ((shades(colour)[3] ?? 1) > 0) return colour;
    }
  };
  const contrast = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  return [...document.querySelectorAll("body *:not(script):not(style)")]
    .filter((element) => !element.closest("svg") && element.checkVisibility())
    .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .filter((element) => contrast(light(getComputedStyle(element).color), light(behind(element))) < 4.5)
    .map((element) => element.outerHTML.slice(0, 80));
}"""


@contextmanager
def opened(browser, file, size="wide", scheme="light", touch=False):
    """Open a file as a page. At the end: no message in its console, no request beyond it, and it is no wider than the window."""
    width, height = SIZES[size]
    settings = {"color_scheme": scheme, "has_touch": touch, "offline": True, "reduced_motion": "reduce"}
    context = browser.new_context(viewport={"width": width, "height": height}, **settings)
    page, wrong = context.new_page(), []
    page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("file:", "data:", "blob:")) or wrong.append(request.url))
    page.goto(file.as_uri())
    try:
        yield page
        assert not wrong
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("window.broken") is None
    finally:
        context.close()
