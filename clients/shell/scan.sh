#!/usr/bin/env bash
# Arms a run, waits until a rule has fired, ends the run: with curl and nothing else.
#
#     scan.sh http://127.0.0.1:8080 [FILE-WITH-A-TOKEN]
set -euo pipefail
api=${1:?the address of the appliance}/api/v1
# The token goes by standard input: an argument would show in the list of processes.
ask() { curl --silent --show-error --fail-with-body --config <([ -z "${token:-}" ] || echo "header = \"Authorization: Bearer $token\"") "$@"; }
token=${2:+$(<"$2")}

run=$(ask "$api/runs" --json '{"sample": "CeO2"}' | sed 's/.*"id":"\([^"]*\)".*/\1/')
echo "armed $run"

# Server-sent events: one "event:" and one "data:" line each.
while read -r field value; do
  case "$field $value" in
    "event: decision") decided=1 ;;
    "event: end") break ;;
    data:*) [ -z "${decided:-}" ] || { echo "decided: $value"; break; } ;;
  esac
done < <(ask --no-buffer "$api/runs/$run/events" 2>/dev/null)

# It may have ended by itself.
ask -X POST "$api/runs/$run/stop" >/dev/null || true
# `summary` is there once the files are closed.
until detail=$(ask "$api/runs/$run") && [[ $detail != *'"summary":null'* ]]; do sleep 0.2; done
echo "$run $(grep -o '"state":"[a-z]*"' <<<"$detail" | head -n 1 | cut -d '"' -f 4)"
