"""Reports are valid for their readers, whatever was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files as resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from lfm2gguf.errors import MissingDependencyError, OptionError, OutputError
from lfm2gguf.verification import Engine, Session, Verification
from lfm2gguf.verification.report.data import dumps
from lfm2gguf.verification.report.files import check_targets, write_reports
from lfm2gguf.verification.report.junit import junit
from lfm2gguf.verification.report.ladder import ladder
from lfm2gguf.verification.report.markdown import markdown
from lfm2gguf.verification.report.page import page
from lfm2gguf.verification.report.plot import draw
from lfm2gguf.verification.report.words import explanation, headings, number, summary_cells
from lfm2gguf.verification.verdict.gates import Gate
from tests.making.browser import screenshot
from tests.making.html import check_report


@pytest.fixture(scope="module")
def results(session: Session, files: dict[str, Path]) -> list[Verification]:
    found = [session.judge(files[name], engine=Engine("numpy")) for name in ("Q8_0", "Q4_K_M")]
    broken = Gate("mean KL divergence", float("nan"), 0.05, detail='a <b> & "c" | d\x00')
    return [*found, replace(found[1], candidate="bro|ken<>.gguf", gates=(broken,))]


def test_json_follows_its_schema(results: list[Verification]) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    schema = json.loads((resources("lfm2gguf.verification") / "report.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    report = json.loads(dumps(results))
    jsonschema.validate(report, schema, cls=jsonschema.Draft202012Validator)
    assert [file["passed"] for file in report["files"]] == [True, True, False]
    assert report["passed"] is False
    assert report["files"][2]["gates"][0]["value"] is None
    report["files"][0]["gates"][0]["surprise"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(report, schema, cls=jsonschema.Draft202012Validator)


def test_junit_follows_its_schema(results: list[Verification]) -> None:
    xmlschema = pytest.importorskip("xmlschema", reason="xmlschema is not installed")
    schema = xmlschema.XMLSchema(str(Path(__file__).with_name("junit.xsd")))
    document = junit(results)
    schema.validate(document.decode())
    root = ElementTree.fromstring(document)
    assert (root.get("tests"), root.get("failures")) == (
        str(sum(len(result.gates) for result in results)),
        "1",
    )
    failure = root.find(".//failure")
    assert failure is not None
    assert "mean KL divergence: nan, allowed ≤ 0.050000" in (failure.get("message") or "")


def test_markdown_is_a_table_that_nothing_breaks(results: list[Verification]) -> None:
    text = markdown(results)
    assert text.startswith("## lfm2gguf verify: ❌ 1 of 3 failed")
    assert markdown(results[:2]).startswith("## lfm2gguf verify: ✅ passed")
    table = [line for line in text.split("\n") if line.startswith("| ")]
    ladder = table[: 2 + len(results)]
    assert {line.replace("\\|", "").count("|") for line in ladder} == {
        len(headings(results[0])) + 1
    }
    assert text.count("<details") == text.count("</details>") == 3
    assert "bro\\|ken&lt;>.gguf" in text


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_picture_is_svg_with_a_line_for_each_file(
    results: list[Verification], count: int
) -> None:
    root = ElementTree.fromstring(draw(results[:count], ".svg"))
    space = "{http://www.w3.org/2000/svg}"
    lines = root.findall(f".//{space}polyline")
    assert len(lines) == 2 * count
    for line in lines:
        points = [tuple(map(float, p.split(","))) for p in (line.get("points") or "").split()]
        assert len(points) > 10
        assert all(-1 <= x <= 401 and -1 <= y <= 331 for x, y in points)


def test_the_page_is_whole_and_escapes_what_it_shows(results: list[Verification]) -> None:
    text = page(results)
    check_report(text)
    assert "1 of 3 failed" in text
    assert "bro|ken&lt;&gt;.gguf" in text
    assert "a &lt;b&gt; &amp;" in text
    assert text.count("<details") == 3
    assert text.count("<details open") == 1
    assert text.count('<svg viewBox="0 0') == 3  # the ladder, and the two curves of the plot
    assert "✓ passed" in page(results[:2])


def test_the_ladder_stands_beside_the_published_one(results: list[Verification]) -> None:
    panel = ladder(results[:2])
    assert panel is not None
    own, plain, weighed = panel.lines
    assert list(own.names) == ["Q4_K_M", "Q8_0"]  # by size
    assert list(own.y) == [results[1].figures.kld.value, results[0].figures.kld.value]
    assert list(own.x) == pytest.approx([8 * r.size / 3_940_096 for r in (results[1], results[0])],
                                        rel=0.01)  # fmt: skip
    published = dict(zip(plain.names, zip(plain.x, plain.y, strict=True), strict=True))
    assert published["Q4_K_M"] == pytest.approx((4.90, 0.031273), rel=0.001)
    for line in (plain, weighed):
        assert sorted(line.x) == list(line.x)
        assert sorted(line.y, reverse=True) == list(line.y)
    exact = replace(results[0], type="F32", size=results[0].weights * 4)
    assert ladder([exact]) is None
    check_report(page([exact]))


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1300, "light")])
def test_the_page_in_a_browser(
    browser: Any, results: list[Verification], width: int, scheme: str, tmp_path: Path
) -> None:
    path = tmp_path / "verify.html"
    path.write_text(page(results), encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab = context.new_page()
    tab.goto(path.as_uri())
    screenshot(tab, f"verify-{width}-{scheme}", tmp_path, full_page=True)
    assert tab.evaluate("document.documentElement.scrollWidth") == width  # nothing sticks out
    names = tab.locator("svg .name").all()
    boxes = [box for name in names if (box := name.bounding_box())]
    assert {"Q8_0", "Q4_K_M"} <= {name.text_content() for name in names}
    assert all(box["height"] >= 9 for box in boxes)  # pixels
    for i, a in enumerate(boxes):  # names do not cover each other
        for b in boxes[:i]:
            across = min(a["x"] + a["width"], b["x"] + b["width"]) - max(a["x"], b["x"])
            down = min(a["y"] + a["height"], b["y"] + b["height"]) - max(a["y"], b["y"])
            assert across <= 1 or down <= a["height"] / 3
    context.close()


def test_a_png_needs_matplotlib_and_says_so(results: list[Verification], tmp_path: Path) -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependencyError, match=r"\[plot\]"):
            check_targets({"plot": tmp_path / "a.png"})
    else:
        assert draw(results, ".png").startswith(b"\x89PNG")
    with pytest.raises(OptionError, match=r"can be \.svg or \.png"):
        check_targets({"plot": tmp_path / "a.pdf"})


def test_reports_that_cannot_be_written_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the json report"):
        check_targets({"json": tmp_path / "absent" / "a.json"})
    with pytest.raises(OutputError, match="the junit report"):
        check_targets({"junit": tmp_path})
    check_targets({"json": Path("-"), "plot": None, "markdown": tmp_path / "a.md"})


def test_each_report_is_written_whole(results: list[Verification], tmp_path: Path) -> None:
    names = {"json": "a.json", "junit": "a.xml", "markdown": "a.md", "html": "a.html",
             "plot": "a.svg"}  # fmt: skip
    assert not write_reports(results, {kind: tmp_path / name for kind, name in names.items()})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names.values())
    with pytest.raises(OutputError, match="no such folder"):
        write_reports(results, {"json": tmp_path / "absent" / "a.json"})


def test_what_goes_to_standard_output_is_handed_back(
    results: list[Verification], capfd: pytest.CaptureFixture[str]
) -> None:
    assert json.loads(write_reports(results, {"json": Path("-")}))["report"] == "lfm2gguf verify"
    assert write_reports(results, {"junit": Path("-")}).startswith("<?xml")
    assert capfd.readouterr() == ("", "")
    with pytest.raises(OptionError, match=r"can be \.svg or \.png"):
        check_targets({"plot": Path("-")})


def test_a_failure_is_explained_in_one_line(results: list[Verification]) -> None:
    assert explanation(results[0]) == ""
    assert explanation(results[2]).startswith("mean KL divergence: nan, allowed ≤ 0.050000 (a <b>")
    passed = [summary_cells(replace(r, gates=results[0].gates))[1] for r in results]
    assert passed == ["passed"] * 3


def test_numbers_are_readable() -> None:
    assert number(0.0123, percent=True) == "1.23 %"
    assert number(3) == "3"
    assert number(0.05) == "0.050000"
    assert number(1.5e-7) == "0.00000015"
    assert number(float("inf"), percent=True) == "inf"
    assert number(-0.01, percent=True, signed=True) == "-1.00 %"


def test_a_result_shows_itself_short_and_as_a_table(results: list[Verification]) -> None:
    for result in results:
        assert len(repr(result)) < 600
        assert ("passed" if result.passed else "FAILED") in repr(result)
        assert result._repr_html_().count("<tr>") == len(result.gates) + 1
