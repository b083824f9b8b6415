"""The chat page in a real browser, with the example model behind it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lfm2gguf import Runner
from lfm2gguf.server.page import SCRIPTS, chat_page
from tests.making.browser import DESKTOP, PHONE, screenshot
from tests.server.conftest import serving, wait_until_idle

SIZES = {"phone": PHONE, "desktop": DESKTOP}
ASK = "Who are you?"
Open = Callable[..., Any]

# --- without a browser ------------------------------------------------------------------------


def test_the_page_is_small_whole_and_fetches_nothing() -> None:
    html = chat_page().html
    assert len(html.encode()) < 50_000
    assert "{{" not in html
    links = re.findall(r'\b(?:src|href|action)="([^"]*)"', html)
    assert [link for link in links if not link.startswith(("#", "data:image/svg+xml,"))] == []
    assert not re.search(r"url\(|@import|\son\w+=|\sstyle=", html)


def test_the_page_makes_no_html_of_text() -> None:
    folder = Path(chat_page.__wrapped__.__code__.co_filename).parent
    assert sorted(path.name for path in folder.glob("*.js")) == sorted(SCRIPTS)
    for path in folder.glob("*.js"):
        forbidden = r"(inner|outer)HTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
        assert not re.search(forbidden, path.read_text("utf-8"))


def test_the_policy_allows_this_script_and_style_alone() -> None:
    page = chat_page()
    policy = dict(
        part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; ")
    )
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"


def test_it_is_open_and_can_be_left_out(runner: Runner) -> None:
    with serving(runner, api_key="secret") as url:
        answer = httpx.get(f"{url}/")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "tiny" not in answer.text.replace("tiny-", "")  # nothing of what is served
    with serving(runner, chat_page=False) as url:
        assert httpx.get(f"{url}/").status_code == 404


# --- in a browser -----------------------------------------------------------------------------


@pytest.fixture
def tab_of(browser: Any) -> Iterator[Open]:
    """Opens the page in a browser of its own; at the end nothing may have gone wrong there."""
    contexts, said, asked = [], [], []

    def opened(address: str, size: str = "desktop", scheme: str = "light") -> Any:
        context = browser.new_context(**SIZES[size], color_scheme=scheme)
        contexts.append(context)
        context.set_default_timeout(15_000)
        tab = context.new_page()
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("console", lambda m: said.append(m.text) if "Security" in m.text else None)
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(address)
        return tab

    yield opened
    assert said == []
    assert [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:"))] == []
    for context in contexts:
        context.close()


def send(tab: Any, text: str) -> None:
    tab.fill("#input", text)
    tab.click("#send")


def finished(tab: Any) -> None:
    tab.wait_for_selector("#send:not([hidden])")


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait; the page's policy does not let playwright evaluate strings while it waits."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def choose(tab: Any, **settings: str) -> None:
    """Fill in the settings and close them."""
    tab.click("#open-settings")
    for name, value in settings.items():
        if name == "tool_choice":
            tab.select_option("#tool_choice", value)
        else:
            tab.fill(f"#{name}", value)
    tab.click("#fields .main")


def nothing_sticks_out(tab: Any) -> bool:
    width = tab.evaluate("innerWidth")
    return bool(tab.evaluate("document.documentElement.scrollWidth") <= width)


def answered_with(tab: Any, text: str) -> None:
    """Let the next answers be a text that no model writes."""
    chunks = [{"choices": [{"index": 0, "delta": {"content": part}, "finish_reason": None}]}
              for part in re.findall(r"(?s).{1,40}", text)]  # fmt: skip
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    tab.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(status=200, content_type="text/event-stream", body=body),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("size", "scheme"), [("phone", "light"), ("desktop", "dark")])
def test_an_answer_streams(
    tab_of: Open, url: str, runner: Runner, size: str, scheme: str, tmp_path: Path
) -> None:
    tab = tab_of(url, size, scheme)
    until(lambda: tab.title().startswith("tiny"))
    screenshot(tab, f"chat-empty-{size}-{scheme}", tmp_path)
    choose(tab, temperature="0", system="Be brief.")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ASK}]
    expected = runner.chat(messages, temperature=0.0)
    send(tab, ASK)
    finished(tab)
    assert tab.inner_text(".answer .text") == expected.text
    figures = tab.inner_text(".answer .figures")
    assert f"{expected.usage.completion_tokens} tokens" in figures
    assert re.search(r"\d\.\d tokens/s", figures)
    assert nothing_sticks_out(tab)
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    tab.click("#theme")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != background
    tab.reload()  # the conversation, the settings and the theme stay
    assert tab.inner_text(".answer .text") == expected.text
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != background
    tab.click("#open-settings")
    assert tab.input_value("#system") == "Be brief."
    screenshot(tab, f"chat-settings-{size}-{scheme}", tmp_path)
    assert nothing_sticks_out(tab)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_a_forced_call_and_its_result(tab_of: Open, url: str, size: str, tmp_path: Path) -> None:
    tab = tab_of(url, size)
    choose(tab, temperature="0")
    tab.click("#open-settings")
    tab.click("#example")
    tab.select_option("#tool_choice", "get_weather")
    tab.click("#fields .main")
    send(tab, "What is the weather in Boston?")
    tab.wait_for_selector(".call textarea")
    assert tab.inner_text(".call b") == "get_weather"
    assert json.loads(tab.inner_text(".call pre")) == {"city": "Boston"}
    assert tab.evaluate("document.activeElement.closest('.call') !== null")  # ready to be filled
    assert nothing_sticks_out(tab)
    choose(tab, tool_choice="auto")
    tab.fill(".call textarea", '{"temperature": 21, "sky": "clear"}')
    tab.click(".calls .main")
    finished(tab)
    assert tab.locator(".result").count() == 1
    assert tab.locator(".call textarea").count() == 0
    assert tab.locator(".answer").last.inner_text()
    told = json.loads(tab.evaluate("sessionStorage.getItem('lfm2gguf.messages')"))
    assert [message["role"] for message in told] == ["user", "assistant", "tool", "assistant"]
    assert told[2]["tool_call_id"] == told[1]["tool_calls"][0]["id"]
    screenshot(tab, f"chat-call-{size}", tmp_path)


@pytest.mark.slow
def test_an_image_goes_with_a_message(
    tab_of: Open, url: str, vision_model: Runner, picture: bytes
) -> None:
    assert not tab_of(url).is_visible("#attach")  # a text model takes none
    with serving(vision_model) as address:
        tab = tab_of(address, "phone")
        tab.locator("#attach").wait_for()
        choose(tab, schema='{"const": "seen"}')  # the model is random
        file = {"name": "a.png", "mimeType": "image/png", "buffer": picture}
        tab.set_input_files("#file", [file])
        tab.locator("#media img").wait_for()
        with tab.expect_request("**/v1/chat/completions") as sent:
            send(tab, "What is this?")
        parts = sent.value.post_data_json["messages"][0]["content"]
        assert [part["type"] for part in parts] == ["image_url", "text"]
        finished(tab)
        assert tab.locator(".user img").count() == 1
        assert tab.locator("#media img").count() == 0
        assert tab.locator(".error").count() == 0
        assert tab.inner_text(".answer .text") == '"seen"'


@pytest.mark.slow
def test_an_empty_answer_is_told(tab_of: Open, url: str) -> None:
    tab = tab_of(url)
    answered_with(tab, "")
    send(tab, ASK)
    finished(tab)
    assert "without a word" in tab.inner_text(".error p")


@pytest.mark.slow
def test_what_tools_are_not_json_is_said(tab_of: Open, url: str) -> None:
    tab = tab_of(url)
    tab.click("#open-settings")
    tab.fill("#tools", '[{"name": ')
    assert tab.inner_text("#tools-problem")
    assert tab.get_attribute("#tools", "aria-invalid") == "true"
    tab.fill("#tools", '[{"description": "no name"}]')
    assert "name" in tab.inner_text("#tools-problem")
    tab.fill("#tools", '{"name": "add"}')  # a bare function
    assert not tab.is_visible("#tools-problem")
    assert "add" in tab.inner_text("#tool_choice")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["button", "key"])
def test_an_answer_is_stopped(tab_of: Open, url: str, runner: Runner, how: str) -> None:
    tab = tab_of(url)
    choose(tab, schema=json.dumps({"type": "array", "minItems": 300, "items": {"const": "more"}}))
    send(tab, ASK)
    until(lambda: len(tab.inner_text(".answer .text")) > 20)
    if how == "button":
        tab.click("#stop")
    else:
        tab.keyboard.press("Escape")
    finished(tab)
    wait_until_idle(runner)
    assert "stopped" in tab.inner_text(".answer .figures")
    assert tab.inner_text(".answer .text")
    assert tab.evaluate("document.querySelector('#status').textContent") in ("", "Stopped.")


@pytest.mark.slow
def test_errors_are_shown_and_can_be_tried_again(
    tab_of: Open, url: str, runner: Runner, tmp_path: Path
) -> None:
    tab = tab_of(url, "phone")
    send(tab, "word " * 3000)
    said = tab.inner_text(".error p")
    assert "tokens" in said
    assert tab.get_attribute(".error", "role") == "alert"
    assert nothing_sticks_out(tab)
    screenshot(tab, "chat-error-phone", tmp_path)
    tab.click(".user .quiet >> nth=0")  # edit it
    assert tab.input_value("#input").startswith("word word")
    tab.context.set_offline(True)
    send(tab, ASK)
    assert "does not answer" in tab.inner_text(".error p")
    tab.context.set_offline(False)
    tab.click(".error .quiet")
    finished(tab)
    assert tab.inner_text(".answer .text")
    assert tab.locator(".error").count() == 0


@pytest.mark.slow
def test_a_server_with_a_key_is_asked_with_it(tab_of: Open, runner: Runner) -> None:
    with serving(runner, api_key="secret") as address:
        tab = tab_of(address)
        tab.wait_for_selector("#key[open]")
        tab.fill("#key-field", "wrong")
        tab.keyboard.press("Enter")
        until(lambda: "not one" in tab.inner_text("#key-message"))
        tab.fill("#key-field", "secret")
        tab.keyboard.press("Enter")
        until(lambda: tab.title().startswith("tiny"))
        send(tab, ASK)
        finished(tab)
        assert tab.inner_text(".answer .text")
        assert "secret" not in tab.evaluate("JSON.stringify({...localStorage})")


@pytest.mark.slow
def test_the_keyboard_is_enough(tab_of: Open, url: str) -> None:
    tab = tab_of(url)
    assert tab.evaluate("document.activeElement.id") == "input"
    tab.keyboard.type("one")
    tab.keyboard.press("Shift+Enter")
    tab.keyboard.type("two")
    assert tab.input_value("#input") == "one\ntwo"
    tab.keyboard.press("Enter")
    finished(tab)
    assert tab.inner_text(".said") == "one\ntwo"
    tab.focus("#open-settings")
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.querySelector('#settings').open")
    tab.keyboard.press("Escape")
    assert tab.evaluate("document.activeElement.id") == "open-settings"
    names = tab.evaluate(
        "[...document.querySelectorAll('button,input:not([type=file]),select,textarea')]"
        ".filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim()))"
        ".map((e) => e.outerHTML)"
    )
    assert names == []


SHOWN = {"A", "B", "BLOCKQUOTE", "BR", "BUTTON", "CODE", "DEL", "DIV", "EM", "H3", "H4", "H5", "H6",
         "HR", "LI", "OL", "P", "PRE", "SPAN", "STRONG", "TABLE", "TBODY", "TD", "TH", "THEAD",
         "TR", "UL"}  # fmt: skip
HOSTILE = [
    "<img src=x onerror=hit=1>", "<script>hit=1</script>", "</p></div><iframe srcdoc='<b>'>",
    "[a](javascript:hit=1)", "[a](JaVaScRiPt:hit=1)", "[a](data:text/html,<script>hit=1</script>)",
    "[a]( javascript:hit=1)", "[a](&#106;avascript:hit=1)", "[a](vbscript:x)", "[a](//evil.test)",
    "![a](https://evil.test/x.png)", "![a](javascript:hit=1)", '[a](https://b.test "t" onclick=x)',
    "[<img src=x onerror=hit=1>](https://b.test)", "https://b.test/\"onmouseover=hit=1",
    "```<img src=x onerror=hit=1>\n<svg onload=hit=1>\n```", "# <svg onload=hit=1>",
    "> <b onclick=hit=1>x", "- <style>*{display:none}</style>", "| <u>a | b |\n|---|---|\n| <i> |",
    "`<b>`", "**<b>**", "&lt;b&gt;", "<!-- -->", "\u202e<b>\u0000\ud800",
    "__proto__", "[constructor]", "{{style}}", "${hit=1}",
]  # fmt: skip


@pytest.mark.slow
def test_hostile_text_is_text(tab_of: Open, url: str, tmp_path: Path) -> None:
    tab = tab_of(url)
    answered_with(tab, "\n\n".join(HOSTILE))
    send(tab, HOSTILE[0])
    finished(tab)
    assert tab.inner_text(".said") == HOSTILE[0]
    found = tab.evaluate(
        "[...document.querySelectorAll('.answer .text *')].map((e) => [e.tagName,"
        " e.getAttributeNames(), e.href ?? ''])"
    )
    assert {tag for tag, _, _ in found} <= SHOWN
    names = {name for _, attributes, _ in found for name in attributes}
    assert names <= {"class", "type", "tabindex", "href", "title", "target", "rel", "start"}
    assert {href.split(":")[0] for _, _, href in found if href} == {"https"}
    text = tab.inner_text(".answer .text")
    for part in ("<img src=x onerror=hit=1>", "<script>hit=1</script>", "&lt;b&gt;", "${hit=1}"):
        assert part in text
    assert tab.evaluate("typeof hit") == "undefined"
    screenshot(tab, "chat-hostile", tmp_path, full_page=True)


@pytest.mark.slow
def test_hostile_text_of_the_model_itself(tab_of: Open, url: str) -> None:
    """The whole way: bound by a schema, the model writes HTML."""
    tab = tab_of(url)
    choose(tab, schema=json.dumps({"const": HOSTILE[0]}), temperature="0")
    send(tab, ASK)
    finished(tab)
    assert tab.inner_text(".answer .text") == json.dumps(HOSTILE[0])
    assert tab.locator(".answer img").count() == 0


MARKDOWN = """\
# Title
Two *words* and **more**, `code`, ~~gone~~, snake_case_name and 2 * 3 * 4.
Next line with a [link](https://example.org/a_b) and https://example.org/x.

1. one
2. two
   - inner **bold**
   - inner

   ```python
   if a < b:
       pass
   ```
3. three

| a | b |
|:--|--:|
| 1 | `x\\|y` |

> quoted
> - list

---
"""


@pytest.mark.slow
def test_markdown_is_shown_as_it_is_meant(tab_of: Open, url: str) -> None:
    tab = tab_of(url)
    answered_with(tab, MARKDOWN)
    send(tab, ASK)
    finished(tab)

    def texts(selector: str) -> list[str]:
        return [str(text) for text in tab.locator(f".text {selector}").all_inner_texts()]

    assert texts("h3") == ["Title"]
    assert texts("> p em") == ["words"]
    assert texts("> p strong") == ["more"]
    assert texts("> p code") == ["code"]
    assert texts("> p del") == ["gone"]
    assert "snake_case_name and 2 * 3 * 4." in texts("> p")[0]
    links = tab.locator(".text a").evaluate_all("(all) => all.map((a) => a.href)")
    assert links == ["https://example.org/a_b", "https://example.org/x"]
    assert len(texts("> ol > li")) == 3
    assert texts("ol ul li") == ["inner bold", "inner"]
    assert texts("ol pre") == ["if a < b:\n    pass"]
    assert texts("td") == ["1", "x|y"]
    assert tab.locator(".text td").nth(1).get_attribute("class") == "end"
    assert texts("blockquote li") == ["list"]
    assert len(texts("> hr")) == 1


ENDLESS = ["*a " * 8000, "**" * 8000, "[" * 20_000, "`" * 5000 + "`a" * 5000, "> " * 10_000,
           "- " * 8000, "|" * 9000 + "\n" + "|-" * 9000, "_a_" * 6000, "h" * 20_000,
           "# " + " " * 20_000 + "x", "-" + " " * 20_000 + "x", "\n" * 20_000, "[a](" * 5000,
           "  - a\n" * 3000, "*" + "a*b" * 6000]  # fmt: skip


@pytest.mark.slow
def test_no_text_takes_long(tab_of: Open, url: str) -> None:
    """Some 20,000 characters that invite a parser to look back: shown within seconds."""
    tab = tab_of(url)
    for text in ENDLESS:
        answered_with(tab, text)
        began = time.monotonic()
        send(tab, ASK)
        finished(tab)
        assert time.monotonic() - began < 8, text[:20]
        tab.unroute("**/v1/chat/completions")
        tab.click("#new")
