#!/usr/bin/env bash
# flux batch launch/flux.sh, after editing. Not run yet, for want of such a machine.
# One rank a GPU; the tasks find each other by `flux hostlist`, without MPI.
# flux: --nodes=2 --nslots=8 --cores-per-slot=8 --gpus-per-slot=1
# flux: --time-limit=2h
# flux: --output=hpcule-{{id}}.out
set -euo pipefail

# Ten minutes before the limit the ranks save; submit the same file again to continue.
export HPCULE_STOP_AT=$(($(date +%s) + 110 * 60))
flux run --nodes=2 --ntasks=8 --cores-per-task=8 --gpus-per-task=1 \
    python -m hpcule craft pil --data DATA --out STORE --resume
