"""The web page in a real browser: a conversation, story time, a server that goes and comes, and text that stays text."""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
from serving import TOKEN, make_bundle, serving

pytest.importorskip("selenium")
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

PAGE = Path(__file__).parent.parent / "plugins" / "frontend_serve" / "page"
needs_chromium = pytest.mark.skipif(
    not shutil.which("chromedriver"), reason="Chromium and its driver are not installed"
)
SCRIPT = "<img src=x onerror=alert(1)><script>alert(2)</script> <b>粗</b> &amp;"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Two characters whose base says back what it is asked; one has a picture of its own."""
    root = make_bundle(tmp_path_factory.mktemp("bundles"))
    make_bundle(root, "other", name={"zh": SCRIPT, "en": "Other"})
    (root / "other" / "avatar.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><script>alert(3)</script><circle r="9"/></svg>',
        encoding="utf-8",
    )
    return root


@pytest.fixture(scope="module")
def lumen(bundles, tmp_path_factory):
    """Both served."""
    with serving(tmp_path_factory.mktemp("served"), "lumen", "other", "--no-adapter", characters=bundles) as served:
        yield served


class Page:
    """The page in a browser."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, url):
        self.driver.get(url)
        self.until(lambda: self.all("#characters .card") or self.one("#door").get_attribute("open"))

    def all(self, css):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css):
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def until(self, true):
        return WebDriverWait(self.driver, 120, ignored_exceptions=[Exception]).until(lambda driver: true())

    def say(self, text):
        self.one("#say").send_keys(text + Keys.ENTER)

    def idle(self):
        self.until(lambda: not self.all("[aria-busy]"))

    def said(self):
        """Return all that stands in the conversation, in order."""
        return [said.text for said in self.all("#log .said")]

    def js(self, code, *values):
        return self.driver.execute_script(code, *values)

    def slide(self, steps):
        key = Keys.ARROW_LEFT if steps < 0 else Keys.ARROW_RIGHT
        self.one("#time").send_keys(key * abs(steps))

    def complaints(self):
        """Return what the browser's console holds, but for replies that were meant to fail."""
        log = self.driver.get_log("browser")
        return [row["message"] for row in log if "Failed to load resource" not in row["message"]]


@contextmanager
def browser(folder, language="zh-CN", size=(1200, 800), dark=False):
    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
        f"--user-data-dir={folder / 'profile'}", f"--window-size={size[0]},{size[1]}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.add_experimental_option(
        "prefs", {"intl.accept_languages": language, "download.default_directory": str(folder)}
    )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        if dark:
            features = [{"name": "prefers-color-scheme", "value": "dark"}]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        yield Page(driver)
    finally:
        driver.quit()


@pytest.fixture
def page(lumen, tmp_path):
    """The page of a new visitor who reads Chinese."""
    with browser(tmp_path) as opened:
        opened.open(lumen.url)
        yield opened


# --- in the browser -------------------------------------------------------------------------------


@needs_chromium
def test_a_conversation_in_chinese_with_the_facts_behind_it(page):
    assert page.driver.title == "小灯 · CamelBell"
    assert page.js("return document.documentElement.lang") == "zh-CN"
    assert page.said() == ["你好，我是小灯。"]
    for asked in ("灯塔有多少级台阶？", "岛上常常起雾吗？"):
        page.say(asked)
        page.until(lambda: page.said()[-1] == page.said()[-2] and not page.all("[aria-busy]"))
    assert page.said() == ["你好，我是小灯。"] + [
        text for text in ("灯塔有多少级台阶？", "岛上常常起雾吗？") for _ in "qa"
    ]
    assert page.one("#spoken").get_property("textContent") == "岛上常常起雾吗？"
    fold = page.all("#log details")[-1]
    assert fold.find_element(By.CSS_SELECTOR, "summary").text.startswith("依据的事实（")
    fold.click()
    assert "岛上常常起雾。 第2卷第1章" in [item.text for item in fold.find_elements(By.CSS_SELECTOR, "li")]
    assert page.all("#log .said")[-1].get_attribute("lang") == "zh"
    page.driver.refresh()  # what was said is still there
    page.until(lambda: len(page.said()) == 5)
    page.one("#fresh").click()
    page.until(lambda: page.said() == ["你好，我是小灯。"])
    assert page.complaints() == []


@needs_chromium
def test_the_slider_sets_the_story_time_and_says_what_is_known_then(page):
    page.until(lambda: "3 条事实（共 3 条）" in page.one("#knows").text)
    assert page.one("#when").text == "故事结束之后"
    page.slide(-4)  # of the 6 chapters and the end
    page.until(lambda: page.one("#when").text == "第1卷第3章" and "2 条事实" in page.one("#knows").text)
    assert page.one("#time").get_attribute("aria-valuetext") == "第1卷第3章"
    assert page.all("#lately li") == []
    page.say("岛上常常起雾吗？")
    page.until(lambda: page.all("#log details"))
    assert "说于第1卷第3章" in page.one("#log summary").text
    page.one("#log details").click()
    assert "岛上常常起雾。" not in page.one("#log details").text
    page.slide(1)
    page.until(lambda: [item.text for item in page.all("#lately li")] == ["岛上常常起雾。 第2卷第1章"])
    page.driver.refresh()
    page.until(lambda: page.one("#when").text == "第2卷第1章")
    assert page.complaints() == []


