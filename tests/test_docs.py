"""The tables of the docs that state facts of the code, compared with the code."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import inspect
import logging
import re
import typing
from pathlib import Path

import httpx
import pytest

import aragora_transport
from aragora_transport import (
    BreakerPolicy,
    Bucket,
    Judgement,
    Policy,
    Profile,
    RateLimitPolicy,
    RetryBudget,
    RetryPolicy,
    TimeoutPolicy,
    call_options,
    connectors,
    events,
    layers,
    resilient,
    resilient_sync,
    testing,
    wrap_client,
)
from aragora_transport._call import Attempt, Call
from aragora_transport._clock import SYSTEM
from aragora_transport.cli import _demo_state, _demo_text, _panels
from aragora_transport.cli._flaky_api import PHASES
from aragora_transport.cli._rules import ALERTS, RECORDED
from aragora_transport.layers import _families, configure_logging, metrics
from aragora_transport.testing import ManualClock, Reply, ScriptedTransport

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
POLICIES = (TimeoutPolicy, RetryPolicy, BreakerPolicy, RateLimitPolicy)
REQUIRED = object()
WORDS = {"required": REQUIRED, "the system's": SYSTEM}
NAMES = {kind.__name__: kind for kind in (*POLICIES, RetryBudget, Policy, Profile)}
STANDARD = set(vars(logging.makeLogRecord({}))) | {"message"}


def rows_of(page, first):
    """The rows of the one table of the page whose header begins with this cell."""
    found = []
    blocks = re.findall(r"(?:^\|.*\|\n)+", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    for block in blocks:
        header, _, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines())
        assert all(len(row) == len(header) for row in rows), f"{page}: a row of another length below {header}"
        if header[0] == first:
            found.append(rows)
    assert len(found) == 1, f"{page} has {len(found)} tables that begin with {first}"
    assert found[0]
    return found[0]


def code(cell):
    """What stands in the cell, which is code alone."""
    assert re.fullmatch(r"`[^`]+`", cell), f"{cell!r} is not code"
    return cell[1:-1]


def codes(cell):
    return re.findall(r"`([^`]+)`", cell)


def value(cell):
    return WORDS[cell] if cell in WORDS else eval(code(cell), NAMES.copy())  # noqa: S307  # our own pages


def alike(told, true):
    """Equal names and values in one order, where 1 is not True."""
    return [(*pair, type(pair[1]) is bool) for pair in told] == [
        (*pair, type(pair[1]) is bool) for pair in true
    ]


def fields(kind):
    """A dataclass's fields with their defaults."""
    for field in dataclasses.fields(kind):
        if field.default_factory is not dataclasses.MISSING:
            yield field.name, field.default_factory()
        else:
            yield field.name, REQUIRED if field.default is dataclasses.MISSING else field.default


def keywords(function):
    """What it takes by keyword alone, with defaults."""
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            yield name, REQUIRED if parameter.default is inspect.Parameter.empty else parameter.default


POLICY_TABLES = [
    ("layers/deadline.md", TimeoutPolicy, {"total"}),
    ("layers/timeout.md", TimeoutPolicy, {"attempt", "body_idle"}),
    ("layers/retry.md", RetryPolicy, None),
    ("layers/rate-limit.md", RateLimitPolicy, None),
    ("layers/breaker.md", BreakerPolicy, None),
]


@pytest.mark.parametrize(("page", "kind", "part"), POLICY_TABLES)
def test_a_settings_table_has_the_fields_and_both_defaults(page, kind, part):
    names = [name for name, _ in fields(kind) if part is None or name in part]
    policies = {type(one): one for _, one in fields(Policy)}
    advised = {type(one): one for one in (getattr(Policy.recommended(), n) for n, _ in fields(Policy))}
    rows = rows_of(page, f"`{kind.__name__}`")
    for column, policy in ((1, policies[kind]), (2, advised[kind])):
        told = [(code(row[0]), value(row[column])) for row in rows]
        assert alike(told, [(name, getattr(policy, name)) for name in names])


