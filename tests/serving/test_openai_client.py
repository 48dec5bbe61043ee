"""The official client gets what the model writes: the same text whole, streamed, scored, in several samples, at once with
others."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict

import pytest
from openai import AsyncOpenAI, OpenAI
from transformers import PreTrainedTokenizerFast

from fangcun.generation import SamplingSettings

PROMPT = "却说曹操，"
GREEDY = {"model": "tiny", "temperature": 0}


@pytest.fixture(scope="module")
def client(server) -> OpenAI:
    return OpenAI(base_url=server.base_url, api_key="none", max_retries=0)


def test_the_model_is_listed_by_its_name(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").model_extra["info"]["chat"] is True


def test_a_completion_is_what_the_model_writes(client: OpenAI, server) -> None:
    expected = server.lm.generate(PROMPT, max_new_tokens=40, temperature=0)
    answer = client.completions.create(prompt=PROMPT, max_tokens=40, **GREEDY)
    assert answer.choices[0].text == expected
    assert answer.usage.prompt_tokens == len(server.lm.tokenizer.encode(PROMPT))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    by_ids = client.completions.create(prompt=server.lm.tokenizer.encode(PROMPT), max_tokens=40, **GREEDY)
    assert by_ids.choices[0].text == expected
    assert by_ids.usage.prompt_tokens_details.cached_tokens > 0  # the same prompt was read before
    assert client.completions.create(prompt=PROMPT, **GREEDY).usage.completion_tokens <= 16


def test_every_setting_reaches_the_sampler(client: OpenAI, server) -> None:
    extra = {"min_p": 0.01, "top_k": 40, "repetition_penalty": 1.3, "no_repeat_ngram": 3}
    answer = client.completions.create(
        model="tiny", prompt=PROMPT, max_tokens=40, seed=7, temperature=1.2, top_p=0.9, frequency_penalty=0.5,
        presence_penalty=-0.25, extra_body=extra,
    )  # fmt: skip
    settings = SamplingSettings(1.2, 40, 0.9, 1.3, 0.01, 3, 0.5, -0.25)
    assert answer.choices[0].text == server.lm.generate_batch([PROMPT], settings, max_new_tokens=40, seed=7)[0]


def test_what_a_request_leaves_out_is_as_the_model_card_says(client: OpenAI) -> None:
    from fangcun.serving.plans import DEFAULTS, sampling_of
    from fangcun.serving.schema import CompletionCall

    told = client.models.retrieve("tiny").model_extra["info"]["defaults"]
    assert sampling_of(CompletionCall(model="tiny")) == DEFAULTS
    assert sampling_of(CompletionCall(model="tiny", **told)) == DEFAULTS
    assert sampling_of(CompletionCall(model="tiny", top_k=0)).top_k is None


def test_several_prompts_and_samples_are_numbered_in_order(client: OpenAI, server) -> None:
    answer = client.completions.create(prompt=["甲", "乙"], n=2, max_tokens=12, seed=3, model="tiny", temperature=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    expected = server.lm.generate_batch(["甲", "乙"], SamplingSettings(1.0), max_new_tokens=12, seed=3)
    assert [answer.choices[0].text, answer.choices[2].text] == expected
    assert answer.choices[1].text != answer.choices[0].text
    assert answer.usage.prompt_tokens == 6  # each prompt once


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("echo", [False, True])
def test_a_stream_joined_is_the_whole_answer(client: OpenAI, n: int, echo: bool) -> None:
    asked = {"model": "tiny", "prompt": PROMPT, "n": n, "max_tokens": 30, "seed": 5, "logprobs": 2, "echo": echo}
    whole = client.completions.create(**asked)
    texts, tokens, offsets, ends = defaultdict(str), defaultdict(list), defaultdict(list), {}
    usage = None
    for chunk in client.completions.create(stream=True, stream_options={"include_usage": True}, **asked):
        assert usage is None  # the last one
        usage = chunk.usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            tokens[choice.index] += choice.logprobs.tokens
            offsets[choice.index] += choice.logprobs.text_offset
            if choice.finish_reason:
                assert choice.index not in ends
                ends[choice.index] = choice.finish_reason
    for choice in whole.choices:
        assert texts[choice.index] == choice.text
        assert tokens[choice.index] == choice.logprobs.tokens
        assert offsets[choice.index] == choice.logprobs.text_offset
        assert ends[choice.index] == choice.finish_reason
        assert choice.text.startswith(PROMPT) == echo
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_echo_without_new_tokens_scores_the_prompt(client: OpenAI, server) -> None:
    answer = client.completions.create(prompt=PROMPT, max_tokens=0, echo=True, logprobs=1, **GREEDY)
    choice, ids = answer.choices[0], server.lm.tokenizer.encode(PROMPT)
    assert choice.text == PROMPT
    assert choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 0
    reference = server.lm.logits([ids])[0].log_softmax(-1)
    expected = [float(reference[i, token]) for i, token in enumerate(ids[1:])]
    assert choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.token_logprobs[1:] == pytest.approx(expected, abs=1e-4)
    best = [max(d.values()) for d in choice.logprobs.top_logprobs[1:]]
    assert best == pytest.approx(reference[:-1, : server.lm.tokenizer.vocab_size].max(-1).values.tolist(), abs=1e-4)


def test_a_drawn_end_has_its_place_among_scores_that_are_read_by_place(client: OpenAI, server) -> None:
    draw, words = random.Random(0), server.lm.tokenizer
    likeliest = None
    while likeliest != words.eos_id:
        ids = [draw.randrange(256) for _ in range(5)]
        likeliest = int(server.lm.logits([ids])[0, -1, : words.vocab_size].argmax())
    for n in (1, 2):  # as lm-eval asks
        answer = client.completions.create(prompt=ids, max_tokens=1, echo=True, logprobs=1, n=n, **GREEDY)
        for choice in answer.choices:
            assert choice.finish_reason == "stop"
            assert len(choice.logprobs.token_logprobs) == 6
            assert choice.logprobs.tokens[-1] == words.eos_token
            assert None not in choice.logprobs.token_logprobs[1:-1]


def test_the_bytes_of_tokens_join_to_the_text(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        messages=[{"role": "user", "content": "你好"}], max_tokens=30, logprobs=True, top_logprobs=3, **GREEDY
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == 30
    raw = b"".join(bytes(token.bytes) for token in content)
    assert raw.decode(errors="replace") == answer.choices[0].message.content
    for token in content:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob)  # greedy: the likeliest


def test_a_stop_string_ends_the_text_before_it(client: OpenAI) -> None:
    whole = client.completions.create(prompt=PROMPT, max_tokens=40, **GREEDY).choices[0].text
    stop = whole[10:13]
    answer = client.completions.create(prompt=PROMPT, max_tokens=40, stop=["never to be seen", stop], **GREEDY)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].text == whole[: whole.index(stop)]


MESSAGES = [
    [{"role": "user", "content": "你好"}],
    [{"role": "system", "content": "简短。"}, {"role": "user", "content": "一\n二"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "{{ 7*7 }}"}],
]


@pytest.mark.parametrize("messages", MESSAGES)
def test_a_chat_is_the_template_as_transformers_renders_it(client: OpenAI, server, messages: list) -> None:
    words = PreTrainedTokenizerFast(tokenizer_object=server.lm.tokenizer.backend)
    text = words.apply_chat_template(
        messages, chat_template=server.lm.tokenizer.chat_template, add_generation_prompt=True, tokenize=False
    )
    ids = server.lm.tokenizer.encode(text)
    answer = client.chat.completions.create(messages=messages, max_completion_tokens=20, **GREEDY)
    assert answer.usage.prompt_tokens == len(ids)
    plain = client.completions.create(prompt=ids, max_tokens=20, **GREEDY)
    said = answer.choices[0].message.content
    if answer.choices[0].finish_reason == "stop":  # at the end of the turn, which is no end of a document
        assert plain.choices[0].text.startswith(said)
    else:
        assert plain.choices[0].text == said
    streamed = client.chat.completions.create(messages=messages, max_tokens=20, stream=True, n=2, **GREEDY)
    texts, roles = defaultdict(str), {}
    for chunk in streamed:
        for choice in chunk.choices:
            if choice.delta.role:
                assert choice.index not in roles
                roles[choice.index] = choice.delta.role
            texts[choice.index] += choice.delta.content or ""
    assert roles == {0: "assistant", 1: "assistant"}
    assert set(texts.values()) == {said}


def test_parts_of_text_and_a_developer_are_understood(client: OpenAI) -> None:
    plain = [{"role": "system", "content": "甲"}, {"role": "user", "content": "乙\n丙"}]
    parts = [{"type": "text", "text": "乙"}, {"type": "text", "text": "丙"}]
    other = [{"role": "developer", "content": "甲"}, {"role": "user", "content": parts}]
    answers = [client.chat.completions.create(messages=m, max_tokens=10, **GREEDY) for m in (plain, other)]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content
    assert answers[0].usage.prompt_tokens == answers[1].usage.prompt_tokens


def test_an_answer_takes_what_the_context_has_left(client: OpenAI, server) -> None:
    answer = client.chat.completions.create(messages=MESSAGES[0], seed=1, **GREEDY)
    if answer.choices[0].finish_reason == "length":
        assert answer.usage.total_tokens == server.lm.config.block_size


def test_twenty_clients_at_once_each_get_what_they_get_alone(server) -> None:
    prompts = [f"第{number}回" for number in range(20)]
    expected = server.lm.generate_batch(prompts, SamplingSettings(0.0), max_new_tokens=24, max_batch=4)

    async def ask(prompt: str) -> str:
        async with AsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:
            stream = await client.completions.create(prompt=prompt, max_tokens=24, stream=True, **GREEDY)
            return "".join([choice.text async for chunk in stream for choice in chunk.choices])

    async def everyone() -> list[str]:
        return await asyncio.gather(*(ask(prompt) for prompt in prompts))

    assert asyncio.run(everyone()) == expected
    assert server.engine.running == server.engine.waiting == 0


def test_a_base_model_says_that_it_does_not_converse(serve_tiny) -> None:
    from openai import BadRequestError

    base = serve_tiny(chat=False)
    client = OpenAI(base_url=base.base_url, api_key="none", max_retries=0)
    with pytest.raises(BadRequestError, match="/v1/completions") as caught:
        client.chat.completions.create(messages=MESSAGES[0], **GREEDY)
    assert caught.value.code == "no_chat_template"
    assert client.models.retrieve("tiny").model_extra["info"]["chat"] is False


def test_a_text_goes_on_beyond_the_context(serve_tiny) -> None:
    small = serve_tiny(block_size=32)
    client = OpenAI(base_url=small.base_url, api_key="none", max_retries=0)
    answer = client.completions.create(prompt="x" * 32, max_tokens=50, **GREEDY)
    assert answer.choices[0].text == small.lm.generate("x" * 32, max_new_tokens=50, temperature=0)
