//! System calls that no service needs and that attacks on the kernel or on neighbours begin with. A
//! list of what is refused, not of what is allowed: PostgreSQL, our own processes and programs that we
//! do not know must go on over the years. Refused means EPERM, which a program can tell, not death.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Refused whatever the arguments.
const REFUSED: [i64; 47] = [
    // Looking into other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    // The kernel's own code, and windows into it.
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // It opens sockets past this very filter.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // The machine as a whole.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    // Keys of the kernel are not apart for each user of a machine.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_open_by_handle_at,
];

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (clone(2)).
const NAMESPACES: [u64; 7] = [
    0x0002_0000,
    0x0200_0000,
    0x0400_0000,
    0x0800_0000,
    0x1000_0000,
    0x2000_0000,
    0x4000_0000,
];
/// The type of a socket without its flags (socket(2)).
const TYPE_MASK: u64 = 0xf;

/// Refuses them for this process and all it becomes. Needs `no_new_privs`. On a kernel without
/// seccomp nothing happens.
pub(super) fn refuse() -> io::Result<()> {
    for program in programs().map_err(io::Error::other)? {
        match apply_filter(&program) {
            Err(seccompiler::Error::Seccomp(error) | seccompiler::Error::Prctl(error))
                if error.raw_os_error() == Some(libc::EINVAL) =>
            {
                return Ok(());
            }
            result => result.map_err(io::Error::other)?,
        }
    }
    Ok(())
}

fn programs() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let mut refused: Rules = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    refused.extend(of_one_architecture());
    refused.insert(libc::SYS_socket, sockets()?);
    let flags = NAMESPACES.iter().map(|flag| {
        let equal = SeccompCmpOp::MaskedEq(*flag);
        rule(&[(0, SeccompCmpArgLen::Qword, equal, *flag)])
    });
    refused.insert(libc::SYS_clone, flags.collect::<Result<_, _>>()?);
    // Its flags lie in memory, where a filter cannot look. libc takes ENOSYS for an old kernel and
    // uses clone(2) instead.
    let unknown = Rules::from([(libc::SYS_clone3, Vec::new())]);
    let program = |rules, error: i32| -> Result<BpfProgram, seccompiler::BackendError> {
        let error = SeccompAction::Errno(error.cast_unsigned());
        let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
        SeccompFilter::new(rules, SeccompAction::Allow, error, architecture)?.try_into()
    };
    Ok([
        program(refused, libc::EPERM)?,
        program(unknown, libc::ENOSYS)?,
    ])
}

/// Raw IP sockets, packet sockets of any type, and the kernel's cryptography by socket. Netlink is raw
/// as well, and any program that asks for addresses uses it: it stays.
fn sockets() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let domain = |value: i32| (0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, number(value));
    let raw = || {
        let masked = SeccompCmpOp::MaskedEq(TYPE_MASK);
        (1, SeccompCmpArgLen::Dword, masked, number(libc::SOCK_RAW))
    };
    Ok(vec![
        rule(&[domain(libc::AF_INET), raw()])?,
        rule(&[domain(libc::AF_INET6), raw()])?,
        rule(&[domain(libc::AF_PACKET)])?,
        rule(&[domain(libc::AF_ALG)])?,
    ])
}

fn number(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

type Condition = (u8, SeccompCmpArgLen, SeccompCmpOp, u64);

fn rule(conditions: &[Condition]) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions = conditions.iter().cloned();
    let conditions = conditions.map(|(argument, length, operator, value)| {
        SeccompCondition::new(argument, length, operator, value)
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}

/// x86-64 has a call that others lack, ports that root may open, and a second set of numbers (x32) by
/// which each call can be made again where the kernel knows it.
#[cfg(target_arch = "x86_64")]
fn of_one_architecture() -> Rules {
    const X32: i64 = 0x4000_0000;
    let own = [libc::SYS_kexec_file_load, libc::SYS_iopl, libc::SYS_ioperm];
    let again = REFUSED.iter().chain(&own).map(|call| call + X32);
    let also = [libc::SYS_socket + X32, libc::SYS_clone3 + X32];
    let all = own.into_iter().chain(again).chain(also);
    all.map(|call| (call, Vec::new())).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn of_one_architecture() -> Rules {
    Rules::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_can_be_built_for_this_machine() {
        let [refused, unknown] = programs().unwrap();
        // The kernel takes 4096 instructions (seccomp(2), BPF_MAXINSNS).
        assert!(refused.len() < 4096 && refused.len() > unknown.len());
    }

    #[test]
    fn no_call_is_named_twice() {
        let distinct: std::collections::BTreeSet<i64> = REFUSED.into_iter().collect();
        assert_eq!(distinct.len(), REFUSED.len());
    }
}
