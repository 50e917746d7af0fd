#!/bin/sh
# run.sh test|lab|coverage|demo|bench|bench-paths|deb|lint|format [ARGUMENT...] -- set up what the target needs, then run it.
#
# Set-up is what a fresh Debian 12 or 13 lacks: Debian packages, and a virtual environment in .venv
# with this project (editable) and its extras from PyPI. What is there already is left alone.
set -eu
cd "$(dirname "$0")/../.."
venv=.venv

# What from Debian, and why.
packages_demo='
python3 python3-venv    runs it all
gcc libc6-dev python3-dev  compile pyaegis, which PyPI has as source only
iproute2                ip and tc: network namespaces, links, rates
nftables                nft: cuts links without a sign
'
packages_deb='
mmdebstrap gpg          make clean Debian 12 and 13 systems; gpg finds the keys of their archive
'
packages_test="$packages_demo
iputils-ping            ping: traffic that shows round trips
shellcheck              one of the linters
bash-completion zsh fish  shells whose completion is tested
$packages_deb
man-db                  shows the manual pages of the Debian package
systemd-container       boots them
"

packages_bench="$packages_demo
iputils-ping            ping: round trips
iperf3                  loads
"

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

need_root() {
    [ "$(id -u)" = 0 ] || die "make $target $1 and so needs root: run \`sudo make $target\`"
}

install_packages() {
    command -v dpkg-query > /dev/null || { say "Not a Debian system: no packages installed."; return; }
    missing=
    for package in $(printf '%s\n' "$1" | sed 's/   *.*//'); do
        status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2> /dev/null) || :
        [ "$status" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    need_root "installs Debian packages ($missing )"
    say "Installing Debian packages:$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || say "apt-get update failed; going on with the lists that are here."
    # shellcheck disable=SC2086  # one word a package
    apt-get install -y -qq --no-install-recommends $missing > /dev/null
}

# The system's python, whose version Debian chose; another where that one is too old.
find_python() {
    for python in /usr/bin/python3 python3; do
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null && return
    done
    die "Python 3.11 or newer is needed: Debian 12 and 13 have it"
}

# make_venv EXTRAS: nothing to do while pyproject.toml, the python and this directory stay the same.
make_venv() {
    find_python
    base=$(printf '%s\n' "$PWD" "$("$python" -c 'import sys; print(sys.executable, sys.version)')")
    stamp=$(printf '%s\n' "$base" "$1" | cat - pyproject.toml | sha256sum)
    if [ "$(cat "$venv/.base" 2> /dev/null)" != "$base" ]; then
        say "Making $venv with $python"
        "$python" -m venv --clear "$venv"
        printf '%s\n' "$base" > "$venv/.base"
    fi
    [ "$(cat "$venv/.ready-$1" 2> /dev/null)" = "$stamp" ] && return
    say "Installing this project and what it needs from PyPI: extras $1"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --editable ".[$1]"
    printf '%s\n' "$stamp" > "$venv/.ready-$1"
}

set_up() {
    case $1 in
    demo) install_packages "$packages_demo"; make_venv aegis,demo ;;
    bench) install_packages "$packages_bench"; make_venv aegis,demo ;;
    test) install_packages "$packages_test"; make_venv aegis,demo,test ;;
    esac
}

# Debian 12 or 13 as this host, else the newer.
this_suite() {
    suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    case $suite in bookworm | trixie) echo "$suite" ;; *) echo trixie ;; esac
}

some_tests() {
    one=0
    "$venv/bin/pytest" --durations 20 "$@" || one=$?
    # 5: of those that were asked for, none is of this kind.
    [ $one = 5 ] || [ $status != 0 ] || status=$one
}

# What measures time has the machine to itself, and is tried again when a host with other work was
# late: `-rR` tells of that. The rest runs five at a time, as booted systems and their wizard
# mostly wait.
run_tests() {
    [ "${CI:-}" = true ] && set -- -p tests.ci_skips "$@"
    status=0
    some_tests -m "not timing" -n 5 -p tests.lab.schedule "$@"
    some_tests -m timing --reruns 2 --reruns-delay 3 -rR "$@"
    return $status
}

# Which lines no test runs, but those that measure time: to note lines takes longer than most do.
measure_coverage() {
    status=0
    "$venv/bin/coverage" erase
    "$venv/bin/coverage" run -m pytest -m "not timing and not lab" -n auto "$@" || status=$?
    "$venv/bin/coverage" combine --quiet
    "$venv/bin/coverage" report
    return $status
}

target=${1:-}
[ -n "$target" ] && shift
case $target in
test)
    need_root "makes network namespaces and boots containers"
    set_up test
    # What is installed in booted systems is what users install.
    export LAB_INSTALL="${LAB_INSTALL:-package}"
    run_tests "$@" ;;
lab)
    need_root "boots containers"
    set_up test
    exec "$venv/bin/pytest" tests/lab "$@" ;;
coverage)
    need_root "installs Debian packages"
    set_up test
    measure_coverage "$@" ;;
demo)
    need_root "makes network namespaces"
    set_up demo
    exec "$venv/bin/python" -m tests.demo "$@" ;;
bench)
    need_root "makes network namespaces"
    set_up bench
    exec "$venv/bin/python" -m tests.bench "$@" ;;
bench-paths)
    need_root "makes network namespaces"
    set_up bench
    exec "$venv/bin/python" -m tests.bench.paths "$@" ;;
deb)
    need_root "unpacks a clean Debian"
    install_packages "$packages_deb"
    [ $# -gt 0 ] || set -- "$(this_suite)"
    for suite in "$@"; do tests/tools/deb.sh "$suite"; done ;;
lint)
    set_up test
    exec "$venv/bin/pytest" tests/test_linters.py ;;
format)
    set_up test
    "$venv/bin/ruff" check --fix
    exec "$venv/bin/ruff" format ;;
*)
    say "usage: run.sh test|lab|demo|bench|bench-paths|deb|lint|format [ARGUMENT...]"
    exit 2 ;;
esac
