"""Writing with a trained model: `load` a run, a checkpoint or a Hugging Face folder, then `generate` or `stream`.

The same text for the same seed, greedy text equal to that of transformers, and nothing shown that has to be taken back.
"""
