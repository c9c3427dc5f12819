#!/usr/bin/env bash
# One machine: ./torchrun.sh 4 craft pil --data DATA --out STORE
# Several: the same line on each, with NODES=2 NODE_RANK=0 ADDRESS=first-host in the environment, and NODE_RANK=1 on the
# second. PORT is for a second run on the same machine.
set -euo pipefail

processes=${1:?usage: torchrun.sh PROCESSES-A-NODE VERB ...}
shift
meeting=()
if [ "${NODES:-1}" != 1 ]; then
    meeting=(--nnodes "$NODES" --node-rank "${NODE_RANK:?number of this machine, from 0}")
    : "${ADDRESS:?host name of the first machine}"
fi
# --standalone, and any start without a port, would unpickle what anybody who reaches the port writes there.
# Without --signals-to-handle a USR1 or USR2 would kill torchrun and leave its workers; the time-out is for saving.
exec torchrun "${meeting[@]}" --nproc-per-node "$processes" \
    --rdzv-backend static --master-addr "${ADDRESS:-127.0.0.1}" --master-port "${PORT:-29500}" \
    --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2 --shutdown-timeout 120 -m hpcule "$@"
