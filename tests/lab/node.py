"""Whole Debian systems, booted in containers with systemd as their PID 1.

Each has its own network namespace, D-Bus, networkd and TUN. Its root is one that is only read, the
host's own or one of `mkroot.sh`, under a tmpfs: what a node writes is gone with it. It works on
hosts with and without systemd as PID 1, and with version 1, 2 or both of the control groups.

What is not enforced in a node of a host whose cgroup v1 holds the controllers: MemoryMax=,
TasksMax=. So no test is about these.
"""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tests.netns.topology import Family, within

STATE = Path("/run/glorytun-lab")
BOOT_TIMEOUT = 60.0
_LOG_SHOWN = 4000
"""Characters of the console of a node that doesn't boot."""

# Runs in a mount namespace of its own: what it mounts goes away with the node, however that ends,
# and the host never sees it. Arguments: the root to read, a directory, 1 if the host's PID 1 is
# systemd, a directory of files for the node, then the command line of systemd-nspawn.
_MOUNT_AND_BOOT = r"""
set -eu
name=$1 lower=$2 dir=$3 systemd=$4 files=$5
shift 5
root=$dir/mnt/root
mount -t tmpfs -o mode=0755 node "$dir/mnt"
mkdir "$dir/mnt/upper" "$dir/mnt/work" "$root"
mount -t overlay -o "lowerdir=$lower,upperdir=$dir/mnt/upper,workdir=$dir/mnt/work" overlay "$root"
if [ "$lower" = / ]; then
    # The host's own system, without its services, timers and networks.
    rm -rf "$root/etc/systemd/system" "$root/etc/systemd/network" "$root/etc/fstab" \
           "$root/etc/hostname" "$root/etc/resolv.conf" "$root/var/log/journal"
    mkdir -p "$root/etc/systemd/network"
    : > "$root/etc/machine-id"
    systemctl --root="$root" --quiet enable systemd-networkd
    systemctl --root="$root" --quiet mask getty.target console-getty.service \
              systemd-networkd-wait-online.service
fi
cp -a "$files/." "$root/"
# nspawn gives the device the mode that it has on the host, without udev 0600: networkd is not root
# and couldn't make a TUN.
mkdir -p "$root/etc/tmpfiles.d"
echo 'z /dev/net/tun 0666 root root' > "$root/etc/tmpfiles.d/lab.conf"
if [ "$systemd" = 0 ]; then
    # nspawn needs a tree of cgroup v2 alone and, with --keep-unit, a group of its own in there.
    # No cgroup namespace: nspawn looks for what /proc/1/cgroup names under the mount.
    umount -R /sys/fs/cgroup 2> /dev/null || :
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir -p "/sys/fs/cgroup/lab-$name"
    echo $$ > "/sys/fs/cgroup/lab-$name/cgroup.procs"
    mkdir -p /run/systemd
    mount -t tmpfs -o mode=0755 tmpfs /run/systemd  # for nspawn itself
fi
exec "$@"
"""

# Ends what may be left in the control group of a node, and removes it.
_REAP = r"""
umount -R /sys/fs/cgroup 2> /dev/null || :
mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 0
group=/sys/fs/cgroup/lab-$1
[ -d "$group" ] || exit 0
echo 1 > "$group/cgroup.kill" || :
for _ in $(seq 100); do
    find "$group" -depth -type d -exec rmdir {} + 2> /dev/null
    [ -d "$group" ] || exit 0
    sleep 0.05
done
exit 1
"""

_NSPAWN = (
    *("systemd-nspawn", "--quiet", "--settings=no", "--boot"),
    # A network namespace of its own, which also keeps CAP_NET_ADMIN.
    "--private-network",
    "--register=no",
    "--notify-ready=yes",
    *("--link-journal=no", "--resolv-conf=off", "--timezone=off", "--console=read-only"),
    # Without bpf(2) DeviceAllow= in the node would silently not be enforced.
    *("--system-call-filter=bpf", "--capability=CAP_BPF"),
)

