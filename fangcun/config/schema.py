"""The recipe: one dataclass a section. They are the YAML's schema, the `--help` and the reference page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fangcun.config.cleaning import CleanConfig, DedupConfig, FilterConfig
from fangcun.config.cluster import ClusterConfig
from fangcun.config.constraints import (
    NonNegativeFloat,
    NonNegativeInt,
    OpenShare,
    PositiveFloat,
    PositiveInt,
    Share,
)
from fangcun.config.corpus import CorpusConfig, MixConfig
from fangcun.config.model import ModelConfig

Precision = Literal["auto", "32-true", "bf16-mixed", "bf16-true", "16-mixed", "fp8-mixed"]


@dataclass
class TokenizerConfig:
    """Train a tokenizer on the corpus, or take one that exists."""

    path: str | None = None
    """A tokenizer to use as it is: a folder or file (tokenizer.json, vocab.json + merges.txt, *.tiktoken, sentencepiece *.model). Null: train one."""

    source: str | None = None
    """Where to get the tokenizer that this recipe needs, in a sentence. Given, tokenizer.path must be given too when it is run."""

    kind: Literal["bpe", "char"] = "bpe"
    """What to train: byte-level BPE, or one token a character."""

    vocab_size: PositiveInt = 8192
    """Size of a trained BPE vocabulary, special tokens included."""

    trainer: Literal["fangcun", "tokenizers"] = "fangcun"
    """What trains BPE: our own trainer, in bounded memory, or the one of the library tokenizers."""

    gb2312: bool | Literal["auto"] = "auto"
    """Make each of the 3,755 hanzi of GB2312 level 1 one token, which takes about 4,050 ids. auto: from 20 MB of training text and vocab_size 8000 on. Of trainer fangcun only."""

    max_han_run: PositiveInt = 4
    """In training only, runs of hanzi are cut to this length, so that no token is longer."""

    sample_bytes: PositiveInt = 200_000_000
    """BPE is trained on at most this many UTF-8 bytes, evenly spread over the corpus."""


@dataclass
class TokensConfig:
    """Token shards on disk."""

    path: str | None = None
    """Token shards of another run to use instead of packing: a folder, or a URL such as s3://bucket/run (extra remote). Null: pack the corpus."""

    dtype: Literal["auto", "uint16", "uint32"] = "auto"
    """Type of an id on disk. auto: uint16 for up to 65,536 ids."""

    workers: PositiveInt | None = None
    """Processes (threads with a fast encoder) that encode. Null: one a core, and one process for a small corpus."""

    encoder: Literal["auto", "tokenizers", "fastokens"] = "auto"
    """Library that encodes; the ids are the same. auto: the fastest that is installed and passes a comparison of ids."""

    shard_tokens: PositiveInt = 268_435_456
    """Tokens in one shard file at most."""

    upload: str | None = None
    """URL, such as s3://bucket/run, that finished tokens and their tokenizer are copied to. What is there already is not sent again, and nothing there is deleted."""

    cache_bytes: PositiveInt = 20_000_000_000
    """Disk space for tokens read from a URL. What does not fit is read from there anew each time."""

    cache_folder: str | None = None
    """Where tokens from a URL are cached, on a local disk; several processes may share it. Null: fangcun/tokens below the user's cache folder."""


