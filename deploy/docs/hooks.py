"""What `mkdocs build` does beside rendering docs/: the pages that stand elsewhere in the repository are taken in from
there, the reference is generated from the code, and links between files of the repository become links of the site.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Files of the repository that are pages of the site as they are.
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "SECURITY.md": "threats.md",
    "CHANGELOG.md": "changelog.md",
    "THIRD_PARTY.md": "third-party.md",
}
ASSETS = {"headrace.css": "assets/headrace.css", "iframe-worker.js": "assets/iframe-worker.js"}
SOURCES = "source"  # where other files that pages link to are shown: source/<path>.md
_LANGUAGES = {".py": "python", ".toml": "toml", ".proto": "protobuf", ".yaml": "yaml", ".yml": "yaml", ".sh": "bash"}
_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
_PICTURE = re.compile(r"!\[([^\]]*)\]\((\S*pictures/\w+\.svg)\)")
_ALONE = re.compile(r'<style class="alone">.*?</style>', re.DOTALL)  # what a picture needs that stands in no page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    made = {site: {"abs_src_path": str(ROOT / name)} for name, site in PAGES.items()}
    made |= {site: {"abs_src_path": str(HERE / name)} for name, site in ASSETS.items()}
    written = {f"reference/{name}.md": text for name, text in reference.pages(ROOT).items()}
    made |= {uri: {"content": text} for uri, text in written.items()}
    made["openapi.json"] = {"content": reference.openapi()}
    written |= {PAGES.get(name) or name.removeprefix("docs/"): (ROOT / name).read_text() for name in _pages()}
    for name in sorted(_linked(written)):
        made[_source(name)] = {"content": _shown(name)}
    for uri, given in made.items():
        files.append(File.generated(config, uri, **given))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    uri = page.file.src_uri
    text = _outside_code(markdown, lambda prose: _inlined(prose, uri))
    return _outside_code(text, lambda prose: _LINK.sub(lambda found: _relinked(found, uri), prose))


def _outside_code(markdown: str, change) -> str:
    """Code blocks are left as they are."""
    out, at = [], 0
    for fence in _FENCE.finditer(markdown):
        out += [change(markdown[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*out, change(markdown[at:])])


def _repository(uri: str) -> str:
    """Where a page of the site stands in the repository."""
    return next((name for name, site in PAGES.items() if site == uri), f"docs/{uri}")


def _resolved(target: str, uri: str) -> str:
    """A link's file, from the repository's root."""
    return normpath(str(PurePosixPath(_repository(uri)).parent / target))


def _outward(target: str) -> bool:
    return ":" in target or target.startswith("/")


def _relinked(found: re.Match[str], uri: str) -> str:
    opened, target, anchor, closed = found[1], found[2], found[3] or "", found[4]
    if _outward(target):
        return found[0]
    name = _resolved(target, uri)
    if name.startswith("docs/"):
        there = name.removeprefix("docs/")
    elif name in PAGES:
        there = PAGES[name]
    elif (ROOT / name).is_file():
        there = _source(name)
    else:
        return found[0]  # which the strict build refuses
    return f"{opened}{relpath(there, str(PurePosixPath(uri).parent))}{anchor}{closed}"


def _source(name: str) -> str:
    """Names that begin with a dot are no pages to mkdocs."""
    return f"{SOURCES}/{name.lstrip('.')}.md"


def _pages() -> list[str]:
    return [*PAGES, *(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]


def _linked(written: dict[str, str]) -> set[str]:
    """Files that are no pages and that some page links to. written: page of the site -> its Markdown."""
    found = set()
    for uri, text in written.items():
        for link in _LINK.finditer(_FENCE.sub("", text)):
            target = "" if _outward(link[2]) else _resolved(link[2], uri)
            if target and target not in PAGES and not target.startswith("docs/") and (ROOT / target).is_file():
                found.add(target)
    return found


def _shown(name: str) -> str:
    path = ROOT / name
    if path.suffix == ".md":
        return path.read_text()
    language = _LANGUAGES.get(path.suffix, "text")
    return f"# {path.name}\n\n`{name}`\n\n`````{language}\n{path.read_text()}\n`````\n"


def _inlined(markdown: str, uri: str) -> str:
    """Pictures of ours stand in the page itself, so that they follow its light or dark scheme."""

    def inline(found: re.Match[str]) -> str:
        path = ROOT / _resolved(found[2], uri)
        svg = " ".join(_ALONE.sub("", path.read_text()).split())
        return f'<figure class="picture" role="img" aria-label="{found[1]}">{svg}</figure>'

    return _PICTURE.sub(inline, markdown)
