import math
import re
import time
from collections.abc import Callable
from email.utils import formatdate

import httpx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aragora_transport._retry_after import MAX_TOLD, told_number, told_wait

NOV_1994 = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110
IMF = "Sun, 06 Nov 1994 08:49:37 GMT"
WEEK = 7 * 86400.0

NO_NUMBERS = [
    "", " ", ",", "-5", "+5", "--5", "- 5", "5s", "5 s", "1 5", "0x10", "1_000", "1e3", "1e400", "1e-400",
    "1.2.3", ".", "nan", "NaN", "-nan", "inf", "-inf", "Infinity", "none", "null", "true", "[5]", '"5"',
    "5;a=1", "\x005", "5\x00", "5\n", "\r\n5", "5\x1f", "\xa05", "\u20285", "\u0665", "\u0661\u0662",
    "\xb2", "1\xb2", "\uff15", "\u096b", "\udc35", "5\udcff", "\xbd", "\u2160", "five", "\U0001d7d3",
    "-" + "9" * 400, "9" * 400 + "x",
]  # fmt: skip
NO_DATES = [
    "Sun, 06 Nov 1994 08:49:37",  # no zone
    "Sun, 06 Nov 1994 08:49:37 PST",
    "Sun, 06 Nov 1994 08:49:37 GMT+1",
    "Sun, 06 Nov 1994 08:49:37 +99999999999999999999",
    "Sun, 06 Nov 1994 08:49:37 -9999",
    "Sun, 06 Nov 1994 08:49:37 +2400",
    "Sun, 06 Nov 1994 08:49:37 +0060",
    "Sun, 06 Nov 1994 08:49:37 +\u0661\u0661\u0661\u0661",
    "Sun, 06 Nov 0000 08:49:37 GMT",
    "Sun, 06 Nov 99999 08:49:37 GMT",
    "Sun, 06 Nov 199 08:49:37 GMT",
    "Sun, 06 Nov -1994 08:49:37 GMT",
    "Sun, 31 Feb 1994 08:49:37 GMT",
    "Sun, 00 Nov 1994 08:49:37 GMT",
    "Sun, 006 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nix 1994 08:49:37 GMT",
    "Sun, 06 \u017fep 1994 08:49:37 GMT",
    "Sun, 06 Nov 1994 24:00:00 GMT",
    "Sun, 06 Nov 1994 08:60:37 GMT",
    "Sun, 06 Nov 1994 08:49:61 GMT",
    "Sun, 06 Nov 1994 8:49:37 GMT",
    "Sun, 06 Nov 1994 08:49 GMT",
    "Sun, 06-Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 1994 08:49:37 GMT\x00",
    "Sun, 06\nNov 1994 08:49:37 GMT",
    "Sun Nov  6 08:49:37 99999",
    "Sun Nov  6 08:49:37 0000",
    "Sun Feb 30 08:49:37 1994",
    "1994-11-06T08:49:37Z",
    "Sun",
    "Sun,",
    "GMT",
]


def told(now: float = NOV_1994, **headers: str) -> float | None:
    return told_wait(httpx.Headers({name.replace("_", "-"): value for name, value in headers.items()}), now)


def short(value: object) -> str:
    text = ascii(value)
    return text if len(text) < 60 else f"{text[:9]}... of {len(text)}"


def is_sane(wait: object) -> bool:
    # The sign is asked for apart: -0.0 is no number below zero, yet it prints and sorts like one.
    return wait is None or (type(wait) is float and 0.0 <= wait <= WEEK and math.copysign(1.0, wait) == 1.0)


def test_headers_that_say_nothing_tell_no_wait() -> None:
    assert told() is None
    assert told(content_type="text/html", date=IMF) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("5", 5.0),
        ("120", 120.0),
        (" 7\t", 7.0),
        ("007", 7.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("2.", 2.0),
    ],
)
def test_a_retry_after_in_seconds_is_the_wait(value: str, seconds: float) -> None:
    wait = told_wait({"Retry-After": value}, NOV_1994)
    assert wait == seconds
    assert type(wait) is float


@pytest.mark.parametrize(
    "date",
    [
        IMF,
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun Nov 6 08:49:37 1994",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "06 Nov 1994 08:49:37 GMT",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 UT",
        "Sun, 06 Nov 1994 08:49:37 Z",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 10:19:37 +0130",
        "Sun, 06 Nov 1994 07:19:37 -0130",
    ],
)
def test_every_form_of_date_is_understood(date: str) -> None:
    assert told(retry_after=date, now=NOV_1994 - 10) == 10.0


