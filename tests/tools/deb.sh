#!/bin/sh
# deb.sh SUITE -- build the Debian package in a clean root of the suite, check it with lintian, and
# put it into dist/. Prints the package's path. Root needed, and mmdebstrap.
#
# What is built is what git knows of the checkout, as it is now. The root has what debian/control asks
# for and lintian, is only read, and has no network. The version says for which Debian it is, so that
# an upgrade of Debian upgrades the package too: 1.0-1~deb12 comes before 1.0-1~deb13. There is nothing
# to do while none of that has changed.
set -eu
umask 022
suite=$1
cd "$(dirname "$0")/../.."
say() { printf '%s\n' "$*" >&2; }

case $suite in
bookworm | trixie) ;;
*)
    say "error: no Debian is called '$suite' here: the package is built for bookworm and trixie"
    exit 2
    ;;
esac

# Names of the packages that debian/control asks for, without versions and build profiles.
build_depends() {
    sed -n '/^Build-Depends:/,/^[^ ]/ { s/^Build-Depends://; /^[^ ]/d; p }' debian/control |
        sed 's/([^)]*)//g; s/<[^>]*>//g; s/,/ /g'
}

# shellcheck disable=SC2046  # one word a package
root=$(tests/lab/mkroot.sh "$suite" build-essential lintian $(build_depends))
number=$(sed -n 's/^VERSION_ID="\(.*\)"/\1/p' "$root/etc/os-release")

finish() {
    deb=$(echo dist/glorytun_*"~deb${number}"_all.deb)
    say "To install it on Debian $number: apt install ./$deb"
    echo "$deb"
}

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
upstream=$(sed -n '1s/.*(\([0-9]*:\)\?\(.*\)-.*).*/\2/p' debian/changelog)
tree=$stage/glorytun-$upstream
mkdir -p "$tree"
# The same whoever checked it out, and when.
git -c safe.directory='*' ls-files -z |
    tar --create --null --files-from=- --mode=u=rwX,go=rX | tar --extract --touch --directory "$tree"
sed -i "1s/-\(.*\)) [^;]*;/-\1~deb$number) $suite;/" "$tree/debian/changelog"

mkdir -p dist
exec 9> "dist/.lock~deb$number"
flock 9
stamp=$( (echo "$root ${DEB_BUILD_OPTIONS:-}"
    tar --create --sort=name --mtime=@0 --owner=0 --group=0 --directory "$stage" .) | sha256sum)
if [ "$(cat "dist/.built~deb$number" 2> /dev/null)" = "$stamp" ]; then
    finish
    exit
fi

# In the root, as a user who can't write to it: SOURCE_DATE_EPOCH is the changelog's.
# shellcheck disable=SC2016  # a script for later
build='
export SOURCE_DATE_EPOCH=$(dpkg-parsechangelog --show-field Timestamp) LC_ALL=C.UTF-8 HOME=/build
name=$(dpkg-parsechangelog --show-field Source)_$(dpkg-parsechangelog --show-field Version |
    sed "s/^[0-9]*://; s/-.*//")
tar --create --sort=name --mtime=@"$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
    --exclude=./debian --transform "s,^\.,${PWD##*/}," . | gzip -9n > "../$name.orig.tar.gz"
dpkg-buildpackage --no-sign
# The version of the policy is the newest that Debian 12 knows, for which the same source is built.
# With --fail-on info,pedantic it would fail for what is overridden, too.
lintian --fail-on error,warning --display-info --pedantic \
    --suppress-tags out-of-date-standards-version ../*.changes > ../lintian || { cat ../lintian; exit 1; }
if grep "^[IP]: " ../lintian; then exit 1; fi
'
# shellcheck disable=SC2016
enter='
root=$1 stage=$2 build=$3
ip link set lo up  # tests talk to themselves
mount -t tmpfs -o mode=0755 build "$stage/mnt"
mkdir "$stage/mnt/upper" "$stage/mnt/work" "$stage/mnt/root"
mount -t overlay -o "lowerdir=$root,upperdir=$stage/mnt/upper,workdir=$stage/mnt/work" overlay "$stage/mnt/root"
cd "$stage/mnt/root"
mkdir build
mount --bind "$stage" build
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount --rbind /dev dev
cd build/glorytun-*
tree=/build/${PWD##*/}
exec chroot "$stage/mnt/root" setpriv --reuid=65534 --regid=65534 --clear-groups env -i \
    PATH=/usr/bin:/usr/sbin:/bin:/sbin DEB_BUILD_OPTIONS="$4" sh -euc "cd $tree; $build"
'
mkdir "$stage/mnt"
chown -R 65534:65534 "$stage"
say "Building for Debian $number ($suite)"
if ! unshare --mount --net --pid --fork --kill-child sh -euc "$enter" deb "$root" "$stage" "$build" \
    "${DEB_BUILD_OPTIONS:-}" > "$stage/log" 2>&1; then
    cat "$stage/log" >&2
    say "error: the package can't be built, or lintian has found something"
    exit 1
fi

rm -f dist/*"~deb$number"[._]* "dist/.built~deb$number"
for file in "$stage"/glorytun_*.*; do
    # At once: the sources are those of the other Debian's too.
    cp "$file" "dist/.new~deb$number"
    mv "dist/.new~deb$number" "dist/${file##*/}"
done
echo "$stamp" > "dist/.built~deb$number"
finish
