"""One look: colours and fonts are defined in one file, and whatever a page's style names is there."""

import re
from pathlib import Path

import solomonic
from solomonic._utils.look import DARK, FEW, LIGHT, SERIES, css

ROOT = Path(solomonic.__file__).parent


def sources():
    files = (path for path in ROOT.rglob("*") if path.suffix in (".py", ".css", ".j2", ".js"))
    return {path: path.read_text(encoding="utf-8") for path in files if path.name != "look.py"}


def test_no_other_file_has_a_colour_or_a_font_of_its_own():
    for path, text in sources().items():
        assert not re.search(r"""(?<![&\w])["' ]#[0-9a-fA-F]{3}([0-9a-fA-F]{3})?\b|rgba?\(|hsl\(""", text), path
        assert not re.search(r"sans-serif|Menlo|Georgia", text), path


def test_light_and_dark_have_the_same_colours():
    assert LIGHT.keys() == DARK.keys() and set(FEW) <= LIGHT.keys() and f"s{SERIES - 1}" in LIGHT
    assert all(re.fullmatch("#[0-9a-f]{6}", color) for color in [*LIGHT.values(), *DARK.values()])
    series = [[colors[f"s{i}"] for i in range(SERIES)] for colors in (LIGHT, DARK)]
    assert all(len(set(one)) == SERIES for one in series)


def test_every_variable_of_a_style_is_defined():
    text, files = css(), sources()
    defined = set(re.findall(r"--([a-z][\w-]*): ", text + "".join(files.values())))
    for path, source in files.items():
        assert set(re.findall(r"var\(--([a-z][\w-]*)\)", source)) <= defined, path
    light, dark = text.split("prefers-color-scheme: dark")
    for name in LIGHT:
        assert f"--{name}: {LIGHT[name]};" in light and f"--{name}: {DARK[name]};" in dark


def contrast(one, other):
    def luminance(color):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_and_lines_can_be_told_from_the_ground():
    """WCAG 2.2: 4.5 for text, 3 for what a picture is understood by."""
    for colors in (LIGHT, DARK):
        assert (
            min(contrast(colors[text], colors[on]) for text in ("ink", "soft", "accent") for on in ("page", "card"))
            > 4.5
        )
        assert min(contrast(colors[f"s{i}"], colors["card"]) for i in range(SERIES)) > 3
