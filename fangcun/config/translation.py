"""What an importer writes while it reads another tool's file: the recipe's tree so far, and a report line for each key."""

from __future__ import annotations

from fangcun.config.report import ImportReport
from fangcun.config.yaml_tree import Items, Mapping, Node, Scalar


def plain(text: str, line: int) -> Scalar:
    """A value as it would stand in YAML."""
    return Scalar(text, "plain", line)


def shown_value(node: Node) -> str:
    """A value for a report line."""
    if isinstance(node, Scalar):
        return "null" if node.is_null else node.text
    if isinstance(node, Items):
        return "[" + ", ".join(shown_value(item) for item in node.items) + "]"
    return "{…}" if node.entries else "{}"


class Translation:
    """Settings taken over (`keys`: our dotted key to value and line in `file`) and the report."""

    def __init__(self, file: str, report: ImportReport) -> None:
        self.file = file
        self.report = report
        self.keys: dict[str, tuple[Node, int]] = {}

    def set(self, ours: str, node: Node, line: int) -> None:
        """Take over a value under our key, silently."""
        self.keys[ours] = (node, line)

    def entry(self, theirs: str, node: Node, line: int, text: str) -> str:
        """A report line."""
        return f"{theirs}: {shown_value(node)} (line {line}) → {text}"

    def mapped(self, theirs: str, node: Node, line: int, text: str) -> None:
        """Report a key as mapped; the value is set separately."""
        self.report.mapped.append(self.entry(theirs, node, line, text))

    def same(self, theirs: str, node: Node, line: int, ours: str) -> None:
        """Take over the value as it is."""
        self.set(ours, node, line)
        self.mapped(theirs, node, line, ours)

    def same_unless_null(self, theirs: str, node: Node, line: int, ours: str) -> None:
        """Take over the value; null says nothing here."""
        if not (isinstance(node, Scalar) and node.is_null):
            self.same(theirs, node, line, ours)

    def better(self, theirs: str, node: Node, line: int, ours: str, text: str) -> None:
        """Take over the value, and say what is better about it."""
        self.set(ours, node, line)
        self.report.better.append(self.entry(theirs, node, line, f"{ours}: {text}"))

    def no_effect(self, theirs: str, node: Node, line: int, why: str) -> None:
        """Report a key that nothing here reads."""
        self.report.without_effect.append(self.entry(theirs, node, line, why))

    def refuse(self, theirs: str, node: Node, line: int, why: str) -> None:
        """Report a key that cannot be honoured."""
        self.report.refused.append(self.entry(theirs, node, line, why))

    def default(self, ours: str, text: str, line: int) -> None:
        """Set what the file leaves out to the other tool's default."""
        self.set(ours, plain(text, line), line)
        self.report.mapped.append(f"{ours}: {text} ({self.report.tool}'s default, not in the file)")

    def tree(self) -> Mapping:
        """The recipe's tree, with the lines of the imported file."""
        root = Mapping(line=1)
        for ours, (node, line) in self.keys.items():
            section, _, leaf = ours.rpartition(".")
            target = root
            if section:
                inner = root.entries.setdefault(section, Mapping(line=line))
                root.lines.setdefault(section, line)
                assert isinstance(inner, Mapping)
                target = inner
            target.entries[leaf] = node
            target.lines[leaf] = line
        return root
