#!/usr/bin/env bash
# House rules that no compiler checks. Prints `path:line: what is wrong` for each breach and exits 1 if there was one;
# files that are too long are only warned of. Looks at what git tracks or would track. `tidy.sh DIRECTORY` looks there.
set -euo pipefail
cd "${1:-$(dirname "${BASH_SOURCE[0]}")/..}"

lines_max=500
allowed=scripts/tidy-allow.txt
breaches=0

# Reads breaches, one a line, from standard input; $1 says why they are ones.
report() {
    local line
    while IFS= read -r line; do
        echo "$line: $1"
        breaches=$((breaches + 1))
    done
}

# Files by git's patterns, without those that are deleted but not yet committed.
files() {
    git ls-files --cached --others --exclude-standard -- "$@" | while IFS= read -r file; do
        if [[ -f $file ]]; then echo "$file"; fi
    done
}

mapfile -t rust < <(files '*.rs')
mapfile -t sources < <(printf '%s\n' "${rust[@]}" | grep -E '(^|/)src/' || true)
mapfile -t markdown < <(files '*.md')
mapfile -t scripts < <(files '*.sh' .ci/run)

# Greps in the files after `--`; finding nothing, or having no file to look in, is no failure.
find_lines() {
    local pattern=$1
    shift 2
    if [[ $# -gt 0 ]]; then grep -HnE "$pattern" "$@" || true; fi
}

# 1. A file is read as a whole: past this it should have been two.
for file in "${rust[@]}"; do
    lines=$(wc -l <"$file")
    if ((lines > lines_max)); then echo "warning: $file: $lines lines, more than $lines_max"; fi
done

# 2. One word per thing (the glossary in CONTRIBUTING.md): a job is not a task, it is claimed and not dequeued, under a lease
# and not a visibility timeout, and it is dead and not in a morgue. Looked at is what gets declared, public or not: an
# item, a public field, a variant. Legitimate uses (a tokio task is one) are in the allow list.
declarations() {
    find_lines '' -- "${sources[@]}" | sed -nE \
        -e '/^[^:]+:[0-9]+: *\/\//d' \
        -e 's/^([^:]+:[0-9]+): *(pub(\([^)]*\))? +)?((async|unsafe|const|extern "C") +)*(fn|struct|enum|union|trait|mod|type|const|static) +(mut +)?([A-Za-z_0-9]+).*/\1 \8/p;t' \
        -e 's/^([^:]+:[0-9]+): *pub(\([^)]*\))? +([a-z_0-9]+):.*/\1 \3/p;t' \
        -e 's/^([^:]+:[0-9]+): +([A-Z][A-Za-z0-9]*) *([,({].*)?$/\1 \2/p'
}
# An entry of the list is `path identifier # reason`. One that allows nothing any more is a breach itself.
report "banned word in an identifier; see the glossary, or $allowed" < <(
    declarations | awk -v allowed="$allowed" '
        BEGIN {
            while ((getline line < allowed) > 0) {
                entry++
                if (line ~ /^[[:space:]]*(#|$)/) continue
                split(line, part, " ")
                if (line !~ /#[[:space:]]*[^[:space:]]/) print allowed ":" entry " (no reason)"
                at[part[1] " " part[2]] = entry
            }
        }
        tolower($2) ~ /task|dequeue|visibility|morgue/ {
            path = $1
            sub(/:[0-9]+$/, "", path)
            if (path " " $2 in at) used[path " " $2] = 1
            else print $1 ": " $2
        }
        END { for (key in at) if (!(key in used)) print allowed ":" at[key] " (allows nothing any more)" }'
)

# 3. What is unfinished stays on its branch.
report "unfinished" < <(find_lines '\b(todo|unimplemented)!\(|FIXME' -- "${sources[@]}" | cut -d: -f1-2)

# 4. No test sleeps. Test code is a file of tests, or what follows `#[cfg(test)]` + `mod .. {` in any other. The one
# exception, a poll with an end, carries `// bounded poll` on its line.
test_lines() {
    awk '
        FNR == 1 { test = FILENAME ~ /(^|\/)tests\/|\/tests\.rs$|_test\.rs$|^crates\/conformance\//; marked = 0 }
        marked && /^ *(pub(\([a-z]+\))? +)?mod [a-z_0-9]+ *\{/ { test = 1 }
        !/^ *#\[/ { marked = 0 }
        /^ *#\[cfg\(test\)\]/ { marked = 1 }
        test { print FILENAME ":" FNR ":" $0 }' "$@"
}
if [[ ${#rust[@]} -gt 0 ]]; then
    report "a test sleeps; advance the clock, or wait for a signal" < <(
        test_lines "${rust[@]}" | grep -E '(time|thread)::(\{[^}]*)?sleep(_until)?\b' |
            grep -vE '//.*bounded poll|^[^:]+:[0-9]+: *//' | cut -d: -f1-2 || true
    )
fi

# 5. Links between documents lead somewhere: [text](path) and [name]: path, outside code. Anchors are not followed.
links() {
    awk '
        FNR == 1 { code = 0 }
        /^ *(```|~~~)/ { code = !code; next }
        code { next }
        {
            gsub(/`[^`]*`/, "")
            while (match($0, /\]\([^() ]+( "[^"]*")?\)/)) {
                target = substr($0, RSTART + 2, RLENGTH - 3)
                sub(/ ".*/, "", target)
                print FILENAME ":" FNR " " target
                $0 = substr($0, RSTART + RLENGTH)
            }
            if (match($0, /^ *\[[^]^][^]]*\]: +[^ ]+/)) {
                target = $0
                sub(/^ *\[[^]]*\]: +/, "", target)
                sub(/ .*/, "", target)
                print FILENAME ":" FNR " " target
            }
        }' "$@"
}
dead_links() {
    local where target path
    while read -r where target; do
        path=${target%%#*}
        case $target in
        '#'* | *://* | mailto:*) continue ;;
        /*) path=.$path ;;
        *) path=$(dirname "${where%:*}")/$path ;;
        esac
        if [[ ! -e $path ]]; then echo "$where: $target"; fi
    done < <(links "$@")
}
if [[ ${#markdown[@]} -gt 0 ]]; then
    report "dead link" < <(dead_links "${markdown[@]}")
fi

# 6. Tests that the table of requirements names exist. Names of tests have an underscore and no dot.
if [[ -f docs/original.md ]]; then
    report "no test has this name" < <(
        # shellcheck disable=SC2016 # the backticks are those of the document
        grep -noE '^\| R[0-9]+ .*' docs/original.md | while IFS=: read -r number line; do
            # A row may name none: that must not end the loop.
            { echo "${line##*" | "}" | grep -oE '`[a-z0-9_]+_[a-z0-9_]+`' || true; } | tr -d '`' | while read -r name; do
                if ! grep -qE "fn $name\b" "${rust[@]}"; then echo "docs/original.md:$number: $name"; fi
            done
        done
    )
fi

# 7. Our own scripts.
if [[ ${#scripts[@]} -gt 0 ]]; then
    if command -v shellcheck >/dev/null; then
        shellcheck "${scripts[@]}" || breaches=$((breaches + 1))
    else
        echo "warning: scripts NOT CHECKED, there is no shellcheck"
    fi
fi

if ((breaches > 0)); then
    echo "tidy: $breaches breaches"
    exit 1
fi
echo "tidy: ${#rust[@]} Rust files, ${#markdown[@]} documents and ${#scripts[@]} scripts are in order"