_ENVIRONMENT = (
    *("env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    *("HOME=/root", "LANG=C.UTF-8", "TERM=dumb", "SYSTEMD_PAGER=cat", "SYSTEMD_COLORS=0"),
)


class Node:
    """One system. `start`, then `wait_booted`; in the end `down`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._directory = STATE / name
        self._file = self._directory / "node.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._pids: dict[str, tuple[int, int | None]] = {}
        """Process and its start time, which together don't come again."""
        with suppress(FileNotFoundError):  # The node of another run may be gone meanwhile.
            self._pids = {
                who: tuple(pid) for who, pid in json.loads(self._file.read_text()).items()
            }

    @property
    def leader(self) -> int:
        """The node's PID 1, as the host numbers it."""
        return self._pids["leader"][0]

    @property
    def alive(self) -> bool:
        """Whether the container is there."""
        return self._runs("nspawn")

    def start(
        self, root: Path, *, files: Path, binds: Sequence[str] = (), keep: bool = False
    ) -> None:
        """Begin to boot. `files` are copied over the root; `binds` are SOURCE:TARGET, read-only.

        Unless `keep`, the node ends when the calling thread does, even if that is killed.
        """
        assert not self.alive, f"{self.name} is up"
        self.down()  # what a run that was killed may have left
        (self._directory / "mnt").mkdir(parents=True)
        # Without systemd as PID 1 there is nobody to ask for a scope.
        systemd = os.path.isdir("/run/systemd/system")
        nspawn = [
            *(*_NSPAWN, *([] if systemd else ["--keep-unit"])),
            *(f"--directory={self._directory}/mnt/root", f"--machine=lab-{self.name}"),
            *(f"--hostname={self.name}", *(f"--bind-ro={bind}" for bind in binds)),
        ]
        mount = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _MOUNT_AND_BOOT, "lab"]
        arguments = [self.name, str(root), str(self._directory), str(int(systemd)), str(files)]
        address = self._directory / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(address))
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                # nspawn's payload dies with nspawn.
                [
                    *([] if keep else ["setpriv", "--pdeathsig", "KILL"]),
                    *mount,
                    *arguments,
                    *nspawn,
                ],
                env={
                    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                    "NOTIFY_SOCKET": str(address),
                    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self._note("nspawn", self._process.pid)

    def wait_booted(self, timeout: float = BOOT_TIMEOUT) -> None:
        """Return when PID 1 says that all it was to start is there. Raises AssertionError."""
        assert self._process
        assert self._socket
        deadline = time.monotonic() + timeout
        for message in self._messages(deadline):
            if "X_NSPAWN_LEADER_PID" in message:
                self._note("leader", int(message["X_NSPAWN_LEADER_PID"]))
            if message.get("READY") == "1":
                # It says more, such as for each reload; unread, that would end in PID 1 waiting.
                self._socket.close()
                return
        log = self._console.read_text(errors="replace")
        self.down()
        raise AssertionError(f"{self.name} did not boot:\n{log[-_LOG_SHOWN:]}")

    def down(self) -> None:
        """End it at once: it has nothing to save."""
        for who in self._pids:
            if self._runs(who):
                os.kill(self._pids[who][0], signal.SIGKILL)
        for who in self._pids:
            while self._runs(who):
                time.sleep(0.01)
        if self._process:
            self._process.wait()
        if self._socket:
            self._socket.close()
        subprocess.run(
            ["unshare", "--mount", "sh", "-c", _REAP, "lab", self.name], stderr=subprocess.DEVNULL
        )
        shutil.rmtree(self._directory, ignore_errors=True)
        self._pids, self._process, self._socket = {}, None, None

    # What is done in it.

    def command(self, argv: Sequence[str]) -> list[str]:
        """The host's command that runs `argv` in the node."""
        namespaces = ["-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]
        return ["nsenter", "-t", str(self.leader), *namespaces, *_ENVIRONMENT, *argv]

    def run(
        self, *argv: str, check: bool = True, input: str | None = None, timeout: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. Raises when it fails, unless `check` is False."""
        result = subprocess.run(
            self.command(argv), input=input, timeout=timeout, capture_output=True, text=True
        )
        if check and result.returncode:
            said = result.stderr or result.stdout
            raise AssertionError(f"{self.name}: {' '.join(argv)}: {said}")
        return result

    def path(self, path: str) -> Path:
        """A file of the node, as the host reaches it."""
        return Path(f"/proc/{self.leader}/root") / path.lstrip("/")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the node, with directories up to it."""
        write(self.path("/"), path, text, mode)

    def socket(self, family: Family, kind: socket.SocketKind) -> socket.socket:
        """A socket of the node, for use in the test's own process."""
        numbers = {4: socket.AF_INET, 6: socket.AF_INET6}
        return within(f"/proc/{self.leader}/ns/net", lambda: socket.socket(numbers[family], kind))

    # Processes.

    @property
    def _console(self) -> Path:
        return self._directory / "console.log"

    def _messages(self, deadline: float) -> Iterator[dict[str, str]]:
        """What nspawn notifies, sd_notify(3), until it ends or takes too long."""
        assert self._process
        assert self._socket
        while self._process.poll() is None and time.monotonic() < deadline:
            if select.select([self._socket], [], [], 0.1)[0]:
                lines = self._socket.recv(4096).decode().splitlines()
                yield dict(line.split("=", 1) for line in lines if "=" in line)

    def _note(self, who: str, pid: int) -> None:
        self._pids[who] = (pid, _start_time(pid))
        # Other runs may look at any time.
        whole = self._file.with_suffix(".new")
        whole.write_text(json.dumps(self._pids))
        whole.replace(self._file)

    def _runs(self, who: str) -> bool:
        pid, start = self._pids.get(who, (0, None))
        return start is not None and _start_time(pid) == start


def write(root: Path, path: str, text: str, mode: int = 0o644) -> None:
    """Write a file under `root`, with directories up to it."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=mode)
    file.chmod(mode)
    file.write_text(text)


def link(one: Node, other: Node, *names: str) -> None:
    """Join two nodes by a veth pair for each name, never in the host's namespace."""
    for name in names:
        ends = ("netns", str(one.leader), "type", "veth", "peer", "name", name)
        subprocess.run(
            ["ip", "link", "add", name, *ends, "netns", str(other.leader)], check=True, timeout=10
        )


def nodes() -> list[Node]:
    """Those that are up, and what is left of those that were killed."""
    files = sorted(STATE.glob("*/node.json"))
    return [Node(file.parent.name) for file in files]


def _start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (proc_pid_stat(5)); None: it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])
