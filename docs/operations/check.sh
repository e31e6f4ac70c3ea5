#!/usr/bin/env bash
# Check and test the alerts, and check every query of the dashboard, with promtool.
set -euo pipefail
cd "$(dirname "$0")"

if ! command -v promtool >/dev/null; then
  echo "check.sh: promtool is missing: install the Debian package prometheus (apt install prometheus)" >&2
  exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Run a step quietly; say in one line how it went, and everything it said only where it failed.
step() {
  local name=$1
  shift
  if "$@" >"$work/output" 2>&1; then
    echo "ok      $name"
  else
    echo "FAILED  $name"
    cat "$work/output" >&2
    exit 1
  fi
}

# Write every query of a dashboard as a recording rule (JSON is YAML), Grafana's variables replaced by plain values.
queries_as_rules() {
  python3 - "$1" "$2" <<'PYTHON'
import json
import re
import sys
from pathlib import Path

dashboard = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))


def queries(node, place):
    """Yield (place, query) for everything Prometheus is asked, however deep it lies in rows and panels."""
    if isinstance(node, list):
        for item in node:
            yield from queries(item, place)
    elif isinstance(node, dict):
        place = node.get("title") or node.get("name") or place
        if isinstance(node.get("expr"), str):
            yield place, node["expr"]
        if node.get("type") == "query":  # a variable filled by a query
            query = node["query"]
            yield place, query["query"] if isinstance(query, dict) else query
        for value in node.values():
            yield from queries(value, place)


def plain(query):
    """Make PromQL of what Grafana would send."""
    if call := re.fullmatch(r"\s*label_values\((?:(.+),)?\s*\w+\s*\)\s*", query, flags=re.DOTALL):
        query = call[1] or "up"
    elif call := re.fullmatch(r"\s*query_result\((.+)\)\s*", query, flags=re.DOTALL):
        query = call[1]
    query = re.sub(r"\$\{?__(?:rate_interval|interval|range)\b\}?", "5m", query)
    query = re.sub(r"\$\{?__(?:interval|range)_m?s\b\}?", "300", query)
    return re.sub(r"\$\{\w+(?::\w+)?\}|\$\w+|\[\[\w+\]\]", ".*", query)


rules = []
for number, (place, query) in enumerate(queries(dashboard, "dashboard"), start=1):
    name = re.sub(r"\W+", "_", place).strip("_").lower()
    rules.append({"record": f"query_{number}_{name}", "expr": plain(query)})
if not rules:
    sys.exit("the dashboard has no queries")
Path(sys.argv[2]).write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}, indent=1))
PYTHON
}

step "alerts.yml: rules and templates parse" promtool check rules alerts.yml
step "alerts.test.yml: each alert fires when it should, and only then" promtool test rules alerts.test.yml
step "grafana-dashboard.json: queries extracted" queries_as_rules grafana-dashboard.json "$work/dashboard.yml"
step "grafana-dashboard.json: all $(grep -c '"expr"' "$work/dashboard.yml") queries parse" promtool check rules "$work/dashboard.yml"
