"""When a text ends: stop strings that are found across token borders, before any of them is shown.

A stop string may arrive in pieces, and may begin inside one token and end inside another. `StopStrings` therefore
holds back the end of the text for as long as it could still grow into a stop string.
"""

from __future__ import annotations

from collections.abc import Sequence

from fangcun.errors import FangcunError


def check_stop(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """Stop strings as a tuple; one string stands for itself. Raises FangcunError for anything that is no text."""
    strings = (stop,) if isinstance(stop, str) else tuple(stop or ())
    for string in strings:
        if not isinstance(string, str) or not string:
            raise FangcunError(f"stop holds {string!r}, expected strings of at least one character.")
    return strings


class StopStrings:
    """Pass text through until one of the stop strings is complete; neither it nor what follows comes out.

    The string that is complete first ends the text, and of several that end at the same character the longest one:
    the result does not depend on how the text was cut into pieces.
    """

    def __init__(self, stop: str | Sequence[str] | None = ()) -> None:
        self.stop = check_stop(stop)
        self.stopped = False
        """Whether a stop string was found. Nothing comes out from then on."""
        self._held = ""

    def push(self, piece: str) -> str:
        """Take the next piece of text; return what can be shown now (often the piece, sometimes nothing)."""
        if self.stopped:
            return ""
        text = self._held + piece
        found = [(start + len(string), start) for string in self.stop if (start := text.find(string)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        held_length = self._possible_beginning(text)
        self._held = text[len(text) - held_length :]
        return text[: len(text) - held_length]

    def flush(self) -> str:
        """The text that was held back, once it is clear that nothing follows."""
        held, self._held = self._held, ""
        return held

    def _possible_beginning(self, text: str) -> int:
        """Length of the longest end of `text` that is the beginning of a stop string."""
        longest = max((len(string) for string in self.stop), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            end = text[-length:]
            if any(string.startswith(end) for string in self.stop):
                return length
        return 0
