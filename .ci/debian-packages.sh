#!/usr/bin/env bash
# Installs the Debian packages that are missing; says so and goes on where it may not or cannot.
# EGL and OSMesa draw RGB images without a screen; everything else works without them (`omnibody doctor` tells).
set -u
packages=(git libegl1 libgl1-mesa-dri libosmesa6 python3-venv)

if ! command -v dpkg-query >/dev/null; then
  echo "omnibody: not a Debian system; the counterparts of these packages are of use: ${packages[*]}"
  exit 0
fi
missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -eq 0 ]; then
  as_root=(env)
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
  as_root=(sudo)
else
  echo "omnibody: not root and no sudo without a password; to install what is missing: apt-get install ${missing[*]}"
  exit 0
fi
"${as_root[@]}" apt-get update -qq &&
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" ||
  echo "omnibody: apt-get failed; to install what is missing: apt-get install ${missing[*]}"
exit 0
