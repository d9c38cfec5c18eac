"""Take the pictures of the web page: `camelbell serve harry_potter instruct`, then python docs/page_png.py."""

import shutil
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

DOCS = Path(__file__).parent


def picture(
    url: str, name: str, language: str, size: tuple[int, int], dark: bool, place: int, asked: list[str]
) -> None:
    """Talk at a place of the story slider, unfold the facts of one reply, and save what is seen."""
    with tempfile.TemporaryDirectory() as folder:
        options = webdriver.ChromeOptions()
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}"):
            options.add_argument(argument)
        options.add_experimental_option("prefs", {"intl.accept_languages": language})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1.5, "mobile": size[0] < 700}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        wait = WebDriverWait(driver, 120)
        driver.get(url)
        wait.until(lambda _: driver.find_elements(By.CSS_SELECTOR, "#characters .card"))
        if place:
            move = (
                "const t = document.getElementById('time'); t.value = arguments[0]; t.dispatchEvent(new Event('input'))"
            )
            driver.execute_script(move, place)
        for number, text in enumerate(asked, 1):
            driver.find_element(By.ID, "say").send_keys(text + Keys.ENTER)
            wait.until(lambda _, n=number: len(driver.find_elements(By.CSS_SELECTOR, "#log details")) == n)
        driver.find_elements(By.CSS_SELECTOR, "#log details")[0].click()
        driver.execute_script("document.getElementById('log').scrollTop = 0; document.activeElement.blur()")
        seen = Image.open(BytesIO(driver.get_screenshot_as_png())).convert("RGB")
        seen.quantize(96).save(DOCS / name, optimize=True)
        driver.quit()


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    picture(address, "page.png", "zh-CN", (1100, 720), False, 78, ["你的教父是谁？", "邓布利多现在怎么样？"])
    picture(address, "page-phone.png", "en-US", (390, 720), True, 0, ["Who is your best friend?"])
