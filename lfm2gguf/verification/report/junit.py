"""A verification as JUnit XML, as GitHub's and GitLab's test reports show it.

One suite for each file, one case for each gate. There is no standard; this is the subset that
Jenkins' JUnit schema, GitLab and the usual GitHub actions agree on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from xml.etree import ElementTree

from lfm2gguf.verification.report.words import conditions, gate_cells
from lfm2gguf.verification.verdict.gates import Gate
from lfm2gguf.verification.verdict.result import Verification

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(results: Sequence[Verification]) -> bytes:
    """Give the XML document of a report, UTF-8."""
    root = ElementTree.Element("testsuites", name="lfm2gguf verify")
    for result in results:
        root.append(_suite(result))
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.get(count, 0)) for suite in root)))
    ElementTree.indent(root)
    xml: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return xml + b"\n"


def _suite(result: Verification) -> ElementTree.Element:
    suite = ElementTree.Element(
        "testsuite",
        name=_clean(result.candidate),
        tests=str(len(result.gates)),
        failures=str(len(result.failures)),
        errors="0",
        skipped="0",
        time=f"{sum(result.seconds.values()):.3f}",
        timestamp=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S"),
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("type", result.type), ("conditions", conditions(result))):
        ElementTree.SubElement(properties, "property", name=name, value=_clean(value))
    for gate in result.gates:
        suite.append(_case(gate, result))
    return suite


def _case(gate: Gate, result: Verification) -> ElementTree.Element:
    value, limit, margin, _ = gate_cells(gate)
    said = f"{value}, allowed {limit}" + (f", margin {margin}" if margin else "")
    said = _clean(f"{said}. {gate.detail}".rstrip(". "))
    case = ElementTree.Element(
        "testcase", name=gate.title, classname=f"lfm2gguf.verify.{result.type}", time="0"
    )
    if gate.passed:
        ElementTree.SubElement(case, "system-out").text = said
    else:
        failure = ElementTree.SubElement(case, "failure", message=f"{gate.title}: {said}")
        failure.set("type", "gate")
        failure.text = said
    return case


def _clean(text: str) -> str:
    return _NOT_XML.sub("�", text)
