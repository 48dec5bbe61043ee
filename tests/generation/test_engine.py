"""The engine: many at once write what each writes alone; prompts that begin alike are read once; nobody is left waiting."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable

import pytest
import torch

from fangcun.errors import FangcunError
from fangcun.generation import (
    Engine,
    Finished,
    LanguageModel,
    Piece,
    QueueFullError,
    Request,
    SamplingSettings,
    generate_ids,
)
from fangcun.generation.rows import Rows
from fangcun.model import Transformer
from fangcun.tokenizer import Tokenizer

Make = Callable[..., Transformer]
GREEDY = SamplingSettings(0.0)
FAMILIES = ["gpt2", "llama", "mistral", "qwen2", "qwen3"]


class Listener:
    """Collects the events of requests, by number."""

    def __init__(self) -> None:
        self.events: dict[int, list[Piece | Finished]] = defaultdict(list)

    def of(self, number: int) -> Callable[[Piece | Finished], None]:
        return self.events[number].append

    def ids(self, number: int, sample: int = 0) -> list[int]:
        return [
            token.id
            for event in self.events[number]
            if isinstance(event, Piece) and event.sample == sample
            for token in event.tokens
        ]

    def text(self, number: int, sample: int = 0) -> str:
        return "".join(e.text for e in self.events[number] if isinstance(e, Piece) and e.sample == sample)

    def ends(self, number: int) -> list[Finished]:
        return [event for event in self.events[number] if isinstance(event, Finished)]


def run(engine: Engine) -> None:
    for _ in range(10_000):
        if not (engine.running or engine.waiting):
            return
        engine.turn()
    raise AssertionError("the engine does not come to an end")


def prompts(count: int, longest: int, seed: int = 0) -> list[tuple[int, ...]]:
    draw = random.Random(seed)
    return [tuple(draw.randrange(256) for _ in range(draw.randint(0, longest))) for _ in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
def test_requests_together_write_what_each_writes_alone(family: str, make_model: Make, words: Tokenizer) -> None:
    model = make_model(family, block_size=24)
    lm = LanguageModel(model, words)
    engine, listener = Engine(lm, max_batch=3), Listener()
    asked = [
        Request(p, GREEDY if i % 2 else SamplingSettings(1.0), 5 + 7 * i % 40, seed=i, logprobs=0)
        for i, p in enumerate(prompts(9, 20))
    ]
    for number, request in enumerate(asked):
        engine.submit(request, listener.of(number))
    run(engine)
    for number, request in enumerate(asked):
        settings = request.settings
        alone = generate_ids(
            model, request.prompt_ids, vocab_size=words.vocab_size, end_id=words.eos_id,
            max_new_tokens=request.max_new_tokens, temperature=settings.temperature, top_k=settings.top_k, seed=number,
        )  # fmt: skip
        assert listener.ids(number) == alone
        (end,) = listener.ends(number)
        assert end.reason == ("length" if len(alone) == request.max_new_tokens else "stop")


def test_ngram_embeddings_look_back_in_every_row(make_model: Make, words: Tokenizer) -> None:
    model = make_model("qwen3", block_size=24, ngram_rows=500, ngram_length=3, exportable=False)
    with torch.no_grad():
        assert model.ngrams is not None
        model.ngrams.table.weight.normal_(0, 0.5)
    lm = LanguageModel(model, words)
    engine, listener = Engine(lm, max_batch=4), Listener()
    asked = prompts(6, 9, seed=3)
    for number, prompt in enumerate(asked):
        engine.submit(Request(prompt, GREEDY, 20, logprobs=0), listener.of(number))
    run(engine)
    for number, prompt in enumerate(asked):
        alone = generate_ids(
            model, prompt, vocab_size=words.vocab_size, end_id=words.eos_id, max_new_tokens=20, temperature=0.0
        )
        assert listener.ids(number) == alone


def test_samples_of_a_prompt_read_it_once_and_differ(make_model: Make, words: Tokenizer) -> None:
    lm = LanguageModel(make_model("qwen3", block_size=64), words)
    engine, listener = Engine(lm, max_batch=8), Listener()
    prompt = tuple(range(40))
    engine.submit(Request(prompt, SamplingSettings(1.0), 12, seed=5, n=4, logprobs=0), listener.of(0))
    run(engine)
    samples = [listener.ids(0, sample) for sample in range(4)]
    assert len({tuple(sample) for sample in samples}) == 4
    assert [end.n_cached_tokens for end in listener.ends(0)].count(0) == 1
    assert sum(end.n_cached_tokens for end in listener.ends(0)) == 3 * 39
    again, later = Engine(lm, max_batch=2), Listener()  # with less room, one after the other: the same texts
    again.submit(Request(prompt, SamplingSettings(1.0), 12, seed=5, n=4, logprobs=0), later.of(0))
    run(again)
    assert [later.ids(0, sample) for sample in range(4)] == samples


def test_a_conversation_is_read_on_from_where_it_stood(make_model: Make, words: Tokenizer) -> None:
    lm = LanguageModel(make_model("llama", block_size=64), words)
    engine, listener = Engine(lm, max_batch=2), Listener()
    first = tuple(range(20))
    engine.submit(Request(first, GREEDY, 6, logprobs=0), listener.of(0))
    run(engine)
    engine.submit(Request((9, 9, 9), GREEDY, 3), listener.of(1))  # somebody else in between
    run(engine)
    second = (*first, *listener.ids(0), 7, 7)
    engine.submit(Request(second, GREEDY, 6, logprobs=0), listener.of(2))
    run(engine)
    # The last token written was never read, for nothing followed it.
    assert listener.ends(2)[0].n_cached_tokens == 25
    fresh = generate_ids(lm.model, second, vocab_size=257, end_id=256, max_new_tokens=6, temperature=0.0)
    assert listener.ids(2) == fresh


@pytest.mark.parametrize("seed", range(4))
def test_rows_lend_what_they_read_and_stay_what_they_are(seed: int, make_model: Make) -> None:
    model = make_model("qwen3", block_size=32)
    rows, draw = Rows(model, 5, 32), random.Random(seed)
    contexts: list[list[int]] = []
    for _ in range(60):
        if len(contexts) < 5 and draw.random() < 0.5:
            known = draw.choice(contexts or [[1, 2]])
            ids = [*known[: draw.randint(1, 12)], *(draw.randrange(250) for _ in range(draw.randint(1, 4)))]
            length = rows.borrow(len(contexts), ids)
            got = rows.read(len(contexts), ids[length:])
            contexts.append(ids)
            rows.active = len(contexts)
            with torch.no_grad():
                torch.testing.assert_close(got, model(torch.tensor([ids]))[0, -1], atol=2e-5, rtol=2e-5)
        elif contexts and draw.random() < 0.3:
            gone = draw.randrange(len(contexts))
            rows.swap(gone, len(contexts) - 1)
            contexts[gone] = contexts[-1]
            contexts.pop()
            rows.active = len(contexts)
        elif contexts and max(map(len, contexts)) < 31:
            new = [draw.randrange(250) for _ in contexts]
            got = rows.step(new)
            for context, index, logits in zip(contexts, new, got, strict=True):
                context.append(index)
                with torch.no_grad():
                    torch.testing.assert_close(logits, model(torch.tensor([context]))[0, -1], atol=2e-5, rtol=2e-5)
        assert [rows.ids[row] for row in range(len(contexts))] == contexts


def test_log_probabilities_are_the_models_own(make_model: Make, words: Tokenizer) -> None:
    model = make_model("qwen3", block_size=64)
    lm, listener = LanguageModel(model, words), Listener()
    engine, prompt = Engine(lm, max_batch=2), tuple(range(30, 50))
    engine.submit(
        Request(prompt, SamplingSettings(0.5, 5, repetition_penalty=1.3), 10, seed=1, logprobs=3, prompt_logprobs=True),
        listener.of(0),
    )
    run(engine)
    tokens = [token for event in listener.events[0] if isinstance(event, Piece) for token in event.tokens]
    ids = [token.id for token in tokens]
    assert tuple(ids[:20]) == prompt
    assert tokens[0].logprob is None
    with torch.no_grad():
        reference = model(torch.tensor([ids]))[0].log_softmax(-1)
    for place in range(1, len(ids)):
        assert tokens[place].logprob == pytest.approx(float(reference[place - 1, ids[place]]), abs=1e-4)
        best = reference[place - 1, : words.vocab_size].topk(3)
        assert [t.id for t in tokens[place].alternatives] == best.indices.tolist()


def test_a_cancelled_request_leaves_at_once_and_the_others_go_on(make_model: Make, words: Tokenizer) -> None:
    lm = LanguageModel(make_model("qwen2", block_size=16), words)
    engine, listener = Engine(lm, max_batch=2), Listener()
    tickets = [
        engine.submit(Request((n,), SamplingSettings(1.0), 50, seed=n, logprobs=0), listener.of(n)) for n in range(3)
    ]
    for _ in range(3):
        engine.turn()
    tickets[0].cancel()
    tickets[2].cancel()  # still waiting
    engine.turn()
    assert listener.ends(0)[0].reason == listener.ends(2)[0].reason == "cancelled"
    run(engine)
    assert listener.ends(1)[0].reason in ("length", "stop")
    alone = generate_ids(lm.model, (1,), vocab_size=257, end_id=256, max_new_tokens=50, temperature=1.0, seed=1)
    assert listener.ids(1) == alone


def test_a_receiver_that_fails_ends_its_own_sample_only(make_model: Make, words: Tokenizer) -> None:
    lm = LanguageModel(make_model("qwen2", block_size=16), words)
    engine, listener = Engine(lm, max_batch=2), Listener()
    calls = []

    def broken(event: Piece | Finished) -> None:
        calls.append(event)
        if isinstance(event, Piece):
            raise OSError("the client went away")

    engine.submit(Request((1,), GREEDY, 20, logprobs=0), broken)
    engine.submit(Request((2,), GREEDY, 20, logprobs=0), listener.of(0))
    run(engine)
    assert isinstance(calls[-1], Finished)
    assert calls[-1].reason == "error"
    assert "went away" in (calls[-1].error or "")
    assert listener.ends(0)[0].reason in ("length", "stop")


def test_broken_weights_end_the_request_not_the_engine(make_model: Make, words: Tokenizer) -> None:
    lm = LanguageModel(make_model("qwen2", block_size=16), words)
    good = lm.model.norm.weight.detach().clone()
    engine, listener = Engine(lm, max_batch=2), Listener()
    with torch.no_grad():
        lm.model.norm.weight.fill_(float("nan"))
    engine.submit(Request((1,), GREEDY, 5), listener.of(0))
    run(engine)
    assert listener.ends(0)[0].reason == "error"
    assert "not finite" in (listener.ends(0)[0].error or "")
    with torch.no_grad():
        lm.model.norm.weight.copy_(good)
    engine.submit(Request((1,), GREEDY, 5), listener.of(1))
    run(engine)
    assert listener.ends(1)[0].reason in ("length", "stop")


def test_a_full_queue_refuses_and_wrong_requests_are_named(make_model: Make, words: Tokenizer) -> None:
    lm = LanguageModel(make_model("qwen2", block_size=16), words)
    engine = Engine(lm, max_batch=1, max_waiting=1)
    for _ in range(2):
        engine.submit(Request((1,), GREEDY, 5), lambda _: None)
    with pytest.raises(QueueFullError, match="max_waiting is 1"):
        engine.submit(Request((1,), GREEDY, 5), lambda _: None)
    for wrong, words_in_it in (
        (Request((9999,)), "id 9999"),
        (Request((1,), n=0), "n is 0"),
        (Request((1,), logprobs=21), "logprobs is 21"),
        (Request((1,), max_new_tokens=-1), "max_new_tokens is -1"),
        (Request((1,), prompt_logprobs=True), "prompt_logprobs"),
        (Request((1,), seed=0.5), "seed is 0.5"),  # type: ignore[arg-type]
        (Request((1,), stop=("",)), "stop"),
    ):
        with pytest.raises(FangcunError, match=words_in_it):
            engine.submit(wrong, lambda _: None)


def test_the_engines_own_thread_serves_many_and_shuts_down(make_model: Make, words: Tokenizer) -> None:
    lm = LanguageModel(make_model("qwen3", block_size=16), words)
    engine = Engine(lm, max_batch=3)
    engine.start()
    texts: dict[int, str] = {}

    def client(number: int) -> None:
        request = Request((number,), SamplingSettings(1.0), 10 + number, seed=number)
        texts[number] = "".join(e.text for e in engine.stream(request) if isinstance(e, Piece))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number in range(8):
        alone = Engine(lm, max_batch=1).stream(Request((number,), SamplingSettings(1.0), 10 + number, seed=number))
        assert texts[number] == "".join(e.text for e in alone if isinstance(e, Piece))
    listener = Listener()
    engine.submit(Request((1,), SamplingSettings(1.0), 10**6, seed=0), listener.of(0))
    started = time.monotonic()
    engine.close(drain_seconds=0.2)
    assert listener.ends(0)[0].reason in ("cancelled", "stop")
    assert time.monotonic() - started < 30
    with pytest.raises(QueueFullError, match="shutting down"):
        engine.submit(Request((1,)), lambda _: None)


def test_an_engine_nobody_uses_sleeps(make_model: Make, words: Tokenizer) -> None:
    engine = Engine(LanguageModel(make_model("qwen3", block_size=16), words))
    engine.start()
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.2
    engine.close()


def test_an_engine_whose_thread_died_says_so(
    make_model: Make, words: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(LanguageModel(make_model("qwen3", block_size=16), words))
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(engine, "turn", lambda: 1 / 0)
    engine.start()
    assert engine.alive
    engine.submit(Request((1,)), lambda _: None)
    for _ in range(100):
        if not engine.alive:
            return
        time.sleep(0.05)
    raise AssertionError("the thread does not die")
