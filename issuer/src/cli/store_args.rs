//! Which store is meant: the same flags for who serves it and for who works on it alone.

use std::path::PathBuf;

use clap::Args;

use crate::{
    config::{DEFAULT_DATA_DIR, DatabaseUrl, Given},
    store::Database,
};

#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    /// YAML file of `issuer serve` with the same settings (`data_dir`, `trust_domain`, …).
    #[arg(short, long, env = "ISSUER_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Directory of the state, made at first start with mode 0700
    /// [default: ./issuer-data].
    #[arg(long, env = "ISSUER_DATA_DIR", value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// Keep the state in a PostgreSQL database, which issuers can share:
    /// postgres://USER@HOST:PORT/NAME?sslmode=verify-full. A password on the command
    /// line can be seen by others: put it in the environment, the file, or PGPASSFILE.
    #[arg(
        long,
        env = "ISSUER_DATABASE",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(super) database: Option<DatabaseUrl>,
}

impl StoreArgs {
    /// The data directory, and the database if it is on a server.
    pub(super) fn resolve(self) -> anyhow::Result<(PathBuf, Option<Database>)> {
        let file = match &self.config {
            Some(path) => Given::from_file(path)?,
            None => Given::default(),
        };
        let given = Given {
            data_dir: self.data_dir,
            database: self.database,
            ..Given::default()
        };
        let given = given.or(file);
        let database = given.database.as_ref().map(DatabaseUrl::resolve);
        let data_dir = given
            .data_dir
            .unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR));
        let database = database.transpose().map_err(anyhow::Error::msg)?;
        Ok((data_dir, database))
    }
}
