"""The look of every page and picture of the library: its colours, in light and in dark, its fonts, what pages share."""

from pathlib import Path
from typing import Any

SANS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
SERIF = 'ui-serif, "Iowan Old Style", "Palatino Linotype", Palatino, Georgia, serif'
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"

LIGHT = {
    "page": "#f8f6f1", "card": "#fffefb", "ink": "#1d1b18", "soft": "#635e56", "pale": "#b5afa4", "rule": "#e5e0d6",
    "faint": "#f0ece3", "accent": "#c2330a", "better": "#00767a", "kept": "#c2330a", "on-kept": "#ffffff",
    "s0": "#0b62b0", "s1": "#369bd2", "s2": "#007a5a", "s3": "#b3589b", "s4": "#6f6f6f", "s5": "#8b7500", "s6": "#c77700",
    "s7": "#c2330a", "s8": "#5a3fb0", "s9": "#12959a", "s10": "#84204f", "s11": "#7a4a21", "s12": "#1c6f8c",
    "s13": "#9a6a00", "s14": "#4a7d2c", "s15": "#a4483c",
}  # fmt: skip
DARK = {
    "page": "#121315", "card": "#1a1c1f", "ink": "#ece8e0", "soft": "#a8a49b", "pale": "#6d6a64", "rule": "#32353a",
    "faint": "#24272b", "accent": "#ff7a4d", "better": "#3cbebe", "kept": "#d64a1e", "on-kept": "#ffffff",
    "s0": "#4d9df0", "s1": "#9ad8ff", "s2": "#2fb98c", "s3": "#e08fca", "s4": "#a9a9a9", "s5": "#cdb53a", "s6": "#ffb347",
    "s7": "#ff7042", "s8": "#a48cff", "s9": "#4fd0d4", "s10": "#d76c9f", "s11": "#c99a6b", "s12": "#63b9d6",
    "s13": "#d9a63a", "s14": "#92c46f", "s15": "#ec8f80",
}  # fmt: skip
"""Colours by name; s0, s1, ... are those of series, told apart with any kind of colour vision by their marks, too."""

SERIES = sum(name[0] == "s" and name[1:].isdigit() for name in LIGHT)
FEW = tuple(f"s{i}" for i in (0, 6, 2, 3, 4, 5, 1, 7))
"""The series' colours in the order in which a picture of a few lines takes them: the first are the furthest apart."""


def css() -> str:
    """What the style of a page begins with: colours as variables, `--ink` and so on, and the rules that all pages share."""
    rules = (Path(__file__).with_name("look.css")).read_text(encoding="utf-8")
    fonts = f"--sans: {SANS}; --serif: {SERIF}; --mono: {MONO};"
    dark = f"@media (prefers-color-scheme: dark) {{\n:root {{ {_variables(DARK)} }}\n}}"
    return f":root {{ color-scheme: light dark; {_variables(LIGHT)} }}\n{dark}\n:root {{ {fonts} }}\n{rules}"


def matplotlib() -> dict[str, Any]:
    """The settings of matplotlib that a picture is drawn with, in the light colours."""
    soft = dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), LIGHT["soft"])
    return soft | {
        "text.color": LIGHT["ink"],
        "figure.facecolor": LIGHT["card"],
        "axes.facecolor": LIGHT["card"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.frameon": False,
        "legend.fontsize": 8,
    }


def _variables(colors: dict[str, str]) -> str:
    return " ".join(f"--{name}: {color};" for name, color in colors.items())


__all__ = ["DARK", "FEW", "LIGHT", "MONO", "SANS", "SERIES", "SERIF", "css", "matplotlib"]
