use clap::CommandFactory as _;

use super::Cli;

#[test]
fn the_reference_names_every_command() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/reference/tbot-proxy.md"
    );
    let reference = std::fs::read_to_string(path).unwrap();
    let rows: Vec<_> = reference
        .lines()
        .filter(|line| line.starts_with("| `tbot-proxy "))
        .map(|row| row.replace("`tbot-proxy ", "`"))
        .collect();
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        let names_it = |row: &&String| {
            row.contains(&format!("`{name} ")) || row.contains(&format!("`{name}`"))
        };
        let row = rows.iter().find(names_it);
        let row = row.unwrap_or_else(|| panic!("no row names `{name}`"));
        // Those of `start` are kinds of services, of which the reference has a chapter.
        let nested = command.get_subcommands().map(|nested| nested.get_name());
        for nested in nested.filter(|_| !["start", "configure"].contains(&name)) {
            assert!(row.contains(nested), "`{name} {nested}`");
        }
    }
}
