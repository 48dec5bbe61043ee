"""A little text of every kind, for the tests of this room."""

TEXT = (
    "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦；及秦灭之后，楚、汉分争，又并入于汉。\n"
    "　　The quick brown fox jumps over 12 lazy dogs. 人工智能AI在2024年发展。\n\n"
    "def main(x):\n    if x > 10:\n\t\treturn {'a': [1, 2]}\n"
    "汉朝自高祖斩白蛇而起义，一统天下，后来光武中兴，传至献帝，遂分为三国。<|endoftext|> is plain text.\n"
)
