#!/bin/bash
# Starts a whole Vimana on this machine: the server, the scheduler, and two
# agents, which are two hosts of one zone. Ctrl-C stops these; the VMs run on,
# and the next start finds them again.
set -euo pipefail
. "$(dirname "$0")/env.sh"

tools/setup.sh run
tools/build.sh

listen=${VIMANA_LISTEN:-127.0.0.1:8700}
mkdir -p "$data/log"
chmod 700 "$data"
data=$(cd "$data" && pwd)

# One control plane per data directory; the lock is free when this shell ends.
exec 9>"$data/lock"
if ! flock --nonblock 9; then
    echo "vimana: already running on $data (make stop stops it)" >&2
    exit 1
fi
echo $$ >"$data/run.pid"

children=()
stop_all() {
    trap '' INT TERM
    [ ${#children[@]} -eq 0 ] || kill -TERM "${children[@]}" 2>/dev/null || true
    wait
    rm -f "$data/run.pid"
}
trap 'echo; echo "vimana: stopping; the VMs run on (make stop also stops them)"; stop_all; exit 0' INT TERM
trap stop_all EXIT

# start NAME COMMAND...: in the background, with a log of its own.
start() {
    local name=$1
    shift
    [ ! -s "$data/log/$name.log" ] || mv "$data/log/$name.log" "$data/log/$name.log.1"
    "$@" >"$data/log/$name.log" 2>&1 9>&- &
    children+=($!)
}

# The server speaks first: the administrator's password, then its address.
mkfifo -m 600 "$data/server.out.$$"
[ ! -s "$data/log/server.log" ] || mv "$data/log/server.log" "$data/log/server.log.1"
"$bin/vimana-server" --data-dir "$data/server" --listen "$listen" --site-dir "$cache/site" \
    --import-image "demo=$demo_image" >"$data/server.out.$$" 2>"$data/log/server.log" 9>&- &
children+=($!)
exec 3<"$data/server.out.$$"
rm "$data/server.out.$$"
url=
while read -r line <&3; do
    case $line in
    *http://* | *https://*)
        url=$(printf '%s\n' "$line" | grep -o 'https\?://[^ ]*')
        break
        ;;
    *) echo "$line" ;;
    esac
done
if [ -z "$url" ]; then
    tail -n 5 "$data/log/server.log" >&2
    exit 1
fi
cat <&3 >>"$data/log/server.log" 9>&- &

# Agents and scheduler reach the server on this machine, wherever it listens.
local_url=${url/0.0.0.0/127.0.0.1}
start scheduler "$bin/vimana-scheduler" --server "$local_url" \
    --secret-file "$data/server/secrets/scheduler"

# The machine is shared between the two hosts, half and half.
memory_mib=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
for host in host-a host-b; do
    start "$host" "$bin/vimana-agent" --server "$local_url" \
        --secret-file "$data/server/secrets/agent" \
        --data-dir "$data/$host" --name "$host" --zone default \
        --vcpus "$(($(nproc) * 2))" --memory-mib "$(((memory_mib - 512) / 2))" \
        --probe-image "$demo_image"
done

echo
echo "Vimana is running at $url"
echo "  sign in as admin; the command line is bin/vimana; logs are in $data/log"
echo "  Ctrl-C stops the control plane and leaves the VMs running; make stop also stops them"

# Any part that ends by itself takes the others with it, loudly.
wait -n "${children[@]}" || true
echo "vimana: a part has ended by itself; see $data/log" >&2
tail -qn 3 "$data"/log/*.log >&2
exit 1
