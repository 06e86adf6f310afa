//! The reference page of the command line is made from its table. With
//! `UPDATE_EXPECT=1` it is written anew.

use expect_test::expect_file;

#[test]
fn the_reference_page_is_up_to_date() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/reference/apiclient.md"
    );
    expect_file![path].assert_eq(&apiclient::cli::reference::page());
}
