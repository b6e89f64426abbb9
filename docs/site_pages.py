"""What MkDocs takes for the pages of the site: those of the manual, and what these link to.

All have their paths in the repository, so that links hold as they stand; MkDocs by itself sees only
files below docs.
"""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = ('README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'configs/*/README.md', 'docs/**/*.md')
# The path of a link to another file, without its anchor
PATH = re.compile(r'(?<=\]\()(?!\w+:|#)[^)\s#]+(?=[)#])')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages and the files that they link to, beside the files of the theme."""
    pages = {path for pattern in PAGES for path in ROOT.glob(pattern)}
    linked = {path for page in pages for path in _targets(page) if path.is_file()}
    theme = [file for file in files if file.src_dir != config.docs_dir]
    return Files([*theme, *(_file(path, config) for path in sorted(pages | linked))])


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Link the README of a folder for the folder, and leave out comments, which hide tables."""
    here = (ROOT / page.file.src_uri).parent

    def to_page(link: re.Match[str]) -> str:
        return f'{link[0]}/README.md' if (here / link[0] / 'README.md').exists() else link[0]

    return PATH.sub(to_page, re.sub(r'^<!-- .* -->$', '', markdown, flags=re.MULTILINE))


def _targets(page: Path) -> set[Path]:
    """What a page links to within the repository."""
    links = PATH.findall(page.read_text(encoding='utf-8'))
    found = {Path(os.path.normpath(page.parent / link)) for link in links}
    return {path for path in found if path.is_relative_to(ROOT)}


def _file(path: Path, config: MkDocsConfig) -> File:
    """A file under its path in the repository; the folder docs is the top of the site."""
    file = File(
        path.relative_to(ROOT).as_posix(), str(ROOT), config.site_dir, config.use_directory_urls
    )
    file.dest_uri = file.dest_uri.removeprefix('docs/')
    return file
