#!/usr/bin/env bash
# Backs the database up, to BACKUP_URL or to where --to says:
#   deploy/scripts/backup_db.sh [--to DIRECTORY|s3://BUCKET/PREFIX]
# PLINTH says how it is run where it is not on the PATH, for example
#   PLINTH="docker compose -f deploy/compose.yaml run --rm tools" deploy/scripts/backup_db.sh
# Exit codes are those of `plinth backup`: 0 done and verified, 1 failed, 2 used or configured wrongly.
set -euo pipefail

read -ra plinth <<<"${PLINTH:-plinth}"
exec "${plinth[@]}" backup "$@"