def test_every_setting_is_in_one_of_these_tables():
    assert {kind for _, kind, _ in POLICY_TABLES} == set(POLICIES)
    parts = [part for _, kind, part in POLICY_TABLES if kind is TimeoutPolicy]
    assert set.union(*parts) == {name for name, _ in fields(TimeoutPolicy)}


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        ("layers/retry.md", RetryBudget),
        ("reference.md", Profile),
        ("reference.md", Judgement),
        ("reference.md", Bucket),
        ("reference.md", Attempt),
        ("layers/auth.md", layers.Token),
        ("testing.md", testing.Reply),
        ("testing.md", testing.Faults),
        ("testing.md", testing.Answer),
        ("testing.md", testing.Wire),
    ],
)
def test_a_table_of_a_value_has_its_fields_and_defaults(page, kind):
    told = [(code(row[0]), value(row[1])) for row in rows_of(page, f"`{kind.__name__}`")]
    assert alike(told, fields(kind))


@pytest.mark.parametrize(
    ("page", "header", "function"),
    [
        ("layers/log.md", "`LogTransport`", layers.LogTransport),
        ("layers/metrics.md", "`MetricsTransport`", layers.MetricsTransport),
        ("layers/deadline.md", "`DeadlineTransport`", layers.DeadlineTransport),
        ("layers/retry.md", "`RetryTransport`", layers.RetryTransport),
        ("layers/auth.md", "`AuthTransport`", layers.AuthTransport),
        ("layers/auth.md", "`TokenSource`", layers.TokenSource),
        ("connectors/enterprise.md", "`EnterpriseConnector`", connectors.EnterpriseConnector),
        ("connectors/enterprise.md", "`RefreshToken`", connectors.RefreshToken),
        ("opentelemetry.md", "`Tracing`", layers.Tracing),
        ("secrets.md", "`Secret`", aragora_transport.Secret),
        ("layers/rate-limit.md", "`RateLimitTransport`", layers.RateLimitTransport),
        ("layers/breaker.md", "`BreakerTransport`", layers.BreakerTransport),
        ("layers/timeout.md", "`TimeoutTransport`", layers.TimeoutTransport),
        ("layers/log.md", "`configure_logging`", configure_logging),
        ("reference.md", "option", call_options),
        ("testing.md", "`ManualClock`", testing.ManualClock),
        ("testing.md", "`VirtualTime`", testing.VirtualTime),
        ("testing.md", "`ScriptedTransport`", testing.ScriptedTransport),
        ("testing.md", "`FaultTransport`", testing.FaultTransport),
        ("testing.md", "`FaultServer`", testing.FaultServer),
    ],
)
def test_a_table_of_keywords_has_them_all_with_their_defaults(page, header, function):
    told = [(code(row[0]), value(row[1])) for row in rows_of(page, header)]
    assert alike(told, keywords(function))


def test_the_keywords_of_the_three_functions():
    functions = {f.__name__: dict(keywords(f)) for f in (resilient, resilient_sync, wrap_client)}
    rows = rows_of("reference.md", "keyword")
    assert [code(row[0]) for row in rows] == list(functions["resilient"])
    for name, of, default, _ in rows:
        takers = {f: ours[code(name)] for f, ours in functions.items() if code(name) in ours}
        assert set(takers) == (set(functions) if of == "all three" else set(codes(of)))
        assert all(alike([("", value(default))], [("", true)]) for true in takers.values())


def test_the_metric_families_and_their_labels():
    kinds = {"counter": _families.COUNTERS, "gauge": _families.GAUGES, "histogram": _families.HISTOGRAMS}
    true = [(name, kind, spec[1]) for kind, families in kinds.items() for name, spec in families.items()]
    rows = rows_of("layers/metrics.md", "family")
    assert [(code(name), kind, tuple(codes(labels))) for name, kind, labels, _ in rows] == true


def test_the_buckets_of_the_histograms():
    rows = rows_of("layers/metrics.md", "histogram")
    told = {code(name): tuple(map(float, bounds.split(", "))) for name, bounds in rows}
    assert told == {name: bounds for name, (_, _, bounds) in _families.HISTOGRAMS.items()}


