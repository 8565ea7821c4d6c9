#!/bin/sh
# Sets up what a make target needs and nothing more; a second run costs milliseconds.
#
#   sh ops/setup.sh run      .venv with the locked Python packages and this project
#   sh ops/setup.sh demo     + Dovecot
#   sh ops/setup.sh bench    + Dovecot, mbsync
#   sh ops/setup.sh test     + Dovecot with submission, mbsync, a second PostgreSQL
#
# Debian packages come through apt-get (with `sudo -n` when not root) and only where their programs are missing.
# Installing them starts no server, neither now nor at the next boot: policy-rc.d forbids it for the time of the
# installation and is put back after, the units of what was new are disabled, and no PostgreSQL cluster is created.
#
# PYTHON=/path/to/python chooses the interpreter (3.11 or newer) that .venv is made with.
set -eu
umask 022
cd "$(dirname "$0")/.."

POLICY=/usr/sbin/policy-rc.d
POLICY_MARK="accountsd: no server is started while packages are being installed"
CLUSTERS=/etc/postgresql-common/createcluster.d/zz-accountsd-setup.conf

say() { printf '%s\n' "setup: $*"; }
die() { printf '%s\n' "setup: $*" >&2; exit 1; }

# --- Debian packages -------------------------------------------------------------------------------------------

# What a target lacks, found by the programs themselves: a server built by hand counts as well as a package.
missing_packages() {
    dovecot=/usr/lib/dovecot
    case $1 in demo|bench|test)
        [ -x /usr/sbin/dovecot ] && [ -x $dovecot/imap ] || echo dovecot-imapd
        [ -x $dovecot/lmtp ] || echo dovecot-lmtpd
        [ -x /usr/bin/setpriv ] || echo util-linux
    esac
    case $1 in bench|test)
        command -v mbsync >/dev/null || echo isync
    esac
    case $1 in test)
        [ -x $dovecot/submission ] || echo dovecot-submissiond
        command -v chromium >/dev/null || echo chromium
        set -- /usr/lib/postgresql/*/bin/postgres
        [ -x "$1" ] || echo postgresql
    esac
}

# Runs as root. Arguments: packages.
install_packages() {
    exec 8</usr/sbin
    flock 8         # two set-ups at once would take each other's policy-rc.d for the machine's own
    restore         # what a set-up left that was killed
    trap restore EXIT
    trap 'exit 130' INT TERM HUP
    [ ! -e $POLICY ] || mv $POLICY $POLICY.accountsd-saved
    printf '#!/bin/sh\n# %s\nexit 101\n' "$POLICY_MARK" >$POLICY
    chmod 755 $POLICY
    case " $* " in *" postgresql "*)
        # Read by the package's own createcluster.conf, which stays as it is; needed until the package is configured.
        mkdir -p "${CLUSTERS%/*}"
        echo 'create_main_cluster = false' >$CLUSTERS
    esac
    dovecot_was_there=$([ -x /usr/sbin/dovecot ] && echo yes || echo no)

    export DEBIAN_FRONTEND=noninteractive
    # The package lists are fetched only where they do not lead to the packages: slow, and often fresh already.
    get="apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0"
    # shellcheck disable=SC2086
    $get "$@" >/dev/null 2>&1 8<&- || { apt-get update -qq 8<&-; $get "$@" 8<&-; } ||
        die "apt-get could not install: $*"
    if [ $dovecot_was_there = no ] && [ -x /usr/sbin/dovecot ]; then
        # For systemd and for the older scripts; both work without either of them running.
        deb-systemd-helper disable dovecot.service dovecot.socket >/dev/null 2>&1 || true
        update-rc.d dovecot disable >/dev/null 2>&1 || true
    fi
}

restore() {
    if grep -qs "$POLICY_MARK" $POLICY; then rm -f $POLICY; fi
    if [ ! -e $POLICY ] && [ -e $POLICY.accountsd-saved ]; then mv $POLICY.accountsd-saved $POLICY; fi
    rm -f $CLUSTERS
    # An installation that failed leaves the directory we made and nobody owns.
    dpkg -S "${CLUSTERS%/*}" >/dev/null 2>&1 || rmdir -p "${CLUSTERS%/*}" 2>/dev/null || true
}

need_packages() {
    [ $# -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "please install (names as in Debian): $*"
    if [ "$(id -u)" = 0 ]; then
        say "installing Debian packages: $*"
        sh ops/setup.sh --install-packages "$@"
    elif sudo -n true 2>/dev/null; then
        say "installing Debian packages: $*"
        sudo -n sh ops/setup.sh --install-packages "$@"
    else
        die "please install these Debian packages as root, then try again: $*"
    fi
}

# --- Python ----------------------------------------------------------------------------------------------------

# The first interpreter that runs for this user, is new enough and makes virtual environments. Prints its path.
find_python() {
    for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14 /usr/bin/python3}; do
        # A version manager's interpreter below another user's home is found, but does not run: hence 2>/dev/null.
        "$candidate" -c "import sys; assert sys.version_info >= (3, 11); $1; print(sys.executable)" 2>/dev/null &&
            return
    done
    return 1
}

WITH_VENV='import ensurepip, venv; ensurepip.version()'

# The Debian packages without which no interpreter here makes virtual environments.
missing_python() {
    if venv_is_ready || find_python "$WITH_VENV" >/dev/null; then return; fi
    [ -z "${PYTHON:-}" ] || die "PYTHON=$PYTHON does not run, is older than 3.11, or lacks the module venv"
    find_python pass >/dev/null || echo python3
    echo python3-venv
}

# What the environment was made from: made anew when the lock or the project's packaging changes.
stamp_of() {
    { cat requirements/dev.lock pyproject.toml; pwd; } | sha256sum | cut -d' ' -f1
}

venv_is_ready() {
    [ "$(cat .venv/accountsd-stamp 2>/dev/null)" = "$(stamp_of)" ] && .venv/bin/python -c '' 2>/dev/null
}

need_venv() {
    ! venv_is_ready || return 0
    exec 9<ops/setup.sh
    flock 9
    ! venv_is_ready || return 0     # another set-up was just making it
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        python=$(find_python "$WITH_VENV") ||
            die "please install Python 3.11 or newer with its venv module, or name one by PYTHON=/path/to/python"
        say "creating .venv with $python"
        rm -rf .venv 2>/dev/null || die "please remove $(pwd)/.venv: it belongs to another user"
        "$python" -m venv .venv 9<&-
    fi
    [ -w .venv ] || die "please remove $(pwd)/.venv: it belongs to another user"
    say "installing Python packages from requirements/dev.lock"
    # -qq: what a machine's own pip configuration makes pip warn of is not our say
    pip="env PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore .venv/bin/python -m pip install -qq"
    $pip --require-hashes -r requirements/dev.lock 9<&-
    $pip --no-deps --no-build-isolation --editable . 9<&-
    stamp_of >.venv/accountsd-stamp
}

# ---------------------------------------------------------------------------------------------------------------

case ${1:-} in
    --install-packages) shift; install_packages "$@" ;;
    run|demo|bench|test)
        missing=$(missing_packages "$1"; missing_python)
        # shellcheck disable=SC2086
        need_packages $missing
        need_venv ;;
    *) die "usage: sh ops/setup.sh run|demo|bench|test" ;;
esac
