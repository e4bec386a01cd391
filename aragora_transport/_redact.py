"""Foreign text made safe to show: without secrets, one line, of a bounded length.

A secret is known by the name that stands before it, by its place in a URL, by its own shape, or because
somebody holds it as a `Secret`. What replaces it is found again by the same rules, and stays as it is.
"""

from __future__ import annotations

import re
import threading
import weakref
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable

HIDDEN = "[redacted]"
TELLING = 6  # characters: anything shorter also stands in texts by chance
_MOST = 300  # characters of a text that are shown
_READ = 8192  # characters of a text that are looked at
# Control characters, line and paragraph separators, what turns the direction of writing, half characters.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_PASSES = 8  # at most; the second finds nothing new in all but made-up texts
_LONG_KEY = 16  # characters: `?key=` names ordinary things, too

secrets: weakref.WeakSet[Any] = weakref.WeakSet()  # every Secret that somebody holds
secrets_lock = threading.Lock()

# --- names, with their signs and case taken away ---

_NAME = re.compile(
    "token|secret|passw|apikey|accesskey|privatekey|subscriptionkey|signature|credential|authorization"
    "|cookie|sessionid|jwt|codeverifier"
)
_HARMLESS = re.compile(
    "tokens$|(?:page|next|prev|continuation|skip|sync)token$|token(?:type|count|limit|url|endpoint)"
    "|secretary|signature(?:algorithm|method|version)|cookies?(?:policy|consent)"
)
_IN_QUERY = frozenset({"sig", "code", "auth", "pwd", "hm", "ticket"})  # names of much else in other texts


def is_secret(name: str) -> bool:
    """Whether what goes by this name is one."""
    folded = _folded(name)
    return _NAME.search(folded) is not None and _HARMLESS.search(folded) is None


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", unquote(unquote(name)).lower())


def _assignment(match: re.Match[str]) -> str:
    sign, name, value = match.groups()
    in_query = sign and (
        (known := _folded(name)) in _IN_QUERY or (known == "key" and len(value) >= _LONG_KEY)
    )
    return f"{sign}{name}={HIDDEN}" if in_query or is_secret(name) else match[0]


def _pair(match: re.Match[str]) -> str:
    before, name, between, quote = match.groups()
    return f"{before}{name}{between}{quote}{HIDDEN}{quote}" if is_secret(name) else match[0]


# --- what to look for, and what to leave of it ---

