"""A GGUF file, written tensor by tensor: shape and tokenizer first, then each matrix as it is read.

Format: the `gguf` package of llama.cpp. One tensor is in memory at a time.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fangcun.artifacts import Manifest, write_artifact
from fangcun.errors import ConfigError, FangcunError
from fangcun.export.card import model_card
from fangcun.export.facts import gather
from fangcun.export.gguf_plan import ARCHITECTURES, Entry, plan
from fangcun.export.gguf_vocabulary import Vocabulary, gguf_vocabulary
from fangcun.export.hf import KIND
from fangcun.export.ollama import modelfile
from fangcun.export.source import Source, refuse_overflow

if TYPE_CHECKING:
    import numpy as np

GGUF_DTYPES = ("f32", "f16", "bf16", "q8_0")
_Q8_BLOCK = 32
# Buffers of old files: causal masks, rotary frequencies.
_IGNORED = (".attn.bias", ".masked_bias", ".attention.bias", "inv_freq")


def export_gguf(path: str | Path, out: str | Path, *, dtype: str = "f16") -> tuple[Path, list[str]]:
    """Write a folder with `NAME-DTYPE.gguf`, an Ollama Modelfile and a model card, whole or not at all.

    Args:
        path: a run (its newest checkpoint), a checkpoint, or a Hugging Face folder.
        out: is made; an earlier export there is replaced, anything else is refused. Its name is the model's.
        dtype: of the matrices: "f32", "f16", "bf16" or "q8_0" (blocks of 32 in eight bits). Norms and biases stay f32.

    Returns the GGUF file and notes on what the user should know. Raises FangcunError, for instance for a tokenizer that
    llama.cpp would read differently.
    """
    if dtype not in GGUF_DTYPES:
        raise ConfigError(f"--dtype {dtype}: a GGUF file takes {', '.join(GGUF_DTYPES)}.")
    out = Path(out)
    gguf = _gguf()
    with Source(path) as source:
        vocabulary = gguf_vocabulary(source.tokenizer)
        entries = plan(source.config)
        _check_names(source, entries)
        manifest = Manifest(KIND, settings={"to": "gguf", "dtype": dtype, "from": str(source.folder)})
        name = f"{out.resolve().name}-{dtype}.gguf"
        with write_artifact(out, manifest) as folder:
            writer = gguf.GGUFWriter(folder / name, ARCHITECTURES[source.config.family])
            _describe(writer, source, vocabulary, dtype, out.resolve().name)
            notes = vocabulary.notes + _shape_notes(source) + _write_tensors(writer, gguf, source, entries, dtype)
            (folder / "Modelfile").write_text(modelfile(source, name), encoding="utf-8", newline="\n")
            card = model_card(gather(source), name=out.resolve().name, form="gguf", dtype=dtype, notes=notes)
            (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")
    return out / name, notes


def _gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise FangcunError(
            f"GGUF files are written with the package gguf, which is not installed ({error}): pip install 'fangcun[export]'"
        ) from error
    return gguf


def _check_names(source: Source, entries: list[Entry]) -> None:
    """Every tensor of the plan is there, and nothing is left over: a weight that is not written would be lost in silence."""
    wanted = {entry.source for entry in entries}
    for name in sorted(wanted):
        source.shape(_stored_name(source, name))
    known = wanted | {name.removeprefix("transformer.") for name in wanted}
    if source.config.tie_embeddings:
        known |= {"lm_head.weight", "embed_out.weight"}
    rest = [name for name in source.names if name not in known and not name.endswith(_IGNORED)]
    if rest:
        raise FangcunError(
            f"{source.folder}: {len(rest)} tensors have no place in a GGUF file, such as {rest[0]}. Do config.json and the weights belong together?"
        )


def _stored_name(source: Source, name: str) -> str:
    """OpenAI's own files of GPT-2 leave the prefix out."""
    bare = name.removeprefix("transformer.")
    return bare if bare in source.names else "lm_head.weight" if _is_neox_head(source, name) else name


def _is_neox_head(source: Source, name: str) -> bool:
    return name == "embed_out.weight" and name not in source.names and "lm_head.weight" in source.names