def test_the_status_labels_that_are_no_status():
    total = {"limit": "total", "seconds": 1.0, "attempt": 1, "elapsed": 1.0}
    late = aragora_transport.DeadlineExceededError(platform="p", operation="o", **total)
    true = {
        *metrics._ERROR_LABELS.values(),
        metrics.error_label(ValueError()),
        metrics.error_label(late),
        metrics._status_label(200, "a failure inside"),
        metrics._status_label(700, None),
    }
    assert [code(row[0]) for row in rows_of("layers/metrics.md", "`status`")] == sorted(true)
    text = " ".join((DOCS / "layers/metrics.md").read_text(encoding="utf-8").split())
    assert f"at most {_families.MAX_NAMES} names" in text


TOLD = {"retry-after": "7"}
TOLD_TOO_LONG = {"retry-after": "99"}
SCRIPTS = [  # with how many calls each is read: together all that is ever logged
    (2, [503, 200, 404]),
    (1, [401]),
    (8, [404]),
    (2, [503]),
    (1, [Reply(status=429, headers=TOLD), 200]),
    (2, [Reply(status=429, headers=TOLD_TOO_LONG)]),
    (1, [Reply(body=b"x", then=httpx.ReadError)]),
]


async def call_all():
    for calls, steps in SCRIPTS:
        clock = ManualClock()
        transport = resilient("api", ScriptedTransport(*steps, clock=clock), clock=clock)
        async with httpx.AsyncClient(transport=transport) as client:
            for _ in range(calls):
                try:
                    await client.get("http://api.test/")
                except httpx.HTTPError:
                    pass


def test_the_log_records_with_their_fields(caplog):
    caplog.set_level(logging.DEBUG, "aragora_transport")
    asyncio.run(call_all())
    common = [code(row[0]) for row in rows_of("layers/log.md", "field")]
    sometimes = {code(row[0]) for row in rows_of("layers/log.md", "further field")}
    assert sometimes == {"reason", "suppressed"}
    true = {}
    for record in caplog.records:
        extras = vars(record).keys() - STANDARD - sometimes
        assert extras >= set(common)
        levels, *rest = true.setdefault(record.event, (set(), record.msg, extras - set(common)))
        levels.add(record.levelname)
        assert rest == [record.msg, extras - set(common)]
    told = {
        code(event): (set(levels.split(", ")), code(message), set(codes(more)))
        for event, levels, message, more, _ in rows_of("layers/log.md", "`event`")
    }
    assert told == true


def test_the_events_and_their_fields():
    kinds = {
        name: [field.name for field in dataclasses.fields(kind)]
        for name, kind in vars(events).items()
        if isinstance(kind, type) and issubclass(kind, events.Event)
    }
    common = kinds.pop("Event")
    assert [code(row[0]) for row in rows_of("reference.md", "`Event`")] == common
    told = {code(name): common + codes(own) for name, _, own in rows_of("reference.md", "event")}
    assert told == kinds


def test_the_reasons_why_a_retry_is_refused():
    told = [code(row[0]) for row in rows_of("reference.md", "`reason`")]
    assert told == list(typing.get_args(events.RefusalReason))


def test_the_errors_with_their_bases_and_fields():
    true = {
        name: (getattr(aragora_transport, name).__bases__[-1], getattr(aragora_transport, name)._fields)
        for name in aragora_transport.__all__
        if name.endswith("Error")
    }
    rows = rows_of("reference.md", "error")
    assert {code(n): (getattr(httpx, code(base)), tuple(codes(own))) for n, base, own in rows} == true


@pytest.mark.parametrize("page", ["deadline", "auth", "rate-limit", "breaker", "timeout"])
def test_the_errors_of_a_layer_have_what_its_page_says(page):
    for name, _, tells in rows_of(f"layers/{page}.md", "error"):
        kind = getattr(aragora_transport, code(name))
        words = codes(tells)
        assert {word for word in words if word.isidentifier()} <= set(kind._fields)
        assert all(word in kind.__doc__ for word in words if not word.isidentifier())


