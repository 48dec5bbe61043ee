"""What implementations are compared on: texts of every kind for the tokenizer, and openings in Chinese and English."""

TEXTS = (
    "却说曹操引军攻袁绍，大喜而去。",
    "天下大势，分久必合，合久必分。——《三国演义》第一回",
    "繁體字：龍馬精神；生僻字：𠮷、㐂、䶮。",
    "The quick brown fox doesn't jump over the lazy dog; it's 3.14159 o'clock.",
    "I'LL SAY SO, WE'VE DONE IT  twice   or   thrice.",
    "def f(x: int) -> str:\n    return f'{x!r}'\n\n\n\tprint(f(1))\r\n",
    '{"键": [1, 2.5e-10, null], "url": "https://example.org/?q=a&b=%20"}',
    "2026年11月28日 12:34:56，共1234567890元，第３章，Ⅳ，½。",
    "😀👍🏽👨\u200d👩\u200d👧 🇨🇳 e\u0301 ½ ﬁ ＡＢＣ",
    "\x00\x01\x7f\u200b\ufeff\u2028 \xa0　\v\f",
    "  leading and trailing  \n\n \n",
    "混排mixed文字text，中English間123數字。",
    "日本語の文章と한국어 문장, русский текст, العربية.",
)

PROMPTS = (
    "却说曹操", "话说天下大势", "刘备曰：", "关羽大怒，", "从前有一个", "今天天气", "中国的首都是", "他说：“", "第一回", "人工智能是",
    "Once upon a time", "The king said", "In the beginning", "She looked at", "It was a dark", "def main():", "1 + 1 =",
    "To be, or not", "According to", "My name is",
)  # fmt: skip
"""Twenty, for greedy text."""
