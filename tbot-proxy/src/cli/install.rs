//! `install systemd`: a hardened unit for the agent.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

/// Installs the agent on this machine.
#[derive(Debug, Subcommand)]
pub(super) enum Install {
    /// Prints a systemd unit, or writes it with --write.
    Systemd(Systemd),
}

#[derive(Debug, Args)]
pub(super) struct Systemd {
    /// Name of the unit, without `.service`.
    #[arg(long, default_value = "tbot-proxy")]
    name: String,
    /// User that it runs as. Attesting processes of other users needs root.
    #[arg(long, default_value = "root")]
    user: String,
    /// Group that it runs as.
    #[arg(long, default_value = "root")]
    group: String,
    /// Configuration file.
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "/etc/tbot-proxy.yaml"
    )]
    config: PathBuf,
    /// Where units are.
    #[arg(long, value_name = "DIR", default_value = "/etc/systemd/system")]
    systemd_directory: PathBuf,
    /// Unix socket of a Workload API that systemd is to hold, so that clients wait
    /// through a restart; the service's `listen` is the same path.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Directories outside of /run/tbot-proxy and /var/lib/tbot-proxy that outputs write
    /// to. Repeatable.
    #[arg(long, value_name = "DIR")]
    writable: Vec<PathBuf>,
    /// Writes the files.
    #[arg(long)]
    write: bool,
    /// Replaces files that are there.
    #[arg(long, requires = "write")]
    force: bool,
}

impl Systemd {
    pub(super) fn run(self) -> anyhow::Result<()> {
        check_name(&self.name)?;
        let program = std::env::current_exe().context("where this program is")?;
        let paths = [&program, &self.config].into_iter();
        for path in paths.chain(&self.socket).chain(&self.writable) {
            check_path(path)?;
        }
        let mut files = vec![(format!("{}.service", self.name), self.service(&program))];
        if let Some(path) = &self.socket {
            files.push((format!("{}.socket", self.name), self.socket_unit(path)));
        }
        if !self.write {
            for (name, text) in &files {
                terminal::print(&format!(
                    "# {}\n{text}\n",
                    self.systemd_directory.join(name).display()
                ))?;
            }
            return Ok(());
        }
        for (name, text) in &files {
            self.write_file(name, text)?;
        }
        let unit = match self.socket {
            Some(_) => format!("{}.socket {}.service", self.name, self.name),
            None => format!("{}.service", self.name),
        };
        terminal::print(&format!(
            "then: systemctl daemon-reload && systemctl enable --now {unit}\n"
        ))
    }

    fn write_file(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.systemd_directory.join(name);
        if std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
            return terminal::print(&format!("{} is as it should be\n", path.display()));
        }
        let mut options = OpenOptions::new();
        options.write(true).mode(0o644);
        match self.force {
            true => options.create(true).truncate(true),
            false => options.create_new(true),
        };
        let written = options.open(&path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        match written {
            Ok(()) => terminal::print(&format!("wrote {}\n", path.display())),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!(
                "{} is there and different: --force replaces it",
                path.display()
            ),
            Err(error) => Err(error).with_context(|| format!("cannot write {}", path.display())),
        }
    }

    fn service(&self, program: &Path) -> String {
        // With a dash: one that is not there (a disk, a folder below /run) costs what is
        // written to it, not the agent.
        let writable: String = self
            .writable
            .iter()
            .map(|path| format!("ReadWritePaths=-{}\n", path.display()))
            .collect();
        let (user, group) = (&self.user, &self.group);
        let (program, config) = (program.display(), self.config.display());
        // What the attestors read of others: /proc, and files that are executed. The runtime
        // directory stays: systemd's socket is in it while the agent is away.
        format!(
            "[Unit]
Description=Workload identity agent (tbot-proxy)
Documentation=man:tbot-proxy(1)
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
NotifyAccess=main
User={user}
Group={group}
ExecStart={program} start -c {config}
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=5
TimeoutStopSec=60
WatchdogSec=30
LimitNOFILE=524288
LimitCORE=0
RuntimeDirectory=tbot-proxy
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
StateDirectory=tbot-proxy
StateDirectoryMode=0700
UMask=0077
{writable}
CapabilityBoundingSet=CAP_DAC_READ_SEARCH CAP_SYS_PTRACE CAP_NET_BIND_SERVICE CAP_CHOWN CAP_FOWNER CAP_KILL
AmbientCapabilities=CAP_DAC_READ_SEARCH CAP_SYS_PTRACE
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"
        )
    }

    fn socket_unit(&self, path: &Path) -> String {
        format!(
            "[Unit]
Description=SPIFFE Workload API of {}

[Socket]
ListenStream={}
SocketMode=0666
DirectoryMode=0755
FileDescriptorName=workload-api

[Install]
WantedBy=sockets.target
",
            self.name,
            path.display()
        )
    }
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let fits = !name.is_empty()
        && name.len() <= 64
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@'));
    if !fits {
        bail!("`{name}` is no name of a unit: 1 to 64 letters, digits, `-`, `_`, `.`, `@`");
    }
    Ok(())
}

/// systemd reads quotes, escapes, specifiers and white space in what we put into a line.
fn check_path(path: &Path) -> anyhow::Result<()> {
    let fits = path.is_absolute()
        && path.to_str().is_some_and(|text| {
            let is_read = |c: char| c.is_whitespace() || c.is_control() || "%\"'\\$;".contains(c);
            !text.contains(is_read)
        });
    if !fits {
        bail!(
            "{} cannot stand in a unit: an absolute path without white space, quotes, `%`, `$`, `;`, `\\`",
            path.display()
        );
    }
    Ok(())
}
