"""Gates as JUnit XML: what GitHub's actions, GitLab and Jenkins show as tests."""

import re
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as xml

from ..evaluation.gates import Check, Checks
from ..files import write_text
from .gates import failed_lines, reason

SUITE = "compatlearn evaluate"  # by which `--junit` knows a report of its own
FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0 has no way to write these


def write_junit(path: Path, checks: Checks) -> None:
    """Write one test case for each gate and group; groups with too few queries are skipped tests.

    Names do not change from run to run, so that a history can be kept: the figures are in failures and in system-out.

    Args:
        path: the file.
        checks: all gates.

    Raises:
        DataError: it cannot be written.
    """
    suites = xml.Element("testsuites")
    counted = {
        "tests": len(checks.checks),
        "failures": len(checks.failed),
        "errors": 0,
        "skipped": sum(check.met is None for check in checks.checks),
    }
    attributes = {"name": SUITE, "package": "compatlearn", "id": "0", "hostname": "localhost", "time": "0"}
    attributes |= {"timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")}  # the schema allows no time zone
    suite = xml.SubElement(suites, "testsuite", attributes | {name: str(number) for name, number in counted.items()})
    properties = xml.SubElement(suite, "properties")
    for name, value in (("strict", checks.strict), ("fewest", checks.fewest), ("tail", checks.tail)):
        xml.SubElement(properties, "property", name=name, value=str(value))
    for check in checks.checks:
        _add(suite, check)
    figures = (f"{check.gate.name}, {check.group or 'all queries'}: {reason(check)}" for check in checks.checks)
    xml.SubElement(suite, "system-out").text = _clean("\n".join(figures))
    xml.SubElement(suite, "system-err").text = _clean("\n".join(failed_lines(checks)))
    xml.indent(suites)
    write_text(path, '<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(suites, encoding="unicode") + "\n")


def _add(suite: xml.Element, check: Check) -> None:
    """A test case: the gate is its class, the group its name."""
    name = "all queries" if check.group is None else f"group {check.group}"
    case = xml.SubElement(suite, "testcase", classname=f"compatlearn.{check.gate.name}", name=_clean(name), time="0")
    if check.met is None:
        xml.SubElement(case, "skipped", message=f"{check.queries} queries are too few to be gated")
    elif not check.met:
        text = _clean(f"{name}: {reason(check)}")
        xml.SubElement(case, "failure", type=check.gate.name, message=text).text = text


def _clean(text: str) -> str:
    return FORBIDDEN.sub("\ufffd", text)