def test_the_second_of_a_leap_is_part_of_its_day() -> None:
    assert told(retry_after="Sat, 31 Dec 2016 23:59:60 GMT", date="Sat, 31 Dec 2016 23:59:50 GMT") == 10.0


@pytest.mark.parametrize(
    ("year_now", "two_digits", "year_meant"),
    [
        (1994, "94", 1994),
        (1994, "44", 2044),
        (1994, "45", 1945),
        (2025, "75", 2075),
        (2025, "76", 1976),
        (2099, "00", 2100),
    ],
)
def test_a_year_of_two_digits_is_never_more_than_50_years_ahead(
    year_now: int, two_digits: str, year_meant: int
) -> None:
    wait = told(
        retry_after=f"Monday, 02-Jul-{two_digits} 00:00:09 GMT", date=f"Mon, 02 Jul {year_now} 00:00:00 GMT"
    )
    assert wait == (9.0 if year_meant == year_now else WEEK if year_meant > year_now else 0.0)


@pytest.mark.parametrize(
    "now", [0.0, NOV_1994 - 3600, NOV_1994 + 86400 * 365, -1e18, 1e18, math.inf, math.nan]
)
def test_a_date_is_measured_from_the_date_of_the_response_however_wrong_our_clock(now: float) -> None:
    assert told(retry_after="Sun, 06 Nov 1994 08:50:07 GMT", date=IMF, now=now) == 30.0


def test_of_several_dates_of_a_response_the_earliest_counts() -> None:
    dates = f"Sun, 06 Nov 1994 08:50:00 GMT, {IMF}"
    assert told(retry_after="Sun, 06 Nov 1994 08:50:07 GMT", date=dates) == 30.0


@pytest.mark.parametrize("date", NO_DATES, ids=short)
def test_a_date_header_that_is_malformed_leaves_our_own_clock(date: str) -> None:
    assert told_wait({"Retry-After": IMF, "Date": date}, NOV_1994 - 4) == 4.0


@pytest.mark.parametrize("now", [-math.inf, math.inf, math.nan, -1e300, 1e300])
@pytest.mark.parametrize("date", [IMF, "Sunday, 06-Nov-94 08:49:37 GMT"])
def test_a_clock_of_ours_gone_mad_stays_within_bounds(date: str, now: float) -> None:
    assert is_sane(told(retry_after=date, now=now))


def test_a_date_that_is_past_is_a_wait_of_zero() -> None:
    assert told(retry_after=IMF, now=NOV_1994 + 1) == 0.0
    assert told(retry_after=IMF, date="Sun, 06 Nov 1994 08:49:38 GMT") == 0.0
    assert is_sane(told(retry_after=IMF, now=NOV_1994 + 0.5))


def test_the_fraction_of_our_clock_never_shortens_the_wait() -> None:
    assert told(retry_after=IMF, now=NOV_1994 - 10 + 0.9) == 10.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1, 5", 5.0),
        ("5,1,", 5.0),
        ("2, nonsense, -9", 2.0),
        (f"3, {IMF}", 20.0),
        (f"{IMF}, 30", 30.0),
        (f"{IMF}, Sun, 06 Nov 1994 08:49:47 GMT", 30.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT,Sun Nov  6 08:49:38 1994", 21.0),
    ],
)
def test_of_a_repeated_retry_after_the_longest_valid_wait_counts(value: str, seconds: float) -> None:
    assert told(retry_after=value, now=NOV_1994 - 20) == seconds


@pytest.mark.parametrize("flavor", ["httpx", "httpx2"])
def test_headers_of_either_flavor_are_read_in_any_case_and_repeated(flavor: str) -> None:
    library = pytest.importorskip(flavor)
    headers = library.Headers([("RETRY-AFTER", "1"), ("retry-after", "5"), ("date", IMF)])
    assert told_wait(headers, NOV_1994) == 5.0


@pytest.mark.parametrize("value", NO_NUMBERS + NO_DATES, ids=short)
def test_a_retry_after_that_is_malformed_gives_way_to_the_next_source(value: str) -> None:
    assert told_wait({"Retry-After": value}, 0.0) is None
    assert told_wait({"Retry-After": value, "RateLimit": '"a";r=0;t=9'}, 0.0) == 9.0


