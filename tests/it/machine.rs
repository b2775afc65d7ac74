//! Other machines than the one that the tests run on: what a program is started by to believe itself on one.

use std::path::{Path, PathBuf};

/// A machine whose kernel has no IPv6: there are no such sockets. (The filter is one of seccomp, as systemd's
/// `RestrictAddressFamilies` has it.)
pub fn without_ipv6() -> [&'static str; 3] {
    const SCRIPT: &str = "
import ctypes, os, platform, struct, sys
SOCKET = {'x86_64': 41, 'aarch64': 198}[platform.machine()]
AF_INET6, EAFNOSUPPORT = 10, 97
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
program = [(LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 0, 3, SOCKET), (LOAD, 0, 0, 16), (JUMP_IF_EQUAL, 0, 1, AF_INET6),
           (RETURN, 0, 0, 0x50000 | EAFNOSUPPORT), (RETURN, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in program))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, struct.pack('@HP', len(program), ctypes.addressof(code)), 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
";
    ["python3", "-c", SCRIPT]
}

/// A container of our image as OpenShift runs it: some user of its choice in group 0, and a root file system that is
/// read-only and has nothing but the program. What a test shares with it is there under the same path.
pub struct Container {
    root: PathBuf,
    shared: PathBuf,
}

impl Container {
    pub fn with(shared: &Path) -> Self {
        let root = std::env::temp_dir().join(format!("orders-operator-root-{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&root).unwrap();
        Self { root, shared: shared.to_owned() }
    }

    pub fn command(&self) -> Vec<&str> {
        // The tests' program needs the libraries that are linked into the image's.
        const SCRIPT: &str = r#"
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
root=$1 shared=$2 program=$3
shift 3
mount -t tmpfs none "$root"
cd "$root"
mkdir -p lib lib64 proc etc ".$shared"
touch program etc/resolv.conf etc/hosts
bind() { mount --bind "$1" "./$2"; mount -o remount,bind,ro "./$2"; }
bind /lib lib
if [ -e /lib64 ]; then bind /lib64 lib64; fi
bind /etc/resolv.conf etc/resolv.conf
bind /etc/hosts etc/hosts
bind "$shared" "$shared"
bind "$program" program
mount --rbind /proc proc
mount -o remount,ro "$root"
exec chroot --userspec=1000650000:0 --groups= "$root" /program "$@"
"#;
        let [root, shared] = [&self.root, &self.shared].map(|path| path.to_str().unwrap());
        vec!["unshare", "--mount", "--propagation=private", "sh", "-c", SCRIPT, "container", root, shared]
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // What was mounted there went with the program.
        drop(std::fs::remove_dir(&self.root));
    }
}
