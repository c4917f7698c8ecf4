# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of llama.cpp's server by version, for bases that are made for another architecture and cannot be asked.

Source: ``llama-server --help`` of Debian's llama.cpp-tools 1:0.7.0+dfsg-2 (sid, November 2026). A unit test compares
this table with the captured text.
"""

from __future__ import annotations

from typing import Any, Mapping

REVIEWED = "2026-11-01"

_OPTIONS_0_7_0 = """
--adaptive-decay --adaptive-target --agent --alias --api-key --api-key-file --api-prefix --backend-sampling --batch-size --cache-idle-slots
--cache-list --cache-prompt --cache-ram --cache-reuse --cache-type-k --cache-type-k-draft --cache-type-v --cache-type-v-draft --chat-template
--chat-template-file --chat-template-kwargs --check-tensors --checkpoint-min-step --completion-bash --cont-batching --context-shift --control-vector
--control-vector-layer-range --control-vector-scaled --cors-credentials --cors-headers --cors-methods --cors-origins --cpu-mask --cpu-mask-batch
--cpu-mask-batch-draft --cpu-mask-draft --cpu-moe --cpu-moe-draft --cpu-range --cpu-range-batch --cpu-range-draft --cpu-strict --cpu-strict-batch
--cpu-strict-batch-draft --cpu-strict-draft --ctx-checkpoints --ctx-size --defrag-thold --device --device-draft --docker-repo --draft-p-min
--draft-p-split --dry-allowed-length --dry-base --dry-multiplier --dry-penalty-last-n --dry-sequence-breaker --dynatemp-exp --dynatemp-range
--embd-gemma-default --embd-normalize --embedding --embeddings --escape --fim-qwen-1.5b-default --fim-qwen-14b-spec --fim-qwen-30b-default
--fim-qwen-3b-default --fim-qwen-7b-default --fim-qwen-7b-spec --fit --fit-ctx --fit-target --flash-attn --frequency-penalty --gpt-oss-120b-default
--gpt-oss-20b-default --gpu-layers --gpu-layers-draft --grammar --grammar-file --help --hf-file --hf-repo --hf-repo-draft --hf-token --host
--ignore-eos --image-max-tokens --image-min-tokens --jinja --json-schema --json-schema-file --keep --kv-offload --kv-unified --kv-unified-per-slot
--lazy-mode --list-devices --load-mode --log-colors --log-disable --log-file --log-jsonl --log-prefix --log-prompts-dir --log-timestamps --log-verbose
--log-verbosity --logit-bias --lookup-cache-dynamic --lookup-cache-static --lora --lora-init-without-apply --lora-scaled --main-gpu
--mcp-servers-config --mcp-servers-json --media-path --metrics --min-p --mirostat --mirostat-ent --mirostat-lr --mmproj --mmproj-auto --mmproj-device
--mmproj-offload --mmproj-url --model --model-draft --model-url --models-autoload --models-dir --models-max --models-preset --moe-cache-mib
--mtmd-batch-max-tokens --n-cpu-ffn --n-cpu-moe --n-cpu-moe-draft --n-gpu-layers --n-gpu-layers-draft --n-predict --no-agent --no-cache-idle-slots
--no-cache-prompt --no-cont-batching --no-context-shift --no-cors-credentials --no-escape --no-host --no-jinja --no-kv-offload --no-kv-unified
--no-log-jsonl --no-log-prefix --no-log-timestamps --no-mmproj --no-mmproj-auto --no-mmproj-offload --no-models-autoload --no-op-offload --no-perf
--no-prefill-assistant --no-reasoning-preserve --no-repack --no-skip-chat-parsing --no-slots --no-spec-draft-backend-sampling --no-ui
--no-ui-mcp-proxy --no-warmup --no-webui --no-webui-mcp-proxy --numa --offline --op-offload --override-kv --override-tensor --override-tensor-draft
--parallel --path --perf --poll --poll-batch --poll-batch-draft --poll-draft --pooling --port --predict --prefill-assistant --presence-penalty --prio
--prio-batch --prio-batch-draft --prio-draft --props --reasoning --reasoning-budget --reasoning-budget-message --reasoning-effort --reasoning-format
--reasoning-preserve --repack --repeat-last-n --repeat-penalty --rerank --reranking --reuse-port --reverse-prompt --rope-freq-base --rope-freq-scale
--rope-scale --rope-scaling --rpc --sampler-seq --samplers --sampling-seq --seed --skip-chat-parsing --sleep-idle-seconds --slot-prompt-similarity
--slot-save-path --slots --spec-default --spec-draft-backend-sampling --spec-draft-cpu-mask --spec-draft-cpu-mask-batch --spec-draft-cpu-moe
--spec-draft-cpu-range --spec-draft-cpu-strict --spec-draft-cpu-strict-batch --spec-draft-device --spec-draft-hf --spec-draft-model
--spec-draft-n-cpu-moe --spec-draft-n-max --spec-draft-n-min --spec-draft-n-ubatch --spec-draft-ncmoe --spec-draft-ngl --spec-draft-override-tensor
--spec-draft-p-min --spec-draft-p-split --spec-draft-poll --spec-draft-poll-batch --spec-draft-prio --spec-draft-prio-batch --spec-draft-sampling
--spec-draft-threads --spec-draft-threads-batch --spec-draft-type-k --spec-draft-type-v --spec-ngram-map-k-min-hits --spec-ngram-map-k-size-m
--spec-ngram-map-k-size-n --spec-ngram-map-k4v-min-hits --spec-ngram-map-k4v-size-m --spec-ngram-map-k4v-size-n --spec-ngram-mod-n-match
--spec-ngram-mod-n-max --spec-ngram-mod-n-min --spec-ngram-simple-min-hits --spec-ngram-simple-size-m --spec-ngram-simple-size-n --spec-synth-len
--spec-synth-rates --spec-type --special --split-mode --spm-infill --sse-ping-interval --ssl-cert-file --ssl-key-file --swa-checkpoints --swa-full
--tags --temp --temperature --tensor-split --threads --threads-batch --threads-batch-draft --threads-draft --threads-http --timeout --tools
--tools-runtime --top-k --top-n-sigma --top-nsigma --top-p --typical --typical-p --ubatch-size --ui --ui-config --ui-config-file --ui-mcp-proxy
--usage --verbose --verbosity --version --video-ffmpeg-dir --video-fps --video-timestamp-interval --vision-gemma-12b-default --vision-gemma-4b-default
--warmup --webui --webui-config --webui-config-file --webui-mcp-proxy --xtc-probability --xtc-threshold --yarn-attn-factor --yarn-beta-fast
--yarn-beta-slow --yarn-ext-factor --yarn-orig-ctx -C -Cb -Cbd -Cd -Cr -Crb -Crd -a -ag -b -bs -c -cb -cl -cmoe -cmoed -cms -cram -ctk -ctkd -ctv
-ctvd -ctxcp -dev -devd -dr -dt -e -fa -fit -fitc -fitt -h -hf -hfd -hff -hfr -hfrd -hft -j -jf -kvo -kvu -l -lcd -lcs -lm -lv -lzm -m -md -mg -mm
-mmdev -mmu -mu -n -ncffn -ncmoe -ncmoed -ngl -ngld -nkvo -no-ag -no-kvu -nocb -np -nr -ot -otd -r -rea -s -sm -sp -sps -t -tb -tbd -td -to -ts -ub -v
"""

# Environment variable, then the option it stands for
_ENVIRONMENT_0_7_0 = """
HF_TOKEN --hf-token  LLAMA_API_KEY --api-key  LLAMA_ARG_AGENT --agent  LLAMA_ARG_ALIAS --alias  LLAMA_ARG_API_KEY_FILE --api-key-file
LLAMA_ARG_API_PREFIX --api-prefix  LLAMA_ARG_BACKEND_SAMPLING --backend-sampling  LLAMA_ARG_BATCH --batch-size
LLAMA_ARG_CACHE_IDLE_SLOTS --cache-idle-slots  LLAMA_ARG_CACHE_PROMPT --cache-prompt  LLAMA_ARG_CACHE_RAM --cache-ram
LLAMA_ARG_CACHE_REUSE --cache-reuse  LLAMA_ARG_CACHE_TYPE_K --cache-type-k  LLAMA_ARG_CACHE_TYPE_V --cache-type-v
LLAMA_ARG_CHAT_TEMPLATE --chat-template  LLAMA_ARG_CHAT_TEMPLATE_FILE --chat-template-file  LLAMA_ARG_CHAT_TEMPLATE_KWARGS --chat-template-kwargs
LLAMA_ARG_CHECKPOINT_MIN_SPACING_NT --checkpoint-min-step  LLAMA_ARG_CONTEXT_SHIFT --context-shift  LLAMA_ARG_CONT_BATCHING --cont-batching
LLAMA_ARG_CORS_CREDENTIALS --cors-credentials  LLAMA_ARG_CORS_HEADERS --cors-headers  LLAMA_ARG_CORS_METHODS --cors-methods
LLAMA_ARG_CORS_ORIGINS --cors-origins  LLAMA_ARG_CPU_MOE --cpu-moe  LLAMA_ARG_CTX_CHECKPOINTS --ctx-checkpoints  LLAMA_ARG_CTX_SIZE --ctx-size
LLAMA_ARG_DEFRAG_THOLD --defrag-thold  LLAMA_ARG_DEVICE --device  LLAMA_ARG_DOCKER_REPO --docker-repo  LLAMA_ARG_EMBEDDINGS --embedding
LLAMA_ARG_ENDPOINT_METRICS --metrics  LLAMA_ARG_ENDPOINT_PROPS --props  LLAMA_ARG_ENDPOINT_SLOTS --slots  LLAMA_ARG_FIT --fit
LLAMA_ARG_FIT_CTX --fit-ctx  LLAMA_ARG_FIT_TARGET --fit-target  LLAMA_ARG_FLASH_ATTN --flash-attn  LLAMA_ARG_FREQUENCY_PENALTY --frequency-penalty
LLAMA_ARG_HF_FILE --hf-file  LLAMA_ARG_HF_REPO --hf-repo  LLAMA_ARG_HOST --host  LLAMA_ARG_IMAGE_MAX_TOKENS --image-max-tokens
LLAMA_ARG_IMAGE_MIN_TOKENS --image-min-tokens  LLAMA_ARG_JINJA --jinja  LLAMA_ARG_KV_OFFLOAD --kv-offload  LLAMA_ARG_KV_UNIFIED --kv-unified
LLAMA_ARG_KV_UNIFIED_PER_SLOT --kv-unified-per-slot  LLAMA_ARG_LAZY_MODE --lazy-mode  LLAMA_ARG_LOAD_MODE --load-mode
LLAMA_ARG_LOG_COLORS --log-colors  LLAMA_ARG_LOG_FILE --log-file  LLAMA_ARG_LOG_JSONL --log-jsonl  LLAMA_ARG_LOG_PREFIX --log-prefix
LLAMA_ARG_LOG_TIMESTAMPS --log-timestamps  LLAMA_ARG_LOG_VERBOSITY --verbosity  LLAMA_ARG_MAIN_GPU --main-gpu
LLAMA_ARG_MCP_SERVERS_CONFIG --mcp-servers-config  LLAMA_ARG_MCP_SERVERS_JSON --mcp-servers-json  LLAMA_ARG_MIN_P --min-p  LLAMA_ARG_MMPROJ --mmproj
LLAMA_ARG_MMPROJ_AUTO --mmproj-auto  LLAMA_ARG_MMPROJ_OFFLOAD --mmproj-offload  LLAMA_ARG_MMPROJ_URL --mmproj-url  LLAMA_ARG_MODEL --model
LLAMA_ARG_MODELS_AUTOLOAD --models-autoload  LLAMA_ARG_MODELS_DIR --models-dir  LLAMA_ARG_MODELS_MAX --models-max
LLAMA_ARG_MODELS_PRESET --models-preset  LLAMA_ARG_MODEL_URL --model-url  LLAMA_ARG_MOE_CACHE_MIB --moe-cache-mib
LLAMA_ARG_MTMD_BATCH_MAX_TOKENS --mtmd-batch-max-tokens  LLAMA_ARG_NO_HOST --no-host  LLAMA_ARG_NUMA --numa  LLAMA_ARG_N_CPU_FFN --n-cpu-ffn
LLAMA_ARG_N_CPU_MOE --n-cpu-moe  LLAMA_ARG_N_GPU_LAYERS --gpu-layers  LLAMA_ARG_N_GPU_LAYERS_DRAFT --spec-draft-ngl  LLAMA_ARG_N_PARALLEL --parallel
LLAMA_ARG_N_PREDICT --predict  LLAMA_ARG_OFFLINE --offline  LLAMA_ARG_OVERRIDE_TENSOR --override-tensor  LLAMA_ARG_PERF --perf
LLAMA_ARG_POOLING --pooling  LLAMA_ARG_PORT --port  LLAMA_ARG_PREFILL_ASSISTANT --prefill-assistant  LLAMA_ARG_PRESENCE_PENALTY --presence-penalty
LLAMA_ARG_REASONING --reasoning  LLAMA_ARG_REASONING_EFFORT --reasoning-effort  LLAMA_ARG_REASONING_PRESERVE --reasoning-preserve
LLAMA_ARG_REPACK --repack  LLAMA_ARG_REPEAT_PENALTY --repeat-penalty  LLAMA_ARG_RERANKING --rerank  LLAMA_ARG_REUSE_PORT --reuse-port
LLAMA_ARG_ROPE_FREQ_BASE --rope-freq-base  LLAMA_ARG_ROPE_FREQ_SCALE --rope-freq-scale  LLAMA_ARG_ROPE_SCALE --rope-scale
LLAMA_ARG_ROPE_SCALING_TYPE --rope-scaling  LLAMA_ARG_RPC --rpc  LLAMA_ARG_SKIP_CHAT_PARSING --skip-chat-parsing
LLAMA_ARG_SLOT_SAVE_PATH --slot-save-path  LLAMA_ARG_SPEC_DRAFT_BACKEND_SAMPLING --spec-draft-backend-sampling
LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K --spec-draft-type-k  LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V --spec-draft-type-v
LLAMA_ARG_SPEC_DRAFT_CPU_MOE --spec-draft-cpu-moe  LLAMA_ARG_SPEC_DRAFT_HF_REPO --spec-draft-hf  LLAMA_ARG_SPEC_DRAFT_MODEL --spec-draft-model
LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE --spec-draft-n-cpu-moe  LLAMA_ARG_SPEC_DRAFT_N_MAX --spec-draft-n-max  LLAMA_ARG_SPEC_DRAFT_N_MIN --spec-draft-n-min
LLAMA_ARG_SPEC_DRAFT_N_UBATCH --spec-draft-n-ubatch  LLAMA_ARG_SPEC_DRAFT_P_MIN --spec-draft-p-min  LLAMA_ARG_SPEC_DRAFT_P_SPLIT --spec-draft-p-split
LLAMA_ARG_SPEC_DRAFT_SAMPLING --spec-draft-sampling  LLAMA_ARG_SPEC_SYNTH_LEN --spec-synth-len  LLAMA_ARG_SPEC_SYNTH_RATES --spec-synth-rates
LLAMA_ARG_SPEC_TYPE --spec-type  LLAMA_ARG_SPLIT_MODE --split-mode  LLAMA_ARG_SSE_PING_INTERVAL --sse-ping-interval
LLAMA_ARG_SSL_CERT_FILE --ssl-cert-file  LLAMA_ARG_SSL_KEY_FILE --ssl-key-file  LLAMA_ARG_STATIC_PATH --path  LLAMA_ARG_SWA_FULL --swa-full
LLAMA_ARG_TAGS --tags  LLAMA_ARG_TEMPERATURE --temp  LLAMA_ARG_TENSOR_SPLIT --tensor-split  LLAMA_ARG_THINK --reasoning-format
LLAMA_ARG_THINK_BUDGET --reasoning-budget  LLAMA_ARG_THINK_BUDGET_MESSAGE --reasoning-budget-message  LLAMA_ARG_THREADS --threads
LLAMA_ARG_THREADS_HTTP --threads-http  LLAMA_ARG_TIMEOUT --timeout  LLAMA_ARG_TOOLS --tools  LLAMA_ARG_TOOLS_RUNTIME --tools-runtime
LLAMA_ARG_TOP_K --top-k  LLAMA_ARG_TOP_P --top-p  LLAMA_ARG_UBATCH --ubatch-size  LLAMA_ARG_UI --ui  LLAMA_ARG_UI_CONFIG --ui-config
LLAMA_ARG_UI_CONFIG_FILE --ui-config-file  LLAMA_ARG_UI_MCP_PROXY --ui-mcp-proxy  LLAMA_ARG_VIDEO_FFMPEG_DIR --video-ffmpeg-dir
LLAMA_ARG_VIDEO_FPS --video-fps  LLAMA_ARG_VIDEO_TIMESTAMP_INTERVAL --video-timestamp-interval  LLAMA_ARG_YARN_ATTN_FACTOR --yarn-attn-factor
LLAMA_ARG_YARN_BETA_FAST --yarn-beta-fast  LLAMA_ARG_YARN_BETA_SLOW --yarn-beta-slow  LLAMA_ARG_YARN_EXT_FACTOR --yarn-ext-factor
LLAMA_ARG_YARN_ORIG_CTX --yarn-orig-ctx  MTMD_BACKEND_DEVICE --mmproj-device
"""

# Options that have several names: the first long one, then the others
_ALIASES_0_7_0 = """
--agent --no-agent -ag -no-ag | --alias -a | --backend-sampling -bs | --batch-size -b | --cache-idle-slots --no-cache-idle-slots | --cache-list -cl |
--cache-prompt --no-cache-prompt | --cache-ram -cram | --cache-type-k -ctk | --cache-type-v -ctv | --checkpoint-min-step -cms | --cont-batching
--no-cont-batching -cb -nocb | --context-shift --no-context-shift | --cors-credentials --no-cors-credentials | --cpu-mask -C | --cpu-mask-batch -Cb |
--cpu-moe -cmoe | --cpu-range -Cr | --cpu-range-batch -Crb | --ctx-checkpoints --swa-checkpoints -ctxcp | --ctx-size -c | --defrag-thold -dt | --device -dev |
--docker-repo -dr | --embedding --embeddings | --escape --no-escape -e | --fit -fit | --fit-ctx -fitc | --fit-target -fitt | --flash-attn -fa | --gpu-layers
--n-gpu-layers -ngl | --help --usage -h | --hf-file -hff | --hf-repo -hf -hfr | --hf-token -hft | --jinja --no-jinja | --json-schema -j | --json-schema-file
-jf | --kv-offload --no-kv-offload -kvo -nkvo | --kv-unified --no-kv-unified -kvu -no-kvu | --lazy-mode -lzm | --load-mode -lm | --log-jsonl --no-log-jsonl |
--log-prefix --no-log-prefix | --log-timestamps --no-log-timestamps | --logit-bias -l | --lookup-cache-dynamic -lcd | --lookup-cache-static -lcs | --main-gpu
-mg | --mmproj -mm | --mmproj-auto --no-mmproj --no-mmproj-auto | --mmproj-device -mmdev | --mmproj-offload --no-mmproj-offload | --mmproj-url -mmu | --model
-m | --model-url -mu | --models-autoload --no-models-autoload | --n-cpu-ffn -ncffn | --n-cpu-moe -ncmoe | --op-offload --no-op-offload | --override-tensor -ot
| --parallel -np | --perf --no-perf | --predict --n-predict -n | --prefill-assistant --no-prefill-assistant | --reasoning -rea | --reasoning-preserve
--no-reasoning-preserve | --repack --no-repack -nr | --rerank --reranking | --reverse-prompt -r | --sampler-seq --sampling-seq | --seed -s |
--skip-chat-parsing --no-skip-chat-parsing | --slot-prompt-similarity -sps | --slots --no-slots | --spec-draft-backend-sampling
--no-spec-draft-backend-sampling | --spec-draft-cpu-mask --cpu-mask-draft -Cd | --spec-draft-cpu-mask-batch --cpu-mask-batch-draft -Cbd | --spec-draft-cpu-moe
--cpu-moe-draft -cmoed | --spec-draft-cpu-range --cpu-range-draft -Crd | --spec-draft-cpu-strict --cpu-strict-draft | --spec-draft-cpu-strict-batch
--cpu-strict-batch-draft | --spec-draft-device --device-draft -devd | --spec-draft-hf --hf-repo-draft -hfd -hfrd | --spec-draft-model --model-draft -md |
--spec-draft-n-cpu-moe --n-cpu-moe-draft --spec-draft-ncmoe -ncmoed | --spec-draft-ngl --gpu-layers-draft --n-gpu-layers-draft -ngld |
--spec-draft-override-tensor --override-tensor-draft -otd | --spec-draft-p-min --draft-p-min | --spec-draft-p-split --draft-p-split | --spec-draft-poll
--poll-draft | --spec-draft-poll-batch --poll-batch-draft | --spec-draft-prio --prio-draft | --spec-draft-prio-batch --prio-batch-draft | --spec-draft-threads
--threads-draft -td | --spec-draft-threads-batch --threads-batch-draft -tbd | --spec-draft-type-k --cache-type-k-draft -ctkd | --spec-draft-type-v
--cache-type-v-draft -ctvd | --special -sp | --split-mode -sm | --temp --temperature | --tensor-split -ts | --threads -t | --threads-batch -tb | --timeout -to
| --top-nsigma --top-n-sigma | --typical --typical-p | --ubatch-size -ub | --ui --no-ui --no-webui --webui | --ui-config --webui-config | --ui-config-file
--webui-config-file | --ui-mcp-proxy --no-ui-mcp-proxy --no-webui-mcp-proxy --webui-mcp-proxy | --verbose --log-verbose -v | --verbosity --log-verbosity -lv |
--warmup --no-warmup
"""

# What the help calls an option's value, and the options that have such a one
_ARGUMENTS_0_7_0 = {
    "": """
        --agent --backend-sampling --cache-idle-slots --cache-list --cache-prompt --check-tensors --completion-bash --cont-batching --context-shift
        --cors-credentials --cpu-moe --embd-gemma-default --embedding --escape --fim-qwen-1.5b-default --fim-qwen-14b-spec --fim-qwen-30b-default
        --fim-qwen-3b-default --fim-qwen-7b-default --fim-qwen-7b-spec --gpt-oss-120b-default --gpt-oss-20b-default --help --ignore-eos --jinja
        --kv-offload --kv-unified --list-devices --log-disable --log-jsonl --log-prefix --log-timestamps --lora-init-without-apply --metrics
        --mmproj-auto --mmproj-offload --models-autoload --no-host --offline --op-offload --perf --prefill-assistant --props --reasoning-preserve
        --repack --rerank --reuse-port --skip-chat-parsing --slots --spec-default --spec-draft-backend-sampling --spec-draft-cpu-moe --special
        --spm-infill --swa-full --ui --ui-mcp-proxy --verbose --version --vision-gemma-12b-default --vision-gemma-4b-default --warmup
    """,
    "<0...100>": "--poll",
    "<0|1>": "--cpu-strict --cpu-strict-batch --poll-batch --spec-draft-cpu-strict --spec-draft-cpu-strict-batch --spec-draft-poll --spec-draft-poll-batch",
    "<dev1,dev2,..>": "--device --spec-draft-device",
    "<tensor name pattern>=<buffer type>,...": "--override-tensor --spec-draft-override-tensor",
    "<user>/<model>[:quant]": "--hf-repo --spec-draft-hf",
    "DEVICE": "--mmproj-device",
    "DIR": "--video-ffmpeg-dir",
    "FILE": "--hf-file --json-schema-file --mmproj",
    "FNAME": """
        --api-key-file --control-vector --grammar-file --log-file --lookup-cache-dynamic --lookup-cache-static --lora --model --spec-draft-model
        --ssl-cert-file --ssl-key-file
    """,
    "FNAME:SCALE,...": "--control-vector-scaled --lora-scaled",
    "FORMAT": "--reasoning-format",
    "GRAMMAR": "--grammar",
    "HEADERS": "--cors-headers",
    "HOST": "--host",
    "INDEX": "--main-gpu",
    "JINJA_TEMPLATE": "--chat-template",
    "JINJA_TEMPLATE_FILE": "--chat-template-file",
    "JSON": "--mcp-servers-json --ui-config",
    "KEY": "--api-key",
    "KEY=TYPE:VALUE,...": "--override-kv",
    "L": "--spec-synth-len",
    "LEVEL": "--reasoning-effort",
    "M": "--cpu-mask --cpu-mask-batch --spec-draft-cpu-mask --spec-draft-cpu-mask-batch",
    "MESSAGE": "--reasoning-budget-message",
    "METHODS": "--cors-methods",
    "MODE": "--lazy-mode --load-mode",
    "MODEL_URL": "--model-url",
    "MiB0,MiB1,MiB2,...": "--fit-target",
    "N": """
        --adaptive-decay --adaptive-target --batch-size --cache-ram --cache-reuse --checkpoint-min-step --ctx-checkpoints --ctx-size --defrag-thold
        --dry-allowed-length --dry-base --dry-multiplier --dry-penalty-last-n --dynatemp-exp --dynatemp-range --embd-normalize --fit-ctx
        --frequency-penalty --gpu-layers --image-max-tokens --image-min-tokens --keep --kv-unified-per-slot --min-p --mirostat --mirostat-ent
        --mirostat-lr --models-max --moe-cache-mib --mtmd-batch-max-tokens --n-cpu-ffn --n-cpu-moe --parallel --predict --presence-penalty --prio
        --prio-batch --reasoning-budget --repeat-last-n --repeat-penalty --rope-freq-base --rope-freq-scale --rope-scale --spec-draft-n-cpu-moe
        --spec-draft-n-max --spec-draft-n-min --spec-draft-n-ubatch --spec-draft-ngl --spec-draft-prio --spec-draft-prio-batch --spec-draft-threads
        --spec-draft-threads-batch --spec-ngram-map-k-min-hits --spec-ngram-map-k-size-m --spec-ngram-map-k-size-n --spec-ngram-map-k4v-min-hits
        --spec-ngram-map-k4v-size-m --spec-ngram-map-k4v-size-n --spec-ngram-mod-n-match --spec-ngram-mod-n-max --spec-ngram-mod-n-min
        --spec-ngram-simple-min-hits --spec-ngram-simple-size-m --spec-ngram-simple-size-n --sse-ping-interval --temp --threads --threads-batch
        --threads-http --timeout --top-k --top-nsigma --top-p --typical --ubatch-size --verbosity --video-fps --video-timestamp-interval
        --xtc-probability --xtc-threshold --yarn-attn-factor --yarn-beta-fast --yarn-beta-slow --yarn-ext-factor --yarn-orig-ctx
    """,
    "N0,N1,N2,...": "--tensor-split",
    "OPTION": "--tools-runtime",
    "ORIGINS": "--cors-origins",
    "P": "--spec-draft-p-min --spec-draft-p-split",
    "P0,P1,...": "--spec-synth-rates",
    "PATH": "--log-prompts-dir --mcp-servers-config --media-path --models-dir --models-preset --path --slot-save-path --ui-config-file",
    "PORT": "--port",
    "PREFIX": "--api-prefix",
    "PROMPT": "--reverse-prompt",
    "SAMPLERS": "--samplers",
    "SCHEMA": "--json-schema",
    "SECONDS": "--sleep-idle-seconds",
    "SEED": "--seed",
    "SEQUENCE": "--sampler-seq",
    "SERVERS": "--rpc",
    "SIMILARITY": "--slot-prompt-similarity",
    "START END": "--control-vector-layer-range",
    "STRING": "--alias --chat-template-kwargs --dry-sequence-breaker --tags",
    "TOKEN": "--hf-token",
    "TOKEN_ID(+/-)BIAS": "--logit-bias",
    "TOOL1,TOOL2,...": "--tools",
    "TYPE": "--cache-type-k --cache-type-v --numa --spec-draft-type-k --spec-draft-type-v",
    "URL": "--mmproj-url",
    "[<repo>/]<model>[:quant]": "--docker-repo",
    "[on|off]": "--fit",
    "[on|off|auto]": "--flash-attn --log-colors --reasoning",
    "lo-hi": "--cpu-range --cpu-range-batch --spec-draft-cpu-range",
    "none,draft-simple,draft-eagle3,draft-mtp,draft-dflash,draft-dspark,ngram-simple,ngram-map-k,ngram-map-k4v,ngram-mod,ngram-cache": "--spec-type",
    "{greedy,probabilistic}": "--spec-draft-sampling",
    "{none,layer,row,tensor}": "--split-mode",
    "{none,linear,yarn}": "--rope-scaling",
    "{none,mean,cls,last,rank}": "--pooling",
}


def _pairs(text: str) -> dict[str, str]:
    words = text.split()
    return dict(zip(words[::2], words[1::2]))


def _aliases(text: str) -> dict[str, str]:
    groups = [group.split() for group in text.split("|")]
    return {other: first for first, *others in groups for other in others}


def _arguments(table: Mapping[str, str], aliases: Mapping[str, str]) -> dict[str, str]:
    named = {name: argument for argument, names in table.items() for name in names.split()}
    return {**named, **{other: named[first] for other, first in aliases.items()}}


VERSIONS: Mapping[str, Mapping[str, Any]] = {
    "0.7.0": {
        "build": "11669",
        "options": tuple(_OPTIONS_0_7_0.split()),
        "environment": _pairs(_ENVIRONMENT_0_7_0),
        "aliases": _aliases(_ALIASES_0_7_0),
        "arguments": _arguments(_ARGUMENTS_0_7_0, _aliases(_ALIASES_0_7_0)),
    },
}
