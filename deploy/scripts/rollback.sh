#!/usr/bin/env bash
# Puts an earlier image back and waits until it is ready. Migrations only add, so the schema stays as it is.
#   deploy/scripts/rollback.sh compose VERSION [URL]
#   deploy/scripts/rollback.sh fly     IMAGE   [URL]      IMAGE as `fly releases --image` shows it
#   deploy/scripts/rollback.sh railway                    says where the button is: its command line has none
# Exit codes: 0 the earlier one serves, 1 it does not, 2 wrong use.
set -euo pipefail
cd "$(dirname "$0")/../.."

usage() {
  sed -n '2,6s/^# //p' deploy/scripts/rollback.sh >&2
  exit 2
}
platform=${1:-}
image=${2:-}
[ -n "$platform" ] || usage

case $platform in
  compose)
    [ -n "$image" ] || { docker images "${IMAGE:-plinth}" >&2; usage; }
    VERSION=$image docker compose -f deploy/compose.yaml up -d --no-build --no-deps api
    url=${3:-http://127.0.0.1:${PORT:-8080}}
    ;;
  fly)
    fly=$(command -v fly || command -v flyctl)
    app=()
    [ -z "${FLY_APP:-}" ] || app=(--app "$FLY_APP")
    [ -n "$image" ] || { "$fly" releases --image "${app[@]}" >&2; usage; }
    # The release command is skipped: it would only find a schema that is newer than it.
    "$fly" deploy "${app[@]}" --image "$image" --strategy immediate --config "${FLY_CONFIG:-fly.toml}" \
      --skip-release-command
    url=${3:-$(sed -n 's/^PUBLIC_URL = "\(.*\)"$/\1/p' "${FLY_CONFIG:-fly.toml}")}
    ;;
  railway)
    cat >&2 <<'TEXT'
Railway rolls back in its dashboard: the service, Deployments, the three dots of the last good one, Rollback.
Image and variables come back as they were. Or deploy that commit again: git switch --detach COMMIT && railway up
TEXT
    exit 2
    ;;
  *) usage ;;
esac

for _ in $(seq 60); do
  if curl -fsS --max-time 5 -o /dev/null "$url/health/ready" 2>/dev/null; then
    curl -fsS --max-time 5 "$url/health"
    echo
    exit 0
  fi
  sleep 1
done
echo "$url is not ready after a minute" >&2
exit 1
