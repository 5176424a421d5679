"""Numbers as people write them in tables: with currencies, thousands and decimal commas, and what to write instead."""

from __future__ import annotations

import re

_DRESSED = re.compile(r"[-+]?\s*[$€£¥]?\s*[-+]?\d[\d,.' ]*\s*[%$€£¥]?")
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")


def is_number(text: object) -> bool:
    """Whether a cell is read as a number."""
    try:
        float(str(text))
    except ValueError:
        return False
    return True


def is_dressed(text: str) -> bool:
    """Whether a cell is a number and no more than that, with what keeps it from being read as one."""
    return _DRESSED.fullmatch(text) is not None


def readings(text: str) -> list[str]:
    """A dressed number's plain forms: one, none where it is no number after all, or two.

    The last of commas and points stands before the decimals. One comma before exactly three digits may be either:
    ``1,234`` is 1234 and 1.234.
    """
    bare = re.sub(r"[^\d.,+-]", "", text)
    plain = bare.replace(",", "")
    if "." in bare and "," in bare and bare.rfind(",") > bare.rfind("."):
        plain = bare.replace(".", "").replace(",", ".")
    elif "." not in bare and bare.count(",") == 1:
        decimal = bare.replace(",", ".")
        return [plain, decimal] if _THOUSANDS.fullmatch(bare) else [decimal] if is_number(decimal) else []
    elif bare.count(".") > 1:
        plain = bare.replace(",", "").replace(".", "")
    return [plain] if is_number(plain) else []


def how_to_write(cells: list[str]) -> str:
    """What to write instead of such cells, shown for the first of them that can be read in one way, if there is one."""
    cell = next((cell for cell in cells if is_dressed(cell) and len(readings(cell)) == 1), cells[0])
    found = readings(cell)
    said = f"{cell!r}, which is not read as a number: write plain numbers"
    if len(found) == 2:
        return f"{said}, {found[0]} if the comma separates thousands, {found[1]} if it is a decimal comma"
    return f"{said}, {found[0]}" if found else said