@needs_chromium
def test_a_conversation_survives_a_restart_of_the_server(bundles, tmp_path):
    with browser(tmp_path) as page:
        with serving(tmp_path / "first", "lumen", "--no-adapter", characters=bundles) as first:
            page.open(first.url)
            page.say("你好")
            page.until(lambda: page.said()[-2:] == ["你好", "你好"])
            page.idle()
        page.say("还在吗？")
        page.until(lambda: page.one("#notice").text == "连接断开了，正在重连……")
        page.until(lambda: page.all("#log .error"))
        with serving(tmp_path / "second", "lumen", "--no-adapter", characters=bundles, port=first.port) as second:
            page.until(lambda: page.one("#notice").text == "又连上了。")
            page.until(lambda: page.one("#retry").text == "再试一次")
            page.one("#retry").click()
            page.until(lambda: page.said()[-4:] == ["你好", "你好", "还在吗？", "还在吗？"])
            assert "begin 还在吗？" in second.noted()


@needs_chromium
def test_html_stays_text_wherever_it_comes_from(page):
    page.say(SCRIPT)
    page.until(lambda: page.said()[-2:] == [SCRIPT, SCRIPT])
    page.idle()
    page.say("raw")  # the model's own
    page.until(lambda: page.said()[-1] == "[31mred <script>alert(1)</script> ? end")
    assert SCRIPT in page.one("#characters").text  # a bundle's name
    page.all("#characters input")[1].send_keys(Keys.SPACE)
    page.until(lambda: page.driver.title.startswith("<img"))
    assert page.js("return [...document.scripts].map(s => s.getAttribute('src'))") == ["app.js"]
    assert page.js("return document.querySelectorAll('#log script, #log b, [onerror]').length") == 0
    assert page.complaints() == []


@needs_chromium
def test_the_policy_of_the_page_forbids_what_it_does_not_need(page, lumen):
    blocked = """
        const done = arguments[0], seen = [];
        document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
        const script = document.createElement("script"); script.textContent = "window.hurt = 1"; document.body.append(script);
        const image = new Image(); image.src = "http://127.0.0.2:9/x.png";
        fetch("http://127.0.0.2:9/").catch(() => {});
        document.body.insertAdjacentHTML("beforeend", "<p style='color:red' onclick='window.hurt=1'>x</p>");
        setTimeout(() => done([window.hurt ?? 0, [...new Set(seen)].sort()]), 500);
    """
    hurt, seen = page.driver.execute_async_script(blocked)
    assert (hurt, seen) == (0, ["connect-src", "img-src", "script-src-attr", "script-src-elem", "style-src-attr"])
    loaded = page.js("return performance.getEntriesByType('resource').map(e => e.name)")
    assert all(name.startswith(lumen.url) for name in loaded if "127.0.0.2" not in name)


@needs_chromium
def test_stop_keeps_what_was_said_and_retry_asks_again_more_freely(page, lumen):
    page.say("count 4000")
    page.until(lambda: page.said()[-1].startswith("0 1 2"))
    assert page.one("#send").text == "停止"
    page.one("body").send_keys(Keys.ESCAPE)
    page.until(lambda: page.all("#log .note"))
    assert page.all("#log .note")[-1].text == "已停止"
    assert page.said()[-1].startswith("0 1 2")
    page.until(lambda: "end count 4000" in lumen.noted())
    page.say("dice")
    page.until(lambda: page.said()[-1] == "[0.0, null, null]" and page.all("#retry"))
    assert page.one("#retry").text == "换一个回答"
    page.one("#retry").click()
    page.until(lambda: page.said()[-1].startswith("[0.7, null, ") and page.all("#retry"))
    assert page.said()[-2:-1] == ["dice"]


@needs_chromium
def test_all_of_it_can_be_done_by_keyboard_and_has_a_name(page):
    page.say("你好")
    page.idle()
    page.until(lambda: page.all("#retry"))
    page.driver.refresh()
    page.until(lambda: page.all("#retry"))
    seen = []
    for _ in range(40):
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        seen.append(page.js("const e = document.activeElement; return e.id || e.name || e.tagName.toLowerCase()"))
        if seen[-1] == "send":
            break
    wanted = [
        "a",
        "theme",
        "language",
        "character",
        "time",
        "fresh",
        "markdown",
        "jsonl",
        "log",
        "summary",
        "retry",
        "say",
    ]
    assert [place for place in seen if place in wanted] == wanted
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "slider", "textbox", "radio", "radiogroup", "log", "complementary", "link"}
    named = [(n["role"]["value"], n["name"]["value"]) for n in tree if not n["ignored"] and n["role"]["value"] in roles]
    assert {role for role, _ in named} >= {"button", "slider", "textbox", "radio", "radiogroup", "log", "complementary"}
    assert [role for role, name in named if not name.strip()] == []


