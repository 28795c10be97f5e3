#!/usr/bin/env bash
# build.sh OUT: a root file system tar of minimal Debian with the tools to look at processes.
set -euo pipefail
. "$(dirname "$0")/../apt.sh"

bootstrap "$1" --include=procps,util-linux
