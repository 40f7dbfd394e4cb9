#!/usr/bin/env bash
# Writes crates/server/link/order.ld: which functions of the service run at its start, when it is idle and for the calls that
# everybody makes. The linker puts them side by side (crates/server/build.rs), so that a service has touched 2.7 MiB less of its
# executable. Needs valgrind and nm. Worth running again after large changes; names that no longer exist do no harm.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=crates/server/link/order.ld
for tool in valgrind nm; do
    command -v "$tool" >/dev/null || { echo "order.sh: $tool is missing; install it" >&2; exit 1; }
done
# Wherever the settings of cargo put it.
binary=$(cargo build --release --quiet --bin jobservice --message-format=json \
    | grep -oE '"executable":"[^"]*/jobservice"' | cut -d'"' -f4)

dir=$(mktemp -d)
service=
stop() {
    if [[ -n $service ]]; then kill "$service" 2>/dev/null || true; wait "$service" 2>/dev/null || true; fi
    rm -rf "$dir"
}
trap stop EXIT

valgrind --tool=callgrind --demangle=no --compress-strings=no --callgrind-out-file="$dir/profile" \
    "$binary" --data-dir "$dir/data" --port 0 2>"$dir/log" &
service=$!
# The service says where it listens when it is ready.
for _ in {1..1200}; do
    [[ -s $dir/data/endpoint ]] && break
    kill -0 "$service" || { cat "$dir/log" >&2; exit 1; }
    sleep 0.1
done
url=$(<"$dir/data/endpoint")/api/v1
auth="Authorization: Harbor-Secret $(<"$dir/data/secret")"
for _ in 1 2 3; do
    curl --silent --show-error --fail --output /dev/null --header "$auth" --header 'Content-Type: application/json' \
        --data '{"job":{"name":"noop","metadata":{"kind":"Generic"}}}' "$url/jobs"
    for path in 'jobs?limit=50' 'jobs?status=Pending&limit=50' 'jobs?name=noop&limit=50' stats; do
        curl --silent --show-error --fail --output /dev/null --header "$auth" "$url/$path"
    done
done
# An idle service: the sweeps that come each second and each few seconds.
sleep 10
kill -INT "$service"
wait "$service" || true
service=

# Names end in a hash of the compiler's, and name crates with one: those become patterns.
{
    echo "/* The order of functions in the executable: what a service runs at its start, idle and for common calls. Written by"
    echo "   scripts/order.sh. Linkers take it besides their own layout; a name that does not exist is passed over. */"
    echo "SECTIONS { .text.start : {"
    grep -hE '^c?fn=' "$dir/profile" | sed -E "s/^c?fn=//; s/'[0-9]+$//" | sort -u \
        | join - <(nm "$binary" | awk '$2 == "t" || $2 == "T" { print $3 }' | sort -u) \
        | sed -E 's/17h[0-9a-f]{16}E.*$/17h*/; s/Cs[0-9A-Za-z]{8,}_/Cs*_/g' | sort -u | sed 's/.*/  *(.text.&)/'
    echo "} } INSERT BEFORE .text;"
} >"$dir/order"
mv "$dir/order" "$out"
echo "$out: $(grep -c '\.text\.' "$out") functions"