def test_the_sources_are_asked_in_their_order() -> None:
    headers = {
        "Retry-After": "0",
        "RateLimit": '"a";r=0;t=2',
        "RateLimit-Remaining": "0",
        "RateLimit-Reset": "3",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset-After": "4",
        "X-RateLimit-Reset": "5",
    }
    waits = []
    for first in ("Retry-After", "RateLimit", "RateLimit-Remaining", "X-RateLimit-Reset-After"):
        waits.append(told_wait(headers, 0.0))
        del headers[first]
    assert waits == [0.0, 2.0, 3.0, 4.0]
    assert told_wait(headers, 0.0) == 5.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ('"default";r=0;t=5', 5.0),
        ('"default"; r=0; t=5; pk=:dHJpYWwxMjE=:', 5.0),
        ("default;r=0;t=5", 5.0),
        ('"default";t=5;r=0', 5.0),
        ('"hour";r=0;t=50, "day";r=0;t=900', 900.0),
        ('"hour";r=0;t=50, "day";r=7;t=900', 50.0),
        ('"a, b;r=0;t=99";r=0;t=5', 5.0),
        (r'"a\";r=0;t=99,\\";r=0;t=5', 5.0),
        ('"default";r=0;t=0', 0.0),
        ('"default";r=0, "other";r=0;t=8', 8.0),
        ("limit=100, remaining=0, reset=5", 5.0),
        ("limit=100,remaining=0,reset=5", 5.0),
        ("reset=5, remaining=0", 5.0),
    ],
)
def test_a_ratelimit_with_nothing_left_tells_its_wait(value: str, seconds: float) -> None:
    assert told(ratelimit=value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        '"default";r=1;t=5',
        '"default";r=0',
        '"default";t=5',
        '"default";r=0;t=-5',
        '"default";r=0;t=nan',
        '"default";r=-1;t=5',
        '"default";r=?0;t=5',
        '"default;r=0;t=5',
        r'"default\";r=0;t=5',
        '"a";r=0, "b";t=5',
        '"a, b;r=0;t=5";r=3;t=1',
        "limit=100, remaining=1, reset=5",
        "limit=100, remaining=0",
        "limit=100, remaining=0, reset=soon",
        "0;5",
    ],
)
def test_a_ratelimit_with_something_left_or_malformed_tells_nothing(value: str) -> None:
    assert told(ratelimit=value) is None


@pytest.mark.parametrize("prefix", ["", "X-"])
def test_remaining_and_reset_tell_a_wait_only_once_nothing_remains(prefix: str) -> None:
    def wait(remaining: str, reset: str) -> float | None:
        return told_wait({f"{prefix}RateLimit-Remaining": remaining, f"{prefix}RateLimit-Reset": reset}, 0.0)

    assert wait("0", "7") == 7.0
    assert wait("0", "1.5") == 1.5
    assert wait("3, 0", "7, 9, later") == 9.0
    assert wait("1", "7") is None
    assert wait("-1", "7") is None
    assert wait("none", "7") is None
    assert wait("0", "-7") is None
    assert wait("0", "") is None
    assert wait("", "7") is None


@pytest.mark.parametrize("prefix", ["", "X-"])
def test_a_large_reset_is_an_instant(prefix: str) -> None:
    def wait(reset: str, now: float, date: str = "") -> float | None:
        spent = {f"{prefix}RateLimit-Remaining": "0", f"{prefix}RateLimit-Reset": reset}
        return told_wait({**spent, "Date": date}, now)

    assert wait("1700000005", 1_700_000_000.0) == 5.0
    assert wait("1700000005.25", 1_700_000_000.5) == 5.0
    assert wait("1700000005", 1_700_000_000.9) == 5.0
    assert wait("1700000005", 1_700_000_009.0) == 0.0
    assert wait("784111780", 0.0, date=IMF) == 3.0
    assert wait("9" * 400, 1_700_000_000.0) == WEEK


def test_reset_after_is_preferred_to_reset_unless_it_is_malformed() -> None:
    spent = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1700000009"}
    assert told_wait({**spent, "X-RateLimit-Reset-After": "1.25"}, 1_700_000_000.0) == 1.25
    assert told_wait({**spent, "X-RateLimit-Reset-After": "-1"}, 1_700_000_000.0) == 9.0


