# For tests that are scripts: a taskhook that runs. It is sourced.
#
# work is a folder that goes with the script, and taskhook the program.

taskhook=${1:-target/debug/taskhook}
work=$(mktemp -d)
running=()
trap 'kill "${running[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT

# Waits until the file $1 has a line like $2, of the process $3.
wait_for() {
  local _
  for _ in $(seq 200); do
    grep -q "$2" "$1" && return
    kill -0 "$3" || break
    sleep 0.1
  done
  cat "$1" >&2
  return 1
}

# Starts a taskhook by the configuration $work/taskhook.toml; public and admin are where it listens.
serve() {
  local ready='receives on \([0-9.:]*\); admin on http://\([0-9.:]*\)'
  env -i "$taskhook" serve --config "$work/taskhook.toml" >"$work/out" 2>"$work/log" &
  running+=($!)
  wait_for "$work/log" "$ready" $!
  read -r public admin < <(sed -n "s#.*$ready.*#\\1 \\2#p" "$work/log")
}

ask() { curl --noproxy '*' --silent --show-error --max-time 10 --header 'authorization: Bearer a-token' "$@"; }
