# Shared by the benchmarks: a throwaway server, timing, medians. Sourced, not run.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
pairs=${PAIRS:-5}
profile=${CARGO_PROFILE:-release}
bin=$root/target/$([ "$profile" = dev ] && echo debug || echo "$profile")
pgrunbook=$bin/pgrunbook
work=$(mktemp -d)

# build [ARGUMENT ...]: the program, and what the arguments name besides. CARGO_PROFILE=profiling builds faster, BUILT=1 takes what is
# there. Two calls of cargo: one that is given an example builds no programs.
build() {
    [ -n "${BUILT:-}" ] && return
    cargo build --quiet --profile "$profile" --package pgrunbook
    [ $# -eq 0 ] || cargo build --quiet --profile "$profile" "$@"
}

# Milliseconds that a command takes, on stdout; the command's own output goes to $work/out.
ms() {
    local begin end
    begin=$(date +%s%N)
    "$@" >"$work/out" 2>&1 || { cat "$work/out" >&2; return 1; }
    end=$(date +%s%N)
    awk -v ns=$((end - begin)) 'BEGIN { printf "%.1f", ns / 1e6 }'
}

# Median of the numbers on stdin.
median() { sort -n | awk '{ a[NR] = $1 } END { print (NR % 2) ? a[(NR + 1) / 2] : (a[NR / 2] + a[NR / 2 + 1]) / 2 }'; }

# Minimum, median and maximum of a file of numbers, for a row of a table.
spread() { printf '%s (%s to %s)' "$(median <"$1")" "$(sort -n "$1" | head -n 1)" "$(sort -n "$1" | tail -n 1)"; }

# A throwaway cluster with durable settings; sets $admin (a URL of its `postgres` database).
server() {
    admin=$("$pgrunbook" sandbox up --detach --durable --name "bench-$$" --format plain)
    trap '"$pgrunbook" sandbox down "bench-$$" >/dev/null 2>&1; rm -rf "$work"' EXIT
}

# The URL of a new, empty database.
fresh() {
    PGOPTIONS="-c client_min_messages=warning" psql -X -q -d "$admin" -c "DROP DATABASE IF EXISTS $1 WITH (FORCE)" -c "CREATE DATABASE $1"
    database "$1"
}

# The URL of a database of the cluster.
database() { sed "s|/postgres\(\?.*\)\{0,1\}$|/$1\1|" <<<"$admin"; }