@dataclass
class TrainConfig:
    """Batches, length of the run, schedule, logging and saving. Names are litgpt's."""

    global_batch_size: PositiveInt = 64
    """Samples of one optimizer step, over all micro-batches."""

    micro_batch_size: PositiveInt = 16
    """Samples of one forward pass at most; global_batch_size must be a multiple of it. A CPU takes fewer where that fits its cache."""

    activation_checkpointing: bool = False
    """Keep only the input of each block for the backward pass and compute the rest again: less memory, about a quarter more time."""

    max_seq_length: PositiveInt | None = None
    """Tokens of a training sample. Null: model.block_size."""

    document_mask: bool = False
    """Documents of one sample do not see each other: attention ends with a document, and positions begin anew. Evaluation does the same."""

    max_steps: PositiveInt | None = None
    """Stop after this many optimizer steps. Of several stop conditions the first one met ends the run."""

    max_tokens: PositiveInt | None = None
    """Stop after this many tokens, counted as global_batch_size x max_seq_length a step."""

    epochs: PositiveFloat | None = None
    """Stop after this many passes over the training tokens."""

    max_time: PositiveFloat | None = None
    """Stop after this many seconds of training, evaluation included, summed over resumed parts."""

    lr_schedule: Literal["cosine", "constant", "wsd"] = "cosine"
    """Learning rate after the warm-up, per optimizer step. wsd: stable, then falling in the last lr_decay_share."""

    lr_warmup_steps: NonNegativeInt = 100
    """Steps over which the learning rate rises linearly from 0."""

    lr_decay_steps: PositiveInt | None = None
    """Step at which cosine or wsd reaches min_lr. Null: the last step of the run."""

    lr_decay_share: Share = 0.2
    """Share of the steps up to lr_decay_steps over which wsd falls. 1: from the end of the warm-up."""

    lr_decay_shape: Literal["linear", "sqrt"] = "linear"
    """How wsd falls: in a line, or by 1 - sqrt of the way, which is steep at first."""

    min_lr: NonNegativeFloat = 0.0
    """Learning rate at the end of cosine or wsd."""

    max_norm: PositiveFloat | None = 1.0
    """Gradients are scaled down to this global norm. Null: no clipping."""

    log_interval: PositiveInt = 10
    """Steps between two lines of the log and of metrics.jsonl."""

    save_interval: PositiveInt | None = 1000
    """Steps between two checkpoints. Null: only at the end, when interrupted, and at a new best (checkpoint.keep_best)."""

    num_threads: PositiveInt | None = None
    """CPU threads of each process. Null: one a core."""

    strategy: Literal["ddp", "fsdp"] = "ddp"
    """With several processes (torchrun). ddp: each holds the whole model. fsdp: weights, gradients and optimizer state are cut over them."""


@dataclass
class InitConfig:
    """First weights, drawn by parameter name from the seed. Without effect where init_from gives weights."""

    matrices: Literal["gpt2", "fan_in"] = "gpt2"
    """Standard deviation of the matrices between layers. gpt2: 0.02. fan_in: 1 / sqrt(columns), which suits Muon."""

    zero_residual: bool = False
    """Matrices that write to the residual stream start at 0, so that each block begins as doing nothing."""

    zero_head: bool = False
    """The head starts at 0, so that all characters are equally likely at first. Needs tie_embeddings: false."""

    embedding_std: PositiveFloat = 0.02
    """Standard deviation of the embeddings."""


@dataclass
class OptimizerConfig:
    """AdamW, or Muon beside it. No decay on norms, biases and embeddings (a head tied to the embedding among them)."""

    name: Literal["adamw", "muon", "adamw8bit"] = "adamw"
    """adamw is torch's fused AdamW. muon: Muon for the matrices between layers, AdamW for the rest. adamw8bit: AdamW with 8-bit moments from torchao (extra optim)."""

    lr: PositiveFloat = 1e-3
    """Highest learning rate."""

    embedding_lr: PositiveFloat | None = None
    """Highest learning rate of the embeddings (and of a head tied to them). Null: lr."""

    head_lr: PositiveFloat | None = None
    """Highest learning rate of an untied head. Null: lr."""

    weight_decay: NonNegativeFloat = 0.1
    """Decoupled weight decay of the matrices."""

    betas: tuple[OpenShare, OpenShare] = (0.9, 0.95)
    """Decay rates of AdamW's two moments."""

    eps: PositiveFloat = 1e-8
    """Added to the root of the second moment."""

    muon_lr: PositiveFloat | None = None
    """Highest learning rate of Muon's matrices. Null: lr."""

    muon_scale: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    """How a matrix's shape scales muon_lr. match_rms_adamw: 0.2 sqrt(longer side), rates are as AdamW's. original: sqrt(rows / columns) of tall ones, rates are some 0.02."""

    muon_momentum: OpenShare = 0.95
    """Decay of Muon's mean of gradients."""

    muon_steps: PositiveInt = 5
    """Newton-Schulz iterations that make an update orthogonal."""


@dataclass
class GuardConfig:
    """What happens when a step goes wrong. A step that is not finite is always skipped."""

    sigmas: PositiveFloat | None = 10.0
    """Skip a step whose loss, or logarithm of the gradient norm, lies this many standard deviations above the mean of the last ones. Null: never."""

    window_steps: PositiveInt = 100
    """Steps that mean and deviation are taken over."""

    rollback_after_steps: PositiveInt = 5
    """After this many skipped steps in a row the run goes back to its newest checkpoint, and past the samples under way."""


@dataclass
class EvalConfig:
    """Loss, perplexity and bits per byte on fixed windows, the same every time."""

    interval: PositiveInt | None = 250
    """Steps between two evaluations. Null: only where initial_validation and final_validation say so."""

    max_iters: PositiveInt = 20
    """Batches of micro_batch_size windows, from validation and as many from training text."""

    initial_validation: bool = True
    """Evaluate before the first step."""

    final_validation: bool = True
    """Evaluate after the last step, on all of the validation split (see final_max_iters)."""

    final_max_iters: PositiveInt | None = None
    """Batches of the final validation. Null: the whole validation split."""


