//! The reference page of scenarios is made from the table. With `UPDATE_EXPECT=1` it is
//! written anew.

use expect_test::expect_file;
use scenarios::{ALL, Tier};
use std::fmt::Write;

const HEAD: &str = "# Scenarios\n\n\
    Made from the table in `tests/scenarios/src/lib.rs`; `UPDATE_EXPECT=1 cargo test -p scenarios`\n\
    writes it anew. [Testing](../testing.md) says how they are run, and what a tier and a budget\n\
    of processor seconds are.\n";

#[test]
fn the_reference_page_is_up_to_date() {
    let mut page = String::from(HEAD);
    for tier in [Tier::One, Tier::Two] {
        let _ = write!(
            page,
            "\n## Tier {}\n\nAll up to this tier may take {:.0} processor seconds.\n\n\
             | name | budget | shows |\n|---|---|---|\n",
            tier.number(),
            tier.limit()
        );
        for scenario in ALL.iter().filter(|scenario| scenario.tier == tier) {
            let _ = writeln!(
                page,
                "| `{}` | {:.0} | {} |",
                scenario.name, scenario.budget, scenario.about
            );
        }
    }
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/reference/scenarios.md"
    );
    expect_file![path].assert_eq(&page);
}
