#!/usr/bin/env bash
# build.sh OUT: a root file system tar of minimal Debian with its PostgreSQL 15 and our entrypoint.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../apt.sh"

# shellcheck disable=SC2016  # "$1" is for mmdebstrap's shell: the root being made.
bootstrap "$1" \
    --include=procps,util-linux,postgresql-15 \
    --essential-hook='mkdir -p "$1"/etc/postgresql-common' \
    --essential-hook='echo "create_main_cluster = false" > "$1"/etc/postgresql-common/createcluster.conf' \
    --customize-hook="install -m 755 '$here/docker-entrypoint.sh' \"\$1\"/usr/local/bin/docker-entrypoint.sh" \
    --customize-hook='mkdir -p "$1"/docker-entrypoint-initdb.d' \
    --customize-hook='chroot "$1" install -d -o postgres -g postgres -m 1777 /var/lib/postgresql/data' \
    --customize-hook='chroot "$1" install -d -o postgres -g postgres -m 3777 /var/run/postgresql' \
    --customize-hook='rm -rf "$1"/usr/lib/postgresql/15/lib/bitcode'
