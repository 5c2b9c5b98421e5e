//! A writer that is killed at any moment (`kill -9`) leaves a whole set in force, and its
//! successor goes on. `OUTPUT_KILLS=10000` runs as many kills as issue 4 asks for.

use std::{
    env,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use output::{FileSet, Links, SetFile};
use rand::Rng;

use crate::{NAMES, memory_directory, read_set};

const KILLS: u64 = 400;
const DIRECTORY: &str = "OUTPUT_TEST_DIRECTORY";

/// The writer: writes sets until it is killed.
#[test]
#[ignore = "a child of the test below"]
fn writer() {
    let Some(directory) = env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    let set = FileSet::open(&directory, Links::ByName).unwrap();
    let mut round: u64 = rand::rng().random();
    loop {
        let contents = format!("{round:020}\n").repeat(300);
        let files = NAMES.map(|name| SetFile {
            name,
            contents: contents.as_bytes(),
        });
        set.replace(&files).unwrap();
        println!("\nwritten");
        round = round.wrapping_add(1);
    }
}

#[test]
fn readers_never_see_a_torn_set_however_often_the_writer_is_killed() {
    let kills = env::var("OUTPUT_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let home = memory_directory();
    let directory = home.path().join("out");
    let (done, read) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut torn_versions = 0;
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut in_force = false;
            while !done.load(Ordering::Relaxed) {
                let Some(set) = read_set(&directory) else {
                    let there = directory.join("..data").symlink_metadata().is_ok();
                    assert!(!in_force || there, "the set in force is gone");
                    continue;
                };
                in_force = true;
                assert_eq!(set[0].len(), 21 * 300, "a partial file");
                assert!(set.iter().all(|file| *file == set[0]), "files of two sets");
                read.fetch_add(1, Ordering::Relaxed);
            }
        });
        let began = Instant::now();
        for kill in 0..kills {
            let mut writer = Command::new(env::current_exe().unwrap())
                .args([
                    "--ignored",
                    "--exact",
                    "writers_are_killed::writer",
                    "--nocapture",
                ])
                .env(DIRECTORY, &directory)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
            let mut lines = lines.map_while(Result::ok);
            assert!(
                lines.any(|line| line == "written"),
                "writer {kill} wrote nothing"
            );
            // Wherever it is by then.
            thread::sleep(Duration::from_micros(rand::rng().random_range(0..1_500)));
            writer.kill().unwrap();
            writer.wait().unwrap();
            let versions = std::fs::read_dir(&directory).unwrap().flatten();
            let versions = versions
                .filter(|entry| entry.file_type().unwrap().is_dir())
                .count();
            torn_versions += u64::from(versions > 2);
            let set = read_set(&directory).expect("a set after the kill");
            assert!(
                set.iter().all(|file| *file == set[0]),
                "a torn set after kill {kill}"
            );
        }
        eprintln!(
            "{kills} kills in {:?}, {torn_versions} in the middle of a write, {} sets read",
            began.elapsed(),
            read.load(Ordering::Relaxed)
        );
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    assert!(read.load(Ordering::Relaxed) > kills);
    assert!(torn_versions > kills / 20, "kills fell between the writes");
}
