"""What is trained (Run), what is measured (Measure) and where it executes (Placement): frozen, checked, nothing hidden."""

import dataclasses
import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from scalejax.batching import BatchSchedule
from scalejax.checks import (
    as_number,
    between,
    one_of,
    require,
    several,
    unread,
    whole,
    whole_number,
)

COOLDOWN_SHAPES = ("linear", "1-sqrt", "cosine", "mirror-cosine", "square", "exponential")
SCHEDULE_READS: dict[str, set[str]] = {  # shape -> fields that it reads besides the warm-up
    "constant": set(),
    "linear": {"final"},
    "cosine": {"final"},
    "inverse_sqrt": set(),
    "multistep": {"milestones", "factor"},
    "cyclic": {"period", "final"},
    "wsd": {"cooldown", "cooldown_shape", "final"},
}
OPTIMIZER_READS: dict[
    str, set[str]
] = {  # name -> fields that it reads besides rate, weight decay, clip and z-loss
    "adamw": {"beta1", "beta2", "epsilon"},
    "lion": {"beta1", "beta2"},
    "muon": {"beta1", "beta2", "epsilon", "momentum"},
    "schedule-free-adamw": {"beta1", "beta2", "epsilon"},
}
PARAMETRIZATION_READS: dict[str, set[str]] = {  # name -> fields that it reads
    "standard": set(),
    "mup": {"base_width", "base_mlp_width", "base_head_size"},
    "completep": {"base_width", "base_mlp_width", "base_head_size", "base_depth"},
}
COMPUTE_DTYPES = ("float32", "bfloat16")
PACKINGS = ("concatenate", "documents")
SUITES = ("continuation", "foundry-17", "foundry-46", "local")


