"""Personal data masked: mobile numbers, numbers of identity cards, e-mail addresses."""

from __future__ import annotations

import re
from collections.abc import Sequence

MASKS = {"email": "[EMAIL]", "id": "[ID]", "phone": "[PHONE]"}
_EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,10}(?![A-Za-z0-9])", re.ASCII
)
_ID = re.compile(
    r"(?<![0-9])[1-9][0-9]{5}(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{3}[0-9Xx](?![0-9])"
)
_MOBILE = re.compile(r"(?<![0-9])(?:\+?86[- ]?)?1[3-9][0-9](?:[0-9]{8}|[- ][0-9]{4}[- ][0-9]{4})(?![0-9])")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK = "10X98765432"


def mask(text: str, kinds: Sequence[str]) -> tuple[str, int]:
    """`text` with the data of `kinds` replaced by `MASKS`, and how many were. Identity numbers count only with a right
    check digit (GB 11643-1999): order numbers and dates stay."""
    count = 0
    if "email" in kinds and "@" in text:
        text, found = _EMAIL.subn(MASKS["email"], text)
        count += found
    if "id" in kinds:

        def put(match: re.Match[str]) -> str:
            nonlocal count
            if not _checks(match.group()):
                return match.group()
            count += 1
            return MASKS["id"]

        text = _ID.sub(put, text)
    if "phone" in kinds:
        text, found = _MOBILE.subn(MASKS["phone"], text)
        count += found
    return text, count


def _checks(number: str) -> bool:
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, number[:17], strict=True))
    return _CHECK[total % 11] == number[17].upper()
