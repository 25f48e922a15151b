//! The rules of ARCHITECTURE.md that a compiler does not check, held by reading `cargo metadata` and
//! the tree. Each rule is a pure function over a small value (`Tree`, `Metadata`), and its own tests
//! plant each violation and see it reported, so that a rule that checks nothing is noticed. Left to
//! clippy: the length of functions, unwrap and indexing. Left to cargo-deny: licences, advisories.

mod alerts;
mod bans;
mod documents;
mod edges;
mod names;
mod purity;
mod sizes;
mod tree;

use edges::Metadata;
use tree::Tree;

/// Fails with every problem found, one a line.
fn hold(problems: &[String]) {
    let list = problems.join("\n  ");
    assert!(
        problems.is_empty(),
        "{} to mend:\n  {list}\n",
        problems.len()
    );
}

#[test]
fn crates_depend_on_each_other_only_as_the_architecture_says() {
    let metadata = Metadata::read().expect("cargo metadata");
    hold(&edges::check(&metadata));
    hold(&edges::check_driver_is_named_by_storage_only(&Tree::read()));
}

#[test]
fn decisions_name_no_clock_socket_runtime_or_random_source() {
    hold(&purity::check(&Tree::read()));
}

#[test]
fn files_stay_within_their_sizes() {
    hold(&sizes::check(&Tree::read()));
}

#[test]
fn files_are_named_for_what_they_do_and_open_with_it() {
    hold(&names::check(&Tree::read()));
}

#[test]
fn nothing_banned_is_in_the_tree_or_its_dependencies() {
    hold(&bans::check(&Tree::read()));
}

#[test]
fn documents_are_short_agree_and_link_to_what_exists() {
    hold(&documents::check(&Tree::read()));
    hold(&alerts::check(&Tree::read()));
}
