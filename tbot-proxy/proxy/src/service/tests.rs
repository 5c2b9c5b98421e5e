use super::within_files;

#[test]
fn connections_are_bounded_by_files_two_to_each_after_the_reserve() {
    // Asked for, limit of files, in force.
    let cases = [
        (10_000, 1_048_576, 10_000),
        (10_000, 20_064, 10_000),
        (10_000, 20_063, 9_999),
        (10_000, 1_024, 480),
        (10, 1_024, 10),
        (10_000, 66, 1),
        (10_000, 64, 1),
        (10_000, 0, 1),
    ];
    for (asked, files, expected) in cases {
        assert_eq!(within_files(asked, files), expected, "{asked} {files}");
    }
}