@dataclass
class SamplesConfig:
    """Texts that the model writes during training."""

    prompts: list[str] | None = None
    """Openings to continue. Null: three openings of validation documents."""

    interval: PositiveInt | None = 500
    """Steps between two rounds of samples. Null: only at the end."""

    max_new_tokens: NonNegativeInt = 100
    """Tokens of a sample. 0: no samples."""

    temperature: NonNegativeFloat = 0.8
    """0 is greedy."""

    top_k: PositiveInt | None = 50
    """Sample among the k likeliest tokens. Null: all."""

    top_p: Share = 1.0
    """Sample among the likeliest tokens that together have this probability."""

    repetition_penalty: PositiveFloat = 1.0
    """Above 1 makes tokens that were used less likely (Keskar et al. 2019)."""


@dataclass
class CheckpointConfig:
    """Which checkpoints are kept."""

    keep_last: PositiveInt = 2
    """Newest checkpoints kept."""

    keep_best: bool = True
    """Save at each new lowest validation loss, and keep the best."""

    background: bool = True
    """Write while training goes on, from a copy in memory. false: training waits, and needs no copy."""


@dataclass
class TrackingConfig:
    """Where the tools that `trackers` names keep what they are told. All of it stays on this machine by default."""

    project: str = "fangcun"
    """Project under which SwanLab, Weights & Biases and trackio file the run."""

    folder: str | None = None
    """Folder for the data of SwanLab, Weights & Biases and trackio. Runs that name the same one are shown together. Null: trackers/ in the run folder."""

    swanlab_mode: Literal["local", "offline", "cloud"] = "local"
    """local: for swanlab watch on this machine. offline: for a later swanlab sync. cloud: sent to swanlab.cn."""

    wandb_mode: Literal["offline", "online"] = "offline"
    """offline: for a later wandb sync. online: sent to the Weights & Biases server."""


@dataclass
class Recipe:
    """A whole run, from text to model."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """Text in."""

    clean: CleanConfig = field(default_factory=CleanConfig)
    """Text made better."""

    filter: FilterConfig = field(default_factory=FilterConfig)
    """Documents left out."""

    dedup: DedupConfig = field(default_factory=DedupConfig)
    """Copies left out."""

    mix: MixConfig = field(default_factory=MixConfig)
    """Sources weighed."""

    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """Characters to ids."""

    tokens: TokensConfig = field(default_factory=TokensConfig)
    """Ids on disk."""

    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Corpus and packing on several machines."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """Shape of the model."""

    init: InitConfig = field(default_factory=InitConfig)
    """First weights."""

    init_from: str | None = None
    """A run, a checkpoint or a Hugging Face folder whose weights a new run starts from, at step 0. Its shape replaces `model`, its tokenizer is the run's."""

    train: TrainConfig = field(default_factory=TrainConfig)
    """Training."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer."""

    guard: GuardConfig = field(default_factory=GuardConfig)
    """Bad steps."""

    eval: EvalConfig = field(default_factory=EvalConfig)
    """Evaluation during training."""

    samples: SamplesConfig = field(default_factory=SamplesConfig)
    """Samples during training."""

    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""

    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Trackers."""

    precision: Precision = "auto"
    """Arithmetic. auto: bf16-mixed where the device computes bf16 natively, else 32-true. bf16-true computes with weights in bf16 and keeps float32 masters. fp8-mixed: bf16-mixed with the blocks' products in float8, on H100, RTX 40 and newer."""

    device: str = "auto"
    """cpu, cuda, cuda:1, mps (Apple's GPU, in 32-true only). auto: cuda or mps when torch sees one."""

    compile: bool | Literal["auto"] = "auto"
    """torch.compile. auto: on CUDA where triton is installed, not on CPU."""

    resume: bool | str = "auto"
    """auto: go on from the newest checkpoint if there is one. true: there must be one. false: there must be none. Or a checkpoint folder."""

    seed: NonNegativeInt = 42
    """Seeds initial weights, data order, dropout and samples."""

    deterministic: bool = False
    """Only algorithms that give the same bits every time, at some cost of speed on a GPU (a CPU gives them anyway)."""

    out_dir: str | None = None
    """Run folder. Null: runs/<recipe>. `--out` is short for it."""

    trackers: list[Literal["jsonl", "tensorboard", "swanlab", "wandb", "trackio"]] = field(
        default_factory=lambda: ["jsonl"]
    )
    """Where metrics go besides metrics.jsonl, which is always written."""