@pytest.mark.parametrize(
    "value", ["604801", "9" * 400, "9" * 5_000, "9" * 100_000, "Fri, 31 Dec 9999 23:59:59 GMT"], ids=short
)
def test_a_wait_beyond_the_cap_is_told_as_the_cap(value: str) -> None:
    assert told_wait({"Retry-After": value}, NOV_1994) == WEEK
    assert told_wait({"Retry-After": value, "Date": "Mon, 01 Jan 0001 00:00:00 GMT"}, NOV_1994) == WEEK
    assert told_number(10**5_000) == MAX_TOLD == WEEK


def test_only_the_beginning_of_an_endless_header_is_read() -> None:
    assert told_wait({"Retry-After": "1," * 50_000 + "9"}, 0.0) == 1.0
    assert told_wait({"RateLimit": "a;r=0;t=1," * 10_000 + "a;r=0;t=9"}, 0.0) == 1.0
    assert told_number("1" + " " * 100_000) == 1.0
    assert told_number(" " * 100_000 + "1") is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0), (5, 5.0), (64.57, 64.57), ("64.57", 64.57), (" 5 ", 5.0), (-0.0, 0.0), (604_801, WEEK),
        (10**400, WEEK), (1.7e308, WEEK), (math.inf, WEEK), ("9" * 400, WEEK), (5e-324, 5e-324),
    ],
    ids=short,
)  # fmt: skip
def test_a_number_of_a_body_is_a_float_within_bounds(value: object, seconds: float) -> None:
    number = told_number(value)
    assert number == seconds
    assert is_sane(number)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        -1,
        -0.5,
        math.nan,
        -math.inf,
        -(10**400),
        b"5",
        [5],
        {"retry_after": 5},
        5j,
        IMF,
        *NO_NUMBERS,
    ],
    ids=short,
)
def test_what_is_no_number_of_seconds_is_none(value: object) -> None:
    assert told_number(value) is None


# What follows are properties: hostile text, and a round trip of valid values.

no_deadline = settings(deadline=None)
often = settings(no_deadline, max_examples=300)

NAMES = [
    "Retry-After", "Date", "RateLimit", "RateLimit-Remaining", "RateLimit-Reset", "X-RateLimit-Remaining",
    "X-RateLimit-Reset-After", "X-RateLimit-Reset",
]  # fmt: skip
FRAGMENTS = [
    "0", "5", "60", "1994", "0000", "99999", "00", "9" * 400, "1e400", "nan", "inf", "-", "+", ".", ",",
    ";", "=", ":", " ", "\t", "\n", "\x00", '"', "\\", "r=0", ";t=", "t=5", "limit=", "remaining=0",
    ", reset=", "Sun", "Sunday", ", ", "06", "31", " Nov ", "-Feb-", " Feb ", " Nov  6 ", "08:49:37",
    "24:00:00", "23:59:60", " GMT", " +", "9999999999999999999", "+0130", "-2359", "+9999", "\u0665",
    "\xb2", "\udc80", "1700000000", IMF, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
    '"a";r=0;t=5',
]  # fmt: skip
hostile = st.one_of(
    st.text(max_size=60),
    st.text(st.characters(), max_size=60),  # lone surrogates too
    st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")),
    st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join),
    st.tuples(st.sampled_from(FRAGMENTS), st.integers(100, 100_000)).map(
        lambda made: (made[0] * made[1])[:100_000]
    ),
    st.sampled_from(NO_NUMBERS + NO_DATES + ["0"]),
    st.from_regex(
        r"([A-Z][a-z]{2,8}, )?[0-9]{1,3}[ -](Feb|Nov|Dec)[ -][0-9]{1,5} [0-2][0-9]:[0-5][0-9]:[0-9]{2} "
        r"(GMT|[+-][0-9]{1,20})",
        fullmatch=True,
    ),
    st.from_regex(
        r"[A-Z][a-z]{2} (Feb|Nov|Dec) {1,2}[0-9]{1,2} [0-2][0-9]:[0-5][0-9]:[0-9]{2} [0-9]{1,5}",
        fullmatch=True,
    ),
)
seconds_of_a_clock = st.floats(0, 4e9)
instants = st.integers(0, 253402300799)  # 1970 to 9999

Form = Callable[[int], str]


