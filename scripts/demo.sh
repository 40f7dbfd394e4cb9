#!/usr/bin/env bash
# Brings the service up on the embedded store, runs a demo job to success, shows its log, stops everything again.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
cargo build --quiet --release --bin jobservice
target=${CARGO_TARGET_DIR:-target}
bin=$target/release/jobservice

data=$(mktemp -d)
"$bin" --data-dir "$data" --port 0 2>"$data/service.log" &
service=$!
trap 'kill "$service" 2>/dev/null || true; wait "$service" 2>/dev/null || true; rm -rf "$data"' EXIT

# The service writes its address when it is ready to serve.
for _ in $(seq 100); do
    [ -s "$data/endpoint" ] && break
    kill -0 "$service" 2>/dev/null || { echo "the service did not start:"; cat "$data/service.log"; exit 1; }
    sleep 0.1
done
[ -s "$data/endpoint" ] || { echo "the service was not ready within 10 s:"; cat "$data/service.log"; exit 1; }
echo "service at $(cat "$data/endpoint")"

echo "\$ jobservice submit demo -p image=demo:1 -p seconds=2 --wait"
job=$("$bin" --data-dir "$data" submit demo -p image=demo:1 -p seconds=2 --wait --json)
echo "$job"
id=$(printf '%s' "$job" | sed -n 's/.*"id": *"\([^"]*\)".*/\1/p' | head -n 1)

echo "\$ jobservice log $id"
"$bin" --data-dir "$data" log "$id"

echo "\$ kill -TERM $service"
kill -TERM "$service"
wait "$service"
printf '%s' "$job" | grep -q '"status": *"success"' || { echo "the demo job did not succeed"; exit 1; }
echo "done: the job succeeded, the service stopped cleanly"
