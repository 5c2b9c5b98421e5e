//! CPU time and memory of named processes, from `/proc`.
//!
//! CPU time is `utime + stime` of `/proc/PID/stat`: the whole process with all its threads, those
//! that have ended too, in clock ticks (10 ms), so windows should last seconds. With descendants
//! counted, what reaped children used (`cutime + cstime`) is added, so that the sum never falls
//! when a child ends.

use std::{fs, process, time::Duration};

use anyhow::{Context, bail};
use sys::StatFields;

/// Which processes to account for.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// By process id.
    pub pids: Vec<u32>,
    /// By command name (`/proc/PID/comm`, at most 15 characters).
    pub names: Vec<String>,
    /// Whether their descendants are included.
    pub children: bool,
}

/// Processes that are being accounted for.
#[derive(Debug, Clone)]
pub struct Watched {
    roots: Vec<Root>,
    children: bool,
}

/// One selected process (with its descendants, if asked).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Process id.
    pub pid: u32,
    /// Command name.
    pub name: String,
}

/// Memory of a process tree, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Resident pages, shared ones counted in each process.
    pub rss: u64,
    /// Resident pages, shared ones divided among those who share them.
    pub pss: u64,
}

impl Watched {
    /// Finds the selected processes; one that does not exist is an error.
    pub fn find(selection: &Selection) -> anyhow::Result<Self> {
        let table = Table::read()?;
        let mut roots = Vec::new();
        for &pid in &selection.pids {
            let found = table.0.iter().find(|p| p.pid == pid);
            let found = found.with_context(|| format!("--pid {pid}: there is no such process"))?;
            roots.push(found);
        }
        for name in &selection.names {
            let named = |p: &&ProcessStat| p.name == *name && p.pid != process::id();
            let found: Vec<_> = table.0.iter().filter(named).collect();
            if found.is_empty() {
                bail!("--process {name}: no process has this command name (see /proc/PID/comm)");
            }
            roots.extend(found);
        }
        if selection.children {
            // One that is below another is counted there.
            let all: Vec<u32> = roots.iter().map(|p| p.pid).collect();
            roots.retain(|p| {
                !all.iter()
                    .any(|&root| root != p.pid && table.tree(root).any(|d| d.pid == p.pid))
            });
        }
        let mut roots: Vec<Root> = roots
            .into_iter()
            .map(|p| Root {
                pid: p.pid,
                name: p.name.clone(),
            })
            .collect();
        roots.sort_by_key(|r| r.pid);
        roots.dedup();
        Ok(Self {
            roots,
            children: selection.children,
        })
    }

    /// This process alone.
    pub fn myself() -> Self {
        let myself = Root {
            pid: process::id(),
            name: "loadtest".to_owned(),
        };
        Self {
            roots: vec![myself],
            children: false,
        }
    }

    /// The processes, in the order of the figures.
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// CPU time of each so far.
    pub fn cpu(&self) -> anyhow::Result<Vec<Duration>> {
        if self.roots.is_empty() {
            return Ok(Vec::new());
        }
        let table = if self.children {
            Table::read()?
        } else {
            Table(Vec::new())
        };
        self.roots
            .iter()
            .map(|root| self.cpu_of(root, &table))
            .collect()
    }

    fn cpu_of(&self, root: &Root, table: &Table) -> anyhow::Result<Duration> {
        if !self.children {
            let stat = ProcessStat::read(root.pid);
            return stat.map(|s| ticks(s.own)).with_context(|| ended(root));
        }
        let used: u64 = table.tree(root.pid).map(|p| p.own + p.reaped).sum();
        if table.tree(root.pid).next().is_none() {
            bail!(ended(root));
        }
        Ok(ticks(used))
    }

    /// Memory of each now.
    pub fn memory(&self) -> anyhow::Result<Vec<Memory>> {
        let table = if self.children {
            Table::read()?
        } else {
            Table(Vec::new())
        };
        let of = |root: &Root| {
            let mut sum = memory_of(root.pid).with_context(|| ended(root))?;
            // A descendant may end between the two reads: then it has no memory.
            for child in table.tree(root.pid).filter(|p| p.pid != root.pid) {
                let memory = memory_of(child.pid).unwrap_or_default();
                sum.rss += memory.rss;
                sum.pss += memory.pss;
            }
            Ok(sum)
        };
        self.roots.iter().map(of).collect()
    }
}

fn ended(root: &Root) -> String {
    format!(
        "process {} ({}) ended during the measurement",
        root.pid, root.name
    )
}

fn ticks(count: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_nanos(count.saturating_mul(1_000_000_000 / per_second))
}

fn memory_of(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kib.map(|kib| kib * 1024)
            .with_context(|| format!("{path} has no {name}"))
    };
    Ok(Memory {
        rss: field("Rss:")?,
        pss: field("Pss:")?,
    })
}

/// All processes at one moment.
#[derive(Debug)]
struct Table(Vec<ProcessStat>);

impl Table {
    fn read() -> anyhow::Result<Self> {
        let mut processes = Vec::new();
        for entry in fs::read_dir("/proc")
            .context("cannot list /proc")?
            .flatten()
        {
            let pid = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            // A process may end while we look: then it is not in the table.
            if let Some(stat) = pid.and_then(|pid| ProcessStat::read(pid).ok()) {
                processes.push(stat);
            }
        }
        Ok(Self(processes))
    }

    /// `root` and its descendants.
    fn tree(&self, root: u32) -> impl Iterator<Item = &ProcessStat> {
        self.0.iter().filter(move |process| {
            let mut at = Some(*process);
            while let Some(stat) = at {
                if stat.pid == root {
                    return true;
                }
                at = self.0.iter().find(|p| p.pid == stat.parent);
            }
            false
        })
    }
}

/// The fields of `/proc/PID/stat` that matter here (proc_pid_stat(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
struct ProcessStat {
    pid: u32,
    parent: u32,
    name: String,
    /// `utime + stime`, ticks.
    own: u64,
    /// `cutime + cstime`, ticks.
    reaped: u64,
}

impl ProcessStat {
    fn read(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let bytes = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
        Self::parse(pid, &bytes).with_context(|| format!("{path} is not as proc_pid_stat(5) says"))
    }

    fn parse(pid: u32, bytes: &[u8]) -> Option<Self> {
        let fields = StatFields::of(bytes)?;
        let ticks = |number| fields.number::<u64>(number);
        Some(Self {
            pid,
            parent: fields.number(4)?,
            name: String::from_utf8_lossy(fields.name()).into_owned(),
            own: ticks(14)? + ticks(15)?,
            reaped: ticks(16)? + ticks(17)?,
        })
    }
}

#[cfg(test)]
mod tests;
