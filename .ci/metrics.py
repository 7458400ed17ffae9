#!/usr/bin/env python3
"""Compares what alerts and dashboards ask for with what the code exports, and alerts with the runbook.

Every name in a query has to be a metric that crates/ registers, with the labels that it gives there (or one of another
exporter, listed below); every alert has to have a heading in docs/runbook.md. Exits 1 and says each that has not.
"""
import json
import pathlib
import re
import sys

import promql_parser as promql
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What Prometheus itself, blackbox exporter and node exporter tell.
OTHERS = {"up", "probe_success", "probe_ssl_earliest_cert_expiry", "node_filesystem_avail_bytes"}
# What Prometheus puts on every series.
SCRAPED = {"job", "instance", "path"}


def exported():
    """Every series of the binary, and its labels: None where they are not written out beside the name."""
    series = {}
    for path in sorted(ROOT.glob("crates/api/src/**/*.rs")):
        text = path.read_text()
        for macro in re.finditer(r'metrics::(counter|gauge|histogram)!\(\s*"([a-z_]+)"', text):
            kind, name, rest = macro[1], macro[2], until_closed(text, macro.end())
            labels = None if "&labels" in rest else set(re.findall(r'"([a-z_]+)"\s*=>', rest))
            names = [name]
            if kind == "histogram":
                names = [name + "_bucket", name + "_sum", name + "_count"]
                labels = None if labels is None else labels | {"le"}
            for one in names:
                before = series.get(one, set())
                series[one] = None if labels is None or before is None else before | labels
    return series


def until_closed(text, start):
    """What stands between `start` and the parenthesis that ends the macro."""
    depth = 1
    for end in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        if depth == 0:
            return text[start:end]
    return text[start:]


def selectors(node):
    """Every series that an expression selects."""
    if isinstance(node, promql.VectorSelector):
        yield node
    for part in ("expr", "lhs", "rhs", "vs", "vector_selector", "param"):
        child = getattr(node, part, None)
        if child is not None and not isinstance(child, (str, int, float)):
            yield from selectors(child)
    for child in getattr(node, "args", None) or []:
        yield from selectors(child)


def queries():
    rules = yaml.safe_load((ROOT / "deploy/monitoring/rules.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield f"the rule {rule.get('alert') or rule['record']}", rule["expr"]
    for path in sorted(ROOT.glob("deploy/monitoring/grafana/dashboards/*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.name}, «{panel['title']}»", target["expr"].replace("$__rate_interval", "5m")


def main():
    series, wrong, asked = exported(), [], 0
    for where, text in queries():
        found = list(selectors(promql.parse(text)))
        if not found:
            wrong.append(f"{where} asks for nothing: {text}")
        for selector in found:
            asked += 1
            if selector.name in OTHERS:
                continue
            if selector.name not in series:
                wrong.append(f"{where} asks for {selector.name}, which nothing exports")
                continue
            labels = series[selector.name]
            for matcher in selector.matchers.matchers:
                if labels is not None and matcher.name not in labels | SCRAPED:
                    wrong.append(f"{where} asks for {selector.name} by {matcher.name}, a label that it has not")

    headings = re.findall(r"^#+ (\w+)$", (ROOT / "docs/runbook.md").read_text(), re.M)
    rules = yaml.safe_load((ROOT / "deploy/monitoring/rules.yml").read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        anchor = rule["annotations"]["runbook_url"].split("#")[-1]
        if anchor not in {heading.lower() for heading in headings}:
            wrong.append(f"the alert {rule['alert']} leads to docs/runbook.md#{anchor}, which is not there")

    print("\n".join(wrong) or f"{asked} series in alerts and dashboards, all of them exported")
    return 1 if wrong or asked < 50 or len(series) < 30 else 0


if __name__ == "__main__":
    sys.exit(main())