def _describe(writer: Any, source: Source, vocabulary: Vocabulary, dtype: str, name: str) -> None:
    """Shape and tokenizer, under llama.cpp's keys."""
    config, tokenizer = source.config, source.tokenizer
    file_types = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}  # gguf.LlamaFileType
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(file_types[dtype])
    writer.add_quantization_version(2)
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_query_groups)
    writer.add_vocab_size(len(vocabulary.tokens))
    if config.norm_class == "RMSNorm":
        writer.add_layer_norm_rms_eps(config.norm_eps)
    else:
        writer.add_layer_norm_eps(config.norm_eps)
    if config.positions == "rope":
        head_size = config.head_size or config.n_embd // config.n_head
        writer.add_key_length(head_size)
        writer.add_value_length(head_size)
        writer.add_rope_dimension_count(int(head_size * config.rotary_percentage))
        writer.add_rope_freq_base(config.rope_base)
    if str(config.family) == "gpt_neox":
        writer.add_parallel_residual(config.parallel_residual)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    # llama.cpp wants a first token; nothing is put in front of a text, and an empty prompt starts from the end of a document.
    writer.add_bos_token_id(tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    if tokenizer.pad_id is not None:
        writer.add_pad_token_id(tokenizer.pad_id)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _shape_notes(source: Source) -> list[str]:
    config = source.config
    if config.mlp_class == "GELU" and config.gelu_approximate == "none":
        return ["The model has the exact GELU; llama.cpp computes the tanh form of it, from a table in 16 bits."]
    if config.mlp_class == "GELU":
        return [
            "llama.cpp looks GELU up in a table in 16 bits, so that its logits differ in the third or fourth digit."
        ]
    return []


def _write_tensors(writer: Any, gguf: Any, source: Source, entries: list[Entry], dtype: str) -> list[str]:
    """All tensors; first what they are, as the format wants it, then their numbers one by one. Returns notes."""
    rows = source.tokenizer.vocab_size
    in_f16 = []
    kinds = []
    for entry in entries:
        shape = source.shape(_stored_name(source, entry.source))
        if entry.is_vocabulary:
            if shape[0] < rows:
                raise FangcunError(
                    f"{source.folder}: the tokenizer has {rows:,} ids, {entry.source} rows for {shape[0]:,}: they do not belong together."
                )
            shape[0] = rows  # rows beyond the tokenizer's ids are no tokens, and must never be drawn
        kind = _kind(shape, dtype, entry)
        if dtype == "q8_0" and kind == "f16":
            in_f16.append(entry.name)
        if _is_transposed(entry):
            shape.reverse()
        kinds.append(kind)
        quantized = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8}[kind]  # gguf.GGMLQuantizationType
        raw = gguf.GGMLQuantizationType(quantized)
        block, block_bytes = gguf.GGML_QUANT_SIZES[raw]
        size_bytes = math.prod(shape) // block * block_bytes
        writer.add_tensor_info(entry.name, shape, _numpy_type(kind), size_bytes, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for entry, kind in zip(entries, kinds, strict=True):
        tensor = source.tensor(_stored_name(source, entry.source), torch.float32)
        if entry.is_vocabulary:
            tensor = tensor[:rows]
        if entry.change is not None:
            tensor = entry.change(tensor)
        if kind == "f16":
            refuse_overflow(tensor, entry.source)
        writer.write_tensor_data(_numbers(gguf, tensor.contiguous(), kind))
    writer.close()
    if not in_f16:
        return []
    return [
        f"{len(in_f16)} matrices, such as {in_f16[0]}, have rows that are no multiple of {_Q8_BLOCK}: they are stored in f16."
    ]


def _is_transposed(entry: Entry) -> bool:
    return entry.change is not None and entry.change.__name__ == "_transposed"


def _kind(shape: list[int], dtype: str, entry: Entry) -> str:
    """The number format of one tensor. llama.cpp adds positions to float32, and reads vectors as such only."""
    if len(shape) == 1 or entry.name == "position_embd.weight":
        return "f32"
    row = shape[0] if _is_transposed(entry) else shape[-1]
    return "f16" if dtype == "q8_0" and row % _Q8_BLOCK else dtype


def _numpy_type(kind: str) -> Any:
    import numpy as np

    return np.dtype({"f32": "float32", "f16": "float16", "bf16": "float16", "q8_0": "int8"}[kind])


def _numbers(gguf: Any, tensor: torch.Tensor, kind: str) -> np.ndarray:
    if kind == "f32":
        return tensor.numpy()
    if kind == "f16":
        return tensor.to(torch.float16).numpy()
    if kind == "bf16":
        return tensor.to(torch.bfloat16).view(torch.int16).numpy()
    return gguf.quants.quantize(tensor.numpy(), gguf.GGMLQuantizationType.Q8_0)