def test_the_record_of_a_call_and_what_a_scripted_network_saw():
    read_by_users = re.search(r"Read by users: (.*)\.", Call.__doc__)[1]
    assert [code(row[0]) for row in rows_of("reference.md", "field")] == codes(read_by_users)
    sent = [name for name, _ in fields(testing.Sent)]
    assert [code(row[0]) for row in rows_of("testing.md", "`Sent`")] == sent


def test_what_a_stack_tells_of_itself():
    stack = resilient("api", ScriptedTransport(200))
    (circuit,) = stack.circuits().values()
    assert [code(row[0]) for row in rows_of("reference.md", "`describe()`")] == list(stack.describe())
    assert [code(row[0]) for row in rows_of("reference.md", "`circuits()`")] == list(circuit)


def test_every_fault_of_the_server_with_its_keywords():
    true = {name: f for name, f in vars(testing).items() if inspect.isfunction(f)}
    del true["echo"], true["server_sent_events"]  # told in the text: they are right answers
    rows = rows_of("testing.md", "fault")
    assert {code(row[0]) for row in rows} == set(true)
    for name, given, _ in rows:
        call = ast.parse(f"f({''.join(codes(given))})", mode="eval").body
        told = [(keyword.arg, ast.literal_eval(keyword.value)) for keyword in call.keywords]
        assert alike(told, keywords(true[code(name)]))


def test_what_a_fault_server_keeps_of_a_request():
    text = " ".join((DOCS / "testing.md").read_text(encoding="utf-8").split())
    told = codes(re.search(r"`requests` \(of each (.*?)\)", text)[1])
    kind = testing.ReceivedRequest
    true = {name for name, _ in fields(kind)} | {n for n, v in vars(kind).items() if isinstance(v, property)}
    assert set(told) == {name for name in true if not name.startswith("_")} - {"keep_body"}


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "tutorial.md"], ids=lambda page: page.name)
def test_the_demos_tables_have_the_rows_that_the_demo_prints(page):
    printed = next(
        block
        for block in re.findall(r"```text\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        if _demo_text.TITLES["bare"] in block
    )
    settings = _demo_state.Settings(seconds=22.0, rate=40.0, seed=7, policy="recommended")
    labels = [row[0] for row in _demo_text.total_rows(_demo_state.Run(settings=settings))]
    totals, phases, *_ = printed.split("\n\n")
    width = max(map(len, labels))
    assert [line[:width].strip() for line in totals.splitlines()[1:]] == labels
    assert [line.split("  ")[0] for line in phases.splitlines()[1:]] == [phase.name for phase in PHASES]


def test_the_runbook_has_a_part_for_each_alert():
    rows = [[code_or_link(cell) for cell in row[:3]] for row in rows_of("runbook.md", "alert")]
    assert rows == [[alert.name, alert.severity, alert.lasting] for alert in ALERTS]
    text = (DOCS / "runbook.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [alert.name for alert in ALERTS]
    for part in text.split("\n## ")[1:]:
        assert re.findall(r"^\*\*(.*?)\*\*", part, re.MULTILINE) == ["It means", "Look at", "Do"]
    titles = {panel.title for row in _panels.ROWS.values() for panel in row}
    assert set(re.findall(r'"([A-Z][^"]*)"', " ".join(text.split()))) <= titles


def code_or_link(cell):
    """The cell's text, without the link that it may be."""
    return re.sub(r"\[(\w+)\]\(#\w+\)", r"\1", cell)


def test_the_recorded_series_and_the_panels():
    assert [code(row[0]) for row in rows_of("dashboards.md", "series")] == list(RECORDED)
    panels = {row: [panel.title for panel in panels] for row, panels in _panels.ROWS.items()}
    assert {row: titles.split("; ") for row, titles in rows_of("dashboards.md", "row")} == panels
    text = (DOCS / "dashboards.md").read_text(encoding="utf-8")
    assert f"`SUCCESS: {len(ALERTS) + len(RECORDED)} rules found`" in text
    assert f"{len(ALERTS)} alerts" in text
    assert f"The other {len(RECORDED)} rules" in text


def test_the_newest_version_of_the_changelog_is_this_one():
    versions = re.findall(r"^## (.*)$", (DOCS / "changelog.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[0] == aragora_transport.__version__
