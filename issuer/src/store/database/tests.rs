use super::{Database, PostgresAddress};

#[test]
fn an_address_tells_where_and_never_its_password() {
    for (url, told) in [
        (
            "postgres://app:hunter2@db.example:5433/issuer",
            "PostgreSQL \"issuer\" at db.example:5433",
        ),
        (
            "postgresql://app:hunter2@db.example/issuer?sslmode=verify-full",
            "PostgreSQL \"issuer\" at db.example",
        ),
        (
            "postgres://app:hunter2@/issuer?host=/run/postgresql",
            "PostgreSQL \"issuer\" at /run/postgresql",
        ),
        (
            "postgres://app@/issuer?password=hunter2",
            "PostgreSQL \"issuer\" at localhost",
        ),
        (
            "postgres://app:hunter2@part@db.example/issuer",
            "PostgreSQL \"issuer\" at db.example",
        ),
    ] {
        let database = Database::postgres(url).unwrap();
        assert_eq!(database.to_string(), told);
        let shown = format!("{database:?} {:?}", PostgresAddress::parse(url).unwrap());
        assert!(
            !shown.contains("hunter2") && !shown.contains("part"),
            "{shown}"
        );
    }
}

#[test]
fn what_is_wrong_with_an_address_is_told_without_it() {
    for (url, part) in [
        (
            "mysql://app:hunter2@db.example/issuer",
            "begin with postgres://",
        ),
        ("sqlite://hunter2", "begin with postgres://"),
        (
            "postgres://app@db.example/issuer?pasword=hunter2",
            "unknown parameter",
        ),
        ("postgres://app:12/hunter2@db.example/issuer", "no URL"),
        ("postgres://app:1?hunter2@db.example/issuer", "no URL"),
        ("postgres://app:1#hunter2@db.example/issuer", "no URL"),
        ("postgres://app:hunter2@db.example:port/issuer", "no URL"),
        ("postgres://app:hun ter2@[::1/issuer", "no URL"),
    ] {
        let error = Database::postgres(url).unwrap_err();
        let message = format!("{error} {error:?}");
        assert!(message.contains(part), "{message}");
        assert!(
            !message.contains("hunter2") && !message.contains("ter2"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_without_the_password() {
    let port = e2e::free_port();
    let url = format!("postgres://app:hunter2@127.0.0.1:{port}/issuer");
    let error = crate::store::Store::open(&Database::postgres(&url).unwrap()).await;
    let error = error.unwrap_err();
    let message = format!("{error} {error:?}");
    assert!(message.contains(&format!("127.0.0.1:{port}")), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}
