"""What became of another tool's configuration: mapped, done better, without effect here, refused."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ImportReport:
    """Lines for the user, one per key of the imported file, in its own spelling."""

    tool: str
    """Whose format it was, such as "litgpt"."""
    file: str
    mapped: list[str] = field(default_factory=list)
    """Means the same here."""
    better: list[str] = field(default_factory=list)
    """Means more here than there, or is kept where the other tool ignores it."""
    without_effect: list[str] = field(default_factory=list)
    """Has nothing to act on here; the run is the same without it."""
    refused: list[str] = field(default_factory=list)
    """Cannot be done here, with the reason. A file with such keys is not run."""

    def render(self) -> str:
        """The report as plain text, one group after the other; empty groups are left out."""
        lines = [f"{self.file} is a {self.tool} configuration; read as follows."]
        groups = (
            ("mapped", self.mapped),
            ("done better", self.better),
            ("without effect here", self.without_effect),
            ("refused", self.refused),
        )
        for title, entries in groups:
            if entries:
                lines.append(f"  {title}:")
                lines.extend(f"    {entry}" for entry in entries)
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()