@dataclass(frozen=True, kw_only=True)
class Model:
    """A decoder-only transformer: RoPE, RMSNorm, SwiGLU, grouped-query attention, no biases."""

    width: int
    """Size of the residual stream."""
    depth: int
    """Number of blocks."""
    heads: int
    """Query heads per block."""
    kv_heads: int
    """Key and value heads per block; divides `heads` (equal to it: ordinary multi-head attention)."""
    head_size: int
    """Size of one head; even, because RoPE turns pairs."""
    mlp_width: int
    """Hidden size of the SwiGLU MLP."""
    vocabulary: int
    """Token ids are 0 .. vocabulary - 1."""
    tied: bool = False
    """Whether the head is the transposed embedding."""
    qk_norm: bool = False
    """Whether queries and keys pass an RMSNorm before RoPE."""

    def __post_init__(self):
        for name in ("width", "depth", "heads", "kv_heads", "head_size", "mlp_width"):
            whole(self, name, 1)
        whole(self, "vocabulary", 2)
        require(
            self.heads % self.kv_heads == 0,
            f"Model.heads must be a multiple of Model.kv_heads; got {self.heads} heads and {self.kv_heads} kv_heads",
        )
        require(
            self.head_size % 2 == 0,
            f"Model.head_size must be even (RoPE turns pairs); got {self.head_size}",
        )

    @classmethod
    def sized(
        cls,
        *,
        width: int,
        depth: int,
        vocabulary: int,
        head_size: int,
        tied: bool = False,
        qk_norm: bool = False,
    ) -> "Model":
        """The usual proportions: width / head_size heads, SwiGLU width 8/3 of the width rounded up to a multiple of 8.

        >>> Model.sized(width=64, depth=2, vocabulary=512, head_size=16).mlp_width
        176
        """
        head_size = whole_number("Model.head_size", head_size, 1)
        require(
            width % head_size == 0,
            f"heads do not divide: Model.width {width} is not a multiple of head_size {head_size}; "
            f"try width {max(1, round(width / head_size)) * head_size}",
        )
        heads = width // head_size
        mlp_width = 8 * math.ceil(width / 3)
        return cls(
            width=width,
            depth=depth,
            heads=heads,
            kv_heads=heads,
            head_size=head_size,
            mlp_width=mlp_width,
            vocabulary=vocabulary,
            tied=tied,
            qk_norm=qk_norm,
        )


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which tokens a run reads; the content hash of the prepared shards is recorded beside every result."""

    source: str = "english"
    """`english` (the default corpus), `mini` (with code and documentation), `synthetic:V` (V symbols, exact entropy rate),
    `seqio:MODULE:TASK`, `tfds:NAME/CONFIG:VERSION`, or a path: a file or folder of .txt, .md, .jsonl (plain, .gz, .zst), .parquet
    or .array_record, token ids in a .bin file or in a folder of train.bin and val.bin, or a folder of prepared shards."""
    tokenizer: str = "bpe:512"
    """`byte`, `bpe:V` (SentencePiece BPE of V pieces, trained on the train split), or a path: a SentencePiece model, a Hugging
    Face tokenizer.json, or a folder with GPT-2's vocab.json and merges.txt. `ids:V` for .bin files of V ids without a tokenizer.
    `synthetic`, `seqio` and prepared folders bring their own: `own`."""
    sequence_length: int = 128
    """Tokens per training sequence."""
    field: str = "text"
    """Name of the field that holds the text of a record."""
    domain: str = ""
    """Name of the field that holds the domain of a record, `meta.set` for a field of a field; empty: the first folder below
    `source` in which a file lies, or the name of its package in `mini`."""
    mixture: str = ""
    """Weights of domains, for instance `wiki=2,code=1`: shares of the training sequences. Empty: every window of the corpus is
    read equally often."""
    packing: str = "concatenate"
    """`concatenate`: attention crosses to the next document; `documents`: it does not, and `inputs` (seqio) leave the loss."""

    def __post_init__(self):
        require(bool(self.source), "Data.source is empty: name `english`, `synthetic:V` or a path")
        require(
            bool(self.tokenizer),
            "Data.tokenizer is empty: name `byte`, `bpe:V`, `own` or the path of a tokenizer",
        )
        require(
            bool(self.field),
            "Data.field is empty: name the field that holds the text of a record, `text` mostly",
        )
        whole(self, "sequence_length", 2)
        one_of(self, "packing", PACKINGS)
        _ = self.weights

    @property
    def weights(self) -> dict[str, float]:
        """{domain: share of the training sequences}, of sum 1; empty without a mixture.

        >>> Data(mixture="wiki=3,code=1").weights
        {'wiki': 0.75, 'code': 0.25}
        """
        weights: dict[str, float] = {}
        for item in filter(None, self.mixture.split(",")):
            name, _, number = item.rpartition("=")
            try:
                weight = float(number)
            except ValueError:
                weight = math.nan
            require(
                bool(name) and name not in weights and 0 < weight < math.inf,
                f"Data.mixture is DOMAIN=WEIGHT,.. with weights above 0, each domain once; got {self.mixture!r}",
            )
            weights[name] = weight
        return {name: weight / sum(weights.values()) for name, weight in weights.items()}


@dataclass(frozen=True, kw_only=True)
class Parametrization:
    """How init, learning rate and multipliers follow the model's size; made by `standard()`, `mup(..)` and `completep(..)`."""

    name: str = "standard"
    """`standard`, `mup` or `completep`."""
    base_width: int = 0
    """Width at which mup and completep equal standard; 0 under `standard`, which has no base."""
    base_depth: int = 0
    """Depth at which completep equals standard; 0 under the others, which do not look at depth."""
    base_mlp_width: int = 0
    """MLP width of the base model; 0: in proportion to width, with the ratio of each model."""
    base_head_size: int = 0
    """Head size of the base model; 0: that of each model, whose heads grow in number alone."""

    def __post_init__(self):
        one_of(self, "name", PARAMETRIZATION_READS)
        unread(self, self.name, PARAMETRIZATION_READS)
        least = {"base_width": 1, "base_depth": 1}
        for name in sorted(PARAMETRIZATION_READS[self.name]):
            whole(self, name, least.get(name, 0))


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """An optimizer by name; its numbers are traced, so one compiled step serves a whole sweep."""

    name: str = "adamw"
    """`adamw`, `lion`, `muon` (hidden matrices; the others by AdamW), or `schedule-free-adamw`."""
    learning_rate: float
    """The peak."""
    beta1: float = 0.9
    """Decay of the first moment; under `schedule-free-adamw` the share of the average in the weights that gradients see."""
    beta2: float = 0.98
    """Decay of the second moment; under `lion` of the momentum (0.99 is usual)."""
    epsilon: float = 1e-8
    """Added to the root of the second moment."""
    momentum: float = 0.95
    """Decay of Muon's momentum."""
    weight_decay: float = 0.0
    """Decay of matrices (embedding and norms excepted), in the units that `decay` names."""
    decay: str = "independent"
    """`independent`: a step removes rate / peak x weight_decay; `standard`: rate x weight_decay (PyTorch's AdamW)."""
    clip: float = 1.0
    """Ceiling of the global gradient norm; 0 leaves gradients as they are."""
    z_loss: float = 0.0
    """Weight of log(Z)^2 in the training loss (1e-4 is usual)."""

    def __post_init__(self):
        one_of(self, "name", OPTIMIZER_READS)
        unread(self, self.name, OPTIMIZER_READS)
        between(self, "learning_rate", 0, math.inf, "()")
        between(self, "beta1", 0, 1, "()" if self.name == "schedule-free-adamw" else "[)")
        between(self, "momentum", 0, 1, "[)")
        between(self, "beta2", 0, 1, "[)")
        between(self, "epsilon", 0, 1, "()")
        for name in ("weight_decay", "clip", "z_loss"):
            between(self, name, 0, math.inf, "[)")
        require(
            self.decay in ("independent", "standard"),
            f"Optimizer.decay is `independent` or `standard`; got {self.decay!r}",
        )


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate as a share of the peak; made by the functions of `optim.schedules`."""

    shape: str
    """`constant`, `linear`, `cosine`, `inverse_sqrt`, `multistep`, `cyclic`, or `wsd` (constant, then a cooldown)."""
    warmup: int
    """Tokens of warm-up from 0."""
    warmup_shape: str = "linear"
    """`linear` or `cosine`."""
    cooldown: float = 0.0
    """Fraction of the run's tokens spent cooling down (wsd)."""
    cooldown_shape: str = "1-sqrt"
    """`linear`, `1-sqrt`, `cosine`, `mirror-cosine`, `square` or `exponential` (wsd)."""
    final: float = 0.0
    """Share of the peak at the end (linear, cosine, wsd), or at the bottom of every cycle (cyclic)."""
    milestones: tuple[float, ...] = ()
    """Fractions of the run's tokens at which the rate falls (multistep)."""
    factor: float = 10**-0.5
    """What the rate is multiplied by at each of them (multistep)."""
    period: int = 0
    """Tokens from one peak to the next (cyclic)."""

    def __post_init__(self):
        several(self, "milestones", "fractions of the run")
        one_of(self, "shape", SCHEDULE_READS)
        unread(self, self.shape, SCHEDULE_READS)
        whole(self, "warmup", 1 if self.shape == "inverse_sqrt" else 0)
        one_of(self, "warmup_shape", ("linear", "cosine"))
        between(self, "cooldown", 0, 1, "[)")
        one_of(self, "cooldown_shape", COOLDOWN_SHAPES)
        between(self, "final", 0, 1)
        between(self, "factor", 0, 1, "(]")
        whole(self, "period", 1 if self.shape == "cyclic" else 0)
        require(
            self.final > 0 or self.shape != "wsd" or self.cooldown_shape != "exponential",
            "Schedule.final must be above 0 for an exponential cooldown, which never reaches 0; got 0",
        )
        require(
            self.shape != "multistep"
            or all(low < high for low, high in pairwise([0.0, *self.milestones, 1.0])),
            f"Schedule.milestones are rising fractions of the run between 0 and 1; got {self.milestones}",
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run and nothing else: its hash is its identity, so two equal Runs are the same run."""

    model: Model
    """The network."""
    data: Data
    """The tokens."""
    tokens: float
    """Training tokens; rounded up to whole batches."""
    batch_tokens: int
    """Tokens per optimizer step; a multiple of the sequence length."""
    batch_doublings: tuple[int, ...] = ()
    """Batch-size warm-up: token counts at which the batch doubles, up to `batch_tokens`."""
    optimizer: Optimizer
    """The update rule and its peak learning rate."""
    schedule: Schedule
    """The rate of every step, as a share of the peak."""
    parametrization: Parametrization = field(default_factory=Parametrization)
    """`standard()`, `mup(base_width=..)` or `completep(base_width=.., base_depth=..)`."""
    compute_dtype: str = "float32"
    """Dtype of activations; parameters, logits and losses are float32."""
    seed: int = 0
    """Splits by name into the init key and the data order."""

    def __post_init__(self):
        for name, kind in _NESTED.items():
            value = getattr(self, name)
            require(isinstance(value, kind), f"Run.{name} must be a {kind.__name__}; got {value!r}")
        several(self, "batch_doublings", "token counts")
        whole(self, "batch_tokens", 1)
        try:
            _ = self.batch_schedule
        except ValueError as error:
            raise ValueError(f"Run.{error}") from None
        require(
            math.isfinite(as_number(self.tokens)),
            f"Run.tokens must be a finite number; got {self.tokens!r}",
        )
        require(
            self.tokens >= self.batch_tokens,
            f"Run.tokens {self.tokens:g} is below one batch of {self.batch_tokens} tokens: nothing to train",
        )
        require(
            self.schedule.warmup <= self.tokens,
            f"Schedule.warmup of {self.schedule.warmup} tokens is longer than the run of {self.tokens:g} tokens",
        )
        one_of(self, "compute_dtype", COMPUTE_DTYPES)
        whole(self, "seed", 0)
        require(
            self.optimizer.name != "muon" or self.parametrization.name == "standard",
            f"Optimizer muon under {self.parametrization.name}: its multipliers are for updates like Adam's, and Muon scales the "
            "update of every matrix by its shape itself; use standard(), or adamw, lion or schedule-free-adamw",
        )

    @cached_property
    def batch_schedule(self) -> BatchSchedule:
        """The batch size of every step, which converts steps to tokens and back."""
        return BatchSchedule(
            batch_tokens=self.batch_tokens,
            doublings=self.batch_doublings,
            sequence_length=self.data.sequence_length,
        )

    @property
    def steps(self) -> int:
        """Optimizer steps: the tokens in whole batches, the last one filled up."""
        return self.batch_schedule.steps_for(self.tokens)

    @property
    def tokens_read(self) -> int:
        """Tokens of all its steps: `tokens` in whole batches."""
        return self.batch_schedule.tokens_after(self.steps)

    @property
    def batch_sequences(self) -> int:
        """Sequences in a batch of `batch_tokens`."""
        return self.batch_tokens // self.data.sequence_length

    @property
    def first_batch_sequences(self) -> int:
        """Sequences in the first batch, the smallest; every other is a multiple of it."""
        return self.batch_sequences // 2 ** len(self.batch_doublings)

    def replace(self, **changes) -> "Run":
        """A copy with other fields; an unknown field is a TypeError."""
        return dataclasses.replace(self, **changes)


_NESTED = {
    "model": Model,
    "data": Data,
    "optimizer": Optimizer,
    "schedule": Schedule,
    "parametrization": Parametrization,
}


@dataclass(frozen=True, kw_only=True)
class Average:
    """An average of the weights, evaluated beside the weights themselves; made by `ema` and `window`."""

    kind: str
    """`ema` or `window`."""
    tokens: int
    """Half-life of an exponential average, or length of a window."""

    def __post_init__(self):
        one_of(self, "kind", ("ema", "window"))
        whole(self, "tokens", 1)

    @property
    def name(self) -> str:
        """The value of the column `weights`, such as `ema-20000`."""
        return f"{self.kind}-{self.tokens}"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What is measured, and when. Never part of a run's identity."""

    every: int = 0
    """Tokens between evaluations of the held-out loss during training; 0 measures at the end alone."""
    tokens: int = 65_536
    """Held-out tokens that each evaluation reads."""
    items: int = 256
    """Items of the continuation task; 0 leaves it out."""
    suites: tuple[str, ...] = ("continuation",)
    """Downstream tasks scored at the end of a run: `continuation` (from held-out text), `foundry-17` or `foundry-46` (`:FOLDER`
    with the task files), `local:PATH`. The average of the first one is `top1_error`."""
    averages: tuple[Average, ...] = ()
    """Averages taken while training, whose held-out loss is measured whenever that of the weights is."""

    def __post_init__(self):
        several(self, "suites", "names of suites")
        several(self, "averages", "averages")
        strays = [average for average in self.averages if not isinstance(average, Average)]
        require(
            not strays,
            f"Measure.averages holds what ema(..) and window(..) of optim.averaging give; got {strays!r}",
        )
        names = [average.name for average in self.averages]
        require(
            len(set(names)) == len(names),
            f"Measure.averages are different ones; got {', '.join(names)}",
        )
        whole(self, "every", 0)
        whole(self, "tokens", 1)
        whole(self, "items", 0)
        for name in self.suites:
            kind = name.partition(":")[0].removesuffix("-available")
            require(kind in SUITES, f"Measure.suites names {', '.join(SUITES)}; got {name!r}")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where and how a run executes. Never part of a run's identity."""

    data: int = 1
    """Devices along the batch (replicated parameters)."""
    fsdp: int = 1
    """Devices along the batch over which parameters are split too."""
    tensor: int = 1
    """Devices over which heads and MLP are split."""
    accumulate: int = 1
    """Micro-batches per step, summed by tokens."""
    checkpoint_seconds: float = 60.0
    """Seconds of training between checkpoints; one is always written at the end."""

    def __post_init__(self):
        for name in ("data", "fsdp", "tensor", "accumulate"):
            whole(self, name, 1)
        between(self, "checkpoint_seconds", 0, math.inf, "()")
