#!/usr/bin/env bash
# readme-command.sh NUMBER [FILE]: prints the first or the second command of the section "Two commands" of README.md, so that
# CI runs what the reader is told to type. The section must hold exactly two blocks fenced as sh.
set -euo pipefail
number=$1
file=${2:-$(dirname "${BASH_SOURCE[0]}")/../README.md}

awk -v number="$number" '
    block && /^```/         { block = 0; next }
    block                   { if (blocks == number) command = command $0 "\n"; next }
    /^```/ && other         { other = 0; next }
    section && /^```sh *$/  { block = 1; blocks++; next }
    /^```/                  { other = 1; next }
    other                   { next }
    /^##? /                 { section = ($0 ~ /^## Two commands *$/) }
    END {
        if (blocks != 2 || command !~ /[^[:space:]]/) {
            print FILENAME ": expected two filled sh blocks under \"## Two commands\", found " blocks + 0 >"/dev/stderr"
            exit 1
        }
        printf "%s", command
    }' "$file"
