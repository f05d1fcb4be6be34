# Open to the container's network, as the official image is, and not as root.
set -euo pipefail
cd /var/lib/redis
exec setpriv --reuid redis --regid redis --clear-groups "$@" --bind '* -::*' --protected-mode no
