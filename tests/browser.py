"""A real headless Chromium, and the page in it."""

import os
import shutil
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.mosquitto import wait_for
from tests.requirements import missing
from tests.resource import Resource

ARGUMENTS = (
    "--headless=new",
    # Without a user namespace, as in a container and for root.
    "--no-sandbox",
    "--disable-gpu",
    # It would otherwise look for updates in the internet.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1280,1000",
)


class Browser(Resource):
    """Chromium, driven by chromedriver; missing ones fail a test in CI, and skip it elsewhere."""

    def __init__(self) -> None:
        chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if chromium is None or driver is None:
            missing("chromium is not installed (apt install chromium chromium-driver)")
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for argument in ARGUMENTS:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        # No proxy of the environment, which does not know this machine's ports.
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        self.driver = webdriver.Chrome(options, Service(driver, env=environment))

    def close(self) -> None:
        self.driver.quit()

    def set_colours(self, scheme: str) -> None:
        """Choose the `light` or `dark` theme."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def set_size(self, width: int, height: int) -> None:
        """Set the size of the page in CSS pixels, as on a phone."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def find(self, selector: str) -> WebElement:
        """Return the first element of a CSS selector, as soon as there is one."""
        wait_for(lambda: self.driver.find_elements(By.CSS_SELECTOR, selector), selector)
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def count(self, selector: str) -> int:
        """Return how many elements a CSS selector has."""
        return len(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a function in the page and return its value."""
        return self.driver.execute_script(script, *arguments)

    def before_every_page(self, script: str) -> None:
        """Run a script in each page that is opened from now on, before its own ones."""
        self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})

    def requests(self) -> dict[str, int]:
        """Return the transferred bytes of each URL that the page has asked for."""
        entries = self.run(
            "return [...performance.getEntriesByType('navigation'), "
            "...performance.getEntriesByType('resource')].map((e) => [e.name, e.transferSize])"
        )
        return dict(entries)

    def held(self) -> dict[str, int]:
        """Return what is left after garbage collection, with nodes that are in no document."""
        self.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
        counters = self.driver.execute_cdp_cmd("Memory.getDOMCounters", {})
        heap = self.driver.execute_cdp_cmd("Runtime.getHeapUsage", {})
        return {
            "heap_bytes": int(heap["usedSize"]),
            "nodes": counters["nodes"],
            "listeners": counters["jsEventListeners"],
        }

    def errors(self) -> list[str]:
        """Return what the console printed since the last call."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        # Not its advice that a test should read pixels in another way.
        return [str(entry["message"]) for entry in entries if entry["source"] != "rendering"]