_END = r"\s/?#\"'<>\\"  # what no segment of a path holds
_REST = r"[^\s?#\"'<>\\]+"  # of a path
_RULES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (
        re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]*(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?"),
        HIDDEN,
    ),
    # Headers, as lines.
    (
        re.compile(
            r"(?i)(?<![\w-])((?:proxy-)?authorization|(?:set-)?cookie|api-key"
            r"|x-(?:[a-z0-9]{1,20}-){0,4}(?:token|key|secret|signature|auth)): *[^\r\n\"']+"
        ),
        rf"\1: {HIDDEN}",
    ),
    # Names and values in quotes: JSON, and what Python shows of headers.
    (
        re.compile(r"""(["'])([\w.%+-]{1,64})(["'] ?(?::|,|=>|=) ?b?)(["'])(?:(?<=")[^"]*"|(?<=')[^']*')"""),
        _pair,
    ),
    (re.compile(r"([?&;#]?)(?<![\w.%+\[\]~-])([\w.%+\[\]~-]{1,64})=([^\s&;#\"'<>\\,]+)"), _assignment),
    # URLs.
    (re.compile(r"(?<=://)[^\s/?#@\"'<>\\]+@"), f"{HIDDEN}@"),
    (re.compile(rf"(?i)(/bot)[0-9]+(?::|%3A)[^{_END}]+"), rf"\1{HIDDEN}"),  # Telegram
    (
        re.compile(
            r"(?i)((?:discord(?:app)?\.com/api/(?:v[0-9]+/)?(?:webhooks|interactions)/[0-9]+"
            rf"|/(?:webhooks|interactions)/[0-9]{{15,}})/)[^{_END}]+"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(rf"(//hooks\.slack[a-z-]*\.com/[a-z-]+/){_REST}"), rf"\1{HIDDEN}"),
    (re.compile(r"(/services/)T[A-Z0-9]+/B[A-Z0-9]+/\w+"), rf"\1{HIDDEN}"),  # Slack, where no host is shown
    (re.compile(rf"(?i)((?:/webhookb2|\.office(?:365)?\.com/webhook)/){_REST}"), rf"\1{HIDDEN}"),  # Teams
    # Tokens by their own shape.
    (
        re.compile(
            r"(?i)\b((?:bearer|basic|digest)(?: +|%20))"
            r"(?=[a-z._~+/=-]*[0-9]|(?-i:[A-Za-z._~+/-]*[a-z][A-Z]))[a-z0-9._~+/=-]{8,}"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\b(Bot(?: +|%20))[A-Za-z0-9._~+/=:-]{20,}"), rf"\1{HIDDEN}"),
    (re.compile(r"(?:xox[a-z]|xapp|xwfp)(?:\.xox[a-z])?-[A-Za-z0-9-]{8,}"), HIDDEN),  # Slack
    (re.compile(r"(?i)(?<![0-9])[0-9]{6,12}(?::|%3A)[a-z0-9_-]{30,}"), HIDDEN),  # Telegram
    (re.compile(r"[MNO][A-Za-z0-9_-]{22,27}\.[A-Za-z0-9_-]{6,7}\.[A-Za-z0-9_-]{27,40}"), HIDDEN),  # Discord
    (re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){2,4}"), HIDDEN),  # JSON Web Tokens
    (re.compile(r"gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}"), HIDDEN),
    (re.compile(r"(?<![A-Za-z0-9])(?:sk-[A-Za-z0-9_-]{20,}|[rs]k_(?:live|test)_[A-Za-z0-9]{10,})"), HIDDEN),
    (re.compile(r"(?<![A-Z0-9])A(?:KI|SI)A[A-Z0-9]{16}(?![A-Z0-9])|AIza[\w-]{35}"), HIDDEN),  # AWS, Google
)


def redact(text: str) -> str:
    """`text` with `[redacted]`, or a placeholder, in place of each secret."""
    with secrets_lock:
        held = list(secrets)
    forms = [(form, secret.placeholder) for secret in held for form in secret.forms if len(form) >= TELLING]
    for form, placeholder in sorted(forms, key=_length, reverse=True):  # one may begin like another
        text = text.replace(form, placeholder)
        if "%" in form:  # others quote in small letters
            text = text.replace(_small(form), placeholder)
    for _ in range(_PASSES):
        before = text
        for pattern, shown in _RULES:
            text = pattern.sub(shown, text)
        if text == before:
            return text
    return HIDDEN  # what replaces a secret can uncover the next one, but not for ever


def _length(pair: tuple[str, str]) -> int:
    return len(pair[0])


def _small(form: str) -> str:
    return re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), form)


def one_line(text: str) -> str:
    """`text` without secrets, what breaks a line or a terminal escaped, cut to 300 characters."""
    shown = redact(text[:_READ])
    clean = _UNSAFE.sub(_escaped, shown[:_MOST])
    return clean if len(shown) <= _MOST >= len(clean) else clean[: _MOST - 1] + "…"


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def describe_error(error: Exception) -> str:
    """What an error says of itself: its class and its text, never a header's value."""
    name = type(error).__name__
    if name == "LocalProtocolError":
        return name  # it quotes the header that it refuses: a token with a line feed at its end, say
    try:
        text = redact(str(error)[:_READ])
    except Exception:  # noqa: BLE001  # an error of somebody else's that cannot even say what it is
        return name
    return f"{name}: {text}" if text else name
