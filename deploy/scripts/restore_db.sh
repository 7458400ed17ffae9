#!/usr/bin/env bash
# Puts a backup back into DATABASE_URL, after its checksum is verified; a database that holds data is refused:
#   deploy/scripts/restore_db.sh backups/plinth-20261130T020000Z.sqlite3.gz
#   deploy/scripts/restore_db.sh s3://BUCKET/PREFIX/plinth-20261130T020000Z.dump
# Stop the instances first. PLINTH says how it is run where it is not on the PATH: see backup_db.sh.
# Exit codes are those of `plinth restore`: 0 done, 1 failed or refused, 2 used or configured wrongly.
set -euo pipefail

if [ $# -eq 0 ]; then
  sed -n '2,6s/^# //p' "$0" >&2
  exit 2
fi
read -ra plinth <<<"${PLINTH:-plinth}"
exec "${plinth[@]}" restore "$@"