def imf(instant: int) -> str:
    return formatdate(instant, usegmt=True)


def rfc850(instant: int) -> str:
    return time.strftime("%A, %d-%b-%y %H:%M:%S GMT", time.gmtime(instant))


def asctime(instant: int) -> str:
    return time.asctime(time.gmtime(instant))


@often
@given(st.dictionaries(st.sampled_from(NAMES), hostile), seconds_of_a_clock | st.floats())
def test_no_headers_raise_or_tell_a_wait_out_of_bounds(headers: dict[str, str], now: float) -> None:
    assert is_sane(told_wait(headers, now))


@often
@given(st.sampled_from(NAMES[2:]), hostile, hostile, seconds_of_a_clock)
def test_no_reset_raises_or_tells_a_wait_out_of_bounds_once_nothing_remains(
    name: str, value: str, date: str, now: float
) -> None:
    spent = {"RateLimit-Remaining": "0", "X-RateLimit-Remaining": "0", "Date": date}
    assert is_sane(told_wait({**spent, name: value}, now))


@often
@given(st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.binary() | hostile)
def test_no_value_of_a_body_raises_or_is_a_number_out_of_bounds(value: object) -> None:
    assert is_sane(told_number(value))


@no_deadline
@given(st.from_regex(r"[0-9]{1,400}(\.[0-9]{0,30})?", fullmatch=True), st.integers(0, 3), hostile)
def test_a_valid_number_is_told_in_full_wherever_it_stands(value: str, place: int, other: str) -> None:
    least = min(float(value), WEEK)
    assert told_number(value) == least
    assume("," not in other)
    items = [other[:100], "0", "junk"]
    items.insert(place, value)
    wait = told_wait({"Retry-After": ",".join(items)}, 0.0)
    assert wait is not None
    assert wait >= least


@no_deadline
@given(instants | st.integers(1_700_000_000, 1_700_000_100), st.sampled_from([imf, asctime]), st.data())
def test_a_date_is_never_early_and_at_most_a_second_late(
    instant: int, form: Form, data: st.DataObject
) -> None:
    now = data.draw(st.floats(instant - 700_000, instant + 10) | st.floats(0, 3e11))
    wait = told_wait({"Retry-After": form(instant)}, now)
    assert wait is not None
    assert wait >= min(instant - now, WEEK)
    assert wait <= max(instant - now, 0.0) + 1.0


@no_deadline
@given(
    st.integers(0, 4_000_000_000),
    st.integers(-1_000_000, 1_000_000),
    st.sampled_from([imf, rfc850, asctime]),
    st.sampled_from([imf, rfc850, asctime]),
    st.floats(-7e8, 7e8),
)
def test_between_two_dates_of_the_server_the_wait_is_exact(
    sent: int, delay: int, date_form: Form, retry_form: Form, skew: float
) -> None:
    assume(sent + delay >= 0)
    headers = {"Date": date_form(sent), "Retry-After": retry_form(sent + delay)}
    assert told_wait(headers, sent + skew) == min(max(delay, 0.0), WEEK)


names = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
limits = st.tuples(names, st.integers(0, 2), st.integers(0, 10**6))


@no_deadline
@given(st.lists(limits, min_size=1, max_size=8), st.sampled_from([",", ", ", " ,\t"]))
def test_of_a_list_of_limits_the_longest_spent_one_counts_whatever_their_names(
    items: list[tuple[str, int, int]], comma: str
) -> None:
    quoted = [(re.sub(r'(["\\])', r"\\\1", name), left, reset) for name, left, reset in items]
    header = comma.join(f'"{name}";r={left};t={reset}' for name, left, reset in quoted)
    spent = [min(float(reset), WEEK) for _, left, reset in items if left == 0]
    assert told_wait({"RateLimit": header}, 0.0) == max(spent, default=None)


@no_deadline
@given(st.integers(10**8, 10**11), st.floats(-10, 700_000), st.booleans())
def test_a_reset_that_is_an_instant_is_never_early(instant: int, ahead: float, older: bool) -> None:
    prefix = "" if older else "X-"
    now = instant - ahead
    wait = told_wait({f"{prefix}RateLimit-Remaining": "0", f"{prefix}RateLimit-Reset": str(instant)}, now)
    assert wait is not None
    assert min(instant - now, WEEK) <= wait <= max(instant - now, 0.0) + 1.0