@needs_chromium
@pytest.mark.parametrize(("language", "dark"), [("zh-CN", False), ("en-US", True)])
def test_on_a_phone_in_each_language_by_day_and_by_night(lumen, tmp_path, language, dark):
    with browser(tmp_path, language, (390, 844), dark) as page:
        page.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        )
        page.open(lumen.url)
        english = language == "en-US"
        page.say("How many steps has the lighthouse? " + "x" * 300 if english else "灯塔有多少级台阶？" * 20)
        page.idle()
        page.until(lambda: page.all("#retry"))
        assert page.js("return document.documentElement.scrollWidth") <= 390
        assert page.one("#send").text == ("Send" if english else "发送")
        assert not page.one("#panel").is_displayed()
        page.one("#menu").click()
        assert page.one("#panel").is_displayed()
        assert page.js("return document.documentElement.scrollWidth") <= 390
        ground = page.js("return getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(25, 23, 19)" if dark else "rgb(250, 248, 244)")
        page.one("#theme").click()  # light, whatever the system says
        assert page.js("return getComputedStyle(document.body).backgroundColor") == "rgb(250, 248, 244)"
        page.one("#language").click()
        assert page.one("#send").text == ("发送" if english else "Send")


@needs_chromium
def test_a_conversation_is_exported(page, tmp_path):
    page.say("岛上常常起雾吗？")
    page.until(lambda: page.all("#retry"))
    page.one("#jsonl").click()
    page.one("#markdown").click()
    page.until(lambda: (tmp_path / "lumen.jsonl").exists() and (tmp_path / "lumen.md").exists())
    row = json.loads((tmp_path / "lumen.jsonl").read_text(encoding="utf-8"))
    said = [{"role": role, "content": "岛上常常起雾吗？"} for role in ("user", "assistant")]
    assert row == {"model": "lumen", "messages": said}
    text = (tmp_path / "lumen.md").read_text(encoding="utf-8")
    assert text.startswith("# 小灯 的对话\n\n**你**\n\n岛上常常起雾吗？\n\n**小灯**\n\n岛上常常起雾吗？\n")
    assert "- 岛上常常起雾。 (第2卷第1章)\n" in text


@needs_chromium
def test_a_server_with_a_token_asks_for_it(bundles, tmp_path):
    env = {"CAMELBELL_TOKEN": TOKEN}
    with serving(tmp_path, "lumen", "--no-adapter", characters=bundles, env=env) as served, browser(tmp_path) as page:
        page.open(served.url)
        page.until(lambda: page.one("#door").is_displayed())
        page.one("#token").send_keys("wrong" + Keys.ENTER)
        page.until(lambda: page.one("#door").is_displayed())
        page.one("#token").send_keys(TOKEN + Keys.ENTER)
        page.until(lambda: page.all("#characters .card"))
        page.say("你好")
        page.until(lambda: page.said()[-2:] == ["你好", "你好"])
        assert page.js("return JSON.stringify({...localStorage})").find(TOKEN) < 0
        assert page.js("return document.querySelector('.card img').naturalWidth") > 0


# --- over the wire --------------------------------------------------------------------------------


def test_each_file_of_the_page_is_served_under_a_strict_policy(lumen):
    names = {"/": "index.html"} | {f"/{file.name}": file.name for file in PAGE.iterdir() if file.name != "index.html"}
    kinds = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    for address, name in names.items():
        reply = lumen.http.get(address)
        assert reply.content == (PAGE / name).read_bytes()
        assert reply.headers["content-type"] == f"{kinds[name.split('.')[1]]}; charset=utf-8"
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert lumen.http.head(address).status_code == 200


def test_the_page_names_no_other_place():
    for file in PAGE.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "//cdn" not in text
        assert "innerHTML" not in text and "insertAdjacentHTML" not in text and "eval(" not in text


def test_the_words_of_the_page_are_there_in_both_languages():
    text = (PAGE / "words.js").read_text(encoding="utf-8")
    zh, en = text.split("\n  en: {")
    keys = [[line.split(":")[0].strip() for line in part.splitlines() if line.startswith("    ")] for part in (zh, en)]
    assert keys[0] == keys[1]
    assert len(keys[0]) > 25


def test_a_picture_can_do_nothing_and_a_character_without_one_gets_a_letter(lumen):
    own, drawn = lumen.http.get("/camelbell/avatars/other"), lumen.http.get("/camelbell/avatars/lumen")
    assert "<script>" in own.text
    assert "sandbox" in own.headers["content-security-policy"]
    assert "script-src" not in own.headers["content-security-policy"].replace("default-src 'none'", "")
    assert ">小</text>" in drawn.text
    assert httpx.get(f"{lumen.url}/camelbell/avatars/nobody", trust_env=False).status_code == 404
