#!/usr/bin/env bash
# Prints the path of a Python that is new enough and can make an environment; complains and fails when there is none.
set -u
for name in python3.11 python3.12 python3.13 python3; do
  path=$(command -v "$name") || continue
  if "$path" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
    echo "$path"
    exit 0
  fi
done
echo "omnibody: wanted Python 3.11 to 3.13 with the venv module, found none; on Debian: apt-get install python3-venv" >&2
exit 1
