"""README and docs hold together: links, anchors, fences, commands, and that their blocks are run."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"python", "toml", "sh", "text"}
FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def text_of(page):
    return page.read_text(encoding="utf-8")


def links_of(page):
    """(target page, anchor) of every link that leads to a page of ours or within one."""
    for target in re.findall(r"\[[^\]]+\]\(([^)\s]+)\)", FENCE.sub("", text_of(page))):
        if not target.startswith(("https://", "http://")):
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


def anchors_of(page):
    """What GitHub makes of the page's headings."""
    seen = Counter()
    for heading in re.findall(r"^#{1,6} (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        yield f"{slug}-{seen[slug]}" if seen[slug] else slug
        seen[slug] += 1


@every_page
def test_every_link_leads_somewhere(page):
    for target, anchor in links_of(page):
        assert target.is_file(), f"{target} is missing"
        assert not anchor or anchor in set(anchors_of(target)), f"{target.name} has no #{anchor}"


def test_every_page_can_be_reached_from_the_readme():
    reached, ahead = set(), [README]
    while ahead:
        page = ahead.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            ahead += [target for target, _ in links_of(page)]
    assert reached == set(PAGES)


@every_page
def test_every_heading_in_a_contents_list_stands_below_in_that_order(page):
    listed = re.findall(r"^\* \[([^\]]+)\]\(#[^)]+\)$", text_of(page), re.MULTILINE)
    headings = re.findall(r"^## (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    assert not listed or listed == headings


@every_page
def test_every_fence_is_closed_and_says_what_it_holds(page):
    fences = FENCE.findall(text_of(page))
    assert text_of(page).count("```") == 2 * len(fences)
    assert {language for language, _ in fences} <= LANGUAGES


@every_page
def test_every_python_block_is_run(page, request):
    blocks = [language for language, _ in FENCE.findall(text_of(page))].count("python")
    collected = request.config.pluginmanager.get_plugin("fenced-blocks").pytest_collect_file(
        page, request.session
    )
    assert len(list(collected.collect())) == blocks
    assert blocks or page.name in {"changelog.md", "benchmarks.md"}


def test_the_pages_are_among_what_pytest_runs_when_it_is_told_nothing():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert {"README.md", "docs"} <= set(config["tool"]["pytest"]["ini_options"]["testpaths"])


def test_the_readme_names_its_commands_and_the_oldest_python():
    commands = [body.strip() for language, body in FENCE.findall(text_of(README)) if language == "sh"]
    assert commands[:2] == [
        "pip install '.[cli]' && aragora-transport demo",
        "pip install -e '.[dev]' && pytest",
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in text_of(README)


def test_every_module_that_a_command_runs_is_there():
    shells = [body for page in PAGES for language, body in FENCE.findall(text_of(page)) if language == "sh"]
    modules = re.findall(r"python -m ([\w.]+)", "\n".join(shells))
    assert modules
    for module in modules:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
