#!/usr/bin/env bash
# One machine: ./torchrun.sh 4 craft pil --data DATA --out STORE
# Several: the same line on each, with NODES=2 ENDPOINT=first-host:29500 in the environment.
set -euo pipefail

processes=${1:?usage: torchrun.sh PROCESSES-A-NODE VERB ...}
shift
if [ "${NODES:-1}" = 1 ]; then
    meeting=(--standalone)
else
    meeting=(--nnodes "$NODES" --rdzv-backend c10d --rdzv-endpoint "${ENDPOINT:?HOST:PORT of the first machine}")
fi
# Without --signals-to-handle a USR1 or USR2 would kill torchrun and leave its workers; the time-out is for saving.
exec torchrun "${meeting[@]}" --nproc-per-node "$processes" \
    --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2 --shutdown-timeout 120 -m hpcule "$@"
