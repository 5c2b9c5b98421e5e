//! Who a local process is: pinned by pidfd, described by the kernel and by the
//! container runtimes of this machine.
