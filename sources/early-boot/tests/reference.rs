//! The page about the policy is that of the table. `UPDATE_EXPECT=1` writes it.

use expect_test::expect_file;

#[test]
fn the_page_about_the_policy_is_up_to_date() {
    expect_file!["../../../docs/reference/user-data-policy.md"]
        .assert_eq(&early_boot::policy::page());
}
