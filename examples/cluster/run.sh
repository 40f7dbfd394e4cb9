#!/usr/bin/env bash
# One Redis, three nodes over it and a balancer before them, all on loopback, until Ctrl-C. Prints what to try.
#
# The balancer listens on CLUSTER_PORT (9450), the nodes on the three ports after it. JOBSERVICE_BIN and BALANCER_BIN:
# take these binaries and build none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [[ -z ${JOBSERVICE_BIN:-} || -z ${BALANCER_BIN:-} ]]; then
    scripts/setup.sh
    cargo build --quiet --release --package jobservice-server --bin jobservice --example balancer
    target=${CARGO_TARGET_DIR:-target}
    JOBSERVICE_BIN=$target/release/jobservice
    BALANCER_BIN=$target/release/examples/balancer
fi
port=${CLUSTER_PORT:-9450}
data=$(mktemp -d)
# Shared by all nodes, as a balancer sends each request to another one.
CORE_SECRET=${CORE_SECRET:-$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')}
export CORE_SECRET JOB_SERVICE_POOL_BACKEND=redis JOB_SERVICE_POOL_REDIS_URL=redis+unix://$data/redis.sock

redis='' balancer='' nodes=()

# Nodes first: they give back what they run, for which they need Redis.
stop() {
    trap '' INT TERM
    echo "stopping"
    if [[ -n $balancer ]]; then kill "$balancer" 2>/dev/null || true; fi
    if ((${#nodes[@]})); then
        kill "${nodes[@]}" 2>/dev/null || true
        wait "${nodes[@]}" 2>/dev/null || true
    fi
    if [[ -n $redis ]]; then
        kill "$redis" 2>/dev/null || true
        wait "$redis" 2>/dev/null || true
    fi
    rm -rf "$data"
}
trap stop EXIT
trap 'exit 0' INT TERM

# Each in a session of its own: Ctrl-C is for this script, which stops them in order.
setsid redis-server --port 0 --unixsocket "$data/redis.sock" --dir "$data" --save '' --appendonly yes \
    --maxmemory-policy noeviction >"$data/redis.log" &
redis=$!
for _ in $(seq 200); do
    if [[ $(redis-cli -s "$data/redis.sock" ping 2>/dev/null) == PONG ]]; then break; fi
    kill -0 "$redis" 2>/dev/null || { cat "$data/redis.log"; exit 1; }
    sleep 0.05
done

addresses=()
for number in 1 2 3; do
    at=127.0.0.1:$((port + number))
    mkdir "$data/node-$number"
    setsid "$JOBSERVICE_BIN" --data-dir "$data/node-$number" --bind 127.0.0.1 --port $((port + number)) \
        2>"$data/node-$number/service.log" &
    nodes+=($!)
    addresses+=("$at")
    echo "node $number: http://$at, process $!, log $data/node-$number/service.log"
done
for number in 1 2 3; do
    for _ in $(seq 200); do
        if [[ -s $data/node-$number/endpoint ]]; then break; fi
        kill -0 "${nodes[number - 1]}" 2>/dev/null || { cat "$data/node-$number/service.log"; exit 1; }
        sleep 0.05
    done
done
setsid "$BALANCER_BIN" "127.0.0.1:$port" "${addresses[@]}" &
balancer=$!
for _ in $(seq 200); do
    if curl -sf -o "$data/ready" "http://127.0.0.1:$port/readyz"; then break; fi
    kill -0 "$balancer" 2>/dev/null || exit 1
    sleep 0.05
done

cat <<END
balancer: http://127.0.0.1:$port

Try, in another shell:
  U=http://127.0.0.1:$port/api/v1; A='Authorization: Harbor-Secret $CORE_SECRET'
  curl \$U/stats                                            # three pools, whichever node answers
  curl -H "\$A" \$U/jobs -d '{"job": {"name": "demo", "parameters": {"image": "demo:1", "seconds": 20}, "metadata": {"kind": "Generic"}}}'
  curl -N -H "\$A" "\$U/jobs/<id>/log?follow=true"           # from any node, whichever runs it
  curl -H "\$A" \$U/jobs/<id> -d '{"action": "stop"}'        # reaches it on any node
  curl -X PUT -H "\$A" \$U/queues/demo -d '{"paused": true}' # holds on all nodes
  kill -9 ${nodes[1]}                                        # a node dies: what it ran runs again within 12 s
Ctrl-C stops everything and removes $data.
END

# Nodes may come and go; without the balancer there is nothing to see.
wait "$balancer"
