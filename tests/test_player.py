"""The page in a real browser: playing, stepping, scrubbing, choosing, sorting, on a wide and a narrow screen.

These tests need Chromium and its driver, and are skipped where they are missing.
"""

import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from src.report import write_report
from src.reporting.clips import save_clips
from tests.run_folders import noise_clip, write_run

DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium")
pytestmark = pytest.mark.skipif(not (DRIVER and BROWSER), reason="needs chromium and chromedriver")
SIZES = {"wide": (1400, 1000), "narrow": (390, 844)}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two runs on the same clip; the better one has a second clip. It is copied to another folder, alone."""
    folder = tmp_path_factory.mktemp("page")
    for name, score in (("better", 26.0), ("worse", 24.0)):
        run = write_run(folder / "runs" / name, score=score)
        scores = json.loads((run / "scores.json").read_text())
        scores["psnr_by_frame"] = ["Infinity", *(score + 0.25 * frame for frame in range(11))]
        (run / "scores.json").write_text(json.dumps(scores))
        clips = [noise_clip(score), noise_clip(score, name="short clip", num_frames=5)][: 2 if name == "better" else 1]
        clips[0].psnr["drawn"] = (None, *scores["psnr_by_frame"][1:])
        save_clips(run, clips, scores["checkpoint_sha256"])
    made = write_report(folder / "runs", folder / "submissions", folder / "reports")
    alone = tmp_path_factory.mktemp("copied") / "mail.html"
    shutil.copy(made, alone)
    return alone


@pytest.fixture(params=list(itertools.product(SIZES, ("light", "dark"))), ids="-".join)
def browser(request: pytest.FixtureRequest, page: Path) -> Iterator[webdriver.Chrome]:
    """The page, open and ready. At the end, the console must hold no error."""
    size, scheme = request.param
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--force-color-profile=srgb",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        media = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        width, height = SIZES[size]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "narrow"}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        started = time.perf_counter()
        driver.get(page.as_uri())
        WebDriverWait(driver, 60).until(lambda _: driver.find_element(By.ID, "player").get_attribute("data-ready"))
        print(
            f"{size}, {scheme}: {page.stat().st_size / 1e6:.2f} MB, ready after {time.perf_counter() - started:.2f} s"
        )
        yield driver
        assert [line["message"] for line in driver.get_log("browser") if line["level"] == "SEVERE"] == []
    finally:
        driver.quit()


def part(browser: webdriver.Chrome, name: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, f'[data-part="{name}"]')


def frame_and_psnr(browser: webdriver.Chrome) -> tuple[int, str]:
    return int(part(browser, "frame").text.split()[1]), part(browser, "psnr").text


def press(browser: webdriver.Chrome, *keys: str) -> None:
    for key in keys:
        browser.find_element(By.TAG_NAME, "body").send_keys(key)


def click(browser: webdriver.Chrome, element: WebElement) -> None:
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def is_eventually(read: Callable[[], object], expected: object) -> bool:
    """Waits until what is read is what is expected: a frame is drawn after its picture is decoded."""
    end = time.monotonic() + 30
    while (found := read()) != expected and time.monotonic() < end:
        time.sleep(0.02)
    if found != expected:
        print(f"read: {found}, expected: {expected}")
    return found == expected


def pixels(browser: webdriver.Chrome, panel: int) -> list[int]:
    """The bytes of a panel, row by row, RGBA."""
    script = (
        "const canvas = document.querySelectorAll('canvas[role=img]')[arguments[0]];"
        "return [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    )
    return browser.execute_script(script, panel)


def expected(frame: int, layer: str, score: float = 26.0) -> list[list[int]]:
    return noise_clip(score).layers[layer][frame].permute(1, 2, 0).reshape(-1, 3).tolist()


def rgb(data: list[int]) -> list[list[int]]:
    return [data[place : place + 3] for place in range(0, len(data), 4)]


def test_stepping_shows_the_exact_frame_and_its_psnr(browser: webdriver.Chrome) -> None:
    assert is_eventually(lambda: frame_and_psnr(browser), (0, "given frame"))
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert is_eventually(lambda: frame_and_psnr(browser), (3, "26.50 dB"))
    assert is_eventually(lambda: rgb(pixels(browser, 0)), expected(3, "true"))
    assert is_eventually(lambda: rgb(pixels(browser, 1)), expected(3, "drawn"))
    difference = [
        [min(255, 4 * abs(a - b)) for a, b in zip(*pair, strict=True)]
        for pair in zip(expected(3, "true"), expected(3, "drawn"), strict=True)
    ]
    assert is_eventually(lambda: rgb(pixels(browser, 3)), difference)
    press(browser, Keys.ARROW_LEFT)
    assert is_eventually(lambda: frame_and_psnr(browser), (2, "26.25 dB"))
    press(browser, "b")
    assert is_eventually(lambda: frame_and_psnr(browser), (11, "28.50 dB"))
    press(browser, "w")
    assert is_eventually(lambda: frame_and_psnr(browser), (1, "26.00 dB"))
    press(browser, Keys.END)
    assert is_eventually(lambda: frame_and_psnr(browser)[0], 11)
    press(browser, Keys.HOME)
    assert is_eventually(lambda: frame_and_psnr(browser)[0], 0)


def test_it_plays_and_pauses(browser: webdriver.Chrome) -> None:
    assert is_eventually(lambda: part(browser, "play").text, "Play")  # as the reader asked for less motion
    click(browser, part(browser, "play"))
    seen = set()
    end = time.monotonic() + 30
    while len(seen) < 4 and time.monotonic() < end:
        seen.add(frame_and_psnr(browser)[0])
    assert len(seen) > 3
    click(browser, part(browser, "play"))
    assert is_eventually(lambda: part(browser, "play").text, "Play")
    still = frame_and_psnr(browser)
    time.sleep(0.3)
    assert frame_and_psnr(browser) == still


def test_the_scrubber_and_the_curve_go_to_a_frame(browser: webdriver.Chrome) -> None:
    scrubber = part(browser, "scrubber")
    browser.execute_script("arguments[0].value = 7; arguments[0].dispatchEvent(new Event('input'))", scrubber)
    assert is_eventually(lambda: frame_and_psnr(browser), (7, "27.50 dB"))
    click(browser, part(browser, "curve"))  # its middle
    assert is_eventually(lambda: frame_and_psnr(browser)[0] in (5, 6), True)


def test_runs_clips_and_samples_are_chosen(browser: webdriver.Chrome) -> None:
    press(browser, *4 * [Keys.ARROW_RIGHT])
    Select(part(browser, "other")).select_by_visible_text("worse")
    assert is_eventually(lambda: part(browser, "beside").text, "worse: 24.75 dB")
    assert is_eventually(lambda: rgb(pixels(browser, 2)), expected(4, "drawn", 24.0))
    Select(part(browser, "sample")).select_by_visible_text("sample 1")
    assert is_eventually(lambda: frame_and_psnr(browser), (4, "4.00 dB"))
    assert is_eventually(lambda: rgb(pixels(browser, 1)), expected(4, "sample 1"))
    Select(part(browser, "clip")).select_by_visible_text("short clip")
    assert is_eventually(lambda: part(browser, "frame").text, "frame 0 of 4")
    Select(part(browser, "run")).select_by_visible_text("worse (24.00 dB)")
    assert is_eventually(lambda: part(browser, "frame").text, "frame 0 of 11")
    press(browser, Keys.ARROW_RIGHT)
    assert is_eventually(lambda: frame_and_psnr(browser), (1, "1.00 dB"))  # of the same sample


def test_the_table_sorts_and_opens(browser: webdriver.Chrome) -> None:
    table = browser.find_element(By.ID, "table-of-runs")

    def column(number: int) -> list[str]:
        cells = table.find_elements(By.CSS_SELECTOR, f"tbody td:nth-child({number})")
        return [cell.get_attribute("textContent").strip() for cell in cells]

    headings = [cell.get_attribute("textContent") for cell in table.find_elements(By.TAG_NAME, "th")]
    place = 1 + headings.index("score (dB)")
    button = table.find_element(By.CSS_SELECTOR, f"th:nth-child({place}) button")
    click(browser, button)
    falling = [float(text) for text in column(place)]
    assert falling == sorted(falling, reverse=True) and falling[0] == 26.0
    click(browser, button)
    assert [float(text) for text in column(place)] == falling[::-1]
    visible = sum(cell.is_displayed() for cell in table.find_elements(By.TAG_NAME, "th"))
    click(browser, browser.find_element(By.CSS_SELECTOR, "input.all-columns"))
    assert visible == 5 and sum(cell.is_displayed() for cell in table.find_elements(By.TAG_NAME, "th")) == len(headings)


def test_nothing_is_wider_than_the_screen(browser: webdriver.Chrome) -> None:
    width = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1]


def test_the_curves_are_drawn(browser: webdriver.Chrome) -> None:
    WebDriverWait(browser, 30).until(lambda _: browser.find_elements(By.CSS_SELECTOR, ".curve .bk-Figure"))
    titles = browser.execute_script(
        "return Bokeh.documents.flatMap((each) => each.roots().map((root) => root.title.text))"
    )
    assert {"loss", "validation (dB)"} <= set(titles)
