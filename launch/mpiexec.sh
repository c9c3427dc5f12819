#!/usr/bin/env bash
# ./mpiexec.sh 4 craft pil --data DATA --out STORE
# MPIEXEC_OPTIONS, for example: "--hostfile hosts"; with Open MPI as root "--allow-run-as-root", and with more processes
# than cores "--oversubscribe". mpi4py must belong to the MPI whose mpiexec this is.
set -euo pipefail

processes=${1:?usage: mpiexec.sh PROCESSES VERB ...}
shift
read -ra options <<< "${MPIEXEC_OPTIONS:-}"
exec mpiexec "${options[@]}" -n "$processes" python -m hpcule "$@"
