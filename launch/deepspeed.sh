#!/usr/bin/env bash
# One machine: ./deepspeed.sh 4 craft pil --data DATA --out STORE
# On several machines this launcher needs ssh without a password: prefer srun or torchrun there.
set -euo pipefail

processes=${1:?usage: deepspeed.sh PROCESSES VERB ...}
shift
# --num_gpus counts processes, on a machine without GPUs too; --no_local_rank, because hpcule reads its environment.
exec deepspeed --num_gpus "$processes" --master_port "${PORT:-29500}" --no_local_rank --module hpcule "$@"
