use std::{
    fs,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
};

use super::{BindError, bind};

#[test]
fn a_socket_has_its_mode_and_goes_with_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let (_listener, file) = bind(&path, 0o660).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    UnixStream::connect(&path).unwrap();
    drop(file);
    assert!(!path.exists());
}

#[test]
fn a_full_queue_has_somebody_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&socket2::SockAddr::unix(&path).unwrap())
        .unwrap();
    socket.listen(0).unwrap();
    let _first = UnixStream::connect(&path).unwrap();
    let error = bind(&path, 0o600).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
}

#[test]
fn a_dead_processes_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    drop(UnixListener::bind(&path).unwrap());
    let _bound = bind(&path, 0o600).unwrap();
    UnixStream::connect(&path).unwrap();
}

#[test]
fn of_many_that_start_at_once_one_has_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    for _ in 0..200 {
        drop(UnixListener::bind(&path).unwrap());
        let start = std::sync::Barrier::new(4);
        let bound: Vec<_> = std::thread::scope(|scope| {
            let one = || {
                start.wait();
                bind(&path, 0o600).ok()
            };
            let all = [(); 4].map(|()| scope.spawn(one));
            all.into_iter()
                .filter_map(|one| one.join().unwrap())
                .collect()
        });
        assert_eq!(bound.len(), 1);
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }
}

/// PostgreSQL and MySQL call their own interlock so; it must outlive us.
#[test]
fn a_lock_of_another_program_beside_the_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".s.PGSQL.5432");
    let lock = dir.path().join(".s.PGSQL.5432.lock");
    fs::write(&lock, "4711\n").unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    let error = bind(&path, 0o600).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
    drop(listener);
    bind(&path, 0o600).unwrap();
    assert_eq!(fs::read_to_string(&lock).unwrap(), "4711\n");
}

#[test]
fn who_keeps_the_turn_to_himself_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let lock = dir.path().join(".app.sock.tbot-turn");
    let held = fs::File::create(&lock).unwrap();
    held.set_permissions(fs::Permissions::from_mode(0o600))
        .unwrap();
    held.lock().unwrap();
    let error = bind(&path, 0o600).unwrap_err().to_string();
    assert!(error.contains(".app.sock.tbot-turn is locked"), "{error}");
    drop(held);
    bind(&path, 0o600).unwrap();
    assert!(!lock.exists());

    fs::write(&lock, "somebody's").unwrap();
    let error = bind(&path, 0o600).unwrap_err().to_string();
    assert!(error.contains(".app.sock.tbot-turn is not ours"), "{error}");
    assert_eq!(fs::read_to_string(&lock).unwrap(), "somebody's");
}
