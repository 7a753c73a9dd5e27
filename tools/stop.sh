#!/bin/bash
# Stops what `make run` started: the control plane, then the VMs of its hosts.
set -euo pipefail
. "$(dirname "$0")/env.sh"

if [ -s "$data/run.pid" ] && ! flock --nonblock "$data/lock" true; then
    kill -TERM "$(cat "$data/run.pid")"
    # The lock is free once everything has ended.
    flock "$data/lock" true
    echo "vimana: the control plane is stopped"
fi
for host in "$data"/host-*; do
    [ -d "$host" ] || continue
    "$bin/vimana-agent" stop-machines --data-dir "$host"
done
