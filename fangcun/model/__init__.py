"""One Transformer for all families, its loss, first weights and cache, and the way to and from Hugging Face folders.

A model depends on a resolved ModelConfig and nothing else. Norms and softmax are float32 under every precision.
Weights of GPT-2, GPT-NeoX, Llama, Mistral, Qwen2 and Qwen3 come in and go out with equal logits; the rest is refused by name.
"""

from fangcun.model.cache import KVCache
from fangcun.model.device import choose_device, unseen_gpu
from fangcun.model.document_mask import Documents, find_documents
from fangcun.model.families import check_exportable, from_hf_config, to_hf_config
from fangcun.model.initialize import initialize, parameter_kinds
from fangcun.model.io import (
    check_state,
    load_model,
    load_weights,
    model_of,
    read_config,
    read_tensors,
    save_model,
    weight_files,
    write_tensors,
)
from fangcun.model.loss import cross_entropy_sum, head_loss_sum
from fangcun.model.probe import attention_logit_max
from fangcun.model.recompute import recompute_blocks
from fangcun.model.transformer import Transformer
from fangcun.model.vocabulary import slice_model_folder, slice_vocabulary

__all__ = [
    "Documents",
    "KVCache",
    "Transformer",
    "attention_logit_max",
    "check_exportable",
    "check_state",
    "choose_device",
    "cross_entropy_sum",
    "find_documents",
    "from_hf_config",
    "head_loss_sum",
    "initialize",
    "load_model",
    "load_weights",
    "model_of",
    "parameter_kinds",
    "read_config",
    "read_tensors",
    "recompute_blocks",
    "save_model",
    "slice_model_folder",
    "slice_vocabulary",
    "to_hf_config",
    "unseen_gpu",
    "weight_files",
    "write_tensors",
]
