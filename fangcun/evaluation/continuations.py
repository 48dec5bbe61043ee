"""Log-probabilities of continuations after contexts: a context is read once for all its continuations.

Continuations of one context lie behind it as branches of a tree that do not see each other, in one forward pass; those
of one id cost no position at all. What contexts have in common (a few-shot block) is read once too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tokenizers

from fangcun.evaluation.scoring import (
    BATCH_TOKENS,
    Head,
    Row,
    log_probability,
    log_probability_and_greedy,
    predict_rows,
    target_logit,
)
from fangcun.evaluation.shared_prefix import cluster, read_prefix
from fangcun.model import Transformer

Pair = tuple[Sequence[int], Sequence[int]]
"""Ids of a context, at least one, and of what follows it."""


@dataclass(frozen=True)
class Score:
    """Of one continuation."""

    log_probability: float
    """In nats; summed over its ids. With `relative` it may lack a summand that is the same for one context."""
    greedy: bool
    """Whether each of its ids is the likeliest one. False where it was not asked for."""


def encode_pair(backend: tokenizers.Tokenizer, context: str, continuations: Sequence[str]) -> list[Pair]:
    """`encode_pairs` of one context."""
    return encode_pairs(backend, [context], [continuations])[0]


def encode_pairs(
    backend: tokenizers.Tokenizer, contexts: Sequence[str], continuations: Sequence[Sequence[str]]
) -> list[list[Pair]]:
    """Ids of each context, which is not empty, with each of its continuations.

    The rule is lm-eval's, so that its answers are ours: spaces at the end of a context go over to the continuation; the
    ids of a continuation are those of the whole text past as many as the context has when it is encoded alone.
    """
    texts, counts = [], []
    for context, choices in zip(contexts, continuations, strict=True):
        trimmed = context.rstrip()
        texts += [trimmed, *(context + choice for choice in choices)]
        counts.append(1 + len(choices))
    encoded = [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
    pairs: list[list[Pair]] = []
    start = 0
    for count in counts:
        before, *wholes = encoded[start : start + count]
        pairs.append([(before, whole[len(before) :]) for whole in wholes])
        start += count
    return pairs


def score_continuations(
    model: Transformer,
    pairs: Sequence[Pair],
    *,
    relative: bool = False,
    greedy: bool = False,
    share: bool = True,
    batch_tokens: int = BATCH_TOKENS,
    done: Callable[[int], None] | None = None,
) -> list[Score]:
    """The score of each pair, in the order given.

    relative: scores need only be comparable among the continuations of a context, which spares the head where all of all
    contexts have one id. greedy: also tell whether it would be written with temperature 0. share: read common contexts and beginnings
    once (False: each pair by itself, the reference of the tests). done: called with the pairs of each batch.

    A context that does not fit `block_size` with its continuation is cut on the left; a continuation longer than that is
    predicted in pieces. An empty continuation has log-probability 0.
    """
    block_size = model.config.block_size
    share = share and model.ngrams is None  # its embedding looks at the ids before, which in a tree are others
    pieces: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []
    for number, (context, continuation) in enumerate(pairs):
        read, rest = tuple(context), tuple(continuation)
        while rest:
            taken, rest = rest[:block_size], rest[block_size:]
            pieces.append((number, read[-(block_size + 1 - len(taken)) :], taken))
            read += taken
    members = _groups(pieces, block_size) if share else [[place] for place in range(len(pieces))]
    contexts = [pieces[group[0]][1] for group in members]
    head: Head = log_probability_and_greedy if greedy else log_probability
    if relative and not greedy and all(len(continuation) == 1 for _, continuation in pairs):
        head = target_logit
    totals, all_greedy = [0.0] * len(pairs), [True] * len(pairs)
    for common, chosen in cluster(contexts) if share else [(0, list(range(len(members))))]:
        prefix = read_prefix(model, contexts[chosen[0]][:common]) if common else None
        rows = [_tree(contexts[n][common:], [pieces[p][2] for p in members[n]]) for n in chosen]
        report = None if done is None else _counting(done, [len(members[n]) for n in chosen])
        found = predict_rows(model, rows, head, prefix=prefix, batch_tokens=batch_tokens, done=report)
        for n, values in zip(chosen, found, strict=True):
            start = 0
            for place in members[n]:
                number, _, taken = pieces[place]
                own = values[start : start + len(taken)]
                totals[number] += float(own[:, 0].sum())
                all_greedy[number] &= greedy and bool(own[:, -1].all())
                start += len(taken)
    return [Score(total, wins) for total, wins in zip(totals, all_greedy, strict=True)]


def _groups(pieces: Sequence[tuple[int, tuple[int, ...], tuple[int, ...]]], block_size: int) -> list[list[int]]:
    """Places of pieces with the same context, as many together as lie in block_size behind it."""
    groups: list[list[int]] = []
    open_groups: dict[tuple[int, ...], tuple[list[int], int]] = {}
    for place, (_, context, taken) in enumerate(pieces):
        group, size = open_groups.get(context, ([], block_size + 1))
        if size + len(taken) - 1 > block_size:
            group, size = [], len(context)
            groups.append(group)
        group.append(place)
        open_groups[context] = (group, size + len(taken) - 1)
    return groups


def _tree(context: Sequence[int], branches: Sequence[Sequence[int]]) -> Row:
    """The context, then each branch but for its last id, which is only predicted."""
    inputs, numbers = list(context), [0] * len(context)
    targets: list[int] = []
    places: list[int] = []
    last = len(context) - 1
    for number, branch in enumerate(branches, 1):
        places += [last, *range(len(inputs), len(inputs) + len(branch) - 1)]
        targets += branch
        inputs += branch[:-1]
        numbers += [number] * (len(branch) - 1)
    # A single branch is one text, and without branches there is no tree.
    return Row(inputs, targets, places, numbers if len(set(numbers)) > 2 else None)


def _counting(done: Callable[[int], None], sizes: Sequence[int]) -> Callable[[int], None]:
    """Rows -> pairs, on average: which rows a batch had is not told."""
    mean = sum(sizes) / max(1, len(sizes))
    return lambda rows: done(round(rows * mean))
