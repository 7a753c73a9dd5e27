#!/bin/bash
# Starts a whole Vimana on this machine: the server, the scheduler, and two
# agents, which are two hosts of one zone. Ctrl-C stops these; the VMs run on,
# and the next start finds them again.
set -euo pipefail
. "$(dirname "$0")/env.sh"

tools/setup.sh run
tools/build.sh

listen=${VIMANA_LISTEN:-127.0.0.1:8700}
agent_listen=${VIMANA_AGENT_LISTEN:-127.0.0.1:8701}
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

# Which process is which part, since when, and how often it ended at once.
declare -A name_of=() begun=() quick=()
stop_all() {
    trap '' INT TERM
    [ ${#name_of[@]} -eq 0 ] || kill -TERM "${!name_of[@]}" 2>/dev/null || true
    wait
    rm -f "$data/run.pid"
}
trap 'echo; echo "vimana: stopping; the VMs run on (make stop also stops them)"; stop_all; exit 0' INT TERM
trap stop_all EXIT

# The machine is shared between the two hosts, half and half.
memory_mib=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)

# part NAME: what it runs, in place of this shell. Agents and scheduler reach
# the server on this machine, wherever it listens.
part() {
    case $1 in
    server)
        exec "$bin/vimana-server" --data-dir "$data/server" --listen "$listen" \
            --agent-listen "$agent_listen" --site-dir "$cache/site" \
            --import-image "demo=$demo_image"
        ;;
    scheduler)
        exec "$bin/vimana-scheduler" --server "${url/0.0.0.0/127.0.0.1}" \
            --secret-file "$data/server/secrets/scheduler"
        ;;
    *)
        # A host joins once. One that was revoked is not let in again by itself.
        [ -e "$data/$1/certificate.json" ] ||
            (umask 077 && "$bin/vimana-server" join-token --data-dir "$data/server" \
                --name "$1" >"$data/$1.token")
        exec "$bin/vimana-agent" --server "${agent_url/0.0.0.0/127.0.0.1}" \
            --join-token-file "$data/$1.token" \
            --data-dir "$data/$1" --name "$1" --zone default \
            --vcpus "$(($(nproc) * 2))" --memory-mib "$(((memory_mib - 512) / 2))" \
            --probe-image "$demo_image"
        ;;
    esac
}

# start NAME OUTPUT: in the background, with a log of its own.
start() {
    part "$1" >>"$2" 2>>"$data/log/$1.log" 9>&- &
    name_of[$!]=$1
    begun[$1]=$SECONDS
}

for name in server scheduler host-a host-b; do
    [ ! -s "$data/log/$name.log" ] || mv "$data/log/$name.log" "$data/log/$name.log.1"
done

# The server speaks first: the administrator's password, then its addresses.
mkfifo -m 600 "$data/server.out.$$"
start server "$data/server.out.$$"
exec 3<"$data/server.out.$$"
rm "$data/server.out.$$"
url='' agent_url=''
while read -r line <&3; do
    case $line in
    'Vimana listens on '*) url=$(printf '%s\n' "$line" | grep -o 'https\?://[^ ]*') ;;
    'Agents connect to '*)
        agent_url=$(printf '%s\n' "$line" | grep -o 'https\?://[^ ]*')
        break
        ;;
    *) echo "$line" ;;
    esac
done
if [ -z "$agent_url" ]; then
    tail -n 5 "$data/log/server.log" >&2
    exit 1
fi
cat <&3 >>"$data/log/server.log" 9>&- &
# Started again, it listens where it did.
listen=${url#*://} agent_listen=${agent_url#*://}

for name in scheduler host-a host-b; do
    start "$name" "$data/log/$name.log"
done

echo
echo "Vimana is running at $url"
echo "  sign in as admin; the command line is bin/vimana; logs are in $data/log"
echo "  Ctrl-C stops the control plane and leaves the VMs running; make stop also stops them"

# Whatever part ends by itself is started again: nothing is lost by it.
while true; do
    wait -n -p ended "${!name_of[@]}" || true
    name=${name_of[$ended]}
    unset "name_of[$ended]"
    if ((SECONDS - begun[$name] < 5)); then
        quick[$name]=$((${quick[$name]:-0} + 1))
    else
        quick[$name]=0
    fi
    if ((quick[$name] >= 5)); then
        echo "vimana: $name ends as soon as it is started; see $data/log" >&2
        tail -qn 3 "$data/log/$name.log" >&2
        exit 1
    fi
    echo "vimana: $name ended by itself and is started again; see $data/log/$name.log" >&2
    start "$name" "$data/log/$name.log"
done
