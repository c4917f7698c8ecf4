# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What llama.cpp knows about architectures and does not write into their files: which layers attend to a window only, which are recurrent.

Source: github.com/ggml-org/llama.cpp, ``src/models/*.cpp`` (load_arch_hparams) and ``llama_model::create_memory`` as of September 2026,
compared with builds b7698 (January 2026) and b8179 (February 2026). Read 2026-11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Optional

REVIEWED = "2026-11-25"


@dataclass(frozen=True)
class Window:
    """Sliding windows of an architecture. Of each ``period`` layers one attends to everything: the last, or the first where ``dense_first``.

    ``window`` stands in for a missing key, ``fixed`` wins over it. ``period`` 0: all layers, unless the file has the pattern.
    ``needs_key``: no window without ``attention.sliding_window``. ``only_layers``: only models of that many layers.
    """

    period: int
    dense_first: bool = False
    window: int = 0
    fixed: int = 0
    needs_key: bool = True
    only_layers: int = 0


# Where the file gives the pattern as an array, that counts; these are for files without one.
WINDOWS: Mapping[str, Window] = {
    "afmoe": Window(4),
    "cohere2": Window(4),
    "cohere2moe": Window(4, dense_first=True),
    "exaone-moe": Window(4, window=128, needs_key=False),
    "exaone4": Window(4, window=4096, needs_key=False, only_layers=64),
    "gemma-embedding": Window(6),
    "gemma2": Window(2, window=4096, needs_key=False),
    "gemma3": Window(6),
    "gemma3n": Window(5),
    "gemma4": Window(0),
    "gpt-oss": Window(2),
    "granite-swa": Window(0),
    "laguna": Window(4, dense_first=True),
    "llama4": Window(4, fixed=8192, needs_key=False),
    "maple": Window(0),
    "mellum": Window(4),
    "mimo2": Window(0),
    "modern-bert": Window(3, dense_first=True),
    "muse-glimmer": Window(4),
    "olmo2": Window(4),
    "plamo3": Window(8),
    "smallthinker": Window(4, dense_first=True, fixed=4096),
    "spark2-5": Window(0),
    "step35": Window(0),
}
# No attention at all
RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
# A layer is recurrent where head_count_kv is 0
HYBRID_BY_HEADS = frozenset({"bailingmoe3", "granitehybrid", "jamba", "kimi-linear", "lfm2", "lfm2moe", "plamo2"})
# ... and attention and recurrent layers alike only where feed_forward_length is 0
HYBRID_BY_FEED_FORWARD = frozenset({"nemotron_h", "nemotron_h_moe"})
# Every full_attention_interval-th layer attends
HYBRID_BY_INTERVAL = frozenset({"minimax-01", "qwen35", "qwen35moe", "qwen3next"})
# Every layer is both
HYBRID_BOTH = frozenset({"falcon-h1"})
HYBRID = HYBRID_BY_HEADS | HYBRID_BY_FEED_FORWARD | HYBRID_BY_INTERVAL | HYBRID_BOTH
# With a gated delta net, whose computation takes memory of its own
DELTA_NET = frozenset({"qwen35", "qwen35moe", "qwen3next", "kimi-linear"})
# Attention has a gate as wide as its queries
GATED = frozenset({"qwen35", "qwen35moe", "qwen3next"})

# Attention and the feed-forward part read the same input, which therefore lives longer
PARALLEL = frozenset({"cohere2", "falcon", "phi2"})

# They read a whole text at once and keep nothing
NO_CACHE = frozenset(
    {
        "bert",
        "dream",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llada",
        "llada-moe",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "rnd1",
        "wavtokenizer-dec",
    }
)
# ... and of these, those that write nothing
NO_OUTPUT = NO_CACHE - {"dream", "llada", "llada-moe", "rnd1"}
# Their embeddings serve for reading alone: they are not held a second time as an output matrix
NOT_TIED = NO_OUTPUT - {"gemma-embedding"}

# Their memory is of a kind of its own (sparse attention with an index, several caches), which this collection does not predict
UNPREDICTED = frozenset(
    {
        "deepseek32",
        "deepseek4",
        "dflash",
        "dots3note",
        "eagle3",
        "gemma4-assistant",
        "glm-dsa",
        "glm5-next",
        "hy-v4",
        "kimi-k3",
        "minimax-m3",
        "qwen4exp",
        "t5",
        "t5encoder",
        "wavtokenizer-dec",
    }
)

# Plain attention in all layers
PLAIN = frozenset("""
    apertus arcee arctic baichuan bailingmoe bailingmoe2 bitnet bloom chameleon chatglm codeshell cogvlm command-r dbrx deci deepseek deepseek2
    dots1 ernie4_5 ernie4_5-moe exaone falcon gemma glm4 glm4moe gpt2 gptneox granite granitemoe grok grovemoe hunyuan-dense hunyuan-moe
    internlm2 jais jais2 llama maincoder minicpm minicpm3 minimax-m2 mistral3 mistral4 mpt nemotron olmo olmoe openelm orion paddleocr
    pangu-embedded phi2 phi3 phimoe plamo plm qwen qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3vl qwen3vlmoe refact seed_oss smollm3 stablelm
    starcoder starcoder2 xverse
    """.split())

# Compared with llama.cpp buffer by buffer (tests/oracle)
VERIFIED = frozenset("""
    baichuan bert chatglm cohere2 command-r ernie4_5 eurobert exaone4 falcon gemma-embedding gemma2 gemma3 glm4 gpt-oss gpt2 gptneox granite
    hunyuan-dense internlm2 jina-bert-v2 jina-bert-v3 lfm2 llama mamba2 mistral3 modern-bert mpt neo-bert nomic-bert nomic-bert-moe olmo2 phi2 phi3
    qwen2 qwen3 qwen3moe seed_oss smollm3 starcoder2
    """.split())

# All that this collection knows the memory of
KNOWN = PLAIN | frozenset(WINDOWS) | RECURRENT | HYBRID | (NO_CACHE - UNPREDICTED)


def kv_layers(architecture: str, block_count: int, shared: int) -> int:
    """How many of the first layers have keys and values of their own; the rest read those of others."""
    if architecture == "gemma3n":
        return min(20, block_count)
    if architecture == "gemma4":
        return block_count - shared
    return block_count


def window(architecture: str, block_count: int) -> Optional[Window]:
    rule = WINDOWS.get(architecture)
    if rule is None or (rule.only_layers and rule.only_layers != block_count):
        return None
    return rule
