"""Writes Tabler's style sheet and the icons in use: `python scripts/vendor_tabler.py`.

Downloads the packages with npm, at the versions below, into a temporary folder. Icons are the names
in calls such as `icon("users")` in the templates of the console. Run it after a template uses
another icon, or after a change of the versions, and commit the files.
"""

import re
import subprocess  # nosec B404
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

CORE, ICONS = "@tabler/core@1.6.1", "@tabler/icons@3.52.0"
CONSOLE = Path(__file__).resolve().parents[1] / "userapi" / "console"
STATIC = CONSOLE / "static"
TIMEOUT_SECONDS = 240

USE_OF_ICON = re.compile(r'\bicon(?:\(|=)"([a-z0-9-]+)"')
RULE = re.compile(r"^([^{}@\s][^{}]*)\{([^{}]*)\}", re.MULTILINE)
DARK = "[data-bs-theme=dark]"
SYSTEM = "[data-bs-theme=system]"


def main() -> None:
    """Write `tabler.min.css`, `tabler-system.css`, `icons.svg` and Tabler's licence."""
    with tempfile.TemporaryDirectory() as scratch:
        core = _unpacked(CORE, Path(scratch) / "core")
        icons = _unpacked(ICONS, Path(scratch) / "icons")
        minified = (core / "dist/css/tabler.min.css").read_text("utf-8")
        (STATIC / "tabler.min.css").write_text(_without_source_map(minified), "utf-8")
        rules = system_rules((core / "dist/css/tabler.css").read_text("utf-8"))
        (STATIC / "tabler-system.css").write_text(rules, "utf-8")
        (STATIC / "icons.svg").write_text(_sprite(icons / "icons/outline"), "utf-8")
        (STATIC / "LICENSE.tabler").write_text((icons / "LICENSE").read_text("utf-8"), "utf-8")


def icons_in_use() -> list[str]:
    """Return the names of the icons that the templates use, sorted."""
    templates = CONSOLE.joinpath("templates").rglob("*.html")
    return sorted({n for path in templates for n in USE_OF_ICON.findall(path.read_text("utf-8"))})


def system_rules(style_sheet: str) -> str:
    """Return Tabler's rules for its dark scheme, applied where the browser prefers a dark scheme.

    Tabler has no scheme that follows the browser. Here it is `data-bs-theme="system"`.
    """
    rules = "\n".join(_rules_for_system(style_sheet))
    return (
        "/* Written by scripts/vendor_tabler.py: the dark scheme of Tabler (MIT),"
        " where the browser prefers it. */\n"
        f"{SYSTEM}{{color-scheme:light dark}}\n"
        f"@media screen and (prefers-color-scheme:dark){{\n{rules}\n}}\n"
    )


def _rules_for_system(style_sheet: str) -> Iterator[str]:
    for selectors, body in RULE.findall(style_sheet):
        chosen = [
            selector.strip().replace(DARK, SYSTEM)
            for selector in selectors.split(",\n")
            if selector.strip().removeprefix(":root").startswith(DARK)
        ]
        if chosen:
            yield f"{','.join(chosen)}{{{' '.join(body.split())}}}"


def _sprite(outlines: Path) -> str:
    symbols = "\n".join(_symbol(outlines / f"{name}.svg") for name in icons_in_use())
    return (
        "<!-- Written by scripts/vendor_tabler.py: icons of Tabler, MIT. -->\n"
        f'<svg xmlns="http://www.w3.org/2000/svg">\n{symbols}\n</svg>\n'
    )


def _symbol(drawing: Path) -> str:
    """Return an icon as a symbol, which has the colour of the text around it."""
    shapes = re.sub(r"<!--.*?-->", "", drawing.read_text("utf-8"), flags=re.DOTALL)
    shapes = shapes.partition("<svg")[2].partition(">")[2].removesuffix("</svg>\n")
    shapes = " ".join(shapes.removesuffix("</svg>").split()).replace("> <", "><")
    shapes = shapes.replace('<path stroke="none" d="M0 0h24v24H0z" fill="none" />', "")
    return (
        f'<symbol id="{drawing.stem}" viewBox="0 0 24 24" fill="none" stroke="currentColor"'
        f' stroke-width="2" stroke-linecap="round" stroke-linejoin="round">{shapes}</symbol>'
    )


def _unpacked(package: str, folder: Path) -> Path:
    """Download a package and return the folder of its files."""
    folder.mkdir()
    command = ["npm", "pack", package, "--silent", "--pack-destination", str(folder)]
    subprocess.run(command, check=True, cwd=folder, timeout=TIMEOUT_SECONDS)  # nosec B603
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    return folder / "package"


def _without_source_map(style_sheet: str) -> str:
    return re.sub(r"\n?/\*# sourceMappingURL=.*?\*/\n?", "\n", style_sheet)


if __name__ == "__main__":
    main()
