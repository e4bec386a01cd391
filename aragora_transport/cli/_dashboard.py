"""The Grafana dashboard: the panels in what Grafana reads."""

from __future__ import annotations

from typing import Any

from aragora_transport.cli._panels import OF_PLATFORM, ROWS, Panel

SCHEMA = 39  # of Grafana 11; newer ones migrate it
WIDTH = 24  # Grafana's columns
HEIGHT = 8
_SOURCE = {"type": "prometheus", "uid": "${source}"}


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append(
            {
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": _place(0, top, WIDTH, 1),
            }
        )
        wide = WIDTH // len(row)
        high = HEIGHT // 2 if all(panel.kind == "stat" for panel in row) else HEIGHT
        for number, panel in enumerate(row):
            panels.append(_panel(panel) | {"gridPos": _place(number * wide, top + 1, wide, high)})
        top += 1 + high
    return {
        "title": "aragora_transport",
        "uid": "aragora-transport",
        "description": "Calls to platforms through aragora_transport: what callers saw, and what it took.",
        "tags": ["aragora_transport"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "graphTooltip": 1,  # one crosshair for all
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_source(), _choice("platform", ""), _choice("operation", OF_PLATFORM)]},
        "annotations": {"list": []},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, 1)],
    }


def _place(x: int, y: int, w: int, h: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": w, "h": h}


def _panel(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.bad is not None:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.bad}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        if panel.kind == "timeseries":
            defaults["custom"] = {"thresholdsStyle": {"mode": "dashed"}}
    if panel.states is not None:
        options = {value: {"text": text, "color": color} for value, (text, color) in panel.states.items()}
        defaults["mappings"] = [{"type": "value", "options": options}]
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.tells,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": expr, "legendFormat": legend}
            for number, (expr, legend) in enumerate(panel.queries)
        ],
    }


def _source() -> dict[str, Any]:
    return {"type": "datasource", "name": "source", "label": "Data source", "query": "prometheus"}


def _choice(label: str, matching: str) -> dict[str, Any]:
    """A variable: which values of a label are shown."""
    return {
        "type": "query",
        "name": label,
        "label": label.capitalize(),
        "datasource": _SOURCE,
        "query": f"label_values(platform_requests_total{{{matching}}}, {label})",
        "refresh": 2,  # when the time range changes
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
